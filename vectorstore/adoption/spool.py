"""The rows of foreign collections, in a temporary file: by the documents that their metadata name."""

from __future__ import annotations

import json
import posixpath
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

DOCUMENT_KEYS = ("doc_key", "source", "file_path", "path", "file", "filename", "url")
SAMPLE = 500  # names looked at to find out what they are relative to
_SQL_VARIABLES = 500  # a statement


class SpooledRow(NamedTuple):
    """A row as far as its document needs it.

    Attributes:
        hash: 16 bytes of its text.
        fault: why its vector can't be taken; empty if it can.
        numbers: its numeric metadata, to order it by.
        kept: its metadata, if the row is ours and holds the vector that the cache has; else ``None``.
    """

    id: str
    text: str
    hash: bytes
    fault: str
    numbers: dict[str, float]
    kept: dict[str, Any] | None


class Naming(NamedTuple):
    """How rows name their document: the value of ``key`` is ``prefix`` and the document's key.

    Attributes:
        named, unnamed: rows that name a document of the source, and that do not.
    """

    key: str
    prefix: str
    named: int = 0
    unnamed: int = 0


class Spool:
    """Rows by collection. An unnamed SQLite file: it is in memory while small, and deleted in any case."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF;
            CREATE TABLE rows (
                number INTEGER PRIMARY KEY, collection TEXT, id TEXT, text TEXT, hash BLOB, fault TEXT, numbers TEXT,
                kept TEXT
            );
            CREATE INDEX rows_by_hash ON rows (hash);
            CREATE TABLE names (
                collection TEXT, key TEXT, value TEXT, number INTEGER, PRIMARY KEY (collection, key, value, number)
            ) WITHOUT ROWID;
            """
        )

    def add(
        self, collection: str, rows: Iterable[SpooledRow], metadatas: Iterable[Mapping[str, Any]], keys: Iterable[str]
    ) -> None:
        """Put a page in; ``keys`` are those of the metadata that may name a row's document."""
        keys = tuple(keys)
        self._db.execute("BEGIN")
        for row, metadata in zip(rows, metadatas, strict=True):
            kept = None if row.kept is None else json.dumps(row.kept)
            number = self._db.execute(
                "INSERT INTO rows (collection, id, text, hash, fault, numbers, kept) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (collection, row.id, row.text, row.hash, row.fault, json.dumps(row.numbers), kept),
            ).lastrowid
            values = [(key, _as_path(metadata[key])) for key in keys if isinstance(metadata.get(key), str)]
            self._db.executemany(
                "INSERT INTO names VALUES (?, ?, ?, ?)", [(collection, key, value, number) for key, value in values]
            )
        self._db.execute("COMMIT")

    def known(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of ``hashes`` are of a row whose vector can be taken."""
        found: set[bytes] = set()
        for start in range(0, len(hashes), _SQL_VARIABLES):
            page = hashes[start : start + _SQL_VARIABLES]
            marks = ",".join("?" * len(page))
            sql = f"SELECT hash FROM rows WHERE hash IN ({marks}) AND fault = ''"
            found.update(hash_ for (hash_,) in self._db.execute(sql, page))
        return found

    def find_naming(self, collection: str, keys: Iterable[str], is_document: Callable[[str], bool]) -> Naming | None:
        """The key whose values name documents most often, and what stands before the documents' keys in them."""
        best: tuple[float, str, str] = (0.0, "", "")
        for key in keys:
            values = self._sample(collection, key)
            prefixes = Counter(prefix for value in values for prefix in _prefixes(value, is_document))
            for prefix, hits in prefixes.most_common(1):
                best = max(best, (hits / len(values), key, prefix), key=lambda each: each[0])  # the first of equals
        share, key, prefix = best
        return self.count(collection, Naming(key, prefix), is_document) if share else None

    def count(self, collection: str, naming: Naming, is_document: Callable[[str], bool]) -> Naming:
        """The naming with its counts."""
        sql = "SELECT value, count(*) FROM names WHERE collection = ? AND key = ? GROUP BY value"
        named = sum(
            rows
            for value, rows in self._db.execute(sql, (collection, naming.key))
            if value.startswith(naming.prefix) and is_document(value[len(naming.prefix) :])
        )
        (rows,) = self._db.execute("SELECT count(*) FROM rows WHERE collection = ?", (collection,)).fetchone()
        return naming._replace(named=named, unnamed=rows - named)

    def rows_of(self, collection: str, naming: Naming, doc_key: str) -> list[SpooledRow]:
        """The rows of a document, as they came."""
        found = self._db.execute(
            "SELECT id, text, hash, fault, numbers, kept FROM names JOIN rows USING (number)"
            " WHERE names.collection = ? AND key = ? AND value = ? ORDER BY number",
            (collection, naming.key, naming.prefix + doc_key),
        )
        return [
            SpooledRow(id_, text, hash_, fault, json.loads(numbers), json.loads(kept) if kept else None)
            for id_, text, hash_, fault, numbers, kept in found
        ]

    def close(self) -> None:
        """Drop the file."""
        self._db.close()

    def _sample(self, collection: str, key: str) -> list[str]:
        """Values of a key, evenly spread."""
        where = "FROM names WHERE collection = ? AND key = ?"
        (count,) = self._db.execute(f"SELECT count(DISTINCT value) {where}", (collection, key)).fetchone()
        values = self._db.execute(f"SELECT DISTINCT value {where} ORDER BY value", (collection, key))
        step = -(-count // SAMPLE) or 1
        return [value for number, (value,) in enumerate(values) if number % step == 0]


def _prefixes(value: str, is_document: Callable[[str], bool]) -> Iterator[str]:
    """What stands before a document's key in a path: the shortest first."""
    start = 0
    while start < len(value):
        if is_document(value[start:]):
            yield value[:start]
        start = value.find("/", start) + 1 or len(value)


def _as_path(value: str) -> str:
    """A path or an address, with forward slashes and without detours."""
    if value.startswith("file:"):
        value = unquote(urlsplit(value).path)
    return posixpath.normpath(value.replace("\\", "/")) if value else ""
