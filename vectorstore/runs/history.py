"""The history of runs in ``.hashes/``: what alerts, reports and metrics are made from, and what pandas reads.

Every run adds one line to ``run_history.jsonl``; now and then a run that has Arrow in its memory anyway folds the lines
into ``run_history.parquet``. See ``histories.log``. It is no part of a backup, so a restore does not set it back.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.histories.lines import Row
from vectorstore.histories.log import Log, bounded
from vectorstore.histories.parquet import Format
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "str": ("string", (str,)), "int": ("int64", (int,)), "float": ("double", (float, int)),
    "int | None": ("int64", (int, type(None))), "float | None": ("double", (float, int, type(None))),
}  # fmt: skip
_FIELDS = {spec.name: _KINDS[str(spec.type)] for spec in fields(RunRecord) if spec.name != "started"}
COLUMNS: Mapping[str, str] = {"time": "timestamp[ms, tz=UTC]"} | {name: kind for name, (kind, _) in _FIELDS.items()}
LOG = Log(Format("run_history", 1, COLUMNS), "runs", "a later run")
MAX_AGE_S = 2 * 366 * 86_400
MAX_ROWS = 50_000
FOLD_BYTES = 32 << 10  # of lines, some 50 runs: then a run that has imported Arrow folds them
FOLD_ANYWAY_BYTES = 1 << 20  # and then any run
_LATEST_MS = 100 * 366 * 86_400_000  # later ones are not of this world


class Runs(NamedTuple):
    """What is known of earlier runs, the oldest first, and what a person should know of the files."""

    records: list[RunRecord]
    notes: list[str]


def append(folder: Path, record: RunRecord) -> list[str]:
    """Add a run to the history in ``folder``, ``.hashes``.

    Returns:
        Notes for a person: a history that can't be written stops nothing.
    """
    limit = FOLD_BYTES if "pyarrow" in sys.modules else FOLD_ANYWAY_BYTES
    return LOG.append(
        folder, record.run, [row_of(record)],
        fold=lambda size: size > limit,
        bound=lambda table: bounded(table, record.started - MAX_AGE_S, MAX_ROWS),
    )  # fmt: skip


def read(folder: Path) -> Runs:
    """The history in ``folder``; without runs if there is none. Imports Arrow only where lines were folded."""
    rows, notes = LOG.rows(folder)
    found = [_record(row) for row in rows]
    if lost := found.count(None):
        notes.append(f"{lost:,} of {len(found):,} runs of the history are not understood")
    return Runs(sorted(filter(None, found), key=lambda each: each.started), notes)


def records(settings: Settings) -> list[RunRecord]:
    """All runs of a workspace that the history has, the oldest first; see ``read``."""
    return read(settings.hashes).records


def frame(settings: Settings) -> pd.DataFrame:
    """The same as a table, a row a run; ``time`` is its start, a UTC timestamp, and what a run lacks is NaN."""
    return frame_of(records(settings))


def frame_of(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """Records as a table; see ``frame``."""
    import pandas as pd

    found = pd.DataFrame([row_of(each) for each in runs], columns=list(COLUMNS))
    found["time"] = pd.to_datetime(found["time"], unit="ms", utc=True)
    return found.astype({name: "float64" for name, kind in COLUMNS.items() if kind in ("int64", "double")})


def row_of(record: RunRecord) -> Row:
    """A record as its row; ``time`` in milliseconds."""
    values = record.to_dict()
    return {"time": round(values.pop("started") * 1000)} | values


def _record(row: Any) -> RunRecord | None:
    """A row's record; ``None`` of one that this version does not understand."""
    if not isinstance(row, dict):
        return None
    values = {name: value for name, value in row.items() if value is not None}
    time = values.pop("time", None)
    if not isinstance(time, int) or not 0 <= time < _LATEST_MS or values.keys() - _FIELDS.keys():
        return None
    if not all(isinstance(value, _FIELDS[name][1]) for name, value in values.items()):
        return None
    try:
        return RunRecord(started=time / 1000, **values)
    except TypeError:  # a field that every run has is missing
        return None
