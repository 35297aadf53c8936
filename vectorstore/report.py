"""Report: what happened, what it cost, and where it is going. Reads the history of runs; changes nothing."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from vectorstore.backups import history as backups
from vectorstore.budget import spending
from vectorstore.errors import ConfigurationError, VectorkeepError
from vectorstore.output.printable import printable
from vectorstore.runs.history import frame_of, read
from vectorstore.runs.judging import Mark, Series, lines, warnings
from vectorstore.runs.record import RunRecord
from vectorstore.runs.trends import DAY
from vectorstore.runs.troubles import Trouble, troubles
from vectorstore.settings import Settings

WEEK_S = 7 * DAY
MAX_DAYS = 732


@dataclass(frozen=True)
class Spent:
    """Dollars, by the spend ledger: today (UTC), in seven days, in the report's days, and ever."""

    today: float
    week: float
    span: float
    total: float


@dataclass(frozen=True)
class Backups:
    """Unix times of the last ones that went well; ``None``: never."""

    made: float | None
    verified: float | None
    drilled: float | None


@dataclass(frozen=True)
class Report:
    """What the history tells.

    Attributes:
        created, since: Unix times: of the report, and from when on its lines are drawn.
        days: how long that is.
        runs: of the last seven days: verb -> state -> count; names are made printable, and so in what follows.
        troubles: runs of the last seven days that did not end well, the newest first.
        documents, chunks, coverage, store_bytes: as the last run that knew them left them.
        series, warnings: see ``runs.judging``.
        total_runs: that the history has of ``days``.
        notes: what a person should know of the history's files.
    """

    workspace: str
    created: float
    since: float
    days: int
    runs: dict[str, dict[str, int]]
    troubles: list[Trouble]
    spent: Spent
    backups: Backups
    documents: int | None
    chunks: int | None
    coverage: float | None
    store_bytes: int | None
    series: list[Series]
    warnings: list[Mark]
    total_runs: int
    notes: list[str] = field(default_factory=list)

    @property
    def open_troubles(self) -> list[Trouble]:
        """Those that no later run has made good."""
        return [each for each in self.troubles if not each.mended]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def report(settings: Settings, *, days: int = 30, clock: Callable[[], float] = time.time) -> Report:
    """What happened in the last seven days, and how figures went in the last ``days``.

    Raises:
        ConfigurationError: ``days`` is not within 1 and 732.
    """
    if not 1 <= days <= MAX_DAYS:
        raise ConfigurationError(f"days = {days}", f"ask for 1 to {MAX_DAYS}, two years")
    now = clock()
    since = now - days * DAY
    found = read(settings.hashes)
    notes = list(found.notes)
    frame = frame_of(found.records)
    costs = _costs(settings, notes)
    week = [each for each in found.records if each.started >= now - WEEK_S]
    return Report(
        workspace=str(settings.workspace), created=now, since=since, days=days, runs=_counted(week),
        troubles=troubles(found.records, now - WEEK_S), spent=_spent(costs, now, since),
        backups=_backups(settings, notes), documents=_last(found.records, "documents"),
        chunks=_last(found.records, "chunks"), coverage=_last(found.records, "coverage"),
        store_bytes=_last(found.records, "store_bytes"), series=lines(frame, _daily(costs, since, now), since),
        warnings=warnings(frame, now, since), total_runs=sum(each.started >= since for each in found.records),
        notes=notes,
    )  # fmt: skip


def _counted(runs: list[RunRecord]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for each in runs:
        states, state = counts.setdefault(printable(each.verb, 40), {}), printable(each.state, 40)
        states[state] = states.get(state, 0) + 1
    return counts


def _last(runs: list[RunRecord], name: str) -> Any:
    return next((value for each in reversed(runs) if (value := getattr(each, name)) is not None), None)


def _costs(settings: Settings, notes: list[str]) -> dict[float, float]:
    """Dollars by the start of each day."""
    try:
        known = spending(settings.path(settings.spend_ledger))
    except VectorkeepError as error:
        notes.append(error.message)
        return {}
    return {float(calendar.timegm(time.strptime(day, "%Y-%m-%d"))): usd for day, usd in known.items()}


def _daily(costs: dict[float, float], since: float, now: float) -> dict[float, float]:
    """The same from ``since`` or the first day with a cost on; days without are 0."""
    first = max(since, min(costs, default=now))
    days = range(int(first // DAY), int(now // DAY) + 1)
    return {day * DAY: costs.get(day * DAY, 0.0) for day in days} if costs else {}


def _spent(costs: dict[float, float], now: float, since: float) -> Spent:
    def after(start: float) -> float:
        return sum(usd for at, usd in costs.items() if at > start)

    return Spent(costs.get(now // DAY * DAY, 0.0), after(now - WEEK_S), after(since), sum(costs.values()))


def _backups(settings: Settings, notes: list[str]) -> Backups:
    try:
        events = backups.read(settings.backups)
    except VectorkeepError as error:
        notes.append(error.message)
        events = []
    good = [each for each in events if each.ok]

    def last(*kinds: str) -> float | None:
        return max((each.time for each in good if each.event in kinds), default=None)

    return Backups(last("backup"), last(*backups.LOOKS), last("drill"))
