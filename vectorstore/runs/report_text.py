"""A report as text for a terminal or a mail, and as Markdown."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vectorstore.output import markdown
from vectorstore.output.printable import printable
from vectorstore.runs.troubles import Trouble
from vectorstore.runs.words import (
    TITLES,
    backups_text,
    middle_text,
    spent_text,
    states_text,
    store_text,
    trend_text,
    verdict,
)  # fmt: skip

if TYPE_CHECKING:
    from vectorstore.report import Report

SHOWN = 10  # troubles
_LONGEST = 300  # characters of a message


def report_text(report: Report) -> str:
    """The report, the week first."""
    severity, sentence = verdict(report)
    lines = [f"{severity.name}: {sentence}", "", f"the week to {_day(report.created)}"]
    lines += [_row(f"  {verb}", states_text(states)) for verb, states in sorted(report.runs.items())]
    lines += [_row("  spent", spent_text(report)), _row("  backups", backups_text(report))]
    lines.append(_row("  store", store_text(report)))
    for heading, found in _grouped(report):
        lines += ["", heading, *(line for each in found[:SHOWN] for line in _trouble(each))]
        lines += [f"  and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
    for mark in report.warnings:
        lines += ["", f"{mark.kind.upper()}: {printable(mark.message, _LONGEST)}", f"  next: {mark.remedy}"]
    known = [each for each in report.series if each.points]
    lines += ["", f"{report.days} days, {report.total_runs:,} runs"] if known else []
    width = max((len(TITLES[each.name]) for each in known), default=0)
    lines += [f"  {TITLES[each.name]:<{width}}  {middle_text(each)}, {trend_text(each)}" for each in known]
    lines += [f"note: {printable(note, _LONGEST)}" for note in report.notes]
    return "\n".join(lines)


def report_markdown(report: Report) -> str:
    """The report as a page in Markdown; text from outside does nothing in it."""
    severity, sentence = verdict(report)
    rows = {verb: states_text(states) for verb, states in sorted(report.runs.items())}
    rows |= {"spent": spent_text(report), "backups": backups_text(report), "store": store_text(report)}
    known = [each for each in report.series if each.points]
    figures = ([TITLES[each.name], middle_text(each), trend_text(each)] for each in known)
    return markdown.page(
        f"{severity.name}: {sentence}",
        f"### The week to {_day(report.created)}",
        markdown.table(["", ""], ([markdown.escaped(name), markdown.escaped(text)] for name, text in rows.items())),
        *(markdown.section(heading.capitalize(), map(_item, found[:SHOWN])) for heading, found in _grouped(report)),
        markdown.section(
            "To look at",
            (f"**{m.kind}**: {markdown.prose(m.message)}. Next: {markdown.prose(m.remedy)}" for m in report.warnings),
        ),
        f"### {report.days} days, {report.total_runs:,} runs" if known else "",
        markdown.table(["figure", "median", "trend"], figures) if known else "",
        markdown.section("Notes", map(markdown.escaped, report.notes)),
    )


def _grouped(report: Report) -> Iterable[tuple[str, list[Trouble]]]:
    mended = [each for each in report.troubles if each.mended]
    groups = (("ended badly", report.open_troubles), ("ended badly, and went well since", mended))
    return [(heading, found) for heading, found in groups if found]


def _trouble(each: Trouble) -> list[str]:
    lines = [f"  {_minute(each.time)}  {each.verb} {each.state}: {printable(each.message, _LONGEST)}"]
    return lines if each.mended else [*lines, f"    next: {each.remedy}"]


def _item(each: Trouble) -> str:
    text = f"{_minute(each.time)} **{markdown.escaped(f'{each.verb} {each.state}')}**: "
    text += markdown.escaped(printable(each.message, _LONGEST))
    return text if each.mended else f"{text}. Next: {markdown.prose(each.remedy)}"


def _row(name: str, text: str) -> str:
    return f"{name:<10}  {text}"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _minute(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
