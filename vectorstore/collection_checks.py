"""One pass over one collection: which ids it holds beside the ledger, and what is wrong with its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from vectorstore.faults import Faults
from vectorstore.ledger import ChunkRecord, Generation, Ledger
from vectorstore.row_checks import Expected, check_page, norm_histogram
from vectorstore.rows import PAGE, Page, RowReader, StoredCollection
from vectorstore.vector_facts import VectorFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Known = tuple[Ledger, Generation]


class CollectionPass:
    """Checks one collection.

    Args:
        known: the ledger and the generation that the collection belongs to; ``None`` where there is none.
        ledger_chunks: how many chunks it should hold by the ledger.
        faults: takes the ids at fault.

    Attributes:
        stored: ids that it holds.
        checked: rows that were looked at.
        norms: see ``row_checks.norm_histogram``.
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
        self._texts: list[NDArray[np.uint64]] = []
        self._vectors: list[NDArray[np.uint64]] = []
        self._ids: list[str] = []  # of a collection without ledger, to name its duplicates
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
            accounted += self._check_ids(page)
            if rows:
                some = page if chosen is None else [id_ for id_ in page if chosen(id_)]
                for start in range(0, len(some), PAGE):
                    self._check_rows(some[start : start + PAGE], duplicates=duplicates)
        if self._known and accounted != self._ledger_chunks:
            self._name_missing()
        if duplicates:
            self._check_duplicates()

    def _check_ids(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` are chunks that the ledger has here; the others are faults."""
        if self._known is None:
            return 0
        ledger, generation = self._known
        name, split = self._collection.name, [id_.rpartition("#") for id_ in ids]
        places = ledger.places(generation.id, list({key for key, _, _ in split}))
        strangers, elsewhere = [], []
        for id_, (key, _, number) in zip(ids, split, strict=True):
            place = places.get(key)
            if place is None or not _is_number(number, place[1]):
                strangers.append(id_)
            elif place[0] != name:
                elsewhere.append(id_)
        if strangers:
            self._faults.add("orphans", name, strangers)
        if elsewhere:
            self._faults.add("two_places", name, elsewhere)
        return len(ids) - len(strangers) - len(elsewhere)

    def _name_missing(self) -> None:
        """The ledger's chunks that are not there; asked for only when the numbers differ."""
        assert self._known is not None
        ledger, generation = self._known
        for ids in _paged(_ledger_ids(ledger, generation, self._collection.name), PAGE):
            there = self._reader.present(self._collection, ids)
            self._faults.add("missing", self._collection.name, (id_ for id_ in ids if id_ not in there))

    def _check_rows(self, ids: Sequence[str], *, duplicates: bool) -> None:
        page, facts = self._reader.examine(self._collection, ids)
        self.checked += len(page.ids)
        expected = Expected(self._records(page.ids), unit=self._collection.space == "cosine" or self._known is not None)
        for check, rows in check_page(page, facts, expected):
            if self._known:  # a stranger is at fault as such, whatever it holds
                rows = [row for row in rows if expected.records[row] is not None]
            if rows:
                self._faults.add(check, self._collection.name, (page.ids[row] for row in rows))
        if facts is not None:
            self.norms.update(norm_histogram(facts))
        if duplicates:
            self._remember(page, facts)

    def _records(self, ids: Sequence[str]) -> list[ChunkRecord | None]:
        if self._known is None:
            return [None] * len(ids)
        ledger, generation = self._known
        split = [id_.rpartition("#") for id_ in ids]
        rows = ledger.documents_of(generation.id, list({key for key, _, _ in split}))
        records: list[ChunkRecord | None] = []
        for key, _, number in split:
            row = rows.get(key)
            known = row is not None and row.collection == self._collection.name and number.isdecimal()
            records.append(row.chunks[int(number)] if row and known and int(number) < len(row.chunks) else None)
        return records

    def _remember(self, page: Page, facts: VectorFacts | None) -> None:
        """64 bits of each text, and of each vector where no ledger vouches for it."""
        import numpy as np

        self._texts.append(np.fromiter((hash(text) & _MASK for text in page.documents), np.uint64, len(page.ids)))
        if self._known is None and facts is not None:
            self._vectors.append(np.where(facts.there, facts.digests, np.uint64(0)))
            self._ids += page.ids

    def _check_duplicates(self) -> None:
        import numpy as np

        name = self._collection.name
        texts = np.concatenate(self._texts) if self._texts else np.zeros(0, np.uint64)
        _, counts = np.unique(texts[texts != hash(None) & _MASK], return_counts=True)
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


_MASK = (1 << 64) - 1


def _is_number(text: str, chunks: int) -> bool:
    """Whether a text is the number of one of so many chunks, in the form that ids have."""
    return text.isdecimal() and int(text) < chunks and f"{int(text):05d}" == text


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
