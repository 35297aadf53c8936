"""Gathering what alerts are judged by: all of it is read, nothing is changed, and what can't be read is a note."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from vectorstore.alerting.alert import Facts
from vectorstore.errors import VectorkeepError
from vectorstore.runs import machine
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings

_Value = TypeVar("_Value")
_Times = tuple[float | None, float | None]
_NEVER: _Times = (None, None)
_PATIENCE_S = 2.0  # for the ledger's writer: a run waits for its alerts


def gather(settings: Settings, runs: Sequence[RunRecord], now: float, notes: list[str]) -> Facts:
    """The facts of ``now``; ``notes`` gets what could not be read.

    Args:
        runs: in the order of time.
    """

    def read(what: Callable[[], _Value], without: _Value) -> _Value:
        try:
            return what()
        except VectorkeepError as error:
            notes.append(error.message)
        except (OSError, sqlite3.Error) as error:
            notes.append(f"{type(error).__name__}: {error}")
        return without

    made, ended = read(lambda: _by_ledger(settings), _NEVER)
    ends = [run.started + run.seconds for run in runs if run.verb == "update" and run.state != "locked"]
    first = runs[0].started if runs else made
    backed_up, drilled = read(lambda: _backups(settings), _NEVER)
    return Facts(
        now=now,
        first_run=first,
        updated=max([*ends, *filter(None, [ended])], default=first if made else None),
        backed_up=backed_up,
        drilled=drilled,
        spent_today=read(lambda: _spent_today(settings, now), 0.0),
        store_bytes=machine.store_bytes(settings),
        memory_share=machine.memory_share(),
    )


def _by_ledger(settings: Settings) -> _Times:
    """When the ledger was first written, as far as it tells, and the end of its last update."""
    from vectorstore.ledger import Ledger

    path = settings.hashes / "ledger.sqlite3"
    if not path.exists():
        return _NEVER
    ledger = Ledger(path, readonly=True, patience_s=_PATIENCE_S)
    try:
        last = ledger.last_run("update")
    finally:
        ledger.close()
    return (last["started"], last["ended"]) if last else (path.stat().st_mtime, None)


def _backups(settings: Settings) -> _Times:
    """When the newest sound backup was made that is there, and when the last drill passed."""
    from vectorstore.backups import catalog, history

    if not settings.backups.is_dir():
        return _NEVER
    events = history.read(settings.backups)
    looks = history.looks(events)
    sound = (
        each.created for each in catalog.list_backups(settings.backups)
        if not each.problem and each.name in looks and looks[each.name].ok
    )  # fmt: skip
    return next(sound, None), max(history.drilled(events).values(), default=None)


def _spent_today(settings: Settings, now: float) -> float:
    from vectorstore.budget import spending

    return spending(settings.path(settings.spend_ledger)).get(time.strftime("%Y-%m-%d", time.gmtime(now)), 0.0)
