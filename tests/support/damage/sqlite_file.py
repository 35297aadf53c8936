"""Damage to the store's SQLite file: its pages, its size, its system tables, its queue."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.support.damage.register import Apply, damage, register
from tests.support.damage.scene import API, GUIDE, NOTES, Scene, cut, flip, same_times
from vectorstore.findings import Severity

# What else may be said of a file that SQLite can't read, or can read a part of.
TORN = "store relations fulltext missing orphans text metadata index_ids no_vector queue probe segments vectors"


def leaf(path: Path, table: str) -> tuple[int, int]:
    """Offset and size of a leaf page in the middle of a table or an index."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = path.read_bytes()
    while content[(page - 1) * size] in (2, 5):  # an inner page: go down by the cell in its middle
        start = (page - 1) * size
        cells = int.from_bytes(content[start + 3 : start + 5], "big")
        pointer = start + 12 + 2 * (cells // 2)
        cell = start + int.from_bytes(content[pointer : pointer + 2], "big")
        page = int.from_bytes(content[cell : cell + 4], "big")
    return (page - 1) * size, size


def _zero(table: str) -> Apply:
    def apply(scene: Scene) -> None:
        offset, size = leaf(scene.sqlite, table)
        with same_times(scene.sqlite), scene.sqlite.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(size))

    return apply


def _scramble(table: str) -> Apply:
    def apply(scene: Scene) -> None:
        offset, _ = leaf(scene.sqlite, table)
        flip(scene.sqlite, offset, 100)

    return apply


for _table in (
    "embeddings", "sqlite_autoindex_embeddings_1", "embedding_metadata", "embedding_metadata_string_value",
    "embeddings_queue",
):  # fmt: skip
    register(
        _zero(_table), f"page_of_{_table}_zeroed", f"A page of {_table} is zero", expect="sqlite", also=TORN,
        mends=False,
    )  # fmt: skip
    register(
        _scramble(_table), f"page_of_{_table}_flipped", f"The head of a page of {_table} is flipped", expect="sqlite",
        also=TORN, mends=False,
    )  # fmt: skip
for _table in ("data", "content", "docsize"):
    register(
        _zero(f"embedding_fulltext_search_{_table}"), f"fulltext_{_table}_zeroed",
        f"A page of the full-text index ({_table}) is zero", expect="sqlite fulltext", also=TORN, mends=False,
    )  # fmt: skip


@damage("sqlite", TORN, mends=False)
def schema_flipped(scene: Scene) -> None:
    """The first page, which holds the schema, is flipped behind the file's header."""
    flip(scene.sqlite, 100, 400, 3)


@damage("sqlite", TORN, mends=False)
def sqlite_head_zeroed(scene: Scene) -> None:
    """The first page is zero."""
    with scene.sqlite.open("r+b") as file:
        file.write(bytes(4096))


for _share in (0.0, 0.1, 0.5, 0.9, 0.999):
    register(
        lambda scene, share=_share: cut(scene.sqlite, share), f"sqlite_cut_to_{100 * _share:g}%",
        f"chroma.sqlite3 keeps {_share:.1%} of its bytes", expect="sqlite" if _share else "sqlite store", also=TORN,
        mends=False,
    )  # fmt: skip


@damage("sqlite", TORN, mends=False)
def sqlite_is_something_else(scene: Scene) -> None:
    """chroma.sqlite3 holds noise."""
    scene.sqlite.write_bytes(random.Random(1).randbytes(100_000))


@damage("store", mends=False)
def sqlite_removed(scene: Scene) -> None:
    """chroma.sqlite3 is gone, the indexes are there: Chroma would open this as an empty store."""
    scene.sqlite.unlink()


@damage("store", mends=False)
def store_removed(scene: Scene) -> None:
    """The store's folder is gone."""
    shutil.rmtree(scene.store)


