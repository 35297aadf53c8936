"""The rows of a Chroma store that somebody else may have made: texts, metadata and vectors, a page at a time.

An embedded store is read by its files, which changes nothing and is much quicker than Chroma's ``get``; a server, or a
store whose layout is not known, through Chroma.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.audit import DamageKind, audit
from vectorstore.chroma.store import PIPELINE_KEY, Store, StoredRow
from vectorstore.errors import ConfigurationError, Damaged
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE = 1_000  # rows
_DOCUMENT_KEY = "chroma:document"
# Rows without a sound vector are left out one by one; anything else may give a row another row's vector.
_HARMLESS = {
    DamageKind.UNFINISHED_TRANSACTION, DamageKind.INDEX_MISSING, DamageKind.IDS_MISSING, DamageKind.IDS_LEFT_BEHIND,
    DamageKind.VECTORS_ZERO, DamageKind.VECTORS_NOT_FINITE,
}  # fmt: skip


class Collection(NamedTuple):
    """A collection of the store; ``made_by`` is the pipeline id of one that Vectorkeep made."""

    name: str
    rows: int
    dimension: int | None
    made_by: str | None


class RowReader(Protocol):
    """Reads a store's rows; changes nothing of them."""

    def collections(self) -> list[Collection]:
        """All collections, by name."""

    def check(self, names: Iterable[str]) -> None:
        """Raise ``Damaged`` if rows of these collections can't be told from one another's vectors."""

    def pages(self, name: str, every: int = 1) -> Iterator[list[StoredRow]]:
        """The rows that have a vector, or every so manieth of them, ``PAGE`` at most at a time."""

    def close(self) -> None:
        """Let go of the store."""


def open_rows(settings: Settings, open_store: Callable[[], Store] | None) -> RowReader:
    """A reader for the store that the settings name.

    Args:
        open_store: opens an embedded store with Chroma, which changes it; ``None``: that is not allowed.

    Raises:
        ConfigurationError: there is no store, or it can't be read without Chroma and that is not allowed.
        StoreUnreachable: a server that does not answer.
    """
    if settings.chroma_url:
        return ApiReader(Store(settings))
    store = settings.path(settings.chroma_path)
    if not files.sqlite_path(store).is_file():
        raise ConfigurationError(f"there is no store at {store}", "set `chroma_path` to the folder with chroma.sqlite3")
    with files.open_snapshot(store) as db:
        layout = files.read_layout(db)
    if layout.known:
        return FileReader(store)
    if open_store is None:
        raise ConfigurationError(
            f"the store {store} was made by another version of Chroma: it can't be looked at without opening it with"
            " Chroma, which brings it up to date",
            "copy the folder, then run without --dry-run",
        )
    return ApiReader(open_store())


