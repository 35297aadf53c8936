"""The tables of the health page: coverage as bars, and every collection's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vectorstore.findings import CollectionHealth, HealthReport, Severity
from vectorstore.output.health_charts import share_bar
from vectorstore.output.health_marks import name, percent, safe, sign

BARS = 30  # collections with the least coverage
ROWS = 500  # of the table of collections
_NONE = '<span class="soft">–</span>'


def coverage_table(report: HealthReport) -> str:
    """How much of each collection is stored, as bars with figures: the worst first, the rest in a line."""
    own = (each for each in report.collections if each.state != "foreign")
    compared = [each for each in own if each.chunks or _documents(each) < 1]
    if not compared:
        return "<p>There is nothing to compare: the ledger knows no chunks of this store.</p>"
    ranked = sorted(compared, key=lambda each: (_worst(each), each.name))
    with_source = any(each.source_documents is not None for each in ranked)
    head = '<th scope="col" colspan="2">chunks stored, of the ledger’s</th>'
    if with_source:
        head += '<th scope="col" colspan="2">documents known, of the source’s</th>'
    rows = "".join(_coverage_row(each, with_source) for each in ranked[:BARS])
    if rest := ranked[BARS:]:
        columns = 5 if with_source else 3
        rows += f'<tr><td class="left soft" colspan="{columns}">{_rest(rest)}</td></tr>'
    return (
        '<table class="coverage"><caption>Collections with the least coverage first.</caption>'
        f'<thead><tr><th scope="col">collection</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _coverage_row(each: CollectionHealth, with_source: bool) -> str:
    cells = _bar_cells(each.coverage)
    if with_source:
        cells += "<td></td>" + f"<td>{_NONE}</td>" if each.source_documents is None else _bar_cells(_documents(each))
    return f'<tr><th scope="row">{name(each.name)}</th>{cells}</tr>'


def _bar_cells(share: float) -> str:
    return f'<td class="bar">{share_bar(share)}</td><td>{percent(share)}</td>'


def _rest(rest: Sequence[CollectionHealth]) -> str:
    noun = "collection" if len(rest) == 1 else "collections"
    least = _worst(rest[0])
    return f"and {len(rest):,} more {noun}, {'all at' if least >= 1 else 'each at least at'} {percent(least)}"


def _documents(each: CollectionHealth) -> float:
    """The share of the source's documents that the ledger knows; 1 where the source was not looked at."""
    return min(1.0, each.documents / each.source_documents) if each.source_documents else 1.0


def _worst(each: CollectionHealth) -> float:
    return min(each.coverage, _documents(each))


def collections_table(report: HealthReport) -> str:
    """All collections in figures: those with the worst findings first."""
    if not report.collections:
        return "<p>There are none.</p>"
    worst = _worst_findings(report)
    ranked = sorted(report.collections, key=lambda each: (-worst.get(each.name, 0), _worst(each), each.name))
    heads = "".join(f'<th scope="col"{_left(title)}>{title}</th>' for title in _COLUMNS)
    rows = "".join(_row(each, worst.get(each.name, Severity.PASS)) for each in ranked[:ROWS])
    more = len(ranked) - ROWS
    if more > 0:
        words = f"and {more:,} more; the JSON report has all"
        rows += f'<tr><td class="left soft" colspan="{len(_COLUMNS)}">{words}</td></tr>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="All collections"><table class="wide">'
        "<caption>All collections; those with the worst findings first. “Looked at” are the rows whose text, metadata"
        " and vector were read. “Slots” are places in the vector index, dead ones too.</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _count(number: int | None) -> str:
    return _NONE if number is None else f"{number:,}"


_COLUMNS: Mapping[str, Callable[[CollectionHealth], str]] = {
    "collection": lambda each: name(each.name),
    "state": lambda each: safe(each.state),
    "worst": lambda each: "",
    "documents": lambda each: _count(each.documents),
    "in source": lambda each: _count(each.source_documents),
    "chunks": lambda each: _count(each.chunks),
    "stored": lambda each: _count(each.stored),
    "coverage": lambda each: percent(each.coverage) if each.chunks else _NONE,
    "looked at": lambda each: _count(each.checked),
    "dimension": lambda each: _count(each.dimension),
    "slots": lambda each: _count(each.slots),
}


def _row(each: CollectionHealth, worst: Severity) -> str:
    cells = {title: cell(each) for title, cell in _COLUMNS.items()} | {"worst": sign(worst)}
    first = cells.pop("collection")
    others = "".join(f"<td{_left(title)}>{cell}</td>" for title, cell in cells.items())
    return f'<tr><th scope="row">{first}</th>{others}</tr>'


def _left(title: str) -> str:
    return ' class="left"' if title in ("collection", "state", "worst") else ""


def _worst_findings(report: HealthReport) -> dict[str, Severity]:
    worst: dict[str, Severity] = {}
    for each in report.findings:
        worst[each.collection] = max(each.severity, worst.get(each.collection, Severity.PASS))
    return worst