@damage("store", mends=False)
def store_emptied(scene: Scene) -> None:
    """The store's folder is empty, as a disk that is not mounted."""
    shutil.rmtree(scene.store)
    scene.store.mkdir()


# -- another day's ---------------------------------------------------------------------------------------------------

DAY = "missing orphans text metadata vectors index_ids no_vector duplicate_vectors queue index self_query recall"


@damage("missing", DAY)
def sqlite_of_another_day(scene: Scene) -> None:
    """chroma.sqlite3 is that of the day before, the indexes are today's."""
    shutil.copy2(scene.older / "chroma" / "chroma.sqlite3", scene.sqlite)


@damage("missing", DAY, api="=")
def store_of_another_day(scene: Scene) -> None:
    """The whole store is that of the day before."""
    shutil.rmtree(scene.store)
    shutil.copytree(scene.older / "chroma", scene.store)


# -- system tables ---------------------------------------------------------------------------------------------------


def _sql(statement: str, collection: str = GUIDE) -> Apply:
    def apply(scene: Scene) -> None:
        scene.sql(statement, collection)

    return apply


@damage("layout", "probe", mends=False)
def migrations_of_another_version(scene: Scene) -> None:
    """The store says that a later Chroma has changed its layout."""
    scene.sql("INSERT INTO migrations VALUES ('sysdb', 11, '00011-new.sqlite.sql', '', '')")


register(
    _sql("DELETE FROM migrations WHERE dir = 'metadb' AND version > 3"), "migrations_lost",
    "The last migrations are not noted", expect="layout", mends=False,
    # Chroma runs them again. The fifth takes the numbers in max_seq_id for blobs and makes others of them, by which
    # what is in the queue is passed over. The probe fails if its sample has such a row; else the rows themselves tell.
    also="probe no_vector vectors",
)  # fmt: skip
register(
    _sql("DROP TABLE embedding_fulltext_search"), "fulltext_dropped", "The full-text index is gone",
    expect="sqlite fulltext", also=TORN, mends=False,
)  # fmt: skip
register(
    _sql("ALTER TABLE embeddings RENAME COLUMN seq_id TO seq"), "column_renamed", "A column has another name",
    expect="sqlite", also=TORN, mends=False,
)  # fmt: skip
register(
    _sql("DELETE FROM segments WHERE id = :v"), "vector_segment_row_removed",
    "The row that names a collection's index is gone", expect="relations segments", also="leaked_folders " + TORN,
    mends=False,
)  # fmt: skip
register(
    _sql("DELETE FROM segments WHERE id = :m"), "metadata_segment_row_removed",
    "The row that names where a collection's ids are is gone", expect="relations segments",
    also="leaked_folders " + TORN, mends=False,
)  # fmt: skip
register(
    _sql("DELETE FROM collections WHERE id = :c"), "collection_row_removed",
    "The row of a collection is gone, those of its segments are there", expect="relations",
    also="leaked_folders " + TORN, mends=False,
)  # fmt: skip
register(
    _sql("UPDATE collections SET dimension = 24 WHERE id = :c"), "dimension_changed",
    "A collection claims another dimension", expect="dimension index", also="queue " + TORN, mends=False,
)  # fmt: skip
register(
    _sql("UPDATE collections SET schema_str = '{' WHERE id = :c"), "schema_torn",
    "A collection's configuration is cut short", expect="probe store layout sqlite", also=TORN, mends=False,
)  # fmt: skip
register(
    _sql("DELETE FROM databases"), "database_row_removed", "The database that the collections belong to is gone",
    expect="relations", also=TORN, mends=False,
)  # fmt: skip

# -- the queue -------------------------------------------------------------------------------------------------------

QUEUED = "seq_id > (SELECT coalesce((SELECT seq_id FROM max_seq_id WHERE segment_id = :v), 0)) AND topic LIKE '%' || :c"


