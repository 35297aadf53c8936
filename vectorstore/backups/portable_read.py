"""Reads the Parquet files of a portable backup, and loads them into an open store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from vectorstore.backups.portable_facts import PortableCollection, read_facts, schema
from vectorstore.backups.portable_write import NAMED, page_rows
from vectorstore.chroma.rows import Page
from vectorstore.chroma.store import URI_KEY, Rows, Store
from vectorstore.errors import BadBackup, ConfigurationError, Refused

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_VALUES = (str, int, float, bool)


class Loaded(NamedTuple):
    """A collection that was loaded.

    Attributes:
        rows: that are in the store now.
        without_vector: rows of the backup that are not, since they have no vector that Chroma takes.
        lacking: the first of their ids.
    """

    name: str
    rows: int
    without_vector: int
    lacking: tuple[str, ...]


def load(
    folder: Path,
    store: Store,
    *,
    only: Collection[str] | None = None,
    replace: bool = False,
    on_rows: Callable[[int], object] = lambda _count: None,
) -> list[Loaded]:
    """Make the collections of a portable backup anew in an open store.

    All are filled under other names first, and renamed when all of them are whole: a kill before that leaves what was
    there, and the next load of the same collections takes away what was left over. Vectors come back bit for bit under
    ``ip`` and ``l2``; under ``cosine`` Chroma keeps direction and length apart, each to 1e-6.

    Args:
        folder: with ``collections.json``; its files were compared with the archive's digests.
        only: names of collections; ``None``: all.
        replace: take the place of collections that are there.
        on_rows: told how many rows were dealt with, page by page.

    Raises:
        BadBackup: a file is not what was written; the store is as it was.
        ConfigurationError: ``only`` names a collection that is not there.
        Refused: a collection is there and ``replace`` is not asked for, or this Chroma can't make it as it was.
        Damaged: Chroma did not take the rows.
    """
    parts = [each for each in read_facts(folder) if only is None or each.name in only]
    if unknown := set(only or ()) - {each.name for each in parts}:
        raise ConfigurationError(f"the backup has no collection {min(unknown)!r}", "see `vectorkeep backups`")
    for each in parts:
        _open(folder, each).close()
        _undo_swap(store, each.name)
    if (there := store.pipelines().keys() & {each.name for each in parts}) and not replace:
        raise Refused(f"the collection {min(there)!r} is there", "allow to replace it, or restore into another folder")
    try:
        loaded = [_fill(folder, each, store, on_rows) for each in parts]
    except BaseException:
        with contextlib.suppress(Exception):  # the error that is under way says more
            for each in parts:
                store.drop(_name_beside("loading", each.name))
        raise
    for each in parts:
        _swap(store, each.name)
    return loaded


def read_pages(folder: Path, collection: PortableCollection) -> Iterator[Page]:
    """The rows of a collection by id, a page at a time.

    Raises:
        BadBackup: its file is not what was written.
    """
    with contextlib.closing(_open(folder, collection)) as file:
        last, rows, without = "", 0, 0
        batches = file.iter_batches(page_rows(collection.dimension), use_threads=False)
        while page := _next(batches, collection):
            if not page.ids or page.ids[0] <= last or any(b <= a for a, b in zip(page.ids, page.ids[1:], strict=False)):
                _refuse(collection, "its ids are not in order")
            last, rows, without = page.ids[-1], rows + len(page.ids), without + int((~page.has_vector).sum())
            yield page
        if (rows, without) != (collection.rows, collection.without_vector):
            _refuse(collection, f"it holds {rows:,} rows, {without:,} of them without a vector")


def _fill(folder: Path, part: PortableCollection, store: Store, on_rows: Callable[[int], object]) -> Loaded:
    name = _name_beside("loading", part.name)
    store.drop(name)
    store.create(name, part.definition)
    lacking: list[str] = []
    done = skipped = 0
    for page in read_pages(folder, part):
        rows, unfit = _rows(page)
        store.upsert(name, rows)
        done, skipped = done + len(rows.ids), skipped + len(unfit)
        lacking += unfit[: NAMED - len(lacking)]
        on_rows(len(page.ids))
    return Loaded(part.name, done, skipped, tuple(lacking))


def _swap(store: Store, name: str) -> None:
    old = _name_beside("replaced", name)
    if name in store.pipelines():
        store.rename(name, old)
    store.rename(_name_beside("loading", name), name)
    store.drop(old)


def _undo_swap(store: Store, name: str) -> None:
    """After a kill in a swap: the old collection takes its name again, or goes if the new one has it."""
    old, there = _name_beside("replaced", name), store.pipelines()
    if old in there and name not in there:
        store.rename(old, name)
    store.drop(old)


def _name_beside(word: str, name: str) -> str:
    return f"vectorkeep-{word}-{blake2b(name.encode(), digest_size=8).hexdigest()}"


def _rows(page: Page) -> tuple[Rows, list[str]]:
    """What Chroma takes of a page, and the ids of the rest: it refuses vectors that are not finite."""
    import numpy as np

    assert page.vectors is not None
    good = page.has_vector & np.isfinite(page.vectors).all(axis=1)
    skipped = [page.ids[row] for row in np.flatnonzero(~good)]
    kept = range(len(page.ids)) if not skipped else [int(row) for row in np.flatnonzero(good)]
    metadatas = [page.metadatas[row] for row in kept]
    uris = [metadata.pop(URI_KEY, None) for metadata in metadatas]
    rows = Rows(
        [page.ids[row] for row in kept],
        page.vectors[good] if skipped else page.vectors,
        [page.documents[row] for row in kept],
        [metadata or None for metadata in metadatas],
        uris if any(uris) else None,
    )
    return rows, skipped


def _open(folder: Path, collection: PortableCollection) -> pq.ParquetFile:
    """Open a file and see that it has the columns and the rows that the facts say."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(folder / collection.file, page_checksum_verification=True, pre_buffer=False)
    except Exception as error:  # Arrow raises its own errors, OSError, ValueError or MemoryError, as the damage goes
        _refuse(collection, error)
    if why := _difference(file, collection):
        file.close()
        _refuse(collection, why)
    return file


