"""The ledger: what the store should hold. It never runs ahead of the store.

A document's row is written after its chunks were written to the store and read back. Before the store is touched, an
intent says which documents are about to change and how many chunks they may leave behind, so that a run that is killed
in between can be cleaned up after.

A generation is one layout of documents in collections: a template and the pipeline that made its vectors. One
generation of a template is serving; another may be building beside it, and older ones are retired.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.errors import Damaged
from vectorstore.sqlite_errors import UNREADABLE, is_damage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Each entry takes the schema one version up; never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE generations (
        id INTEGER PRIMARY KEY, template TEXT NOT NULL, pipeline TEXT NOT NULL, created REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('serving', 'building', 'retired'))
    );
    CREATE TABLE documents (
        generation INTEGER NOT NULL REFERENCES generations, doc_key TEXT NOT NULL, collection TEXT NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, racy INTEGER NOT NULL,
        tokens INTEGER NOT NULL, written REAL NOT NULL, content_hash BLOB NOT NULL, chunks BLOB NOT NULL,
        PRIMARY KEY (generation, doc_key)
    ) WITHOUT ROWID;
    CREATE INDEX documents_by_content ON documents (generation, content_hash);
    CREATE TABLE collections (
        generation INTEGER NOT NULL REFERENCES generations, name TEXT NOT NULL,
        documents INTEGER NOT NULL, chunks INTEGER NOT NULL, PRIMARY KEY (generation, name)
    ) WITHOUT ROWID;
    CREATE TABLE intents (
        generation INTEGER NOT NULL REFERENCES generations, doc_key TEXT NOT NULL, collection TEXT NOT NULL,
        chunks INTEGER NOT NULL, PRIMARY KEY (generation, doc_key, collection)
    ) WITHOUT ROWID;
    CREATE TABLE failures (
        generation INTEGER NOT NULL REFERENCES generations, doc_key TEXT NOT NULL, reason TEXT NOT NULL,
        runs INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL, PRIMARY KEY (generation, doc_key)
    ) WITHOUT ROWID;
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, command TEXT NOT NULL, started REAL NOT NULL, ended REAL, state TEXT NOT NULL,
        report TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE store_files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
)


class Generation(NamedTuple):
    """A layout of documents in collections, and what made its vectors."""

    id: int
    template: str
    pipeline: str
    state: str  # serving, building, retired


class ChunkRecord(NamedTuple):
    """What the ledger keeps of one chunk: the hash of its text, and checksums of its vector and of its metadata."""

    hash: bytes  # 16 bytes
    vector_crc: int
    metadata_crc: int


_CHUNK = struct.Struct("<16sII")
_DOCUMENT = "doc_key, collection, size, mtime_ns, ctime_ns, racy, tokens, content_hash, chunks"
_SQL_VARIABLES = 500  # a statement
_PAGE = 1_000  # rows


class DocumentRow(NamedTuple):
    """A document as the store holds it; sizes in bytes, times in nanoseconds."""

    doc_key: str
    collection: str
    size: int
    mtime_ns: int
    ctime_ns: int
    racy: bool  # its times were too young to be trusted when it was read
    tokens: int
    content_hash: bytes
    chunks: tuple[ChunkRecord, ...]


class StatRow(NamedTuple):
    """What the scan is compared with: a document's row without what only its content needs."""

    doc_key: str
    collection: str
    size: int
    mtime_ns: int
    ctime_ns: int
    racy: int


class Intent(NamedTuple):
    """A document that a run was about to change; up to ``chunks`` chunks of it may be in the store."""

    doc_key: str
    collection: str
    chunks: int


