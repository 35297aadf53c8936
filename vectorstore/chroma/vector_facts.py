"""What checks need of vectors, in a few bytes each: so that a large index is read once, and not kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class VectorFacts(NamedTuple):
    """Facts of some rows' vectors; all fields of shape ``(rows,)``, in the order of the rows."""

    there: NDArray[np.bool_]
    """Which rows have a vector; the other fields mean nothing for a row without."""
    squares: NDArray[np.float32]
    """See ``squared_lengths``."""
    digests: NDArray[np.uint64]
    """See ``digests_of``."""


class SlotFacts:
    """Facts of an index's vectors by slot, taken in block by block: 8 bytes a slot, 20 with those of vectors.

    Args:
        slots: how many the index has.
        vectors: whether to keep more than the labels.
        ids: the labels by id, where they are kept.

    Attributes:
        labels: of every slot.
        squares, digests: see ``VectorFacts``; empty without ``vectors``.
    """

    def __init__(self, slots: int, *, vectors: bool, ids: Mapping[str, int] | None = None) -> None:
        import numpy as np

        self.ids = ids
        self.labels = np.zeros(slots, np.uint64)
        self.squares = np.zeros(slots if vectors else 0, np.float32)
        self.digests = np.zeros(slots if vectors else 0, np.uint64)

    def add(self, first: int, block: NDArray[np.void], squares: NDArray[np.float32]) -> None:
        """Take in the slots from number ``first`` on, with the squared lengths of their vectors."""
        part = slice(first, first + len(block))
        self.labels[part] = block["label"]
        if len(self.digests):
            self.squares[part], self.digests[part] = squares, digests_of(block["vector"])


def facts_of(vectors: NDArray[np.float32], there: NDArray[np.bool_]) -> VectorFacts:
    """The facts of vectors, shape ``(rows, dimension)``, that are at hand."""
    return VectorFacts(there, squared_lengths(vectors), digests_of(vectors))


def squared_lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of squares, shape ``(rows,)``: NaN only for a vector that holds NaN or infinity, 0 only for one of zeros.

    The sum of a sound vector can overflow, which gives infinity, or underflow, which gives the least number above 0.
    """
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors)
    odd = np.flatnonzero(~np.isfinite(squares))
    squares[odd] = np.where(np.isfinite(vectors[odd]).all(axis=1), np.inf, np.nan)
    none = np.flatnonzero(squares == 0)
    squares[none] = np.where(vectors[none].any(axis=1), np.finfo(np.float32).tiny, 0)
    return squares


def digests_of(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits of every vector, shape ``(rows,)``: above, its CRC-32 as the ledger keeps it; below, its first float."""
    import numpy as np
    from isal.isal_zlib import crc32  # what zlib gives, at seven times its speed

    crcs = np.fromiter(map(crc32, vectors), np.uint64, len(vectors))
    digests: NDArray[np.uint64] = crcs << np.uint64(32) | np.ascontiguousarray(vectors[:, 0]).view(np.uint32)
    return digests
