"""The ids at fault, by check and collection, in a temporary file: a store can be wrong in every row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from vectorstore.findings import SAMPLE_IDS


class Faults:
    """A spool of ids. SQLite keeps it in memory until it grows, and then in a temporary file of its own."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(
            "CREATE TABLE faults (check_name TEXT, collection TEXT, id TEXT, PRIMARY KEY (check_name, collection, id))"
            " WITHOUT ROWID"
        )

    def add(self, check: str, collection: str, ids: Iterable[str]) -> None:
        """Note ids; one that is noted already is not counted twice."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO faults VALUES (?, ?, ?)", ((check, collection, id_) for id_ in ids))
        self._db.execute("COMMIT")

    def checks(self, collection: str) -> list[tuple[str, int]]:
        """Checks with faults in a collection, and how many."""
        sql = "SELECT check_name, count(*) FROM faults WHERE collection = ? GROUP BY check_name"
        return self._db.execute(sql, (collection,)).fetchall()

    def count(self, check: str) -> int:
        """How many of a check in all collections."""
        return int(self._db.execute("SELECT count(*) FROM faults WHERE check_name = ?", (check,)).fetchone()[0])

    def some(self, check: str, collection: str) -> list[str]:
        """The first few ids."""
        sql = "SELECT id FROM faults WHERE check_name = ? AND collection = ? ORDER BY id LIMIT ?"
        return [id_ for (id_,) in self._db.execute(sql, (check, collection, SAMPLE_IDS))]

    def ids(self, *checks: str) -> Iterator[tuple[str, str]]:
        """``(collection, id)`` of some checks, each once, in order."""
        marks = ",".join("?" * len(checks))
        sql = f"SELECT DISTINCT collection, id FROM faults WHERE check_name IN ({marks}) ORDER BY collection, id"
        yield from self._db.execute(sql, checks)

    def close(self) -> None:
        """Drop the spool."""
        self._db.close()
