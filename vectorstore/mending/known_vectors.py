"""Vectors that the ledger knows, by chunk id: from the cache, and only where their checksum is the ledger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.cache import VectorCache, vector_crc
from vectorstore.errors import Damaged
from vectorstore.ledger import ChunkRecord, Generation, Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def record_of(ledger: Ledger, generation: Generation, collection: str, id_: str) -> ChunkRecord | None:
    """What the ledger keeps of a chunk that it has in this collection."""
    doc_key, _, number = id_.rpartition("#")
    row = ledger.document(generation.id, doc_key)
    known = row is not None and row.collection == collection and number.isdecimal()
    return row.chunks[int(number)] if row and known and int(number) < len(row.chunks) else None


class KnownVectors:
    """Looks vectors up for every collection of the ledger, whichever generation it belongs to.

    Args:
        path: the cache's file.
        open: caches that are open already, by their embedding; others are opened to be read, and closed.
    """

    def __init__(self, ledger: Ledger, path: Path, open: Mapping[str, VectorCache] | None = None) -> None:
        self._ledger, self._path, self._lent = ledger, path, dict(open or {})
        self._own: dict[str, VectorCache | None] = {}
        self._generations = ledger.generations_by_collection()

    def generation(self, collection: str) -> Generation | None:
        """The generation that a collection belongs to."""
        return self._generations.get(collection)

    @staticmethod
    def doc_key(id_: str) -> str:
        """The document of a chunk id."""
        return id_.rpartition("#")[0]

    def vectors(self, collection: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """The cache's vectors of those ids whose checksum is the ledger's."""
        records = {id_: record for id_ in ids if (record := self._record(collection, id_))}
        cache = self._cache(collection)
        if not records or cache is None:
            return {}
        cached = cache.get_many([record.hash for record in records.values()])
        return {
            id_: vector
            for id_, record in records.items()
            if (vector := cached.get(record.hash)) is not None and vector_crc(vector) == record.vector_crc
        }

    def checksum(self, collection: str, id_: str) -> int | None:
        """The CRC-32 of an id's vector."""
        record = self._record(collection, id_)
        return record.vector_crc if record else None

    def chunks(self, collection: str, doc_key: str) -> int:
        """How many chunks a document has."""
        generation = self.generation(collection)
        row = self._ledger.document(generation.id, doc_key) if generation else None
        return len(row.chunks) if row else 0

    def knows(self, collection: str, doc_key: str) -> bool:
        """Whether the ledger has a document there."""
        generation = self.generation(collection)
        row = self._ledger.document(generation.id, doc_key) if generation else None
        return row is not None and row.collection == collection

    def close(self) -> None:
        """Close the caches that were opened here."""
        for cache in self._own.values():
            if cache is not None:
                cache.close()

    def _record(self, collection: str, id_: str) -> ChunkRecord | None:
        generation = self.generation(collection)
        return record_of(self._ledger, generation, collection, id_) if generation else None

    def _cache(self, collection: str) -> VectorCache | None:
        generation = self.generation(collection)
        if generation is None:
            return None
        embedding = generation.pipeline.rpartition("/")[0]
        if embedding in self._lent:
            return self._lent[embedding]
        if embedding not in self._own:
            self._own[embedding] = self._opened(embedding)
        return self._own[embedding]

    def _opened(self, embedding: str) -> VectorCache | None:
        if not self._path.exists():
            return None
        try:
            return VectorCache(self._path, embedding, int(embedding.rpartition("/")[2]), readonly=True)
        except Damaged:
            return None  # an update saves what can be read of it
