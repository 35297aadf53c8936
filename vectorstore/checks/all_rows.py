"""The pass over all collections of a store, by either way of reading."""

from __future__ import annotations

import math
import sqlite3
import zlib
from collections.abc import Callable, Collection

from vectorstore.checks.collection import CollectionPass, Known
from vectorstore.checks.sqlite import say_unreadable
from vectorstore.checks.view import View, dimension_of
from vectorstore.chroma.rows import RowReader, StoredCollection
from vectorstore.findings import UPDATE, Action, CollectionHealth, Severity
from vectorstore.ledger import Generation

SAMPLE = 2_000  # rows that a standard check looks at, at most


class AllRows:
    """Checks every collection.

    Args:
        suspects: ids of collections whose index files are at fault: all of their rows are looked at.
    """

    def __init__(self, view: View, reader: RowReader, suspects: Collection[str] = ()) -> None:
        self._view, self._reader, self._suspects = view, reader, suspects

    def run(self) -> None:
        """Check the rows of all collections, and which collections there are."""
        view = self._view
        view.way = self._reader.way
        collections = self._reader.collections()
        total = sum(each.count for each in collections)
        view.progress.documents_total = total
        view.ids = {each.name: each.id for each in collections}
        self._looked()
        for each in collections:
            self._check_collection(each, total)
            view.progress.add(documents_done=each.count)
            view.on_progress(view.progress)
        self._check_lost({each.name for each in collections})
        if view.choice.deep and view.copies:
            view.found.add(
                "duplicate_texts", f"{view.copies:,} of {total:,} chunks hold a text that another one has",
                count=view.copies, total=total, value=view.copies / total,
            )  # fmt: skip

    def _looked(self) -> None:
        checks = ["missing", "orphans", "two_places", "pipeline_mark", "dimension"]
        if self._view.choice.standard:
            checks += ["text", "metadata", "vectors", "no_vector", "not_finite", "zero", "norm"]
        if self._view.choice.deep:
            checks += ["duplicate_texts", "duplicate_vectors"]
        for check in checks:
            self._view.found.looked(check)

    def _check_collection(self, each: StoredCollection, total: int) -> None:
        view, generation = self._view, self._view.generations.get(each.name)
        known: Known | None = (view.ledger, generation) if view.ledger and generation else None
        documents, chunks = view.chunks_due(each.name) if known else (0, 0)
        self._check_mark(each, generation)
        if known and each.space == "cosine" and view.choice.standard:
            view.notes.append(
                f"{each.name}: under `cosine` Chroma changes vectors: no checksum tells whether they are right"
            )
        work = CollectionPass(self._reader, each, known, chunks, view.faults)
        try:
            work.run(self._chosen(each, total), rows=view.choice.standard, duplicates=view.choice.deep)
        except sqlite3.DatabaseError as error:
            say_unreadable("rows", error, view.found, each.name)
        view.norms.update(work.norms)
        view.copies += work.copies
        for check, count in view.faults.checks(each.name):
            self._say(check, count, each, work, generation)
        in_source = view.source.documents.get(each.name, 0) if view.source and generation == view.serving else None
        view.collections.append(
            CollectionHealth(
                each.name, generation.state if generation else "foreign", documents, chunks, work.stored, in_source,
                work.checked, each.dimension, self._reader.slots(each),
            )
        )  # fmt: skip

    def _say(
        self, check: str, count: int, each: StoredCollection, work: CollectionPass, generation: Generation | None
    ) -> None:
        if check not in _MESSAGES:
            return
        total = work.stored if check in ("orphans", "two_places", "missing") else work.checked
        severity = Severity.WARN if generation and generation.state == "retired" else None
        self._view.found.add(
            check, _MESSAGES[check].format(count=f"{count:,}", total=f"{total:,}"), collection=each.name, count=count,
            total=max(total, count), ids=self._view.faults.some(check, each.name), severity=severity,
            action=None if generation else Action.NONE,
        )  # fmt: skip

    def _chosen(self, each: StoredCollection, total: int) -> Callable[[str], bool] | None:
        """Which rows are looked at: all at depth deep, and where the index is at fault; else a part that goes round."""
        parts = parts_of(total)
        if self._view.choice.deep or parts <= 1 or each.id in self._suspects:
            return None
        part = self._view.choice.part % parts
        return lambda id_: zlib.crc32(id_.encode(errors="surrogatepass")) % parts == part

    def _check_mark(self, each: StoredCollection, generation: Generation | None) -> None:
        found = self._view.found
        if generation:
            if each.pipeline != generation.pipeline:
                message = f"it names {each.pipeline or 'nobody'} as what made it, the ledger {generation.pipeline}"
                found.add("pipeline_mark", message, collection=each.name)
            if each.dimension not in (None, dimension_of(generation)):
                message = f"vectors of {each.dimension} floats where {dimension_of(generation)} are due"
                found.add("dimension", message, collection=each.name)
        elif each.pipeline and each.count and not self._view.ledger:
            message = "there is no ledger that can be read, and the store holds a collection that Vectorkeep made"
            found.add("ledger", message, collection=each.name, remedy=f"{UPDATE}: it makes a new one, unpaid")
        elif each.pipeline and each.count:
            found.add(
                "orphans", f"a collection of {each.count:,} chunks that Vectorkeep made, and the ledger does not know",
                collection=each.name, severity=Severity.WARN, action=Action.NONE, count=each.count, total=each.count,
                remedy="restore the ledger that goes with it; or delete the collection if it is not needed",
            )  # fmt: skip

    def _check_lost(self, there: set[str]) -> None:
        """Collections of the ledger that the store does not have."""
        for name, generation in sorted(self._view.generations.items()):
            documents, chunks = self._view.chunks_due(name)
            if name in there or self._view.ledger is None or not chunks:
                continue
            retired = generation.state == "retired"
            self._view.found.add(
                "missing", f"the collection is gone, with {chunks:,} chunks of {documents:,} documents",
                collection=name, count=chunks, total=chunks, severity=Severity.INFO if retired else None,
                action=Action.NONE if retired else None,
            )  # fmt: skip
            self._view.collections.append(CollectionHealth(name, generation.state, documents, chunks))


_MESSAGES = {
    "missing": "{count} chunks of the ledger are not in the store",
    "orphans": "{count} of {total} chunks are unknown to the ledger",
    "two_places": "{count} chunks belong to documents that are stored in another collection",
    "text": "{count} of {total} chunks looked at hold another text than was embedded",
    "metadata": "{count} of {total} chunks looked at have wrong or incomplete metadata",
    "vectors": "{count} of {total} vectors looked at are not those that were embedded",
    "no_vector": "{count} of {total} chunks looked at have no vector",
    "not_finite": "{count} of {total} vectors looked at hold NaN or infinity",
    "zero": "{count} of {total} vectors looked at are all zero",
    "norm": "{count} of {total} vectors looked at are not of length one",
    "duplicate_vectors": "{count} of {total} chunks share a vector with a chunk of another text",
}


def parts_of(rows: int) -> int:
    """Into how many parts a standard check divides the rows.

    A prime, and none that divides the hours of a day or of a week: so any regular schedule comes to every part.
    """
    least = -(-rows // SAMPLE)
    if least <= 1:
        return 1
    candidate = max(least, 5)
    while candidate == 7 or any(candidate % factor == 0 for factor in range(2, math.isqrt(candidate) + 1)):
        candidate += 1
    return candidate
