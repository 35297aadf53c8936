"""Chroma's on-disk files, read without Chroma and without changing a byte.

Chroma 1.5.9 keeps a persistent store as one SQLite file and, per collection, a folder that is named after the
collection's vector segment:

    chroma.sqlite3                     ids, metadata, documents and the write-ahead queue
    <vector segment>/header.bin        100 bytes: format version, counts, offsets
    <vector segment>/data_level0.bin   one slot per vector: links, delete mark, float32 vector, label
    <vector segment>/length.bin        one float32 per slot
    <vector segment>/link_lists.bin    per slot a byte count and the links of the upper levels
    <vector segment>/index_metadata.pickle   id <-> label

`read_layout` comes first; everything else assumes the layout that it recognises. This module reads SQLite and
file facts; `hnsw` reads the segment folders.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from vectorstore.chroma.fingerprint import SQLITE_NAME

_SQL_VARIABLES = 1_000  # a statement
SEGMENT_FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
KNOWN_MIGRATIONS = {"sysdb": 10, "metadb": 6, "embeddings_queue": 2}
_COLUMNS = {
    "collections": {"id", "name", "dimension", "database_id", "config_json_str", "schema_str"},
    "segments": {"id", "type", "scope", "collection"},
    "embeddings": {"id", "segment_id", "embedding_id", "seq_id"},
    "embedding_metadata": {"id", "key", "string_value"},
    "embedding_metadata_array": {"id", "key", "string_value", "int_value", "float_value", "bool_value"},
    "embedding_fulltext_search": {"string_value"},
    "embeddings_queue": {"seq_id", "operation", "topic", "id", "vector", "encoding", "metadata"},
    "max_seq_id": {"segment_id", "seq_id"},
}
_VECTOR_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Whether the SQLite file has the layout that this module was written for."""

    known: bool
    migrations: dict[str, int]
    """Highest migration per directory, as Chroma numbers them; empty if there is no such table."""
    missing: tuple[str, ...] = ()
    """`table` or `table.column` names that a known layout must have and this file lacks: damage."""


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """One collection as SQLite and the folder list describe it."""

    id: str
    name: str
    dimension: int | None
    """Floats per vector; None until the first write."""
    space: str | None
    sync_threshold: int | None
    """Writes between two persists of the vector index."""
    ef_search: int | None
    """Breadth of a search of the vector index."""
    vector_segment: str
    metadata_segment: str
    vector_seq: int
    """Last queue number inside the persisted vector index; 0 before the first persist."""
    metadata_seq: int
    has_folder: bool


class Operation(IntEnum):
    """What a queue row does; the numbers are Chroma's."""

    ADD = 0
    UPDATE = 1
    UPSERT = 2
    DELETE = 3


class QueuedWrite(NamedTuple):
    """One row of the write-ahead queue."""

    seq: int
    operation: Operation
    id: str
    vector_bytes: int
    """Length of the vector in bytes; 0 without one."""
    vector: bytes | None
    """Little-endian float32; None when absent or not asked for."""


class StoreMissingError(FileNotFoundError):
    """There is no Chroma SQLite file at the path."""


def sqlite_path(store: Path) -> Path:
    """Path of the SQLite file of the store at `store`."""
    return store / SQLITE_NAME


def pending_journals(store: Path) -> list[Path]:
    """Journals beside the SQLite file that hold an unfinished transaction (or a write-ahead log)."""
    names = (f"{SQLITE_NAME}-journal", f"{SQLITE_NAME}-wal")
    return [store / name for name in names if _size(store / name) > 0]


@contextmanager
def open_snapshot(store: Path, scratch: Path | None = None) -> Iterator[sqlite3.Connection]:
    """A connection that sees the last committed state of the store and never writes into its folder.

    A read-only connection can't roll back the journal that a killed writer leaves, so where there is one the
    SQLite file and the journal are copied into `scratch` (default: the system's temporary folder) and opened
    there. The journal of a writer at work needs none of that: its locks count.

    Raises: StoreMissingError; sqlite3.Error as SQLite gives it.
    """
    if not sqlite_path(store).is_file():
        raise StoreMissingError(f"no {SQLITE_NAME} in {store}")
    with ExitStack() as stack:
        yield _open_in_place(store, stack) or _open_copy(store, scratch, stack)


