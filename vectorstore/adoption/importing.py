"""Rows of a foreign collection: their vectors into the cache, their texts and what orders them into the spool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vectorstore.adoption.foreign import ForeignRow, ForeignRows
from vectorstore.adoption.llamaindex import START_KEY, embedded_text, read_node
from vectorstore.adoption.proving import unit_vector
from vectorstore.adoption.spool import Spool, SpooledRow
from vectorstore.cache import VectorCache, vector_crc
from vectorstore.chroma.rows import StoredCollection
from vectorstore.reading import chunk_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER_KEYS = ("chunk", "chunk_index", "seq", "start_index", START_KEY, "page")
# Why rows give no vector.
NO_TEXT, NO_VECTOR, NO_DIRECTION = "without text", "without a vector", "the vector is zero or not finite"
PREFIXED, ALTERED = "the vector is of metadata and text", "the vector is not the one that was written"
_COSINE_TOLERANCE = 1e-6  # what Chroma changes in a component when it makes unit length itself

Checksum = Callable[[str, str], int | None]


class Importer:
    """Takes in collections.

    Args:
        cache: where the vectors go; only read if ``dry_run``, then it may be missing.
        document_keys: metadata that may name a row's document.
        order_keys: metadata that may tell its place.
        accept_prefixed: take a vector that LlamaIndex made of metadata and text for one of the text.
        checksum: collection and id -> CRC-32 of a vector that we wrote, ``None`` if it is not known.
        exact: whether the store keeps a unit vector's bits.

    Attributes:
        rows: how many there were.
        unused: why how many of them gave no vector.
        texts_cached: texts whose vector is new in the cache.
        order_keys: by collection, what all its rows have to order them by; "" for nothing.
    """

    def __init__(
        self,
        reader: ForeignRows,
        cache: VectorCache | None,
        spool: Spool,
        *,
        document_keys: Iterable[str],
        order_keys: Iterable[str],
        accept_prefixed: bool,
        checksum: Checksum,
        exact: bool,
        dry_run: bool,
    ) -> None:
        self._reader, self._cache, self._spool, self._dry_run = reader, cache, spool, dry_run
        self._document_keys, self._orders = tuple(document_keys), tuple(order_keys)
        self._accept_prefixed, self._checksum = accept_prefixed, checksum
        self._tolerance = 0.0 if exact else _COSINE_TOLERANCE
        self.rows = self.texts_cached = 0
        self.unused: Counter[str] = Counter()
        self.order_keys: dict[str, str] = {}

    def take(self, collection: StoredCollection, *, own: bool, on_page: Callable[[int], None]) -> None:
        """Take in a collection; ``own`` if we made it for the settings' pipeline. ``on_page`` hears of its rows."""
        with_vector, with_text, numbers = 0, 0, Counter[str]()
        for page in self._reader.pages(collection):
            rows = [row for row in page if (row.document or "").strip()]
            spooled = self._take_page(collection.name, rows, own)
            with_vector, with_text = with_vector + len(page), with_text + len(rows)
            for entry in spooled:
                numbers.update(entry.numbers.keys())
                self.unused[entry.fault] += 1
            on_page(len(page))
        self.rows += collection.count
        self.unused[NO_TEXT] += with_vector - with_text
        self.unused[NO_VECTOR] += max(0, collection.count - with_vector)
        self.unused = +Counter({fault: count for fault, count in self.unused.items() if fault})
        whole = [key for key in self._orders if with_text and numbers[key] == with_text]
        self.order_keys[collection.name] = whole[0] if whole else ""

    def _take_page(self, name: str, rows: list[ForeignRow], own: bool) -> list[SpooledRow]:
        import numpy as np

        hashes = [chunk_hash(row.document or "") for row in rows]
        known = self._cache.get_many(hashes) if self._cache else {}
        fresh: dict[bytes, NDArray[np.float32]] = {}
        spooled = []
        for row, hash_ in zip(rows, hashes, strict=True):
            node = read_node(row.metadata)
            vector, fault = self._vector(name, row, node, own)
            if vector is not None and hash_ not in known:
                known[hash_] = fresh[hash_] = vector
            same = own and vector is not None and bool((abs(vector - known[hash_]) <= self._tolerance).all())
            numbers = self._numbers({START_KEY: node.get(START_KEY), **row.metadata})
            kept = dict(row.metadata) if same else None
            spooled.append(SpooledRow(row.id, row.document or "", hash_, fault, numbers, kept))
        self.texts_cached += len(fresh.keys() - self._spool.known(list(fresh)))
        if fresh and self._cache and not self._dry_run:
            self._cache.put_many(list(fresh), np.stack(list(fresh.values())))
        self._spool.add(name, spooled, (row.metadata for row in rows), self._document_keys)
        return spooled

    def _vector(
        self, name: str, row: ForeignRow, node: Mapping[str, Any], own: bool
    ) -> tuple[NDArray[np.float32] | None, str]:
        """A row's vector, or why it can't be taken."""
        vector = unit_vector(row.vector)
        if vector is None:
            return None, NO_DIRECTION
        text = row.document or ""
        if not self._accept_prefixed and embedded_text(node, text) != text:
            return None, PREFIXED
        if own and not self._tolerance and self._checksum(name, row.id) not in (None, vector_crc(vector)):
            return None, ALTERED
        return vector, ""

    def _numbers(self, metadata: Mapping[str, Any]) -> dict[str, float]:
        found = {}
        for key in self._orders:
            value = metadata.get(key)
            if (isinstance(value, int | float) and not isinstance(value, bool)) or (
                isinstance(value, str) and value.isdecimal()
            ):
                found[key] = float(value)
        return found
