"""A history in ``.hashes/``: lines for what is new, and one Parquet file for all before it.

What is added is one line; that costs no import. Now and then the lines are folded into the file. They are removed after
the new file is in place, and a run that is in both counts once, so a kill anywhere loses nothing. Reading changes
nothing and waits for nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.histories.lines import Row, add_line, locked, read_lines
from vectorstore.histories.parquet import Format, Unreadable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Log:
    """A history; a run of it has one row or more, with the columns ``run`` and, in Unix milliseconds, ``time``.

    Attributes:
        format: of its files.
        title: for messages.
        heals: for messages, what sets a damaged file aside.
    """

    format: Format
    title: str
    heals: str

    @property
    def file(self) -> str:
        """The name of the Parquet file."""
        return f"{self.format.name}.parquet"

    @property
    def lines(self) -> str:
        """The name of the file of lines."""
        return f"{self.format.name}.jsonl"

    def append(
        self, folder: Path, run: str, rows: Sequence[Row], *,
        fold: Callable[[int], bool], bound: Callable[[pa.Table], pa.Table],
    ) -> list[str]:  # fmt: skip
        """Add a run.

        Args:
            folder: ``.hashes``.
            fold: by the size of the lines in bytes, whether they are folded now.
            bound: the table in the order of time -> what of it is kept.

        Returns:
            Notes for a person: a history that can't be written stops nothing.
        """
        notes: list[str] = []
        try:
            folder.mkdir(exist_ok=True)
            with locked(folder / f"{self.format.name}.lock"):
                if fold(add_line(folder / self.lines, run, rows)):
                    self._fold(folder, run, bound, notes)
        except OSError as error:
            notes.append(f"the history of {self.title} could not be written: {error}")
        return notes

    def read(self, folder: Path) -> tuple[pa.Table, list[str]]:
        """All rows in the order of time, none if there is no history; and notes on what can't be read."""
        notes: list[str] = []
        lines: dict[str, list[Row]] = {}
        table = self.format.table_of([])
        try:
            # First the lines: what is folded meanwhile is then in both, and counts once.
            lines = read_lines(folder / self.lines, notes)
            table = self.format.load(folder / self.file)
        except Unreadable as reason:
            notes.append(f"{folder / self.file} is {reason}; {self.heals} sets it aside")
        except OSError as error:
            notes.append(f"the history of {self.title} can't be read: {error}")
        return self._merged(table, lines, notes), notes

    def rows(self, folder: Path) -> tuple[list[Row], list[str]]:
        """As ``read``, in no order and as plain values; of lines alone without an import, and with their faults."""
        notes: list[str] = []
        try:
            lines = read_lines(folder / self.lines, notes)
            if not (folder / self.file).exists():
                return list(chain.from_iterable(lines.values())), notes
        except OSError as error:
            return [], [f"the history of {self.title} can't be read: {error}"]
        table, notes = self.read(folder)
        times = table["time"].cast("int64").to_pylist()
        others = table.drop_columns(["time"]).to_pylist()
        return [{"time": time} | row for time, row in zip(times, others, strict=True)], notes

    def _merged(self, table: pa.Table, lines: Mapping[str, list[Row]], notes: list[str]) -> pa.Table:
        """The table with the runs of the lines that it lacks, in the order of time."""
        import pyarrow as pa

        known = set(table["run"].unique().to_pylist())
        new = {run: rows for run, rows in lines.items() if run not in known}
        return pa.concat_tables([table, *self._tables(new, notes)]).sort_by("time")

    def _tables(self, lines: Mapping[str, list[Row]], notes: list[str]) -> Iterator[pa.Table]:
        try:
            yield self.format.table_of(chain.from_iterable(lines.values()))
            return
        except Unreadable:  # one of them is: which?
            pass
        for run, rows in lines.items():
            try:
                yield self.format.table_of(rows)
            except Unreadable as reason:
                notes.append(f"the line of run {ascii(run)[1:41]} is {reason}")

    def _fold(self, folder: Path, run: str, bound: Callable[[pa.Table], pa.Table], notes: list[str]) -> None:
        """Move the lines into the file. Under the lock."""
        odd: list[str] = []
        lines = read_lines(folder / self.lines, odd)
        try:
            table = self.format.load(folder / self.file)
        except Unreadable as reason:
            notes.append(f"{folder / self.file} is {reason}: {_set_aside(folder / self.file, run)}")
            table = self.format.table_of([])
        self.format.save(folder / self.file, bound(self._merged(table, lines, odd)))
        if odd:
            notes.append(f"{'; '.join(odd)}: {_set_aside(folder / self.lines, run)}")
        else:
            (folder / self.lines).unlink()


def bounded(table: pa.Table, oldest: float, max_rows: int) -> pa.Table:
    """A table without what is older than ``oldest`` (Unix time), and of the rest the newest rows; runs stay whole."""
    times = table["time"].cast("int64").to_pylist()  # sorted; Arrow's own ways to compare them import pandas
    table = table.slice(bisect_left(times, round(oldest * 1000)))
    start = table.num_rows - max_rows
    if start <= 0:
        return table
    runs = table["run"].slice(start - 1).to_pylist()
    return table.slice(start + next((n for n, run in enumerate(runs[1:]) if run != runs[0]), max_rows))


def _set_aside(path: Path, run: str) -> str:
    """Rename what can't be read; returns what became of it."""
    aside = path.with_name(f"{path.stem}-set-aside-{run}{path.suffix}")
    path.replace(aside)
    return f"it is kept as {aside.name}"
