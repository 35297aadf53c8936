"""A report as one HTML file, in the manner of the health page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vectorstore.findings import Severity
from vectorstore.output.health_marks import badge, icon, name, prose, safe, when
from vectorstore.output.page_parts import figure, html_page, key, listed, section
from vectorstore.runs.judging import Series
from vectorstore.runs.record import STATES
from vectorstore.runs.report_charts import day_chart, line_chart
from vectorstore.runs.troubles import Trouble
from vectorstore.runs.words import (
    TITLES,
    age_text,
    backups_text,
    middle_text,
    money_text,
    spent_text,
    store_text,
    trend_text,
    verdict,
)  # fmt: skip

if TYPE_CHECKING:
    from vectorstore.report import Report

SHOWN = 20  # troubles
_WELL, _DONE_IN_PART = ("completed",), ("incomplete", "capped", "interrupted", "locked", "findings")


def report_page(report: Report) -> str:
    """The report as a page for people."""
    severity, sentence = verdict(report)
    parts = (
        _verdict(report, severity, sentence),
        _facts(report),
        _troubles("Not made good yet", report.open_troubles),
        _marks(report),
        _runs(report),
        _pictures(report),
        _troubles("Ended badly, and went well since", [each for each in report.troubles if each.mended]),
        f'<footer class="soft">{report.total_runs:,} runs in {report.days:,} days. Programs read the JSON.</footer>',
    )
    return html_page(f"{severity.name}: a week of a vector store", "\n".join(filter(None, parts)))


def _verdict(report: Report, severity: Severity, sentence: str) -> str:
    runs = sum(sum(states.values()) for states in report.runs.values())
    tiles = (
        (f"{runs:,}", "runs in seven days"),
        (f"{len(report.open_troubles):,}", "not made good"),
        (money_text(report.spent.week), "spent in seven days"),
        (age_text(report.backups.verified, report.created), "last verified backup"),
    )
    listing = "".join(f'<li class="card"><b>{value}</b>{about}</li>' for value, about in tiles)
    return (
        f'<header class="card verdict {severity.name.lower()}">{icon(severity)}<div>'
        f"<h1>The week to {when(report.created)}</h1>"
        f'<p class="word">{severity.name}</p><p>{safe(sentence).capitalize()}.</p></div></header>\n'
        f'<ul class="tiles" aria-label="The week in figures">{listing}</ul>'
    )


def _facts(report: Report) -> str:
    facts = [
        ("store", safe(store_text(report))),
        ("spent", safe(spent_text(report))),
        ("backups", safe(backups_text(report))),
        ("workspace", name(report.workspace)),
        *(("note", prose(note)) for note in report.notes),
    ]
    return f'<div class="card">{listed(facts)}</div>'


def _troubles(title: str, found: list[Trouble]) -> str:
    if not found:
        return ""
    more = f'<p class="soft">and {len(found) - SHOWN:,} more</p>' if len(found) > SHOWN else ""
    return section(title, "\n".join(map(_trouble, found[:SHOWN])) + more)


def _trouble(each: Trouble) -> str:
    level = Severity.INFO if each.mended else Severity.WARN if each.state in _DONE_IN_PART else Severity.FAIL
    facts = [("when", when(each.time)), ("next step", "" if each.mended else prose(each.remedy))]
    return (
        f'<article class="card fault {level.name.lower()}"><header>{badge(level)}'
        f"<h3>{safe(each.message)}</h3><code>{safe(each.verb)} {safe(each.state)}</code></header>"
        f"{listed(facts)}</article>"
    )


def _marks(report: Report) -> str:
    cards = (
        f'<article class="card fault warn"><header>{badge(Severity.WARN)}<h3>{prose(mark.message)}</h3>'
        f"<code>{mark.kind}</code></header>{listed([('next step', prose(mark.remedy))])}</article>"
        for mark in report.warnings
    )
    return section("Leaks and regressions", "\n".join(cards)) if report.warnings else ""


def _runs(report: Report) -> str:
    if not report.runs:
        return ""
    states = [state for state in STATES if any(state in counts for counts in report.runs.values())]
    heads = "".join(f'<th scope="col">{state}</th>' for state in states)
    rows = "".join(
        f'<tr><th scope="row">{safe(verb)}</th>'
        + "".join(f"<td>{counts[state]:,}</td>" if counts.get(state) else "<td></td>" for state in states)
        + "</tr>"
        for verb, counts in sorted(report.runs.items())
    )
    caption = "Runs of the last seven days, by how they ended"
    table = f'<table><caption>{caption}</caption><thead><tr><th scope="col">run</th>{heads}</tr></thead>'
    return section("Runs", f'<div class="card scroll" tabindex="0">{table}<tbody>{rows}</tbody></table></div>')


def _pictures(report: Report) -> str:
    shown = "".join(_picture(each) for each in report.series if each.points)
    if not shown:
        return ""
    days = (report.created - report.since) / 86_400
    since = time.strftime("%Y-%m-%d", time.gmtime(report.since))
    about = (
        f'<p class="soft keys"><span>{key("first")}figures</span>'
        f"<span>{key('second')}their trend, where it is hardly chance</span><span>since {since}</span></p>"
    )
    return section(f"{days:.0f} days", f'{about}<div class="two pair">{shown}</div>')


def _picture(series: Series) -> str:
    caption = f"Median {safe(middle_text(series))}; {safe(trend_text(series))}."
    if series.name == "cost":
        caption = f"By the spend ledger; {safe(trend_text(series))}."
        return figure(day_chart(series), caption, TITLES[series.name])
    if len({at for at, _ in series.points}) < 2:
        return figure("", f"One run is on record: {safe(middle_text(series))}.", TITLES[series.name])
    return figure(line_chart(series), caption, TITLES[series.name])
