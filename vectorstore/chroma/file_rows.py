"""Reads a store's rows from its files: seventy times the speed of asking Chroma for vectors, and without opening it.

Only for a layout that `files.read_layout` knows. Vectors come from the index's slots, or, where the queue holds
a newer one, from there; a collection whose index files are torn gives rows without vectors.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.definition import Definition, read_definition
from vectorstore.chroma.file_vectors import FileVectors
from vectorstore.chroma.rows import METADATA_KEYS, Page, StoredCollection
from vectorstore.chroma.store import PIPELINE_KEY
from vectorstore.chroma.vector_facts import SlotFacts, VectorFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DOCUMENT = "chroma:document"
_SQL_VARIABLES = 500
_VALUE = "coalesce({key}.string_value, {key}.int_value, {key}.float_value)"
_JOIN = "LEFT JOIN embedding_metadata {key} ON {key}.id = e.id AND {key}.key = '{key}'"
_OWN_ROWS = f"""
    SELECT e.embedding_id, d.string_value, {", ".join(_VALUE.format(key=key) for key in METADATA_KEYS)}
    FROM embeddings e LEFT JOIN embedding_metadata d ON d.id = e.id AND d.key = '{_DOCUMENT}'
    {" ".join(_JOIN.format(key=key) for key in METADATA_KEYS)}
    WHERE e.segment_id = ? AND e.embedding_id IN ({{marks}})
    """


class FileRows:
    """A ``RowReader`` over an SQLite snapshot and the index folders.

    Args:
        store: the folder.
        db: a connection of ``files.open_snapshot``.
        unreadable: ids of collections whose vectors are not to be read, since an audit found their index torn.
        slots: by collection id, what an audit has seen of the slots already.
    """

    way = "files"

    def __init__(
        self,
        store: Path,
        db: sqlite3.Connection,
        unreadable: frozenset[str] = frozenset(),
        slots: Mapping[str, SlotFacts] | None = None,
    ) -> None:
        self._store, self._db, self._unreadable, self._slots = store, db, unreadable, slots or {}
        self._known = {each.id: each for each in files.list_collections(db, store)}
        self._pending: dict[str, list[files.QueuedWrite]] | None = None
        self._vectors: tuple[str, FileVectors | None] = ("", None)  # of the collection read last
        self._has_lists = bool(db.execute("SELECT 1 FROM embedding_metadata_array LIMIT 1").fetchone())

    def collections(self) -> list[StoredCollection]:
        """All collections, by name."""
        sql = "SELECT collection_id, str_value FROM collection_metadata WHERE key = ?"
        marks = dict(self._db.execute(sql, (PIPELINE_KEY,)))
        return [
            StoredCollection(
                each.id, each.name, marks.get(each.id), each.dimension, each.space,
                files.count_ids(self._db, each) + len(self._queued_ids(each)),
            )
            for each in self._known.values()
        ]  # fmt: skip

    def definition(self, collection: StoredCollection) -> Definition:
        """What it takes to make a collection anew."""
        return read_definition(self._db, collection.id)

    def ids(self, collection: StoredCollection) -> Iterator[list[str]]:
        """Every id, in pages, in the order of their bytes; those that SQLite has not taken in yet come last."""
        known = self._known[collection.id]
        yield from files.iter_id_pages(self._db, known)
        if late := self._queued_ids(known):
            yield late

    def ids_as_written(self, collection: StoredCollection) -> list[str]:
        """Every id that SQLite has taken in, by age: that of the index's slots too, but for the order in a batch."""
        return files.ids_by_age(self._db, self._known[collection.id])

    def present(self, collection: StoredCollection, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` the collection holds."""
        known = self._known[collection.id]
        return files.present_ids(self._db, known.metadata_segment, ids) | set(ids) & set(self._queued_ids(known))

    def read(self, collection: StoredCollection, ids: Sequence[str], *, vectors: bool = True) -> Page:
        """The rows of these ids."""
        import numpy as np

        documents, metadatas = self._texts(self._known[collection.id].metadata_segment, ids)
        there = [id_ for id_ in ids if id_ in metadatas]
        found: NDArray[np.float32] | None = None
        has_vector = np.zeros(len(there), np.bool_)
        source = self._vectors_of(collection) if vectors else None
        if source is not None:
            found, has_vector = source.read(there, at_full_length=collection.space == "cosine")
        return Page(there, [documents.get(id_) for id_ in there], [metadatas[id_] for id_ in there], found, has_vector)

    def examine(self, collection: StoredCollection, ids: Sequence[str]) -> tuple[Page, VectorFacts | None]:
        """The rows of these ids without their vectors, and the facts of these."""
        page = self.read(collection, ids, vectors=False)
        source = self._vectors_of(collection)
        return page, source.facts(page.ids) if source else None

    def close(self) -> None:
        """Let go of the index files; the connection is its maker's."""
        self._vectors = ("", None)

    def slots(self, collection: StoredCollection) -> int | None:
        """Places in the index, dead ones too; ``None`` where the files can't be read."""
        with contextlib.suppress(hnsw.TornFileError, OSError):
            if collection.id not in self._unreadable and self._known[collection.id].has_folder:
                return hnsw.read_header(self._folder(collection), collection.dimension).slots
        return None

    def _texts(self, segment: str, ids: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        try:
            return self._read_texts(segment, ids)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error).lower():
                raise
        # Text that is not UTF-8 is a fault of its row, not of the page; decoding it here is slower, so only now.
        strict, self._db.text_factory = self._db.text_factory, lambda raw: raw.decode(errors="surrogateescape")
        try:
            return self._read_texts(segment, ids)
        finally:
            self._db.text_factory = strict

    def _read_texts(self, segment: str, ids: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        documents: dict[str, str] = {}
        metadatas: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _SQL_VARIABLES):
            page = ids[start : start + _SQL_VARIABLES]
            if self._only_own_keys and self._read_own(segment, page, documents, metadatas):
                continue
            # Integer, float and boolean are tried before text: only one of them is not NULL.
            sql = f"""
                SELECT e.embedding_id, m.key, m.string_value, coalesce(m.int_value, m.float_value), m.bool_value
                FROM embeddings e LEFT JOIN embedding_metadata m ON m.id = e.id
                WHERE e.segment_id = ? AND e.embedding_id IN ({",".join("?" * len(page))})
                """
            last, values = "", {}
            for id_, key, text, number, truth in self._db.execute(sql, (segment, *page)):
                if id_ != last:
                    last = id_
                    values = metadatas.setdefault(id_, {})
                if key == _DOCUMENT:
                    documents[id_] = text
                elif text is not None:
                    values[key] = text
                elif number is not None:
                    values[key] = number
                elif key is not None:
                    values[key] = None if truth is None else bool(truth)
            if self._has_lists:
                self._add_lists(segment, page, metadatas)
        return documents, metadatas

    @cached_property
    def _only_own_keys(self) -> bool:
        """Whether no row of any collection has metadata that Vectorkeep does not write."""
        own = (_DOCUMENT, *METADATA_KEYS)
        sql = f"SELECT 1 FROM embedding_metadata WHERE key NOT IN ({','.join('?' * len(own))}) LIMIT 1"
        return not self._has_lists and not self._db.execute(sql, own).fetchone()

    def _read_own(
        self, segment: str, ids: Sequence[str], documents: dict[str, str], metadatas: dict[str, dict[str, Any]]
    ) -> bool:
        """The same where every row has all that Vectorkeep writes: a row of SQLite each, not five, costs half."""
        rows = self._db.execute(_OWN_ROWS.format(marks=",".join("?" * len(ids))), (segment, *ids)).fetchall()
        if any(None in row for row in rows):
            return False
        for id_, text, doc_key, chunk, heading, tokens in rows:
            documents[id_] = text
            metadatas[id_] = {"doc_key": doc_key, "chunk": chunk, "heading": heading, "tokens": tokens}
        return True

    def _add_lists(self, segment: str, ids: Sequence[str], metadatas: dict[str, dict[str, Any]]) -> None:
        """Values that are lists lie in a table of their own, an element a row."""
        sql = f"""
            SELECT e.embedding_id, a.key, coalesce(a.string_value, a.int_value, a.float_value), a.bool_value
            FROM embedding_metadata_array a JOIN embeddings e ON e.id = a.id
            WHERE e.segment_id = ? AND e.embedding_id IN ({",".join("?" * len(ids))}) ORDER BY a.rowid
            """
        for id_, key, element, truth in self._db.execute(sql, (segment, *ids)):
            metadatas[id_].setdefault(key, []).append(element if truth is None else bool(truth))

    def _vectors_of(self, collection: StoredCollection) -> FileVectors | None:
        if collection.id in self._unreadable or not collection.dimension:
            return None
        if self._vectors[0] != collection.id:
            known = self._known[collection.id]
            queue = [write for write in self._queue(known) if write.seq > known.vector_seq]
            folder, facts = self._folder(collection), self._slots.get(collection.id)
            self._vectors = (collection.id, FileVectors(folder, self._db, queue, collection.dimension, facts))
        return self._vectors[1]

    def _folder(self, collection: StoredCollection) -> Path:
        return self._store / self._known[collection.id].vector_segment

    def _queue(self, known: files.StoredCollection) -> list[files.QueuedWrite]:
        if self._pending is None:
            self._pending = files.read_pending(self._db)
        return self._pending.get(known.id, [])

    def _queued_ids(self, known: files.StoredCollection) -> list[str]:
        """Ids of writes that SQLite has not taken in; there are none unless a writer was killed."""
        late = [write for write in self._queue(known) if write.seq > known.metadata_seq]
        if not late:
            return []
        new = files.apply_queue(set(), late)
        return sorted(new - files.present_ids(self._db, known.metadata_segment, sorted(new)))