class Ledger:
    """The ledger's SQLite file. One connection; a thread of its own needs a ``Ledger`` of its own.

    Args:
        path: the file; made and migrated unless ``readonly``.
        readonly: leave every byte and the folder as they are. A missing file reads as an empty ledger.
        patience_s: with ``readonly``, how long to wait for a writer's commit.

    Raises:
        Damaged: the file is no ledger, is torn, or was written by a newer version.
    """

    def __init__(
        self, path: Path, *, readonly: bool = False, patience_s: float = 60.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self._clock, self._write_ahead = path, clock, False
        with self._guarded():
            self._db = _open_readonly(path, patience_s) if readonly else _open(path)

    # -- reading -------------------------------------------------------------------------------------------------

    def generation(self, template: str, state: str = "serving") -> Generation | None:
        """The newest generation of a template in a state."""
        row = self._one(
            "SELECT id, template, pipeline, state FROM generations WHERE template = ? AND state = ? ORDER BY id DESC",
            template,
            state,
        )
        return Generation(*row) if row else None

    def generation_of(self, id: int) -> Generation:
        """A generation by its id."""
        return Generation(*self._one("SELECT id, template, pipeline, state FROM generations WHERE id = ?", id))

    def generations(self) -> list[Generation]:
        """All of them, of every template, oldest first."""
        return [Generation(*row) for row in self._all("SELECT id, template, pipeline, state FROM generations")]

    def is_empty(self, generation: int) -> bool:
        """Whether a generation holds no document and no trace of one."""
        return not self._one(
            "SELECT 1 FROM documents WHERE generation = ?1 UNION ALL SELECT 1 FROM intents WHERE generation = ?1",
            generation,
        )

    def stats(self, generation: int) -> Iterator[StatRow]:
        """Every document, in the byte order of ``doc_key``."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT doc_key, collection, size, mtime_ns, ctime_ns, racy FROM documents WHERE generation = ?"
                " ORDER BY doc_key",
                (generation,),
            )
            yield from map(StatRow._make, rows)

    def document(self, generation: int, doc_key: str) -> DocumentRow | None:
        """One document."""
        row = self._one(
            f"SELECT {_DOCUMENT} FROM documents WHERE generation = ? AND doc_key = ?",
            generation,
            doc_key,
        )
        return _document(row) if row else None

    def documents(self, generation: int, collection: str) -> Iterator[DocumentRow]:
        """Every document of a collection, by ``doc_key``."""
        with self._guarded():
            rows = self._db.execute(
                f"SELECT {_DOCUMENT} FROM documents WHERE generation = ? AND collection = ? ORDER BY doc_key",
                (generation, collection),
            )
            yield from map(_document, rows)

    def packed_chunks(self, generation: int, doc_keys: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """Collection and chunks of those of ``doc_keys`` that are known, by key; see ``count_packed``."""
        found = {}
        for start in range(0, len(doc_keys), _SQL_VARIABLES):
            page = doc_keys[start : start + _SQL_VARIABLES]
            marks = ",".join("?" * len(page))
            sql = f"SELECT doc_key, collection, chunks FROM documents WHERE generation = ? AND doc_key IN ({marks})"
            found.update({key: (name, chunks) for key, name, chunks in self._all(sql, generation, *page)})
        return found

    def keys_of_content(self, generation: int, content_hash: bytes) -> list[str]:
        """The documents whose content has this hash."""
        sql = "SELECT doc_key FROM documents WHERE generation = ? AND content_hash = ?"
        return [key for (key,) in self._all(sql, generation, content_hash)]

    def needed_hashes(self) -> Iterator[bytes]:
        """The hash of every chunk of every document of every generation."""
        with self._guarded():
            for (blob,) in self._db.execute("SELECT chunks FROM documents"):
                for hash_, _, _ in _CHUNK.iter_unpack(blob):
                    yield hash_

    def hash_prefixes(self) -> NDArray[np.uint64]:
        """The first 64 bits of ``needed_hashes``, shape ``(chunks,)``: of millions, no two are alike by accident."""
        import numpy as np

        with self._guarded():
            rows = self._db.execute("SELECT chunks FROM documents")
            # A page of documents at a time: joined at once, all of the ledger would be in memory.
            parts = [np.zeros(0, np.uint64)]
            while page := rows.fetchmany(_PAGE):
                chunks = np.frombuffer(b"".join(blob for (blob,) in page), f"<u8, V{_CHUNK.size - 8}")
                parts.append(chunks["f0"].copy())
        return np.concatenate(parts)

    def collections(self, generation: int) -> dict[str, tuple[int, int]]:
        """Documents and chunks by collection name."""
        rows = self._all(
            "SELECT name, documents, chunks FROM collections WHERE generation = ? ORDER BY name", generation
        )
        return {name: (documents, chunks) for name, documents, chunks in rows}

    def counted(self, generation: int) -> dict[str, tuple[int, int]]:
        """What ``collections`` should say: documents and chunks by collection name, counted anew."""
        sql = (
            f"SELECT collection, count(*), sum(length(chunks)) / {_CHUNK.size} FROM documents WHERE generation = ?"
            " GROUP BY collection"
        )
        return {name: (documents, chunks) for name, documents, chunks in self._all(sql, generation)}

    def faults(self, *, thorough: bool = True) -> list[str]:
        """What SQLite and the rows' own form say is wrong with the file; empty when nothing is."""
        pragma = "integrity_check" if thorough else "quick_check"
        try:
            said = [str(row[0]) for row in self._db.execute(f"PRAGMA {pragma}(20)") if row[0] != "ok"]
            sql = f"SELECT count(*) FROM documents WHERE length(chunks) % {_CHUNK.size}"
            torn = self._db.execute(sql).fetchone()[0]
            astray = len(self._db.execute("PRAGMA foreign_key_check").fetchall())
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            return [str(error)]
        said += [f"{torn} documents with a torn list of chunks"] if torn else []
        return said + ([f"{astray} rows of generations that are gone"] if astray else [])

    def collection_names(self) -> set[str]:
        """The names of all collections of all generations."""
        return {name for (name,) in self._all("SELECT name FROM collections")}

    def generations_by_collection(self) -> dict[str, Generation]:
        """The generation of every collection; a name that several have had is the serving one's."""
        found: dict[str, Generation] = {}
        for generation in sorted(self.generations(), key=lambda each: each.state == "serving"):
            found |= dict.fromkeys(self.collections(generation.id), generation)
        return found

    def intents(self, generation: int) -> list[Intent]:
        """What killed runs may have left in the store."""
        sql = "SELECT doc_key, collection, chunks FROM intents WHERE generation = ? ORDER BY doc_key"
        return [Intent(*row) for row in self._all(sql, generation)]

    def failures(self, generation: int) -> list[tuple[str, str, int]]:
        """Documents that failed last time: key, reason, in how many runs."""
        return self._all("SELECT doc_key, reason, runs FROM failures WHERE generation = ? ORDER BY doc_key", generation)

    def tokens(self, generation: int) -> tuple[int, int]:
        """Bytes and tokens of all documents: what estimates are made from."""
        row = self._one("SELECT total(size), total(tokens) FROM documents WHERE generation = ?", generation)
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def store_files(self) -> dict[str, tuple[int, int]]:
        """Size and mtime_ns of the store's files as of the last clean close; empty after an unclean one."""
        return {path: (size, mtime) for path, size, mtime in self._all("SELECT * FROM store_files")}

    def fact(self, name: str) -> Any:
        """A remembered value, or ``None``."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(row[0]) if row else None

    def last_run(self, command: str) -> dict[str, Any] | None:
        """The newest run's report with its ``state``, ``started`` and ``ended`` (Unix seconds)."""
        row = self._one(
            "SELECT report, state, started, ended FROM runs WHERE command = ? ORDER BY started DESC LIMIT 1", command
        )
        return json.loads(row[0]) | {"state": row[1], "started": row[2], "ended": row[3]} if row else None

    # -- writing -------------------------------------------------------------------------------------------------

    def start_generation(self, template: str, pipeline: str, state: str) -> Generation:
        """A new generation, serving or building."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO generations (template, pipeline, created, state) VALUES (?, ?, ?, ?)",
                (template, pipeline, self._clock(), state),
            )
        found = self.generation(template, state)
        assert found is not None
        return found

    def begin(self, generation: Generation) -> Generation:
        """Write down the generation that a plan chose, and give it its id, if it is new or takes another pipeline."""
        if not generation.id:
            return self.start_generation(generation.template, generation.pipeline, generation.state)
        if self.generation_of(generation.id) != generation:
            self.set_pipeline(generation)
        return generation

    def set_pipeline(self, generation: Generation) -> None:
        """Give an empty generation another pipeline."""
        assert self.is_empty(generation.id)
        with self._writing() as db:
            db.execute("UPDATE generations SET pipeline = ? WHERE id = ?", (generation.pipeline, generation.id))

    def swap(self, serving: int, building: int, building_suffix: str, retired_suffix: str, journal: str) -> None:
        """``building`` serves, ``serving`` retires, and their collections are called as they are in the store now.

        The fact ``journal`` is forgotten with it: done twice, it would cut the names once more.
        """
        with self._writing() as db:
            db.execute("UPDATE generations SET state = 'retired' WHERE id = ?", (serving,))
            db.execute("UPDATE generations SET state = 'serving' WHERE id = ?", (building,))
            for table, column in (("documents", "collection"), ("intents", "collection"), ("collections", "name")):
                db.execute(
                    f"UPDATE {table} SET {column} = {column} || ? WHERE generation = ?", (retired_suffix, serving)
                )
                db.execute(
                    f"UPDATE {table} SET {column} = substr({column}, 1, length({column}) - ?) WHERE generation = ?",
                    (len(building_suffix), building),
                )
            db.execute("DELETE FROM facts WHERE name = ?", (journal,))

    def intend(self, generation: int, intents: Iterable[Intent]) -> None:
        """Say which documents the store is about to be changed for. An older intent's larger count stays."""
        with self._writing() as db:
            db.executemany(
                "INSERT INTO intents VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET chunks = max(chunks, excluded.chunks)",
                [(generation, *intent) for intent in intents],
            )

    def commit(self, generation: int, rows: Iterable[DocumentRow]) -> None:
        """The store holds these documents as given, and it was read back."""
        with self._writing() as db:
            for row in rows:
                self._forget(db, generation, row.doc_key, row.collection)
                db.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (generation, row.doc_key, row.collection, row.size, row.mtime_ns, row.ctime_ns, row.racy,
                     row.tokens, self._clock(), row.content_hash, pack_chunks(row.chunks)),
                )  # fmt: skip
                self._count(db, generation, row.collection, 1, len(row.chunks))
                db.execute("DELETE FROM failures WHERE generation = ? AND doc_key = ?", (generation, row.doc_key))

    def forget(self, generation: int, doc_keys: Iterable[str]) -> None:
        """The store holds nothing of these documents any more, and it was read back."""
        with self._writing() as db:
            for doc_key in doc_keys:
                self._forget(db, generation, doc_key, "")
                db.execute("DELETE FROM failures WHERE generation = ? AND doc_key = ?", (generation, doc_key))

    def resolve(self, generation: int, intents: Iterable[Intent]) -> None:
        """Strike out intents whose leftovers are gone from the store."""
        with self._writing() as db:
            db.executemany(
                "DELETE FROM intents WHERE generation = ? AND doc_key = ? AND collection = ?",
                [(generation, intent.doc_key, intent.collection) for intent in intents],
            )

    def recount(self) -> None:
        """Count documents and chunks by collection anew, in every generation."""
        with self._writing() as db:
            db.execute("DELETE FROM collections")
            db.execute(
                "INSERT INTO collections SELECT generation, collection, count(*),"
                f" sum(length(chunks)) / {_CHUNK.size} FROM documents GROUP BY generation, collection"
            )

    def take_collections(self, other: Path, names: Sequence[str]) -> list[str]:
        """Put what another ledger says of some collections in the place of what this one says of them.

        Returns:
            Those that it could not take: no generation of the same template and pipeline serves here.
        """
        left: list[str] = []
        with self._guarded():
            self._db.execute("ATTACH ? AS other", (str(other),))
            try:
                with self._writing() as db:
                    for name in names:
                        pair = db.execute(
                            "SELECT t.id, o.id FROM other.generations o JOIN other.collections c ON c.generation = o.id"
                            " JOIN main.generations t ON t.template = o.template AND t.pipeline = o.pipeline"
                            " WHERE c.name = ? AND o.state = 'serving' AND t.state = 'serving'", (name,),
                        ).fetchone()  # fmt: skip
                        if pair is None:
                            left.append(name)
                            continue
                        db.execute("DELETE FROM documents WHERE generation = ? AND collection = ?", (pair[0], name))
                        db.execute(
                            "INSERT OR REPLACE INTO documents SELECT ?, doc_key, collection, size, mtime_ns, ctime_ns,"
                            " racy, tokens, written, content_hash, chunks FROM other.documents"
                            " WHERE generation = ? AND collection = ?", (pair[0], pair[1], name),
                        )  # fmt: skip
            finally:
                self._db.execute("DETACH other")
        self.recount()
        return left

    def touch(self, generation: int, rows: Iterable[tuple[str, int, int, int, bool]]) -> None:
        """Only the times changed: ``(doc_key, size, mtime_ns, ctime_ns, racy)``."""
        with self._writing() as db:
            db.executemany(
                "UPDATE documents SET size = ?, mtime_ns = ?, ctime_ns = ?, racy = ?"
                " WHERE generation = ? AND doc_key = ?",
                [(size, mtime, ctime, racy, generation, key) for key, size, mtime, ctime, racy in rows],
            )

    def fail(self, generation: int, failures: Mapping[str, str]) -> None:
        """Remember documents that failed; they are tried again by the next run."""
        now = self._clock()
        with self._writing() as db:
            db.executemany(
                "INSERT INTO failures VALUES (?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE"
                " SET reason = excluded.reason, runs = runs + 1, last = excluded.last",
                [(generation, key, reason, now, now) for key, reason in failures.items()],
            )

    def keep_failures(self, generation: int, doc_keys: Iterable[str]) -> None:
        """Strike out failures of documents other than ``doc_keys``: they are gone from the source."""
        with self._writing() as db:
            db.execute("CREATE TEMP TABLE kept (doc_key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((key,) for key in doc_keys))
            db.execute(
                "DELETE FROM failures WHERE generation = ? AND doc_key NOT IN (SELECT doc_key FROM kept)", (generation,)
            )
            db.execute("DROP TABLE kept")

    def store_opened(self) -> None:
        """From now on the store's files change: nothing is known of them until a clean close."""
        with self._writing() as db:
            db.execute("DELETE FROM store_files")

    def store_closed(self, files: Mapping[str, tuple[int, int]]) -> None:
        """The store was closed cleanly with these files: path -> (size, mtime_ns)."""
        with self._writing() as db:
            db.execute("DELETE FROM store_files")
            db.executemany("INSERT INTO store_files VALUES (?, ?, ?)", [(p, s, m) for p, (s, m) in files.items()])

    def remember(self, name: str, value: Any) -> None:
        """Keep a small JSON value by name."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def record_run(self, id: str, command: str, started: float, state: str, report: Mapping[str, Any]) -> None:
        """Write or overwrite a run's row; ``ended`` is now."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
                (id, command, started, self._clock(), state, json.dumps(report)),
            )

    def close(self) -> None:
        """Close; a writer leaves one plain file, so that looking at it later makes no other."""
        if self._write_ahead:
            with contextlib.suppress(sqlite3.OperationalError):  # a reader is open: the log stays, nothing is lost
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    # -- inside --------------------------------------------------------------------------------------------------

    def _forget(self, db: sqlite3.Connection, generation: int, doc_key: str, collection: str) -> None:
        old = db.execute(
            "SELECT collection, length(chunks) FROM documents WHERE generation = ? AND doc_key = ?",
            (generation, doc_key),
        ).fetchone()
        if old:
            db.execute("DELETE FROM documents WHERE generation = ? AND doc_key = ?", (generation, doc_key))
            self._count(db, generation, old[0], -1, -(old[1] // _CHUNK.size))
        db.execute(
            "DELETE FROM intents WHERE generation = ? AND doc_key = ? AND ? IN ('', collection)",
            (generation, doc_key, collection),
        )

    @staticmethod
    def _count(db: sqlite3.Connection, generation: int, collection: str, documents: int, chunks: int) -> None:
        db.execute(
            "INSERT INTO collections VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET documents = documents + excluded.documents, chunks = chunks + excluded.chunks",
            (generation, collection, documents, chunks),
        )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(
            f"the ledger {self.path} can't be read: {error}",
            f"move {self.path.name} away and run `vectorkeep update`: it makes a new one from the documents and the"
            " vector cache, without paying again",
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guarded():
            if not self._write_ahead:  # so that readers can read meanwhile, and a kill leaves nothing to roll back
                self._db.execute("PRAGMA journal_mode = WAL")
                self._write_ahead = True
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db

    def _one(self, sql: str, *values: Any) -> Any:
        with self._guarded():
            return self._db.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with self._guarded():
            return self._db.execute(sql, values).fetchall()


def pack_chunks(chunks: Iterable[ChunkRecord]) -> bytes:
    """Chunk records as the ledger stores them: 24 bytes each."""
    return b"".join(_CHUNK.pack(*chunk) for chunk in chunks)


def count_packed(chunks: bytes) -> int:
    """How many records ``pack_chunks`` was given."""
    return len(chunks) // _CHUNK.size


def unpack_chunk(chunks: bytes, number: int) -> tuple[bytes, int, int]:
    """One of them: the fields of a ``ChunkRecord``, without the cost of making one."""
    return _CHUNK.unpack_from(chunks, number * _CHUNK.size)


def _document(row: Any) -> DocumentRow:
    key, collection, size, mtime_ns, ctime_ns, racy, tokens, content_hash, blob = row
    chunks = tuple(map(ChunkRecord._make, _CHUNK.iter_unpack(blob)))
    return DocumentRow(key, collection, size, mtime_ns, ctime_ns, bool(racy), tokens, content_hash, chunks)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = NORMAL")
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = _checked_version(db, path)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


def _checked_version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise Damaged(
            f"the ledger {path} has schema {version}; this version knows up to {len(MIGRATIONS)}", "update Vectorkeep"
        )
    return version


def _open_readonly(path: Path, patience_s: float) -> sqlite3.Connection:
    if not path.exists():
        db = sqlite3.connect(":memory:", isolation_level=None)
        _migrate(db, path)
        return db
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=patience_s, isolation_level=None)
    try:
        if _checked_version(db, path) == len(MIGRATIONS):
            return db
    except sqlite3.OperationalError:  # a journal to roll back, which a reader may not: read a copy
        pass
    except BaseException:
        db.close()
        raise
    db.close()
    return _migrated_copy(path)


def _migrated_copy(path: Path) -> sqlite3.Connection:
    import shutil
    import tempfile

    memory = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", Path(folder) / f"copy{suffix}")
        with contextlib.closing(sqlite3.connect(Path(folder) / "copy")) as copy:
            copy.backup(memory)
    _migrate(memory, path)
    return memory