def ranked(condition: str) -> str:
    """SQL that picks queued rows by rank, from 1: their ``seq_id`` depends on when other collections were written."""
    rows = f"SELECT seq_id, row_number() OVER (ORDER BY seq_id) AS rank FROM embeddings_queue WHERE {QUEUED}"
    return f"seq_id IN (SELECT seq_id FROM ({rows}) WHERE {condition})"


register(
    _sql(f"DELETE FROM embeddings_queue WHERE {ranked('rank % 3 = 0 AND rank < 60')}", API),
    "queued_writes_removed", "Rows are gone from the middle of the queue before an index had them",
    expect="index_ids no_vector", also="probe self_query recall", api="no_vector probe",
)  # fmt: skip
register(
    _sql("DELETE FROM embeddings_queue"), "queue_emptied", "The queue is empty: Chroma would drop what comes next",
    expect="queue", also="index index_ids no_vector vectors probe self_query recall", mends=False,
)  # fmt: skip
register(
    _sql("DELETE FROM embeddings_queue WHERE seq_id > (SELECT max(seq_id) - 10 FROM embeddings_queue)"),
    "queue_cut", "The newest rows of the queue are gone", expect="queue",
    also="index_ids no_vector probe self_query recall", mends=False,
)  # fmt: skip
register(
    _sql("UPDATE max_seq_id SET seq_id = seq_id + 1000 WHERE segment_id = :m"), "queue_behind",
    "A segment claims to have taken in what was never written", expect="queue", also="index_ids", mends=False,
)  # fmt: skip
register(
    _sql(f"UPDATE embeddings_queue SET vector = substr(vector, 1, 20) WHERE {ranked('rank % 50 = 0')}", API),
    "queued_vectors_cut", "Vectors in the queue are cut short", expect="queue index dimension",
    also="vectors index_ids no_vector probe self_query recall", mends=False,
)  # fmt: skip
register(
    _sql(f"UPDATE embeddings_queue SET vector = zeroblob(64) WHERE {ranked('rank % 50 = 0')}", API),
    "queued_vectors_zeroed", "Vectors in the queue are zero", expect="zero",
    also="vectors norm duplicate_vectors self_query recall", api="=",
)  # fmt: skip
register(
    _sql(
        "UPDATE embeddings_queue SET vector = (SELECT vector FROM embeddings_queue AS other"
        " WHERE other.topic = embeddings_queue.topic AND other.seq_id > embeddings_queue.seq_id"
        f" ORDER BY seq_id LIMIT 1) WHERE {ranked('rank IN (7, 47)')}",
        API,
    ),
    "queued_vectors_exchanged", "Vectors in the queue are another row's", expect="vectors",
    also="duplicate_vectors self_query recall", api="=",
)  # fmt: skip


@damage("queue_purged", mends=False)
def queue_never_purged(scene: Scene) -> None:
    """Purging is switched off: what an index took in long ago is still in the queue."""
    scene.sql("UPDATE embeddings_queue_config SET config_json_str = replace(config_json_str, 'true', 'false')")
    with scene.chroma(NOTES) as collection:
        rows = collection.get(include=["embeddings"], limit=1_200)
        for start in (*range(0, 1_200, 300), *range(0, 1_200, 300)):
            part = slice(start, start + 300)
            collection.upsert(ids=rows["ids"][part], embeddings=rows["embeddings"][part])


_HALF_A_TRANSACTION = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM embedding_metadata")
db.execute("DELETE FROM embeddings")
db.execute("PRAGMA cache_spill = 1")
os.kill(os.getpid(), signal.SIGKILL)
"""


@damage("journal", severity=Severity.INFO)
def writer_killed_in_a_transaction(scene: Scene) -> None:
    """Half of a large transaction is in chroma.sqlite3, and the journal that takes it back is beside it."""
    before = scene.sqlite.read_bytes()
    subprocess.run([sys.executable, "-c", _HALF_A_TRANSACTION, str(scene.sqlite)], check=False)
    assert scene.sqlite.read_bytes() != before
    assert os.stat(f"{scene.sqlite}-journal").st_size
