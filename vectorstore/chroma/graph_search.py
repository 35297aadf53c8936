"""Search a collection's vector index straight from its files, as Chroma does, without Chroma.

The index is hnswlib's: a graph of slots. A query goes greedily down the upper levels and then best-first over
level 0. Nothing is written, and no more than the links of the upper levels stays in memory.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from heapq import heappop, heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from vectorstore.chroma import hnsw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

EF_SEARCH = 100
"""Chroma's default breadth of a search."""
DELETED = 1
"""The bit of a slot's mark that says so."""

Space = Literal["ip", "cosine", "l2"]
SPACES: tuple[Space, ...] = get_args(Space)
Look = Callable[[Sequence[int]], tuple[list[float], list[bool]]]
"""Slots -> their distances to the query at hand, and whether they are live."""

# Chroma compares with every live vector when these are fewer, and more than a fifth of the slots are deleted.
_FEW = 100
_SLOTS, _UPPER, _IDS = "data_level0.bin", "link_lists.bin", "index_metadata.pickle"


class Candidate(NamedTuple):
    """A slot and its distance to the query."""

    distance: float
    slot: int


class Graph:
    """The index in a segment folder, open for reading; a context manager that closes it.

    It holds the vectors that Chroma has persisted; those that are still in Chroma's queue are not there, and what
    the queue deletes still is. Distances are Chroma's: ``1 - dot`` for "ip", the same of normalised vectors for
    "cosine", the squared Euclidean one for "l2".

    Args:
        folder: the segment's folder. Writers must be kept away.
        header: of that folder, from ``hnsw.read_header``.
        space: the collection's.
        ef_search: the collection's breadth of a search.
        id_map: the folder's, if the caller has read it; else it is read when ids are asked for.

    Raises:
        TornFileError: from here and every method, when a file can't be what Chroma wrote.
    """

    def __init__(
        self,
        folder: Path,
        header: hnsw.Header,
        space: Space,
        *,
        ef_search: int = EF_SEARCH,
        id_map: hnsw.IdMap | None = None,
    ) -> None:
        self.folder, self.header, self.space, self.ef_search = folder, header, space, ef_search
        self._id_map = id_map
        if hnsw.file_size(folder, _SLOTS) < header.slots * header.slot_size:
            raise hnsw.TornFileError(_SLOTS, f"shorter than its {header.slots} slots")
        self._file = (folder / _SLOTS).open("rb", buffering=0)
        self._dtype = hnsw.slot_dtype(header)
        self._links = struct.Struct(f"<{1 + header.max_links_level0}I")

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def search(self, query: ArrayLike, k: int, ef: int | None = None) -> list[tuple[int, float]]:
        """Labels and distances of the nearest vectors, nearest first, as Chroma would give them.

        Args:
            query: shape (dimension,).
            k: how many; fewer come back when the graph does not lead to as many.
            ef: breadth of this search, never taken below ``k``; by default the collection's.

        Raises:
            ValueError: a query of another shape.
        """
        target = self.as_query(query)

        def look(slots: Sequence[int]) -> tuple[list[float], list[bool]]:
            rows = self.read(slots)
            return self._distances(target, rows["vector"]).tolist(), (rows["mark"] & DELETED == 0).tolist()

        found = self.find(look, max(ef or self.ef_search, k))[:k]
        labels = self.read([candidate.slot for candidate in found])["label"].tolist()
        return [(label, candidate.distance) for label, candidate in zip(labels, found, strict=True)]

    def nearest(self, query: ArrayLike, k: int) -> list[tuple[str, float]]:
        """Like ``search``, with ids in place of labels."""
        found = self.search(query, k)
        try:
            return [(self._ids[label], distance) for label, distance in found]
        except KeyError as error:
            raise hnsw.TornFileError(_IDS, f"label {error} has no id") from None

    def as_query(self, vector: ArrayLike) -> NDArray[np.float32]:
        """A query as its distances need it: float32, normalised where the space asks for that."""
        import numpy as np

        query = np.array(vector, np.float32)
        if query.shape != (self.header.dimension,):
            raise ValueError(f"a query of shape {query.shape}, the index has {self.header.dimension} dimensions")
        if self.space == "cosine":
            query /= np.linalg.norm(query) + np.float32(1e-30)
        return query

    def read(self, slots: Sequence[int]) -> NDArray[np.void]:
        """Copies of some slots, of the type that ``hnsw.slot_dtype`` gives.

        Read, not mapped: with a mapping each slot would bring the 64 KB around it into this process.
        """
        import numpy as np

        return np.frombuffer(b"".join([self._read_slot(slot, self.header.slot_size) for slot in slots]), self._dtype)

    def links(self, slot: int) -> Sequence[int]:
        """The slots that a slot links to on level 0."""
        words = self._links.unpack(self._read_slot(slot, self._links.size))
        return self._checked(_SLOTS, slot, words, self.header.max_links_level0)

    def find(self, look: Look, ef: int) -> list[Candidate]:
        """The ``ef`` nearest live slots that a search comes to, nearest first."""
        if not self.header.slots:
            return []
        if self._few is not None:
            return sorted(map(Candidate, look(self._few)[0], self._few))[:ef]
        return self._spread(self._descend(look), look, ef)

    def _read_slot(self, slot: int, size: int) -> bytes:
        """The first bytes of a slot."""
        raw = os.pread(self._file.fileno(), size, slot * self.header.slot_size)
        if len(raw) != size:
            raise hnsw.TornFileError(_SLOTS, "became shorter while it was read")
        return raw

    def _distances(self, query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        distances: NDArray[np.float32]
        with np.errstate(over="ignore", invalid="ignore"):
            if self.space == "l2":
                steps = vectors - query
                distances = np.einsum("ij,ij->i", steps, steps)
            else:
                distances = 1 - np.matmul(vectors, query)
        return distances

    def _descend(self, look: Look) -> int:
        """Greedily from the entry point to level 0; each step is strictly nearer, so it ends."""
        slot = self.header.entry_slot
        here = Candidate(look([slot])[0][0], slot)
        for level in range(self.header.max_level, 0, -1):
            while links := self._upper_links(here.slot, level):
                step = min(map(Candidate, look(links)[0], links))
                if not step.distance < here.distance:
                    break
                here = step
        return here.slot

    def _spread(self, start: int, look: Look, ef: int) -> list[Candidate]:
        """Best-first over level 0. Deleted slots are passed through; each slot is looked at once, so it ends."""
        seen = {start}
        bound = math.inf  # the distance of the farthest in `best`
        best: list[tuple[float, int]] = []  # live ones, negative distances: the farthest on top
        ahead: list[Candidate] = []
        fresh = [start]
        while True:
            for distance, live, slot in zip(*look(fresh), fresh, strict=True):
                if len(best) >= ef and not distance < bound:
                    continue
                heappush(ahead, Candidate(distance, slot))
                if live:
                    (heappushpop if len(best) >= ef else heappush)(best, (-distance, slot))
                    bound = -best[0][0]
            fresh = []
            while not fresh:
                if not ahead or (ahead[0].distance > bound and len(best) >= ef):
                    return sorted(Candidate(-distance, slot) for distance, slot in best)
                fresh = list(set(self.links(heappop(ahead).slot)).difference(seen))
            seen.update(fresh)

    def _upper_links(self, slot: int, level: int) -> Sequence[int]:
        """A slot's links on a level above 0; each leads to a slot that has links there itself."""
        upper, first = self._upper
        if upper.levels[slot] < level:
            raise hnsw.TornFileError(_UPPER, f"slot {slot} is not on level {level} and is reached there")
        return self._checked(_UPPER, slot, upper.lists[first[slot] + level - 1].tolist(), self.header.max_links_upper)

    def _checked(self, file: str, slot: int, words: Sequence[int], most: int) -> Sequence[int]:
        """The links in a list of a count and links."""
        count = words[0] & 0xFFFF  # the rest of the word belongs to the delete mark
        links = words[1 : 1 + count]
        if count > most or (links and max(links) >= self.header.slots):
            raise hnsw.TornFileError(file, f"slot {slot} links to slots that don't exist")
        return links

    @cached_property
    def _upper(self) -> tuple[hnsw.UpperLinks, NDArray[np.int64]]:
        """The links above level 0, and the first row of each slot in them."""
        import numpy as np

        hnsw.file_size(self.folder, _UPPER)
        upper = hnsw.read_upper_links(self.folder, self.header)
        return upper, np.cumsum(upper.levels, dtype=np.int64) - upper.levels

    @cached_property
    def _few(self) -> list[int] | None:
        """The live slots when Chroma compares with all of them; None when it searches the graph."""
        import numpy as np

        live: list[int] = []
        for first, block in hnsw.iter_slots(self.folder, self.header):
            live.extend((first + np.flatnonzero(block["mark"] & DELETED == 0)).tolist())
            if len(live) >= _FEW:
                return None
        return live if 5 * (self.header.slots - len(live)) > self.header.slots else None

    @cached_property
    def _ids(self) -> dict[int, str]:
        id_map = self._id_map or hnsw.read_id_map(self.folder)
        return {label: identifier for identifier, label in id_map.labels.items()} if id_map else {}
