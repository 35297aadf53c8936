"""The fixes of rows, a page at a time, through an open store: delete, refill, take metadata off."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vectorstore.chroma.rows import METADATA_KEYS, Page
from vectorstore.chroma.store import Store
from vectorstore.ledger import Ledger
from vectorstore.mending.kept_rows import KeptRows
from vectorstore.mending.known_vectors import KnownVectors
from vectorstore.mending.store_files import intend_again
from vectorstore.mending.trail import Trail

DESCRIBED = 200  # rows of a page whose old content the trail describes


class RowFixes:
    """Fixes pages of rows; every page is written to the trail before it is touched."""

    def __init__(self, store: Store, ledger: Ledger, known: KnownVectors, trail: Trail, notes: list[str]) -> None:
        self._store, self._ledger, self._known, self._trail, self._notes = store, ledger, known, trail, notes
        self._kept: KeptRows | None = None
        self._doomed: list[tuple[str, list[str]]] = []

    def delete(self, name: str, ids: list[str], kept: Path) -> None:
        """Keep the rows of these ids in a file; `finish_deletes` deletes them once all of them are there.

        A chunk beyond the last one of a document that the ledger knows may be the ledger's fault: the document is
        written anew, and loses what is too much.
        """
        own = [id_ for id_ in ids if self._is_of_known(name, id_)]
        intend_again(self._ledger, self._known, ((name, id_) for id_ in own))
        ids = sorted(set(ids) - set(own))
        if not ids:
            return
        page = self._read(name, ids)
        self._kept = self._kept or KeptRows(kept)
        self._kept.add(name, page)
        self._trail.write("delete", collection=name, ids=ids, before=_described(page), kept=kept.name)
        self._doomed.append((name, ids))

    def finish_deletes(self) -> None:
        """Close the file of kept rows, then delete."""
        if self._kept:
            self._kept.close()
        for name, ids in self._doomed:
            self._store.delete(name, ids)
        if self._doomed:
            count = sum(len(ids) for _, ids in self._doomed)
            self._notes.append(f"deleted {count:,} chunks that the ledger does not know; they are kept")

    def drop_extra_metadata(self, name: str, ids: list[str]) -> None:
        """Take off the keys that Vectorkeep does not write; the rewriting of the documents sets the others right."""
        page = self._read(name, ids, vectors=False)
        extra = {
            id_: unknown
            for id_, values in zip(page.ids, page.metadatas, strict=True)
            if (unknown := sorted(values.keys() - set(METADATA_KEYS)))
        }
        if extra:
            self._trail.write("drop_metadata", collection=name, keys=extra, before=_described(page))
            self._store.drop_metadata(name, list(extra), list(extra.values()))

    def refill(self, name: str, ids: list[str]) -> None:
        """Write the vectors that the cache has and the ledger's checksum confirms; the others' documents come again."""
        import numpy as np

        page = self._read(name, ids)
        found = self._known.vectors(name, ids)
        lost = [id_ for id_ in ids if id_ not in found]
        self._trail.write("refill", collection=name, ids=ids, before=_described(page), from_cache=len(found))
        # First: were this killed after the writing, nobody would know of those that are still wrong.
        intend_again(self._ledger, self._known, ((name, id_) for id_ in lost))
        there = [id_ for id_ in page.ids if id_ in found]
        if there:
            self._store.upsert_vectors(name, there, np.stack([found[id_] for id_ in there]))

    def _is_of_known(self, name: str, id_: str) -> bool:
        key, _, number = id_.rpartition("#")
        return number.isdecimal() and f"{int(number):05d}" == number and self._known.knows(name, key)

    def _read(self, name: str, ids: Sequence[str], *, vectors: bool = True) -> Page:
        return self._store.read(name, ids, vectors=vectors)


def _described(page: Page) -> list[dict[str, Any]]:
    """What rows held, short: the metadata, and what identifies text and vector."""
    return [
        {
            "id": page.ids[row],
            "metadata": page.metadatas[row],
            "text": blake2b((page.documents[row] or "").encode(), digest_size=16).hexdigest(),
            "vector_crc": zlib.crc32(page.vectors[row]) if page.vectors is not None and page.has_vector[row] else None,
        }
        for row in range(min(len(page.ids), DESCRIBED))
    ]