class FileReader:
    """Reads an embedded store's files; the layout must be known."""

    def __init__(self, store: Path) -> None:
        self._store, self._open = store, contextlib.ExitStack()
        self._db: sqlite3.Connection = self._open.enter_context(files.open_snapshot(store))
        self._stored = {each.name: each for each in files.list_collections(self._db, store)}

    def collections(self) -> list[Collection]:
        """See ``RowReader``."""
        made_by = files.read_marks(self._db, PIPELINE_KEY)
        return [
            Collection(name, files.count_ids(self._db, each), each.dimension, made_by.get(name))
            for name, each in self._stored.items()
        ]

    def check(self, names: Iterable[str]) -> None:
        """See ``RowReader``."""
        for damage in audit(self._store, list(names)):
            if damage.kind not in _HARMLESS:
                raise _damaged(damage.collection or str(self._store), damage.detail)

    def pages(self, name: str, every: int = 1) -> Iterator[list[StoredRow]]:
        """See ``RowReader``. What the queue holds is newer than the index files."""
        collection = self._stored[name]
        queued = {write.id: write.seq for write in files.iter_queue(self._db, collection) if write.vector_bytes}
        try:
            for pairs in self._slots(collection, queued, every):
                yield self._rows(collection, pairs)
        except hnsw.TornFileError as error:
            raise _damaged(name, str(error)) from error
        newest = self._queue(collection, queued, every)
        while pairs := list(islice(newest, PAGE)):
            yield self._rows(collection, pairs)

    def close(self) -> None:
        """See ``RowReader``."""
        self._open.close()

    def _slots(
        self, collection: files.StoredCollection, queued: dict[str, int], every: int
    ) -> Iterator[list[tuple[str, NDArray[np.float32]]]]:
        import numpy as np

        folder = self._store / collection.vector_segment
        id_map = hnsw.read_id_map(folder)
        if id_map is None or not id_map.labels:
            return
        ids = {label: id_ for id_, label in id_map.labels.items()}
        header = hnsw.read_header(folder, collection.dimension)
        for _, block in hnsw.iter_slots(folder, header, PAGE * every):
            some = block[::every]
            labelled = zip(some["label"].tolist(), some["vector"], strict=True)
            yield [
                (id_, np.array(vector))
                for label, vector in labelled
                if (id_ := ids.get(label, "")) not in queued and id_
            ]

    def _queue(
        self, collection: files.StoredCollection, queued: dict[str, int], every: int
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        import numpy as np

        writes = files.iter_queue(self._db, collection, vectors=True)
        newest = (write for write in writes if write.vector and queued.get(write.id) == write.seq)
        for write in islice(newest, 0, None, every):
            assert write.vector
            yield write.id, np.frombuffer(write.vector, "<f4")

    def _rows(
        self, collection: files.StoredCollection, pairs: Sequence[tuple[str, NDArray[np.float32]]]
    ) -> list[StoredRow]:
        """With texts and metadata; ids that SQLite does not know (any more) are no rows."""
        found: dict[str, dict[str, Any]] = {}
        marks = ",".join("?" * len(pairs))
        sql = (
            "SELECT e.embedding_id, m.key, coalesce(m.string_value, m.int_value, m.float_value), m.bool_value"
            " FROM embeddings e LEFT JOIN embedding_metadata m ON m.id = e.id"
            f" WHERE e.segment_id = ? AND e.embedding_id IN ({marks})"
        )
        values = (collection.metadata_segment, *(id_ for id_, _ in pairs))
        for id_, key, value, flag in self._db.execute(sql, values):
            metadata = found.setdefault(id_, {})
            if key is not None:
                metadata[key] = value if flag is None else bool(flag)
        return [
            StoredRow(id_, found[id_].pop(_DOCUMENT_KEY, None), found[id_], vector)
            for id_, vector in pairs
            if id_ in found
        ]


class ApiReader:
    """Reads through Chroma; the ids of a collection are in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collections(self) -> list[Collection]:
        """See ``RowReader``."""
        counts, made_by = self._store.counts(), self._store.pipelines()
        return [Collection(name, rows, self._dimension(name), made_by[name]) for name, rows in sorted(counts.items())]

    def check(self, names: Iterable[str]) -> None:
        """See ``RowReader``; what a server does with its files is its own matter."""

    def pages(self, name: str, every: int = 1) -> Iterator[list[StoredRow]]:
        """See ``RowReader``."""
        ids = list(self._store.ids(name))[::every]
        for start in range(0, len(ids), PAGE):
            yield self._store.read_rows(name, ids[start : start + PAGE])

    def close(self) -> None:
        """See ``RowReader``."""
        self._store.close()

    def _dimension(self, name: str) -> int | None:
        first = self._store.read_rows(name, list(islice(self._store.ids(name), 1)))
        return len(first[0].vector) if first else None


def _damaged(name: str, detail: str) -> Damaged:
    return Damaged(
        f"{name!r} is damaged, so its vectors may be another row's: {detail}",
        "restore it from a backup; or leave it out: name the other collections with --collection",
    )
