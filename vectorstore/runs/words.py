"""A report's figures in words, for all of its forms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vectorstore.findings import Severity
from vectorstore.output.backup_text import size_text
from vectorstore.output.render import duration_text
from vectorstore.runs.judging import Series
from vectorstore.runs.trends import DAY

if TYPE_CHECKING:
    from vectorstore.report import Report

TITLES = {
    "cost": "Cost a day", "coverage": "Coverage", "store": "Size of the store", "rate": "Embedding rate",
    "duration": "Time of an update", "memory": "Memory of an update",
}  # fmt: skip
_HOUR = 3600.0
_BACKUP_OLD_S, _DRILL_OLD_S = 7 * DAY, 35 * DAY


def value_text(name: str, value: float) -> str:
    """A figure of a series with its unit."""
    if name == "cost":
        return money_text(value)
    if name == "coverage":
        return f"{math.floor(value * 10_000 + 1e-6) / 100:.2f}%" if value < 1 else "100%"  # never rounded up
    if name == "store":
        return size_text(value)
    if name == "rate":
        return f"{value:,.0f} chunks/s" if value >= 10 else f"{value:.1f} chunks/s"
    return duration_text(value) if name == "duration" else f"{value:,.0f} MB"


def money_text(usd: float) -> str:
    """Dollars: in cents, or finer where that would be nothing."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 0.1 else f"${usd:.4f}"


def age_text(at: float | None, now: float) -> str:
    """How long ago, roughly."""
    if at is None:
        return "never"
    seconds = max(0.0, now - at)
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} minutes ago"
    return f"{seconds / _HOUR:.0f} hours ago" if seconds < 3 * DAY else f"{seconds / DAY:.0f} days ago"


def trend_text(series: Series) -> str:
    """Where a line goes: "rising, $0.002 more a day", "steady", "too few days to tell"."""
    line = series.trend
    if line is None:
        return "too few days to tell"
    if not line.believed:
        return "steady"
    by = value_text(series.name, abs(line.per_day)) if series.name != "coverage" else f"{abs(line.per_day):.2%}"
    return f"{'rising' if line.per_day > 0 else 'falling'}, {by} {'more' if line.per_day > 0 else 'less'} a day"


def middle_text(series: Series) -> str:
    """The median and the newest figure."""
    values = sorted(value for _, value in series.points)
    middle = values[len(values) // 2]
    return f"{value_text(series.name, middle)} (last {value_text(series.name, series.points[-1][1])})"


def states_text(states: dict[str, int]) -> str:
    """ "28: 27 completed, 1 capped" """
    return f"{sum(states.values()):,}: " + ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))


def store_text(report: Report) -> str:
    """What is stored."""
    if report.documents is None or report.chunks is None:
        return "nothing is known yet"
    parts = [f"{report.documents:,} documents in {report.chunks:,} chunks"]
    if report.store_bytes is not None:
        parts.append(size_text(report.store_bytes))
    if report.coverage is not None:
        parts.append(f"coverage {value_text('coverage', report.coverage)}")
    return ", ".join(parts)


def backups_text(report: Report) -> str:
    """How old the last backup, the last look at one and the last drill are."""
    kept, now = report.backups, report.created
    ages = {"made": kept.made, "verified": kept.verified, "drilled": kept.drilled}
    return ", ".join(f"{what} {age_text(at, now)}" for what, at in ages.items())


def spent_text(report: Report) -> str:
    """What was spent."""
    spent = report.spent
    return (
        f"{money_text(spent.week)} in 7 days, {money_text(spent.today)} today, {money_text(spent.span)} in"
        f" {report.days} days, {money_text(spent.total)} in all"
    )


def verdict(report: Report) -> tuple[Severity, str]:
    """How the week was, in a word and a sentence."""
    still = report.open_troubles
    if still:
        count = "1 run ended badly and was" if len(still) == 1 else f"{len(still):,} runs ended badly and were"
        return Severity.FAIL, f"{count} not made good since"
    if report.warnings:
        return Severity.WARN, "all runs ended well, but something got slower or leaks"
    if not report.runs:
        return Severity.WARN, "there was no run in seven days"
    kept, now = report.backups, report.created
    if kept.verified is None or now - kept.verified > _BACKUP_OLD_S:
        return Severity.WARN, "all runs ended well, but there is no fresh verified backup"
    if kept.drilled is None or now - kept.drilled > _DRILL_OLD_S:
        return Severity.INFO, "all runs ended well; no backup was drilled lately"
    return Severity.PASS, "all runs ended well, or were made good since"
