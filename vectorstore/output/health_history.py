"""The history of health checks in ``.hashes/``: what pictures over time are drawn from, and what pandas reads.

A check adds one line to ``health_history.jsonl`` and is done; that costs no import. A standard or deep check then folds
the lines into ``health_history.parquet``. Lines are removed after the new file is in place, and a run that is in both
counts once, so a kill anywhere loses nothing. Reading changes nothing and waits for nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.findings import Depth, HealthReport
from vectorstore.output.health_parquet import Unreadable, load, save, table_of
from vectorstore.output.health_totals import totals
from vectorstore.output.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

FILE, LINES, LOCK = "health_history.parquet", "health_history.jsonl", "health_history.lock"
LINE_VERSION = 1
MAX_AGE_S = 2 * 366 * 86_400
MAX_ROWS = 200_000
MAX_RUN_ROWS = 1_000  # of one run: the worst of its findings
FOLD_BYTES = 1 << 20  # of lines: then a quick check folds them, too
LOCK_WAIT_S = 30.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A health check as the history has it: its figures, without its findings.

    Attributes:
        time: Unix time of its start.
        severity: the name of the worst.
        documents, chunks, stored, coverage: see ``health_totals.Totals``.
        passed, info, warn, fail: findings of each severity.
    """

    time: float
    run: str
    depth: str
    severity: str
    documents: int
    chunks: int
    stored: int
    coverage: float
    seconds: float
    passed: int
    info: int
    warn: int
    fail: int


class History(NamedTuple):
    """What is known of earlier checks: rows in the order of time, and what a person should know of the files."""

    table: pa.Table
    notes: list[str]

    def runs(self) -> list[Run]:
        """The rows of runs, the oldest first."""
        import pyarrow.compute as pc

        rows = self.table.filter(pc.equal(self.table["kind"], "run")).select([spec.name for spec in fields(Run)])
        seconds = (stamp / 1000 for stamp in rows["time"].cast("int64").to_pylist())
        others = rows.drop_columns(["time"]).to_pylist()
        return [Run(time=at, **row) for at, row in zip(seconds, others, strict=True)]


def append(folder: Path, report: HealthReport) -> list[str]:
    """Add a report to the history in ``folder``.

    Returns:
        Notes for a person: a history that can't be written stops no check.
    """
    notes: list[str] = []
    try:
        folder.mkdir(exist_ok=True)
        with _locked(folder / LOCK):
            size = _add_line(folder / LINES, _line(report))
            if report.depth != Depth.QUICK.name.lower() or size > FOLD_BYTES:
                _fold(folder, report, notes)
    except OSError as error:
        notes.append(f"the history of health checks could not be written: {error}")
    return notes


def read(folder: Path) -> History:
    """The history in ``folder``; without rows if there is none, with notes on what can't be read."""
    notes: list[str] = []
    lines: dict[str, list[Row]] = {}
    table = table_of([])
    try:
        lines = _read_lines(folder / LINES, notes)  # first: what is folded meanwhile is then in both, and counts once
        table = load(folder / FILE)
    except Unreadable as reason:
        notes.append(f"{folder / FILE} is {reason}; the next standard check sets it aside")
    except OSError as error:
        notes.append(f"the history of health checks can't be read: {error}")
    return History(_merged(table, lines, notes), notes)


