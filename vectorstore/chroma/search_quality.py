"""What a collection's index answers: do vectors find themselves, and their true neighbours?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vectorstore.chroma import hnsw
from vectorstore.chroma.graph_search import DELETED, EF_SEARCH, Candidate, Graph, Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUERIES, NEIGHBOURS = 20, 10
_TOLERANCE = 1e-6  # relative: ties are no misses
_SPARE = 16  # candidates beyond k that are looked at closely, because float32 may have ranked them wrongly
_MANY = 256  # vectors: below it "near" says little; and as many tell where the middle is
# OpenBLAS wakes its threads for products of more multiplications than this. They would win little time on rows that
# come from memory, and burn CPU while they wait for one another.
_ONE_THREAD = 1 << 18


class Probe(NamedTuple):
    """One stored vector, used as a query."""

    label: int
    self_found: bool | None
    """Whether the first k results hold it, or another vector that is the same. None: an exact search would not give
    it either, as can happen under "ip" to vectors whose length is not 1."""
    right: int
    """How many of the first k results are as near as the true k-th neighbour."""
    due: int
    """How many there could be: k, or the live vectors if these are fewer."""
    links_near: int
    """How many of its links on level 0 lead to one of the nearer half of all vectors."""
    links: int
    """How many links on level 0 it has; 0 in an index so small that it links to a good part of all."""
    stranded: bool
    """Whether the search ran out of links before it had half the vectors that it has room for."""


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """Figures of a sample of queries, to be judged as count of total.

    Recall, and to a degree the self-query, falls with the data too: vectors of random numbers in many dimensions have
    no neighbours to speak of, and a sound index of 100,000 finds a tenth of them. Links tell damage apart from that:
    in a sound index nearly all are near, whatever the data; when they lead anywhere, half of them are. Where links
    are lost, those that are left can still be near, but searches end stranded.
    """

    probes: tuple[Probe, ...]

    @property
    def self_found(self) -> int:
        """Vectors that find themselves."""
        return sum(probe.self_found is True for probe in self.probes)

    @property
    def self_total(self) -> int:
        """Vectors that ought to."""
        return sum(probe.self_found is not None for probe in self.probes)

    @property
    def recall_found(self) -> int:
        """True neighbours found, over all queries."""
        return sum(probe.right for probe in self.probes)

    @property
    def recall_total(self) -> int:
        """True neighbours, over all queries; ``recall_found / recall_total`` is the recall@k."""
        return sum(probe.due for probe in self.probes)

    @property
    def links_near(self) -> int:
        """Links of the sampled vectors that lead to near ones."""
        return sum(probe.links_near for probe in self.probes)

    @property
    def links_total(self) -> int:
        """Links of the sampled vectors; 0 for a small index."""
        return sum(probe.links for probe in self.probes)

    @property
    def stranded(self) -> int:
        """Searches that ran out of links, of ``len(probes)``."""
        return sum(probe.stranded for probe in self.probes)


def measure(
    folder: Path,
    header: hnsw.Header,
    space: Space,
    *,
    ef_search: int = EF_SEARCH,
    queries: int = QUERIES,
    k: int = NEIGHBOURS,
    seed: int = 0,
) -> SearchQuality:
    """Ask the index for a sample of its own vectors and hold the answers against exact search.

    Vectors that are not in the index yet, because they are still in Chroma's queue, are out of scope: they are
    neither asked for nor counted as neighbours; what the queue will overwrite or delete counts as it lies there.

    The file is read once. Memory: ``4 * queries + 1`` bytes a slot, and some MB.

    Args:
        folder, header, space, ef_search: as for ``Graph``.
        queries: live vectors to ask for; all of them if there are fewer.
        k: results a query.
        seed: another one draws another sample.

    Raises:
        TornFileError: a file can't be what Chroma wrote.
    """
    with Graph(folder, header, space, ef_search=ef_search) as graph:
        measurement = Measurement(graph, queries=queries, k=k, seed=seed)
        for first, block in hnsw.read_slots(folder, header) if measurement.slots else ():
            measurement.add(first, block)
        return measurement.result()


class Measurement:
    """``measure`` for a caller that reads the slots anyway: ``add`` every block, then take the ``result``."""

    def __init__(self, graph: Graph, *, queries: int = QUERIES, k: int = NEIGHBOURS, seed: int = 0) -> None:
        import numpy as np

        self._graph, self._k = graph, k
        self.slots = _draw_live(graph, queries, seed)
        """The slots whose vectors are the queries."""
        vectors = graph.read(self.slots)["vector"]
        self._queries = np.array([graph.as_query(vector) for vector in vectors], np.float32).reshape(vectors.shape)
        self._live = np.zeros(graph.header.slots, np.bool_)
        self._distances = np.zeros((graph.header.slots, len(self.slots)), np.float32)

    def add(self, first: int, block: NDArray[np.void]) -> None:
        """Take in the slots from number ``first`` on, an array as ``hnsw.read_slots`` gives them."""
        import numpy as np

        vectors, queries = block["vector"], self._queries
        distances = self._distances[first : first + len(block)]
        self._live[first : first + len(block)] = block["mark"] & DELETED == 0
        with np.errstate(over="ignore", invalid="ignore"):
            _multiply(vectors, queries, distances)
            if self._graph.space == "l2":
                distances *= -2
                distances += np.einsum("ij,ij->i", vectors, vectors)[:, None]
                distances += np.einsum("ij,ij->i", queries, queries)
            else:
                np.subtract(1, distances, out=distances)

    def result(self) -> SearchQuality:
        """The figures, once all blocks are in."""
        return SearchQuality(tuple(self._probe(number) for number in range(len(self.slots))))

    def _probe(self, number: int) -> Probe:
        import numpy as np

        graph, slot, query = self._graph, self.slots[number], self._queries[number]
        distances = np.ascontiguousarray(self._distances[:, number])

        def look(slots: Sequence[int]) -> tuple[list[float], list[bool]]:
            index = np.array(slots)
            return distances[index].tolist(), self._live[index].tolist()

        ef = max(graph.ef_search, self._k)
        walked = graph.find(look, ef)
        found = self._rank(query, [candidate.slot for candidate in walked[: self._k + _SPARE]])
        exact = self._rank(query, self._nearest(distances, walked))
        limit = exact[-1].distance if exact else -math.inf
        links = np.array(graph.links(slot) if len(distances) >= _MANY else [], np.int64)
        middle = np.median(distances[:: 1 + len(distances) // _MANY])
        scale = abs(limit) if graph.space == "l2" else max(1.0, abs(limit))
        return Probe(
            label=int(graph.read([slot])["label"][0]),
            self_found=True if self._holds(found, slot) else False if self._holds(exact, slot) else None,
            right=sum(candidate.distance <= limit + _TOLERANCE * scale for candidate in found),
            due=len(exact),
            links_near=int((distances[links] <= middle).sum()),
            links=len(links),
            stranded=2 * len(walked) < min(ef, int(self._live.sum())),
        )

    def _nearest(self, distances: NDArray[np.float32], walked: list[Candidate]) -> list[int]:
        """The live slots that may be among the k nearest, by their distances in float32."""
        import numpy as np

        # None of the k nearest is farther than the k-th that the search has found.
        bound = walked[self._k - 1].distance if len(walked) >= self._k else math.inf
        # The rounding of a sum goes with its terms, of which a vector's own square has the largest.
        slack = _TOLERANCE * max(1.0, float(np.einsum("ij,ij->i", self._queries, self._queries).max()))
        near = np.flatnonzero((distances <= bound + slack) & self._live)
        if len(near) > self._k + _SPARE:
            near = near[np.argpartition(distances[near], self._k + _SPARE)[: self._k + _SPARE]]
        return near.tolist()

    def _rank(self, query: NDArray[np.float32], slots: list[int]) -> list[Candidate]:
        """The k nearest of a few slots, by their distances in float64."""
        import numpy as np

        vectors, target = self._graph.read(slots)["vector"].astype(np.float64), query.astype(np.float64)
        distances = ((vectors - target) ** 2).sum(axis=1) if self._graph.space == "l2" else 1 - vectors @ target
        return sorted(map(Candidate, distances.tolist(), slots))[: self._k]

    def _holds(self, candidates: list[Candidate], slot: int) -> bool:
        """Whether the slot is there, or another one with the same vector."""
        own, *others = self._graph.read([slot, *(candidate.slot for candidate in candidates)])["vector"]
        return any((vector == own).all() for vector in others)


def _multiply(vectors: NDArray[np.float32], queries: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Every dot product of a vector and a query, shape (vectors, queries), on one thread."""
    import numpy as np

    rows = max(1, _ONE_THREAD // max(1, queries.size))
    whole = len(vectors) // rows * rows
    stacks = vectors[:whole].reshape(-1, rows, vectors.shape[1])
    np.matmul(stacks, queries.T, out=out[:whole].reshape(-1, rows, len(queries)))
    np.matmul(vectors[whole:], queries.T, out=out[whole:])


def _draw_live(graph: Graph, count: int, seed: int) -> list[int]:
    """Slots of a random sample without repetition, or all live ones if these are fewer."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(graph.header.slots)
    drawn: list[int] = []
    for first in range(0, len(order), 2 * count):
        part = order[first : first + 2 * count]
        drawn.extend(part[graph.read(part.tolist())["mark"] & DELETED == 0].tolist())
        if len(drawn) >= count:
            break
    return drawn[:count]
