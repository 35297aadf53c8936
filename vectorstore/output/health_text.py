"""A health report on a terminal: faults first, the worst at the top, one block a check; the verdict last."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator

from vectorstore.findings import HealthReport, Severity
from vectorstore.output.health_totals import totals
from vectorstore.output.merged_findings import Fault, faults, verdict
from vectorstore.output.printable import printable
from vectorstore.output.render import coloured, duration_text

SHOWN_PLACES = 3
SHOWN_IDS = 3
_LONGEST = 400  # characters of a text from a finding
_LONGEST_NAME = 64
_LABEL = 6  # columns before the second one: "FAIL  "


def health_text(report: HealthReport, *, verbose: bool = False, width: int | None = None) -> str:
    """The report for a person at a terminal.

    Args:
        report: what a health check found.
        verbose: every place and id that the report has, the cause of what is merely INFO, and each PASS on a line.
        width: columns to wrap at; ``None``: the terminal's, and no wrapping where the output is no terminal, so that
            ``grep`` finds whole lines.
    """
    found = faults(report.findings)
    passed = [each for each in report.findings if each.severity is Severity.PASS]
    shown = [fault.check for fault in found] + ([each.check for each in passed] if verbose else [])
    text = _Columns(max(map(len, shown), default=4), _terminal_width() if width is None else width)
    lines = [line for fault in found for line in _fault(fault, text, verbose)]
    if verbose:
        lines += [line for each in passed for line in text.lines("PASS", each.check, [_safe(each.message)])]
    elif passed:
        lines.append(f"{coloured('PASS')}  {len(passed):,} {'check' if len(passed) == 1 else 'checks'}")
    for note in report.notes:
        lines += text.lines("note", "", [_safe(note)])
    return "\n".join([*lines, _last_line(report)])


def _fault(fault: Fault, text: _Columns, verbose: bool) -> Iterator[str]:
    yield from text.lines(fault.severity.name, fault.check, _places(fault, verbose))
    if fault.severity > Severity.INFO or verbose:
        yield from text.lines("", "cause", [_safe(fault.cause)] if fault.cause else [])
        yield from text.lines("", "next", [_safe(fault.remedy)] if fault.remedy else [])
        yield from text.lines("", "ids", [_ids(fault, verbose)] if fault.findings[0].ids else [])


def _places(fault: Fault, verbose: bool) -> list[str]:
    """What was found where; of many places a sum and the first few."""
    each = [
        f"{_safe(finding.collection, _LONGEST_NAME)}: {_safe(finding.message)}"
        if finding.collection
        else _safe(finding.message)
        for finding in fault.findings
    ]
    if len(each) == 1:
        return each
    some = each if verbose else each[:SHOWN_PLACES]
    more = [f"… and {len(each) - len(some):,} more; --json shows all"] if len(some) < len(each) else []
    of = f" of {fault.total:,}" if fault.total else ""
    return [f"not true in {fault.where} ({fault.count:,}{of}): {fault.title}", *some, *more]


def _ids(fault: Fault, verbose: bool) -> str:
    some = fault.ids(1000 if verbose else SHOWN_IDS)
    names = ", ".join(f"'{_safe(id_, _LONGEST_NAME)}'" for id_ in some)
    return f"{names}, …" if fault.count > len(some) else names


def _last_line(report: HealthReport) -> str:
    sums = totals(report)
    nouns = ((sums.collections, "collection"), (sums.stored, "stored chunk"))
    held = ", ".join(f"{number:,} {noun}{'' if number == 1 else 's'}" for number, noun in nouns)
    how = f"{printable(report.depth)}, {duration_text(report.seconds)}"
    return f"{coloured(report.severity.name)}: {verdict(report)}; {held}; {how}"


def _safe(text: str, limit: int = _LONGEST) -> str:
    return printable(text, limit)


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


class _Columns:
    """Lines of three columns: severity, check, and words that are wrapped in their column. Width 0: not wrapped."""

    def __init__(self, second: int, width: int) -> None:
        self._second = max(second, len("cause"))
        self._start = _LABEL + self._second + 2
        self._room = max(24, width - self._start) if width else 0

    def lines(self, first: str, second: str, words: list[str]) -> Iterator[str]:
        """One line an item, or more where it is wrapped; the first two columns stand before the first."""
        rows = [row for item in words for row in self._wrapped(item)]
        for number, row in enumerate(rows):
            label = f"{coloured(first)}{' ' * (_LABEL - len(first))}{second:<{self._second}}  "
            yield (label if number == 0 else " " * self._start) + row

    def _wrapped(self, words: str) -> list[str]:
        if not self._room:
            return [words]
        return textwrap.wrap(words, self._room, break_on_hyphens=False) or [words]
