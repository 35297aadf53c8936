"""The plan: what an update would do. What is left to do is spooled to a temporary file, not held in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from vectorstore.documents.source import Entry, FileSource
from vectorstore.errors import DocumentError, Refused
from vectorstore.ledger import Generation, Intent
from vectorstore.presence import Presence


class Work(NamedTuple):
    """A document that needs a look at its content, as the scan saw it."""

    doc_key: str
    collection: str
    kind: str  # added, changed, missing (its chunks are not in the store), stale, all
    entry: Entry


class Plan:
    """What an update would do.

    Attributes:
        counts: documents by kind: added, changed, missing, stale, all, deleted, unchanged, unknown (in a folder that
            can't be read). An added document may turn out to be a moved one, a changed one to be unchanged, once its
            content is read.
        bytes: of the documents to read.
        tokens_per_byte: of this corpus, as far as the ledger knows it.
        usd_per_token: what the embedder charges.
        problems: documents and folders that the scan could not see.
        refusals: the guards that say no, if any; an update raises the first.
        damage: what an update would mend in the store first, in words.
        leftovers: how many chunks of a document the store may hold, where that is more than the ledger knows.
        abandoned: what killed runs wrote of documents that are gone.
        whole: whether all documents were looked at.
        notes: what else a person should know.
    """

    def __init__(self, generation: Generation, source: FileSource, presence: Presence, intents: list[Intent]) -> None:
        self.generation = generation
        self.source = source
        self.presence = presence
        self.leftovers = dict(presence.leftovers)
        for intent in intents:
            self.leftovers[intent.doc_key] = max(intent.chunks, self.leftovers.get(intent.doc_key, 0))
        self.abandoned: list[Intent] = []
        self.notes = list(presence.notes)
        self.whole = True
        self.counts: dict[str, int] = dict.fromkeys(
            ("added", "changed", "missing", "stale", "all", "deleted", "unchanged", "unknown"), 0
        )
        self.bytes = self.emptied = 0
        self.tokens_per_byte = self.usd_per_token = 0.0
        self.by_collection: dict[str, dict[str, int]] = {}
        self.problems: list[DocumentError] = []
        self.refusals: list[Refused] = []
        # An unnamed SQLite file: SQLite keeps it in memory while it is small and deletes it in any case.
        self._spool = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._spool.execute(
            "CREATE TABLE work (doc_key TEXT PRIMARY KEY, collection TEXT, kind TEXT, size, mtime_ns, ctime_ns)"
            " WITHOUT ROWID"
        )
        self._spool.execute("CREATE TABLE deletes (doc_key TEXT PRIMARY KEY, collection TEXT) WITHOUT ROWID")

    @property
    def damage(self) -> list[str]:
        """What an update would mend in the store before it writes."""
        return self.presence.damage

    @property
    def to_read(self) -> int:
        """How many documents an update would read."""
        return sum(self.counts[kind] for kind in ("added", "changed", "missing", "stale", "all"))

    @property
    def estimated_tokens(self) -> int:
        """Of the documents to read, roughly."""
        return round(self.bytes * self.tokens_per_byte)

    @property
    def estimated_cost_usd(self) -> float:
        """Of the documents to read, roughly, and as if nothing of them were in the vector cache."""
        return self.estimated_tokens * self.usd_per_token

    @property
    def nothing_to_do(self) -> bool:
        """Whether an update would leave the store as it is."""
        building = self.generation.state == "building"  # then at least the swap is left to do
        return not (self.to_read or self.counts["deleted"] or self.abandoned or self.damage or building)

    def work(self, kind: str = "%") -> Iterator[Work]:
        """The documents to read, or those of one kind, by ``doc_key``."""
        sql = "SELECT * FROM work WHERE kind LIKE ? ORDER BY doc_key"
        for key, collection, what, *stat in self._spool.execute(sql, (kind,)):
            yield Work(key, collection, what, Entry(key, *stat))

    def wants(self, doc_key: str) -> bool:
        """Whether an update would read a document."""
        return bool(self._spool.execute("SELECT 1 FROM work WHERE doc_key = ?", (doc_key,)).fetchone())

    def drop(self, work: Work) -> None:
        """Take out a document that is in step after all."""
        self._spool.execute("DELETE FROM work WHERE doc_key = ?", (work.doc_key,))
        self.counts[work.kind] -= 1
        self.counts["unchanged"] += 1
        self.by_collection[work.collection][work.kind] -= 1
        self.bytes -= work.entry.size

    def deletes(self) -> Iterator[tuple[str, str]]:
        """``(doc_key, collection)`` of the documents that are gone from the source."""
        yield from self._spool.execute("SELECT doc_key, collection FROM deletes ORDER BY doc_key")

    def is_deleted(self, doc_key: str) -> bool:
        """Whether the plan deletes a document."""
        return bool(self._spool.execute("SELECT 1 FROM deletes WHERE doc_key = ?", (doc_key,)).fetchone())

    def close(self) -> None:
        """Drop the spool."""
        self._spool.close()

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, work: list[tuple[object, ...]], deletes: list[tuple[str, str]]) -> None:
        self._spool.execute("BEGIN")
        self._spool.executemany("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)", work)
        self._spool.executemany("INSERT INTO deletes VALUES (?, ?)", deletes)
        self._spool.execute("COMMIT")
        work.clear()
        deletes.clear()
