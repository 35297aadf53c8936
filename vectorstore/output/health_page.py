"""A health report as one HTML file: no script, nothing from elsewhere; for a screen, light or dark, and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vectorstore.findings import CHECKS, Action, HealthReport, Severity
from vectorstore.output.health_charts import counts_chart, findings_chart, norms_chart
from vectorstore.output.health_marks import badge, icon, name, prose, safe, sign, when
from vectorstore.output.health_tables import collections_table, coverage_table
from vectorstore.output.health_totals import totals
from vectorstore.output.merged_findings import Fault, checks_by_severity, faults, verdict
from vectorstore.output.page_parts import figure, html_page, key, listed, section, wide
from vectorstore.output.render import duration_text

if TYPE_CHECKING:
    from vectorstore.output.health_history import Run

PLACES = 8  # of a fault
IDS = 8  # of a fault
_WORDS = {
    Severity.PASS: "Nothing is wrong.", Severity.INFO: "Nothing is wrong; there are things to know.",
    Severity.WARN: "It works, and wants a look.", Severity.FAIL: "It is damaged or out of step.",
}  # fmt: skip
_WAYS = {
    "files": "the store was read from its files", "api": "the store was read through Chroma",
    "none": "there is no store",
}  # fmt: skip
_ACTIONS = {
    Action.UPDATE: "an update brings it in step", Action.DELETE: "deletes the rows, and keeps them in a file",
    Action.REFILL: "writes the vectors again, from the cache where it has them",
    Action.REWRITE: "writes the documents anew, from the source and the cache",
    Action.REBUILD: "fills a new index", Action.REMOVE_FOLDERS: "removes the folders",
    Action.RECOUNT: "counts the ledger’s documents anew",
    Action.SAVE_CACHE: "saves what the cache still has, and fills it from the store",
    Action.FORGET: "forgets them in the ledger, so that an update stores them anew",
}  # fmt: skip


def health_page(report: HealthReport, history: Sequence[Run] = ()) -> str:
    """The report as a page for people.

    Args:
        report: what a health check found.
        history: earlier checks and this one, the oldest first: what ``health_history.read(folder).runs()`` gives.
    """
    sections = (
        _verdict(report),
        _facts(report),
        _faults(report),
        section("Coverage by collection", f'<div class="card">{coverage_table(report)}</div>'),
        _history(history),
        _norms(report),
        section("Collections", f'<div class="card">{collections_table(report)}</div>'),
        _passed(report),
        f'<footer class="soft">Health check {safe(report.run)}. Programs read the JSON report.</footer>',
    )
    inner = "\n".join(filter(None, sections))
    return html_page(f"{report.severity.name}: health of a vector store", inner)


def _verdict(report: HealthReport) -> str:
    level = report.severity
    checks = checks_by_severity(report)
    tiles = "".join(
        f'<li class="card"><b class="t-{each.name.lower()}">{len(checks[each]):,}</b>{sign(each)}</li>'
        for each in sorted(Severity, reverse=True)
    )
    meaning = f"{_WORDS[level]} " if report.findings else ""
    return (
        f'<header class="card verdict {level.name.lower()}">{icon(level)}<div>'
        f"<h1>Health of a vector store, {when(report.started)}</h1>"
        f'<p class="word">{level.name}</p><p>{meaning}{verdict(report).capitalize()}.</p></div></header>\n'
        f'<ul class="tiles" aria-label="Checks by the worst that each found">{tiles}</ul>'
    )


def _facts(report: HealthReport) -> str:
    sums = totals(report)
    noun = "collection" if sums.collections == 1 else "collections"
    way = _WAYS.get(report.way, safe(report.way))
    facts = [
        ("checked", f"{safe(report.depth)}, in {duration_text(report.seconds)}; {way}"),
        ("ledger", f"{sums.documents:,} documents in {sums.chunks:,} chunks"),
        ("stored", f"{sums.stored:,} chunks in {sums.collections:,} {noun}"),
        ("pipeline", name(report.pipeline or "none")),
        ("workspace", name(report.workspace)),
        ("store", name(report.store)),
        ("source", name(report.source)),
        *(("note", prose(note)) for note in report.notes),
    ]
    return f'<div class="card">{listed(facts)}</div>'


def _faults(report: HealthReport) -> str:
    found = faults(report.findings)
    return section("Findings", "\n".join(map(_fault, found))) if found else ""


def _fault(fault: Fault) -> str:
    single = fault.findings[0] if len(fault.findings) == 1 else None
    of = f" of {fault.total:,}" if fault.total else ""
    many = f"Not true in {fault.where} ({fault.count:,}{of}): {prose(fault.title)}"
    head = _place(single.collection, single.message) if single else many
    facts = [
        ("should be", prose(fault.title) if single else ""),
        ("likely cause", prose(fault.cause)),
        ("next step", prose(fault.remedy)),
        ("a fix", _ACTIONS.get(fault.action, "") if fault.severity >= Severity.WARN else ""),
        ("for example", _ids(fault)),
    ]
    return (
        f'<article class="card fault {fault.severity.name.lower()}"><header>{badge(fault.severity)}'
        f"<h3>{head}</h3><code>{safe(fault.check)}</code></header>"
        f"{'' if single else _places(fault)}{listed(facts)}</article>"
    )


def _place(collection: str, message: str) -> str:
    return f"{name(collection, 'b')}: {prose(message)}" if collection else prose(message)


def _places(fault: Fault) -> str:
    some = "".join(f"<li>{_place(each.collection, each.message)}</li>" for each in fault.findings[:PLACES])
    more = len(fault.findings) - PLACES
    return f"<ul>{some}{f'<li class=soft>and {more:,} more</li>' if more > 0 else ''}</ul>"


def _ids(fault: Fault) -> str:
    some = " ".join(name(id_, "code") for id_ in fault.ids(IDS))
    return f'<span class="ids">{some}</span>' if some else ""


def _history(history: Sequence[Run]) -> str:
    if len({run.time for run in history}) < 2:
        first = "<p>There is no earlier check on record; the next one begins a picture.</p>"
        return section("History", f'<div class="card">{first}</div>')
    documents = counts_chart("Documents", history, {"documents": lambda run: run.documents})
    chunks = counts_chart("Chunks", history, {"known": lambda run: run.chunks, "stored": lambda run: run.stored})
    keys = f"<span>{key('first')}in the ledger</span><span>{key('second')}in the store</span>"
    counts = figure(
        documents, "Documents in the ledger. Where they change little, the scale does not begin at zero.", "Documents"
    ) + figure(
        chunks, f'<span class="keys">{keys}</span>Where the lines part, the store lacks chunks or holds too many.',
        "Chunks",
    )  # fmt: skip
    found = figure(
        wide("Findings over time", findings_chart(history)),
        "Findings of each check, each row on its own scale; a short stroke is a check that found none. A quick check"
        " looks at less than a deep one.", "Findings",
    )  # fmt: skip
    return section("History", f'<div class="two">{counts}</div>\n{found}')


def _norms(report: HealthReport) -> str:
    if not report.norms:
        return ""
    about = (
        f"{sum(report.norms.values()):,} vectors were looked at. A column counts those of about the length below it;"
        " lengths that none has are left out. All should be of length 1."
    )
    return section("Lengths of vectors", figure(wide("Lengths of vectors", norms_chart(report.norms)), about))


def _passed(report: HealthReport) -> str:
    passed = checks_by_severity(report)[Severity.PASS]
    mark = f'<span class="t-pass">{icon(Severity.PASS)}</span>'
    titles = (CHECKS[check].title if check in CHECKS else check for check in passed)
    items = "".join(f"<li>{mark}{safe(title)}</li>" for title in titles)
    listed = f'<div class="card"><ul class="passed">{items}</ul></div>'
    return section(f"Passed: {len(passed):,}", listed) if passed else ""
