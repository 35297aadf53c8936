"""Writes the rows of collections as Parquet, a page at a time, from whatever can read them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.backups.portable_facts import FOLDER, PortableCollection, file_name, schema, write_facts
from vectorstore.backups.selection import Allow
from vectorstore.chroma.hnsw import TornFileError
from vectorstore.chroma.rows import PAGE, Page, RowReader, StoredCollection
from vectorstore.errors import Damaged

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VECTOR_BYTES = 4 << 20  # of a page, however many dimensions there are
NAMED = 20  # rows that a report names
# Lossless. The bytes of like weight side by side make a float32 vector of text a seventh smaller; more effort gains
# less than a hundredth. Each page has a checksum; minima and maxima of vectors would serve nobody.
_PARQUET: dict[str, Any] = {
    "compression": "zstd", "compression_level": 3, "use_dictionary": False, "write_statistics": False,
    "write_page_checksum": True, "use_byte_stream_split": ["vector.list.element"],
}  # fmt: skip
_Texts = tuple[str, str | None, str | None]  # id, document, metadata as JSON


class Exported(NamedTuple):
    """What was written.

    Attributes:
        collections: those that have a file, by name.
        left_out: rows that were not allowed, those of collections that are left out as a whole as well.
        unread: rows that the store lists and does not give.
        lacking: the first rows without a vector or not to be read, as ``collection/id``; none that is not allowed.
    """

    collections: tuple[PortableCollection, ...]
    left_out: int
    unread: int
    lacking: tuple[str, ...]


def export(
    reader: RowReader,
    collections: Sequence[StoredCollection],
    folder: Path,
    *,
    allow: Allow | None = None,
    on_rows: Callable[[int], object] = lambda _count: None,
) -> Exported:
    """Write ``collections.json`` and a Parquet file a collection into a folder, which must not have them yet.

    Args:
        reader: of an embedded store's files or of a server; nobody writes meanwhile.
        collections: of ``reader.collections()``.
        allow: which rows may be in it; ``None``: all. With it a collection without an allowed row is left out as a
            whole, since its name may say what its rows say.
        on_rows: told how many rows were dealt with, page by page.

    Raises:
        Damaged: the store's files are torn.
        OSError: the folder can't be written.
    """
    (folder / FOLDER).mkdir()
    written: list[PortableCollection] = []
    left_out = unread = 0
    lacking: list[str] = []
    for each in sorted(collections, key=lambda each: each.name):
        file = file_name(len(written))
        with _CollectionFile(folder / file, reader, each, allow) as collection:
            try:
                for page in _pages(reader, each):
                    collection.add(page)
                    on_rows(len(page))
            except (TornFileError, sqlite3.DatabaseError) as error:
                raise Damaged(f"{each.name!r} can't be read: {error}", "run `vectorkeep health`") from error
        left_out, unread = left_out + collection.left_out, unread + collection.unread
        lacking += collection.lacking[: NAMED - len(lacking)]
        if allow and not collection.rows:
            (folder / file).unlink()
        else:
            written.append(collection.facts(file))
    write_facts(folder, written)
    return Exported(tuple(written), left_out, unread, tuple(lacking))


class _CollectionFile:
    """The Parquet file of one collection while it is written."""

    def __init__(self, path: Path, reader: RowReader, collection: StoredCollection, allow: Allow | None) -> None:
        import pyarrow.parquet as pq

        self._reader, self._collection, self._allow = reader, collection, allow
        self._schema, self._page = schema(collection.dimension), page_rows(collection.dimension)
        self._writer = pq.ParquetWriter(path, self._schema, **_PARQUET)
        self._waiting: list[pa.Table] = []  # what makes no full row group yet
        self.rows = self.without_vector = self.unread = self.left_out = 0
        self.lacking: list[str] = []

    def __enter__(self) -> _CollectionFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, ids: Sequence[str]) -> None:
        """Write the rows of these ids, in their order."""
        page = self._reader.read(self._collection, ids)
        place = {id_: row for row, id_ in enumerate(page.ids)}
        if self._allow is None:
            self._lack(id_ for id_ in ids if id_ not in place)
        self.unread += len(ids) - len(place)
        rows = [place[id_] for id_ in ids if id_ in place and self._is_allowed(page, place[id_])]
        self.left_out += len(place) - len(rows)
        texts = {row: text for row in rows if (text := _texts(page, row))}
        self.unread += len(rows) - len(texts)
        self._lack(page.ids[row] for row in rows if row not in texts)
        rows = list(texts)
        without = [page.ids[row] for row in rows if not page.has_vector[row]]
        self.without_vector += len(without)
        self._lack(without)
        self.rows += len(rows)
        self._waiting.append(self._table(page, rows, list(texts.values())))
        if sum(table.num_rows for table in self._waiting) >= self._page:
            self._flush()

    def facts(self, file: str) -> PortableCollection:
        """What ``collections.json`` says of it."""
        return PortableCollection(
            name=self._collection.name, file=file, rows=self.rows, without_vector=self.without_vector,
            unread=self.unread, left_out=self.left_out, dimension=self._collection.dimension,
            definition=self._reader.definition(self._collection),
        )  # fmt: skip

    def _is_allowed(self, page: Page, row: int) -> bool:
        return self._allow is None or self._allow(page.metadatas[row], page.documents[row], page.ids[row])

    def _lack(self, ids: Iterator[str] | Sequence[str]) -> None:
        room = NAMED - len(self.lacking)
        self.lacking += (f"{self._collection.name}/{id_}" for id_ in islice(ids, room))

    def _table(self, page: Page, rows: list[int], texts: list[_Texts]) -> pa.Table:
        import pyarrow as pa

        columns = [_strings([text[n] for text in texts]) for n in range(3)]
        kind = self._schema.field("vector").type
        if page.vectors is None or not self._collection.dimension:
            columns.append(pa.nulls(len(rows), kind))
        else:
            columns.append(_vectors(page.vectors[rows], page.has_vector[rows], kind))
        return pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=self._schema)])

    def _flush(self) -> None:
        import pyarrow as pa

        if any(table.num_rows for table in self._waiting):
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._page)
        self._waiting = []


def _strings(texts: Sequence[str | None]) -> pa.Array:
    """Not by ``pa.array``: that imports pandas where it is installed, which takes more memory than all the rest."""
    from pyarrow.lib import StringBuilder

    builder = StringBuilder()
    builder.append_values(texts)
    return builder.finish()


def _vectors(vectors: NDArray[np.float32], has_vector: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """Vectors of shape ``(rows, dimension)`` as a column; those that are not there are null."""
    import numpy as np
    import pyarrow as pa

    flat = pa.Array.from_buffers(pa.float32(), vectors.size, [None, pa.py_buffer(np.ascontiguousarray(vectors, "<f4"))])
    valid = pa.py_buffer(np.packbits(has_vector, bitorder="little"))
    return pa.Array.from_buffers(kind, len(vectors), [valid], children=[flat])


def _pages(reader: RowReader, collection: StoredCollection) -> Iterator[list[str]]:
    """The ids in the order of their bytes, a page at a time."""
    ids: Iterator[str] = chain.from_iterable(reader.ids(collection))
    if reader.way != "files":  # which has them in order
        ids = _sorted(ids)
    rows = page_rows(collection.dimension)
    while page := list(islice(ids, rows)):
        yield page


def page_rows(dimension: int | None) -> int:
    """How many rows are dealt with at a time."""
    return max(1, min(PAGE, VECTOR_BYTES // (4 * (dimension or 1))))


def _sorted(ids: Iterator[str]) -> Iterator[str]:
    """In an unnamed SQLite file, which is in memory while it is small: a server may have millions."""
    with closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        db.execute("BEGIN")
        db.executemany("INSERT OR IGNORE INTO ids VALUES (?)", ((id_,) for id_ in ids))
        for (id_,) in db.execute("SELECT id FROM ids ORDER BY id"):
            yield id_


def _texts(page: Page, row: int) -> _Texts | None:
    """A row without its vector; ``None`` where that is no text, which only damage can do."""
    try:
        texts = page.ids[row], page.documents[row], _as_json(page.metadatas[row])
        "".join(text for text in texts if text is not None).encode()
    except (TypeError, UnicodeEncodeError):
        return None
    return texts


def _as_json(metadata: dict[str, Any]) -> str | None:
    """One spelling for equal metadata; letters stand for themselves. Whole numbers and floats stay apart."""
    kept = {key: value for key, value in metadata.items() if value is not None}  # what is no value is not there
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if kept else None
