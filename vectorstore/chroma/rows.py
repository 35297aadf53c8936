"""Rows of a store as a check sees them, and the two ways to read them: from the files, or through Chroma."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectorstore.chroma.definition import Definition
    from vectorstore.chroma.vector_facts import VectorFacts

PAGE = 2_000  # rows; at 1,536 dimensions 12 MB of vectors
METADATA_KEYS = ("doc_key", "chunk", "heading", "tokens")  # of our own rows, in the order of the ledger's checksum


class Page(NamedTuple):
    """Some rows of one collection; all fields are of one length, in the same order."""

    ids: list[str]
    documents: list[str | None]
    metadatas: list[dict[str, Any]]
    vectors: NDArray[np.float32] | None
    """Shape ``(len(ids), dimension)``; rows without a vector are zero. ``None``: vectors can't be read."""
    has_vector: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection as the store describes it.

    Attributes:
        id: the segment or collection id that the reader asks by.
        pipeline: what made its vectors; ``None`` where Vectorkeep did not make it.
        dimension: floats a vector, ``None`` before the first write.
        space: ``ip``, ``cosine``, ``l2``, or ``None`` where that is not known.
        count: ids that it holds.
    """

    id: str
    name: str
    pipeline: str | None
    dimension: int | None
    space: str | None
    count: int


class RowReader(Protocol):
    """Reads a store without changing it."""

    way: str
    """``files`` or ``api``."""

    def collections(self) -> list[StoredCollection]:
        """All collections, by name."""

    def definition(self, collection: StoredCollection) -> Definition:
        """What it takes to make a collection anew."""

    def ids(self, collection: StoredCollection) -> Iterator[list[str]]:
        """Every id, in pages."""

    def ids_as_written(self, collection: StoredCollection) -> list[str]:
        """Every id, all at once, in the order in which the store took them in."""

    def present(self, collection: StoredCollection, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` the collection holds."""

    def read(self, collection: StoredCollection, ids: Sequence[str], *, vectors: bool = True) -> Page:
        """The rows of these ids, at most ``PAGE``; ids that are not there are left out.

        In the order of ``ids_as_written`` if ``ids`` are.
        """

    def examine(self, collection: StoredCollection, ids: Sequence[str]) -> tuple[Page, VectorFacts | None]:
        """The rows of these ids, maybe without their vectors, and the facts of these; ``None``: they can't be read."""

    def slots(self, collection: StoredCollection) -> int | None:
        """Places in the index, dead ones too; ``None`` where that can't be seen."""

    def close(self) -> None:
        """Let go of the store."""