def _difference(file: pq.ParquetFile, collection: PortableCollection) -> str:
    facts = file.metadata
    groups = [facts.row_group(n).num_rows for n in range(facts.num_row_groups)]
    if not file.schema_arrow.equals(schema(collection.dimension)):
        return "it has other columns"
    if facts.num_rows != collection.rows or sum(groups) != collection.rows:
        return f"it holds {facts.num_rows:,} rows"
    return "its row groups are too large" if max(groups, default=0) > page_rows(collection.dimension) else ""


def _next(batches: Iterator[pa.RecordBatch], collection: PortableCollection) -> Page | None:
    try:
        batch = next(batches, None)
        return None if batch is None else _page(batch, collection.dimension or 0)
    except BadBackup:
        raise
    except Exception as error:  # see `_open`
        _refuse(collection, error)


def _page(batch: pa.RecordBatch, dimension: int) -> Page:
    import numpy as np

    batch.validate(full=True)
    ids, documents, metadatas = (batch.column(name).to_pylist() for name in ("id", "document", "metadata"))
    column = batch.column("vector")
    values = column.flatten()  # of the vectors that are there
    if None in ids or values.null_count:
        raise ValueError("an id or a part of a vector is null")
    has = np.array(column.is_valid().to_pylist(), np.bool_)  # not by `to_numpy`, which imports pandas
    vectors = np.zeros((len(ids), dimension), np.float32)
    vectors[has] = np.frombuffer(values.buffers()[1], "<f4", len(values), 4 * values.offset).reshape(-1, dimension)
    return Page(ids, documents, [_metadata(text) for text in metadatas], vectors, has)


def _metadata(text: str | None) -> dict[str, Any]:
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise ValueError("metadata are no object")
    for value in found.values():
        if not all(isinstance(part, _VALUES) for part in (value if isinstance(value, list) else [value])):
            raise ValueError(f"metadata hold {value!r}")
    return found


def _refuse(collection: PortableCollection, why: object) -> NoReturn:
    raise BadBackup(
        f"{collection.file} of the collection {collection.name!r} is damaged: {why}", "use another backup"
    ) from (why if isinstance(why, BaseException) else None)
