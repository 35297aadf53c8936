"""What later checks need of an index's slots, gathered while the audit reads them: a large file is read once."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.graph_search import EF_SEARCH, SPACES, Graph
from vectorstore.chroma.search_quality import Measurement, SearchQuality
from vectorstore.chroma.vector_facts import SlotFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEPT_IDS = 200_000  # over all collections: so many id maps need not be read again; some 40 MB


class SlotPass:
    """An ``audit.SlotWatcher``; call ``end`` after the audit.

    Args:
        vectors: whether the facts of every vector are kept, or labels only.
        queries: how many of its own vectors every index is asked for; 0: none.
        seed: which ones.

    Attributes:
        facts: by collection id.
        quality: what search answers, by collection id, where that could be measured.
    """

    def __init__(self, *, vectors: bool, queries: int, seed: int) -> None:
        self.facts: dict[str, SlotFacts] = {}
        self.quality: dict[str, SearchQuality] = {}
        self._vectors, self._queries, self._seed = vectors, queries, seed
        self._id, self._room = "", KEPT_IDS
        self._graph: Graph | None = None
        self._measurement: Measurement | None = None

    def begin(self, collection: files.StoredCollection, folder: Path, header: hnsw.Header, id_map: hnsw.IdMap) -> None:
        """The slots of a collection come next."""
        self.end()
        self._id, ids = collection.id, None
        if len(id_map.labels) <= self._room:
            self._room, ids = self._room - len(id_map.labels), id_map.labels
        self.facts[self._id] = SlotFacts(header.slots, vectors=self._vectors, ids=ids)
        if self._queries and collection.vector_seq and collection.space in SPACES:
            breadth = collection.ef_search or EF_SEARCH
            with suppress(hnsw.TornFileError):  # the audit says it
                self._graph = Graph(folder, header, collection.space, ef_search=breadth)
                self._measurement = Measurement(self._graph, queries=self._queries, seed=self._seed)

    def add(self, first: int, block: NDArray[np.void], squares: NDArray[np.float32]) -> None:
        """Take in a block of slots."""
        self.facts[self._id].add(first, block, squares)
        if self._measurement:
            self._measurement.add(first, block)

    def end(self) -> None:
        """Work out what can only be known at the end, and close the files."""
        with self._graph or nullcontext(), suppress(hnsw.TornFileError):
            if self._measurement:
                self.quality[self._id] = self._measurement.result()
        self._graph = self._measurement = None
