"""What a health check and a fix show in Prefect's UI."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from tasks.artifacts import publish_page, publish_table
from tasks.pages import LONGEST, SHOWN, escaped, more, one_line, page, prose, quote, section, table
from vectorstore.findings import Action, Finding, HealthReport, Severity
from vectorstore.fix import FixReport
from vectorstore.mending.fix_plan import Step
from vectorstore.output.health_totals import totals
from vectorstore.output.merged_findings import Fault, faults, verdict
from vectorstore.output.render import counts_text, duration_text
from vectorstore.update import UpdateReport

HEALTH, FINDINGS, COVERAGE = "vectorkeep-health", "vectorkeep-findings", "vectorkeep-coverage"
FIX = "vectorkeep-fix"
PLACES, IDS = 8, 5  # of a fault
_TITLES = {
    "healthy": "Nothing to mend", "planned": "Would mend", "fixed": "Mended", "partly": "Mended in part",
    "unmendable": "Can't be mended here",
}  # fmt: skip
_STEPS = {"planned": "What would be done", "fixed": "What was done", "partly": "What was done"}


def publish_health(report: HealthReport) -> None:
    """Page and tables of a health check."""
    publish_page(health_page(report), HEALTH, "what a health check found")
    worst_first = sorted(report.findings, key=lambda each: -each.severity)
    publish_table([_finding_row(each) for each in worst_first], FINDINGS, "findings, the worst first")
    publish_table(coverage_rows(report), COVERAGE, "collections, those that lack most first")


def publish_fix(report: FixReport) -> None:
    """The page of a fix."""
    publish_page(fix_page(report), FIX, "what a fix did, or would do")


def health_page(report: HealthReport) -> str:
    """Markdown."""
    found = faults(report.findings)
    mendable = any(each.severity >= Severity.WARN and each.action is not Action.NONE for each in found)
    how = "> **To mend it:** run this flow with `fix`; it shows what it would do until `dry_run` is turned off."
    return page(
        f"{report.severity.name}: {verdict(report)}",
        how if mendable else "",
        *(_fault(each) for each in found if each.severity >= Severity.WARN),
        section("To know", (_in_a_line(each) for each in report.findings if each.severity is Severity.INFO)),
        section("Notes", map(prose, report.notes)),
        section("What was looked at", _facts(report)),
    )


def fix_page(report: FixReport) -> str:
    """Markdown."""
    after = report.after
    lines = [
        f"before: {_verdict(report.before)}",
        f"second check: {_verdict(after)}" if after else "",
        f"update: {_updated(report.updated)}" if report.updated else "",
        f"what was deleted is kept in {escaped(report.kept)}" if report.kept else "",
        f"took {duration_text(report.seconds)}; `{report.run}` in the trail of fixes, .hashes/fixes.jsonl",
    ]
    title = _TITLES.get(report.state, report.state.capitalize())
    return page(
        f"{title}: {_counted(len(report.steps), 'action')}" if report.steps else title,
        quote(report.state.capitalize(), report.message, report.hint) if report.message else "",
        _steps(_STEPS.get(report.state, "What it set out to do"), report.steps),
        section("Left to a person", map(_in_a_line, report.left[:SHOWN])) + more(len(report.left), FINDINGS),
        section("Notes", map(prose, report.notes)),
        section("The run", filter(None, lines)),
    )


def coverage_rows(report: HealthReport) -> list[dict[str, object]]:
    """A row a collection."""
    return [
        {
            "collection": each.name, "state": each.state, "coverage": _percent(each.coverage), "stored": each.stored,
            "chunks": each.chunks, "documents": each.documents, "documents in the source": each.source_documents,
            "chunks looked at": each.checked, "dimension": each.dimension, "slots of the index": each.slots,
        }
        for each in sorted(report.collections, key=lambda each: (each.coverage, each.name))
    ]  # fmt: skip


def _finding_row(each: Finding) -> dict[str, object]:
    return {
        "severity": each.severity.name, "check": each.check, "collection": each.collection,
        "finding": one_line(each.message, LONGEST), "count": each.count, "of": each.total,
        "next step": one_line(each.remedy, LONGEST), "a fix": "" if each.action is Action.NONE else _words(each.action),
        "for example": _ids(each.ids[:IDS]),
    }  # fmt: skip


def _facts(report: HealthReport) -> list[str]:
    sums = totals(report)
    started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.started))
    return [
        f"{report.depth}, {started}, in {duration_text(report.seconds)}: all findings are in `{FINDINGS}`",
        f"coverage **{_percent(sums.coverage)}**: {sums.stored:,} chunks are stored in"
        f" {_counted(sums.collections, 'collection')}, the ledger has {sums.chunks:,} chunks of"
        f" {sums.documents:,} documents; by collection in `{COVERAGE}`",
        f"pipeline: {escaped(report.pipeline or 'none')}",
        f"store: {escaped(report.store)}, read through its {'API' if report.way == 'api' else 'files'}",
        f"source: {escaped(report.source)}",
        f"with pictures: {escaped(report.workspace)}/.hashes/health\\_report.html",
    ]


def _fault(fault: Fault) -> str:
    single = len(fault.findings) == 1
    of = f" of {fault.total:,}" if fault.total else ""
    title = _place(fault.findings[0]) if single else f"{fault.where}, {fault.count:,}{of}: {prose(fault.title)}"
    places = [] if single else [_place(each) for each in fault.findings[:PLACES]]
    if len(fault.findings) > PLACES:
        places.append(f"… and {len(fault.findings) - PLACES:,} more: see the artifact `{FINDINGS}`")
    lines = [
        *places,
        f"likely cause: {prose(fault.cause)}" if fault.cause else "",
        f"**next step: {prose(fault.remedy)}**" if fault.remedy else "",
        f"for example: {escaped(_ids(fault.ids(IDS)))}" if fault.findings[0].ids else "",
    ]
    return section(f"{fault.severity.name} · {escaped(fault.check)} · {title}", filter(None, lines))


def _place(each: Finding) -> str:
    return (f"{_name(each.collection)}: " if each.collection else "") + prose(each.message)


def _in_a_line(each: Finding) -> str:
    remedy = f" *{prose(each.remedy)}*" if each.remedy and each.severity >= Severity.WARN else ""
    return f"{each.severity.name} · {escaped(each.check)} · {_place(each)}{remedy}"


def _steps(heading: str, steps: list[Step]) -> str:
    rows = ([_words(each.action), _name(each.collection), prose(each.message)] for each in steps[:SHOWN])
    lines = table(["action", "collection", "what was found"], rows)
    return f"### {heading}\n{lines}{more(len(steps), FINDINGS)}" if steps else ""


def _updated(report: UpdateReport) -> str:
    paid = f"{report.chunks_embedded:,} chunks embedded, ${report.cost_usd:.6f}"
    return f"{report.state}: {counts_text(report.kinds)}; {paid}"


def _verdict(report: HealthReport) -> str:
    return f"**{report.severity.name}**: {verdict(report)}"


def _words(action: Action) -> str:
    return action.replace("_", " ")


def _name(collection: str) -> str:
    return f"**{escaped(one_line(collection, 64))}**" if collection else ""


def _ids(ids: Iterable[str]) -> str:
    return ", ".join(one_line(id_, 64) for id_ in ids)


def _percent(share: float) -> str:
    """A share in percent, never rounded up: all but one of a million is "99.9 %"."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:.1f} %"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
