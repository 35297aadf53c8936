"""Findings, merged for people: one fault for a check, however many collections have it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest

from vectorstore.findings import CHECKS, Action, Finding, HealthReport, Severity


@dataclass(frozen=True, slots=True)
class Fault:
    """The findings of one check that are equally bad and have the same cause and next step.

    Attributes:
        findings: one a place, those with the most to count first; never empty.
    """

    findings: tuple[Finding, ...]

    @property
    def check(self) -> str:
        """The check's name."""
        return self.findings[0].check

    @property
    def title(self) -> str:
        """What the check wants to be true."""
        return CHECKS[self.check].title if self.check in CHECKS else self.check

    @property
    def severity(self) -> Severity:
        """How bad it is, at each of the places."""
        return self.findings[0].severity

    @property
    def cause(self) -> str:
        """What usually makes it."""
        return self.findings[0].cause

    @property
    def remedy(self) -> str:
        """The next step for a person."""
        return self.findings[0].remedy

    @property
    def action(self) -> Action:
        """What a fix does."""
        return self.findings[0].action

    @property
    def count(self) -> int:
        """How many, over all places."""
        return sum(finding.count for finding in self.findings)

    @property
    def total(self) -> int:
        """Of how many; 0 where that is not known of every place."""
        totals = [finding.total for finding in self.findings]
        return sum(totals) if all(totals) else 0

    @property
    def where(self) -> str:
        """How many places: "341 collections"."""
        names = {finding.collection for finding in self.findings}
        noun = "places" if "" in names or len(names) < len(self.findings) else "collections"
        return f"{len(self.findings):,} {noun}"

    def ids(self, limit: int) -> list[str]:
        """Some of the ids concerned: the first of each place, then the second of each, and so on."""
        rows = zip_longest(*(finding.ids for finding in self.findings[:limit]))
        mixed = [id_ for id_ in chain.from_iterable(rows) if id_ is not None]
        return list(dict.fromkeys(mixed))[:limit]


def faults(findings: Iterable[Finding]) -> list[Fault]:
    """What is not a PASS, merged; the worst first, equally bad ones in the order of the findings."""
    merged: dict[tuple[str, Severity, str, str, Action], list[Finding]] = {}
    for each in findings:
        if each.severity > Severity.PASS:
            key = (each.check, each.severity, each.cause, each.remedy, each.action)
            merged.setdefault(key, []).append(each)
    found = [Fault(tuple(sorted(group, key=lambda each: (-each.count, each.collection)))) for group in merged.values()]
    return sorted(found, key=lambda fault: -fault.severity)


def checks_by_severity(report: HealthReport) -> dict[Severity, list[str]]:
    """Names of the checks that were made, in the register's order, by the worst that each found."""
    worst: dict[str, Severity] = {}
    for each in report.findings:
        worst[each.check] = max(each.severity, worst.get(each.check, Severity.PASS))
    return {level: [check for check, found in worst.items() if found is level] for level in Severity}


def verdict(report: HealthReport) -> str:
    """How many checks found what, in a line: "2 checks failed, 1 warned, 3 noted, 31 passed"."""
    checks = checks_by_severity(report)
    words = ((Severity.FAIL, "failed"), (Severity.WARN, "warned"), (Severity.INFO, "noted"), (Severity.PASS, "passed"))
    parts = [(len(checks[level]), word) for level, word in words if checks[level]]
    if not parts:
        return "no check was made"
    noun = "check" if parts[0][0] == 1 else "checks"
    first, *rest = [f"{number:,} {word}" for number, word in parts]
    return ", ".join([first.replace(" ", f" {noun} ", 1), *rest])
