"""A run in the history, whatever becomes of it: done, failed, stopped, or killed without a word.

A run that is killed leaves its mark (see ``markers``); whoever runs next, or asks ``settle``, puts it on record.
Nothing here ever stops a run or makes it fail: what can't be kept is a note.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from vectorstore.ledger import Ledger
from vectorstore.progress import read_checkpoint
from vectorstore.runs import machine
from vectorstore.runs.history import append
from vectorstore.runs.markers import Marker, dead
from vectorstore.runs.measures import Figures, fit_to_keep, of_checkpoint, of_error, of_report
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings

MAKERS = ("update", "adopt")  # verbs that make `.hashes` where it is missing; others leave a folder as they find it
_PATIENCE_S = 2.0  # with a ledger that somebody writes to
_CRASHED_EXIT = -9

_Report = TypeVar("_Report")
_Note = Callable[[str], object]


def to_log(note: str) -> None:
    """A note to the library's log. Its import costs more than all else that a record does."""
    import logging

    logging.getLogger(__name__).warning(note)


def recorded(
    settings: Settings,
    verb: str,
    call: Callable[[], _Report],
    *,
    by: str = "library",
    dry_run: bool = False,
    note: _Note = to_log,
) -> _Report:
    """What ``call`` returns, with the run in the history.

    Args:
        settings: of the workspace.
        verb: one of ``record.VERBS``.
        call: of the library, once.
        by: what starts it: ``cli``, ``prefect`` or ``library``.
        dry_run: nothing is done, so there is nothing to record.
        note: called with what a person should know of the history's files.

    Raises:
        BaseException: what the call raised.
    """
    if dry_run:
        return call()
    run = _Run(settings, verb, by, note)
    try:
        report = call()
    except BaseException as error:
        run.end(of_error, error)
        raise
    run.end(of_report, report)
    return report


def settle(settings: Settings, note: _Note = to_log) -> list[RunRecord]:
    """Put every run that was killed on record as ``crashed``, once; returns these records."""
    found = []
    for path, about in dead(settings.hashes):
        record = _crashed(settings, path.stem, about)
        notes = append(settings.hashes, record)
        for each in notes:
            note(each)
        if not notes:  # else the next run tries again
            path.unlink(missing_ok=True)
            found.append(record)
    return found


class _Run:
    """A run that goes on."""

    def __init__(self, settings: Settings, verb: str, by: str, note: _Note) -> None:
        self._settings, self._verb, self._by, self._note = settings, verb, by, note
        self._started, self._since, self._cpu = time.time(), time.monotonic(), machine.cpu_seconds()
        self._name = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(self._started)) + os.urandom(4).hex()
        self._marker: Marker | None = None
        with contextlib.suppress(Exception):  # unmarked, a kill goes unnoticed; a record that fails, too, is told
            self._begin()

    def end(self, measure: Callable[[Any], Figures], outcome: object) -> None:
        """Put it on record, with what ``measure`` makes of the outcome."""
        try:
            self._keep(measure(outcome))
        except Exception as error:  # whatever it is: the history is worth a note, and never a run
            self._note(f"the run is not in the history: {error}")
        if self._marker:
            self._marker.remove()
        if self._settings.metrics_file:
            self._write_metrics()

    def _write_metrics(self) -> None:
        from vectorstore.runs.metrics import write_metrics

        try:
            write_metrics(self._settings)
        except Exception as error:  # as above
            self._note(f"the metrics are not written: {error}")

    def _begin(self) -> None:
        hashes = self._settings.hashes
        if self._verb in MAKERS:
            hashes.mkdir(exist_ok=True)
        if hashes.is_dir():
            settle(self._settings, self._note)
            about = {"pid": os.getpid(), "started": self._started, "verb": self._verb, "by": self._by}
            self._marker = Marker(hashes, self._name, about)

    def _keep(self, figures: Figures) -> None:
        if not self._settings.hashes.is_dir():
            return
        about = {
            "run": self._name, "verb": self._verb, "by": self._by, "started": self._started,
            "seconds": time.monotonic() - self._since, "cpu_seconds": machine.cpu_seconds() - self._cpu,
            "memory_mb": machine.memory_mb(), **_surroundings(self._settings), **figures,
        }  # fmt: skip
        for each in append(self._settings.hashes, _record(about)):
            self._note(each)


def _crashed(settings: Settings, run: str, about: dict[str, Any]) -> RunRecord:
    """The record of a run that was killed, with what its checkpoint tells, if the last one is its."""
    started, pid = float(about["started"]), about["pid"]
    picture = read_checkpoint(settings.hashes) or {}
    updated = picture.get("updated")
    figures: Figures = {"seconds": 0.0}
    if picture.get("pid") == pid and isinstance(updated, int | float) and updated >= started:
        figures = of_checkpoint(picture) | {"seconds": updated - started}
    message = f"process {pid} went away without a word: killed, out of memory, or the machine went down"
    return _record({
        "run": run, "verb": about["verb"], "by": about["by"], "started": started, "cpu_seconds": 0.0,
        "state": "crashed", "exit_code": _CRASHED_EXIT, "message": message, **_surroundings(settings), **figures,
    })  # fmt: skip


def _surroundings(settings: Settings) -> Figures:
    """What there is at the end of a run, whatever it did."""
    found: Figures = {"store_bytes": machine.store_bytes(settings), "memory_share": machine.memory_share()}
    with contextlib.suppress(Exception):  # locked or damaged: the run itself, or the next health check, says so
        ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True, patience_s=_PATIENCE_S)
        try:
            generation = ledger.generation(settings.collection)
            counts = ledger.collections(generation.id).values() if generation else ()
        finally:
            ledger.close()
        found |= {"documents": sum(each[0] for each in counts), "chunks": sum(each[1] for each in counts)}
    return found


def _record(figures: Figures) -> RunRecord:
    texts = {name: fit_to_keep(figures.get(name) or "") for name in ("error", "message", "name", "detail")}
    exact = {name: round(value, 6) for name, value in figures.items() if isinstance(value, float)}
    return RunRecord(**figures | exact | texts)
