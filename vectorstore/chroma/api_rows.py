"""Reads a store's rows through Chroma: for a server, and for copies of stores whose layout is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vectorstore.chroma.definition import Definition
from vectorstore.chroma.rows import Page, StoredCollection
from vectorstore.chroma.store import Store
from vectorstore.chroma.vector_facts import VectorFacts, facts_of

_ID_PAGE = 2_000


class ApiRows:
    """A ``RowReader`` over an open store. Ids are listed first and rows are asked for by id: a page by offset would
    skip rows beside a writer."""

    way = "api"

    def __init__(self, store: Store) -> None:
        self._store = store

    def collections(self) -> list[StoredCollection]:
        """All collections, by name."""
        return self._store.describe()

    def definition(self, collection: StoredCollection) -> Definition:
        """What it takes to make a collection anew."""
        return self._store.definition(collection.name)

    def ids(self, collection: StoredCollection) -> Iterator[list[str]]:
        """Every id, in pages."""
        page: list[str] = []
        for id_ in self._store.ids(collection.name):
            page.append(id_)
            if len(page) == _ID_PAGE:
                yield page
                page = []
        if page:
            yield page

    def ids_as_written(self, collection: StoredCollection) -> list[str]:
        """Every id; Chroma lists them in this order."""
        return list(self._store.ids(collection.name))

    def present(self, collection: StoredCollection, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` the collection holds."""
        return self._store.present(collection.name, ids)

    def read(self, collection: StoredCollection, ids: Sequence[str], *, vectors: bool = True) -> Page:
        """The rows of these ids."""
        return self._store.read(collection.name, ids, vectors=vectors and bool(collection.dimension))

    def examine(self, collection: StoredCollection, ids: Sequence[str]) -> tuple[Page, VectorFacts | None]:
        """The rows of these ids, and the facts of their vectors."""
        page = self.read(collection, ids)
        return page, None if page.vectors is None else facts_of(page.vectors, page.has_vector)

    def slots(self, collection: StoredCollection) -> int | None:
        """Not to be seen through Chroma."""
        return None

    def close(self) -> None:
        """Close the store."""
        self._store.close()
