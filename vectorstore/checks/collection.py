"""One pass over one collection: which ids it holds beside the ledger, and what is wrong with its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from vectorstore.checks.faults import Faults
from vectorstore.checks.row import Expected, check_page, hash_texts, norm_histogram
from vectorstore.chroma.rows import PAGE, Page, RowReader, StoredCollection
from vectorstore.chroma.vector_facts import VectorFacts
from vectorstore.ledger import Generation, Ledger, count_packed, unpack_chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Known = tuple[Ledger, Generation]
_DIGITS = 12  # of a chunk's number at most
Place = tuple[bytes, int]
"""The chunks of a document as the ledger packs them, and which of them."""


class CollectionPass:
    """Checks one collection.

    Args:
        known: the ledger and the generation that the collection belongs to; ``None`` where there is none.
        ledger_chunks: how many chunks it should hold by the ledger.
        faults: takes the ids at fault.

    Attributes:
        stored: ids that it holds.
        checked: rows that were looked at.
        norms: see ``row.norm_histogram``.
    """

    def __init__(
        self,
        reader: RowReader,
        collection: StoredCollection,
        known: Known | None,
        ledger_chunks: int,
        faults: Faults,
    ) -> None:
        self._reader, self._collection, self._known = reader, collection, known
        self._ledger_chunks, self._faults = ledger_chunks, faults
        self._exact = collection.space != "cosine"
        self._texts: list[NDArray[np.uint64]] = []
        self._vectors: list[NDArray[np.uint64]] = []
        self._ids: list[str] = []  # of a collection whose vectors have no checksums, to name its duplicates
        self.stored = 0
        self.checked = 0
        self.norms: Counter[str] = Counter()

    def run(self, chosen: Callable[[str], bool] | None, *, rows: bool, duplicates: bool) -> None:
        """Go through the ids, and through the rows of those that are ``chosen`` (``None``: all).

        Args:
            rows: whether to look at rows at all.
            duplicates: whether all rows are looked at, so that they can be held against each other.
        """
        accounted = 0
        for page in self._reader.ids(self._collection):
            self.stored += len(page)
            places = self._check_ids(page)
            accounted += len(places)
            if rows:
                some = page if chosen is None else [id_ for id_ in page if chosen(id_)]
                for start in range(0, len(some), PAGE):
                    self._check_rows(some[start : start + PAGE], places, duplicates=duplicates)
        if self._known and accounted != self._ledger_chunks:
            self._name_missing()
        if duplicates:
            self._check_duplicates()

    def _check_ids(self, ids: Sequence[str]) -> dict[str, Place]:
        """Those of ``ids`` that are chunks that the ledger has here; the others are faults."""
        if self._known is None:
            return {}
        ledger, generation = self._known
        name, split = self._collection.name, [id_.rpartition("#") for id_ in ids]
        documents = ledger.packed_chunks(generation.id, list({key: None for key, _, _ in split}))
        places: dict[str, Place] = {}
        strangers, elsewhere = [], []
        for id_, (key, _, text) in zip(ids, split, strict=True):
            collection, chunks = documents.get(key, ("", b""))
            number = _number(text)
            if number is None or number >= count_packed(chunks):
                strangers.append(id_)
            elif collection != name:
                elsewhere.append(id_)
            else:
                places[id_] = chunks, number
        if strangers:
            self._faults.add("orphans", name, strangers)
        if elsewhere:
            self._faults.add("two_places", name, elsewhere)
        return places

    def _name_missing(self) -> None:
        """The ledger's chunks that are not there; asked for only when the numbers differ."""
        assert self._known is not None
        ledger, generation = self._known
        for ids in _paged(_ledger_ids(ledger, generation, self._collection.name), PAGE):
            there = self._reader.present(self._collection, ids)
            self._faults.add("missing", self._collection.name, (id_ for id_ in ids if id_ not in there))

    def _check_rows(self, ids: Sequence[str], places: Mapping[str, Place], *, duplicates: bool) -> None:
        page, facts = self._reader.examine(self._collection, ids)
        self.checked += len(page.ids)
        texts = hash_texts(page)
        found = map(places.get, page.ids)
        records = [None if place is None else unpack_chunk(*place) for place in found]
        expected = Expected(records, unit=not self._exact or self._known is not None, exact=self._exact)
        for check, rows in check_page(page, texts, facts, expected):
            if self._known:  # a stranger is at fault as such, whatever it holds
                rows = [row for row in rows if records[row] is not None]
            if rows:
                self._faults.add(check, self._collection.name, (page.ids[row] for row in rows))
        if facts is not None:
            self.norms.update(norm_histogram(facts))
        if duplicates:
            self._remember(page, texts, facts)

    def _remember(self, page: Page, texts: Sequence[bytes], facts: VectorFacts | None) -> None:
        """64 bits of each text, and of each vector where no checksum vouches for it."""
        import numpy as np

        self._texts.append(np.frombuffer(b"".join(text[:8] for text in texts), "<u8"))
        if (self._known is None or not self._exact) and facts is not None:
            self._vectors.append(np.where(facts.there, facts.digests, np.uint64(0)))
            self._ids += page.ids

    def _check_duplicates(self) -> None:
        import numpy as np

        name = self._collection.name
        texts = np.concatenate(self._texts) if self._texts else np.zeros(0, np.uint64)
        _, counts = np.unique(texts[texts != 0], return_counts=True)
        self.copies = int((counts - 1).sum())
        if not self._vectors:
            return
        vectors = np.concatenate(self._vectors)
        _, group, sizes = np.unique(vectors, return_inverse=True, return_counts=True)
        suspects = np.flatnonzero((sizes[group] > 1) & (vectors != 0))
        by_vector: dict[int, set[int]] = {}
        for row in suspects.tolist():
            by_vector.setdefault(int(group[row]), set()).add(int(texts[row]))
        wrong = [row for row in suspects.tolist() if len(by_vector[int(group[row])]) > 1]
        self._faults.add("duplicate_vectors", name, (self._ids[row] for row in wrong))

    copies = 0
    """Rows whose text another row has already."""


@lru_cache(100_000)  # most chunks have the numbers that the documents before had
def _number(text: str) -> int | None:
    """The number of a chunk, from the form that it has in ids: five digits, and more only where they are needed."""
    if (
        not 5 <= len(text) <= _DIGITS
        or not text.isdecimal()
        or not text.isascii()
        or (len(text) > 5 and text[0] == "0")
    ):
        return None
    return int(text)


def _ledger_ids(ledger: Ledger, generation: Generation, collection: str) -> Iterator[str]:
    for row in ledger.documents(generation.id, collection):
        for number in range(len(row.chunks)):
            yield f"{row.doc_key}#{number:05d}"


def _paged(ids: Iterator[str], size: int) -> Iterator[list[str]]:
    page: list[str] = []
    for id_ in ids:
        page.append(id_)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
