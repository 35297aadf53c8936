"""The history of health checks in ``.hashes/``: what pictures over time are drawn from, and what pandas reads.

A check adds one line to ``health_history.jsonl``; a standard or deep check then folds the lines into
``health_history.parquet``. See ``histories.log``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vectorstore.findings import Depth, HealthReport
from vectorstore.histories.lines import Row
from vectorstore.histories.log import Log, bounded
from vectorstore.histories.parquet import Format
from vectorstore.output.health_totals import totals
from vectorstore.output.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS: Mapping[str, str] = {
    "time": "timestamp[ms, tz=UTC]", "run": "string", "depth": "string", "kind": "string", "severity": "string",
    "check": "string", "collection": "string", "count": "int64", "total": "int64", "value": "double",
    "documents": "int64", "chunks": "int64", "stored": "int64", "coverage": "double", "seconds": "double",
    "passed": "int64", "info": "int64", "warn": "int64", "fail": "int64",
}  # fmt: skip
LOG = Log(Format("health_history", 1, COLUMNS), "health checks", "the next standard check")
MAX_AGE_S = 2 * 366 * 86_400
MAX_ROWS = 200_000
MAX_RUN_ROWS = 1_000  # of one run: the worst of its findings
FOLD_BYTES = 1 << 20  # of lines: then a quick check folds them, too


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
    longer = report.depth != Depth.QUICK.name.lower()
    return LOG.append(
        folder, report.run, rows_of(report),
        fold=lambda size: longer or size > FOLD_BYTES,
        bound=lambda table: bounded(table, report.started - MAX_AGE_S, MAX_ROWS),
    )  # fmt: skip


def read(folder: Path) -> History:
    """The history in ``folder``; without rows if there is none, with notes on what can't be read."""
    return History(*LOG.read(folder))


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