def _open_in_place(store: Path, stack: ExitStack) -> sqlite3.Connection | None:
    if _size(store / f"{SQLITE_NAME}-wal") > 0:
        return None  # to read it, SQLite would make files beside it
    # Not immutable=1: another process may hold the store open, and SQLite's own locks must count.
    uri = sqlite_path(store).resolve().as_uri() + "?mode=ro"
    db = stack.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)))
    try:
        db.execute("PRAGMA schema_version")
    except sqlite3.Error as error:  # any other is for whoever reads
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return None
    return db


def _open_copy(store: Path, scratch: Path | None, stack: ExitStack) -> sqlite3.Connection:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chroma-snapshot-", dir=scratch)))
    for path in pending_journals(store):  # first: played back over a file that was rolled back since, it harms nothing
        with suppress(FileNotFoundError):
            shutil.copyfile(path, folder / path.name)
    shutil.copyfile(sqlite_path(store), folder / SQLITE_NAME)
    return stack.enter_context(closing(sqlite3.connect(sqlite_path(folder))))


def read_layout(db: sqlite3.Connection) -> Layout:
    """Compare migrations and columns with those this module knows. Reads the schema only."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "migrations" not in tables:
        return Layout(known=False, migrations={})
    migrations = dict(db.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"))
    if migrations != KNOWN_MIGRATIONS:
        return Layout(known=False, migrations=migrations)
    return Layout(known=True, migrations=migrations, missing=tuple(_missing_names(db, tables)))


def _missing_names(db: sqlite3.Connection, tables: set[str]) -> Iterator[str]:
    for table, columns in _COLUMNS.items():
        if table not in tables:
            yield table
            continue
        present = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        yield from (f"{table}.{column}" for column in sorted(columns - present))


def list_collections(db: sqlite3.Connection, store: Path) -> list[StoredCollection]:
    """All collections with a local vector index, by name."""
    rows = db.execute(
        """
        SELECT c.id, c.name, c.dimension, c.schema_str, c.config_json_str, v.id, m.id,
               (SELECT seq_id FROM max_seq_id WHERE segment_id = v.id),
               (SELECT seq_id FROM max_seq_id WHERE segment_id = m.id)
        FROM collections c
        JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' AND v.type = ?
        JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA'
        ORDER BY c.name, c.id
        """,
        (_VECTOR_SEGMENT,),
    )
    return [_collection(row, store) for row in rows]


def read_marks(db: sqlite3.Connection, key: str) -> dict[str, str]:
    """The text that a collection's own metadata hold under `key`, by its name; collections without it are left out."""
    sql = "SELECT c.name, m.str_value FROM collection_metadata m JOIN collections c ON c.id = m.collection_id"
    return {name: value for name, value in db.execute(f"{sql} WHERE m.key = ?", (key,)) if value is not None}


def _collection(row: tuple[Any, ...], store: Path) -> StoredCollection:
    identifier, name, dimension, schema, config, vector, metadata, vector_seq, metadata_seq = row
    space, sync, ef_search = _index_settings(schema, config)
    return StoredCollection(
        id=identifier,
        name=name,
        dimension=dimension,
        space=space,
        sync_threshold=sync,
        ef_search=ef_search,
        vector_segment=vector,
        metadata_segment=metadata,
        vector_seq=vector_seq or 0,
        metadata_seq=metadata_seq or 0,
        has_folder=(store / vector).is_dir(),
    )


def _index_settings(schema: str | None, config: str | None) -> tuple[str | None, int | None, int | None]:
    """Space, sync threshold and search breadth, from the collection's schema or from the older configuration column."""
    try:
        index = json.loads(schema or "{}")["keys"]["#embedding"]["float_list"]["vector_index"]["config"]
        hnsw = index.get("hnsw", {})
        return index.get("space"), hnsw.get("sync_threshold"), hnsw.get("ef_search")
    except (ValueError, KeyError, TypeError):
        pass
    try:
        hnsw = json.loads(config or "{}")["hnsw"]
        return hnsw.get("space"), hnsw.get("sync_threshold"), hnsw.get("ef_search")
    except (ValueError, KeyError, TypeError):
        return None, None, None