def rows_of(report: HealthReport) -> list[Row]:
    """The rows of a report: one for the run, then one a finding that is no PASS, the worst first."""
    base = {"time": round(report.started * 1000), "run": report.run, "depth": report.depth}
    faults = sorted((each for each in report.findings if each.severity), key=lambda each: -each.severity)
    sums, counts = totals(report), report.counts()
    run = base | {
        "kind": "run", "severity": report.severity.name, "check": "", "collection": "", "count": len(faults),
        "total": len({each.check for each in report.findings}), "documents": sums.documents, "chunks": sums.chunks,
        "stored": sums.stored, "coverage": sums.coverage, "seconds": report.seconds,
        "passed": counts["PASS"], "info": counts["INFO"], "warn": counts["WARN"], "fail": counts["FAIL"],
    }  # fmt: skip
    found = [
        base | {
            "kind": "finding", "severity": each.severity.name, "check": each.check,
            "collection": printable(each.collection), "count": each.count, "total": each.total,
            "value": each.to_dict()["value"],
        }
        for each in faults[: MAX_RUN_ROWS - 1]
    ]  # fmt: skip
    return [run, *found]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the kernel frees the lock when its holder dies."""
    deadline = time.monotonic() + LOCK_WAIT_S
    with open(path, "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "another check holds its lock", str(path)) from None
                time.sleep(0.02)
        yield


def _line(report: HealthReport) -> bytes:
    line = {"version": LINE_VERSION, "run": report.run, "rows": rows_of(report)}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _add_line(path: Path, line: bytes) -> int:
    """Add a line, whole or not at all; returns the file's size."""
    with open(path, "a+b", buffering=0) as handle:
        before = handle.seek(0, os.SEEK_END)
        if before and os.pread(handle.fileno(), 1, before - 1) != b"\n":
            line = b"\n" + line  # after one that a crash cut
        try:
            if handle.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle.fileno())
        except OSError:
            handle.truncate(before)
            raise
        return before + len(line)


def _read_lines(path: Path, notes: list[str]) -> dict[str, list[Row]]:
    """Rows by run; lines that can't be understood are left out, with a note."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found, lost = {}, 0
    for line in filter(None, lines):
        try:
            known = json.loads(line)
            if known["version"] != LINE_VERSION:
                raise ValueError(known["version"])
            found[str(known["run"])] = list(known["rows"])
        except (ValueError, KeyError, TypeError):
            lost += 1
    if lost:
        notes.append(f"{lost:,} of {len(lines):,} lines of {path} can't be read")
    return found


def _merged(table: pa.Table, lines: Mapping[str, list[Row]], notes: list[str]) -> pa.Table:
    """The table with the runs of the lines that it lacks, in the order of time."""
    import pyarrow as pa

    known = set(table["run"].unique().to_pylist())
    tables = [table]
    for run, rows in lines.items():
        try:
            tables += [table_of(rows)] if run not in known else []
        except Unreadable as reason:
            notes.append(f"the line of run {printable(run, 40)} is {reason}")
    return pa.concat_tables(tables).sort_by("time")


def _fold(folder: Path, report: HealthReport, notes: list[str]) -> None:
    """Move the lines into the file. Under the lock."""
    odd: list[str] = []
    lines = _read_lines(folder / LINES, odd)
    try:
        table = load(folder / FILE)
    except Unreadable as reason:
        notes.append(f"{folder / FILE} is {reason}: {_set_aside(folder / FILE, report)}")
        table = table_of([])
    save(folder / FILE, _bounded(_merged(table, lines, odd), report.started))
    if odd:
        notes.append(f"{'; '.join(odd)}: {_set_aside(folder / LINES, report)}")
    else:
        (folder / LINES).unlink()


def _bounded(table: pa.Table, now: float) -> pa.Table:
    """Without what is too old, and without the oldest runs where there are too many rows; runs stay whole."""
    times = table["time"].cast("int64").to_pylist()  # sorted; Arrow's own ways to compare them import pandas
    table = table.slice(bisect_left(times, round((now - MAX_AGE_S) * 1000)))
    if table.num_rows <= MAX_ROWS:
        return table
    table = table.slice(table.num_rows - MAX_ROWS)
    return table.slice(table["kind"].index("run").as_py())


def _set_aside(path: Path, report: HealthReport) -> str:
    """Rename what can't be read; returns what became of it."""
    aside = path.with_name(f"{path.stem}-set-aside-{report.run}{path.suffix}")
    path.replace(aside)
    return f"it is kept as {aside.name}"
