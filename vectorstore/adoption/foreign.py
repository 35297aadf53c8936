"""The rows of a Chroma store that somebody else may have made: texts, metadata and vectors, a page at a time.

An embedded store is read by its files, which changes nothing and is much quicker than Chroma's ``get``; a server, or a
store whose layout is not known, through Chroma.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.api_rows import ApiRows
from vectorstore.chroma.audit import DamageKind, audit
from vectorstore.chroma.file_rows import FileRows
from vectorstore.chroma.rows import PAGE, Page, RowReader, StoredCollection
from vectorstore.chroma.store import Store
from vectorstore.errors import ConfigurationError, Damaged
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Rows without a sound vector are left out one by one; anything else may give a row another row's vector.
_HARMLESS = {
    DamageKind.UNFINISHED_TRANSACTION, DamageKind.INDEX_MISSING, DamageKind.IDS_MISSING, DamageKind.IDS_LEFT_BEHIND,
    DamageKind.VECTORS_ZERO, DamageKind.VECTORS_NOT_FINITE,
}  # fmt: skip


class ForeignRow(NamedTuple):
    """A row as the store holds it, whoever wrote it; ``vector`` is float32 of shape ``(dimension,)``."""

    id: str
    document: str | None
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32]


def open_rows(settings: Settings, open_store: Callable[[], Store] | None) -> ForeignRows:
    """The rows of the store that the settings name.

    Args:
        open_store: opens an embedded store with Chroma, which changes it; ``None``: that is not allowed.

    Raises:
        ConfigurationError: there is no store, or it can't be read without Chroma and that is not allowed.
        StoreUnreachable: a server that does not answer.
    """
    if settings.chroma_url:
        return ForeignRows(ApiRows(Store(settings)))
    store = settings.path(settings.chroma_path)
    if not files.sqlite_path(store).is_file():
        raise ConfigurationError(f"there is no store at {store}", "set `chroma_path` to the folder with chroma.sqlite3")
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(files.open_snapshot(store))
        if files.read_layout(db).known:
            return ForeignRows(FileRows(store, db), store, stack.pop_all())
    if open_store is None:
        raise ConfigurationError(
            f"the store {store} was made by another version of Chroma: it can't be looked at without opening it with"
            " Chroma, which brings it up to date",
            "copy the folder, then run without --dry-run",
        )
    return ForeignRows(ApiRows(open_store()))


class ForeignRows:
    """Those rows of a store that have a vector; changes nothing of them.

    Args:
        store: the folder, where its files are read.
        stack: what to close besides the reader.
    """

    def __init__(self, reader: RowReader, store: Path | None = None, stack: contextlib.ExitStack | None = None) -> None:
        self._reader, self._store, self._stack = reader, store, stack or contextlib.ExitStack()
        self._stack.callback(reader.close)

    def collections(self) -> list[StoredCollection]:
        """All collections, by name."""
        return self._reader.collections()

    def check(self, names: Iterable[str]) -> None:
        """See that the rows of these collections can be told from one another's vectors.

        What a server does with its files is its own matter.

        Raises:
            Damaged: they can't.
        """
        for damage in audit(self._store, list(names)) if self._store else ():
            if damage.kind not in _HARMLESS:
                raise _damaged(damage.collection or str(self._store), damage.detail)

    def pages(self, collection: StoredCollection, every: int = 1) -> Iterator[list[ForeignRow]]:
        """The rows, or every so manieth of them, ``rows.PAGE`` at most at a time, as they were written.

        Raises:
            Damaged: they can't be read.
        """
        try:
            ids = self._reader.ids_as_written(collection)[::every]
            for start in range(0, len(ids), PAGE):
                yield _with_vector(self._reader.read(collection, ids[start : start + PAGE]))
        except hnsw.TornFileError as error:
            raise _damaged(collection.name, str(error)) from error

    def close(self) -> None:
        """Let go of the store."""
        self._stack.close()


def _with_vector(page: Page) -> list[ForeignRow]:
    if page.vectors is None:
        return []
    columns = zip(page.ids, page.documents, page.metadatas, page.vectors, page.has_vector.tolist(), strict=True)
    return [ForeignRow(id_, text, metadata, vector) for id_, text, metadata, vector, has in columns if has]


def _damaged(name: str, detail: str) -> Damaged:
    return Damaged(
        f"{name!r} is damaged, so its vectors may be another row's: {detail}",
        "restore it from a backup; or leave it out: name the other collections with --collection",
    )