def count_ids(db: sqlite3.Connection, collection: StoredCollection) -> int:
    """Ids of the collection in SQLite; queue rows that SQLite has not taken in are not counted."""
    sql = "SELECT count(*) FROM embeddings WHERE segment_id = ?"
    return int(db.execute(sql, (collection.metadata_segment,)).fetchone()[0])


def present_ids(db: sqlite3.Connection, metadata_segment: str, ids: Sequence[str]) -> set[str]:
    """Which of `ids` SQLite holds."""
    found: set[str] = set()
    for start in range(0, len(ids), _SQL_VARIABLES):
        page = ids[start : start + _SQL_VARIABLES]
        marks = ",".join("?" * len(page))
        sql = f"SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id IN ({marks})"
        found.update(row[0] for row in db.execute(sql, (metadata_segment, *page)).fetchall())
    return found


def iter_ids(db: sqlite3.Connection, collection: StoredCollection, page: int = 10_000) -> Iterator[str]:
    """Ids of the collection in SQLite, in order; no statement stays open between two pages of `page` rows."""
    return chain.from_iterable(iter_id_pages(db, collection, page))


def iter_id_pages(db: sqlite3.Connection, collection: StoredCollection, page: int = 10_000) -> Iterator[list[str]]:
    """The same, a page at a time."""
    last = ""
    sql = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id > ? ORDER BY embedding_id LIMIT ?"
    while rows := db.execute(sql, (collection.metadata_segment, last, page)).fetchall():
        last = rows[-1][0]
        yield [row[0] for row in rows]


def ids_by_age(db: sqlite3.Connection, collection: StoredCollection) -> list[str]:
    """All ids of the collection in SQLite, in the order in which it took them in."""
    sql = "SELECT embedding_id FROM embeddings WHERE segment_id = ? ORDER BY id"
    return [id_ for (id_,) in db.execute(sql, (collection.metadata_segment,))]


def iter_queue(
    db: sqlite3.Connection, collection: StoredCollection, after: int | None = None, vectors: bool = False
) -> Iterator[QueuedWrite]:
    """Queue rows of the collection past `after` (default: past its persisted vector index), oldest first."""
    value = "CASE WHEN encoding = 'FLOAT32' THEN vector END" if vectors else "NULL"
    sql = (
        f"SELECT seq_id, operation, id, coalesce(length(vector), 0), {value} FROM embeddings_queue "
        "WHERE seq_id > ? AND substr(topic, -36) = ? ORDER BY seq_id"
    )
    start = collection.vector_seq if after is None else after
    for seq, operation, identifier, size, vector in db.execute(sql, (start, collection.id)):
        yield QueuedWrite(seq, Operation(operation), identifier, size, vector)


def read_pending(db: sqlite3.Connection) -> dict[str, list[QueuedWrite]]:
    """All queue rows by collection id, oldest first, without vectors.

    One pass for all collections: the queue has no index by collection, and a pass per collection would cost
    the square of their number.
    """
    pending: dict[str, list[QueuedWrite]] = {}
    sql = (
        "SELECT substr(topic, -36), seq_id, operation, id, coalesce(length(vector), 0) "
        "FROM embeddings_queue ORDER BY seq_id"
    )
    for collection, seq, operation, identifier, size in db.execute(sql):
        write = QueuedWrite(seq, Operation(operation), identifier, size, None)
        pending.setdefault(collection, []).append(write)
    return pending


def stored_ids(db: sqlite3.Connection, collection: StoredCollection, queue: Iterable[QueuedWrite]) -> set[str]:
    """Ids that Chroma will answer for: SQLite's, after the queue rows that it has not taken in yet."""
    sql = "SELECT embedding_id FROM embeddings WHERE segment_id = ?"
    ids = {row[0] for row in db.execute(sql, (collection.metadata_segment,))}
    return apply_queue(ids, (write for write in queue if write.seq > collection.metadata_seq))


def apply_queue(ids: set[str], queue: Iterable[QueuedWrite]) -> set[str]:
    """Replay queue rows over a set of ids as Chroma does; changes and returns `ids`."""
    for write in queue:
        if write.operation in (Operation.ADD, Operation.UPSERT):
            ids.add(write.id)
        elif write.operation is Operation.DELETE:
            ids.discard(write.id)
    return ids


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
