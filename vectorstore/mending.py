"""Before Chroma opens the embedded store and after it closed it: what makes its index write safe against kills.

Chroma writes its index in place; a kill in it leaves files that it never reads again, and opening them can fill the
disk. So from the moment before the store is opened until it was closed and audited, the ledger knows no clean files;
the next run then audits first, and mends from the vector cache and from what can still be read, without paying.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.audit import Remedy, audit
from vectorstore.cache import VectorCache, vector_crc
from vectorstore.errors import Damaged
from vectorstore.fingerprint import SQLITE_NAME, Files, fingerprint
from vectorstore.ledger import ChunkRecord, Generation, Intent, Ledger
from vectorstore.plan import Plan
from vectorstore.presence import suspects
from vectorstore.repair import RepairReport, repair
from vectorstore.settings import Settings
from vectorstore.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StoreFiles:
    """The embedded store's files over one run; nothing to do for a server.

    Attributes:
        repaired: vectors written to mend the index.
        notes: what a person should know of it.
    """

    def __init__(self, settings: Settings, generation: Generation, plan: Plan, cache: VectorCache) -> None:
        self._settings, self._generation, self._plan, self._cache = settings, generation, plan, cache
        self._path = settings.path(settings.chroma_path)
        self._before: Files | None = None  # None: not opened
        self.repaired = 0
        self.notes: list[str] = []

    def open(self, ledger: Ledger) -> Store:
        """Mend the files if need be, and open the store."""
        if self._settings.chroma_url:
            return Store(self._settings)
        self._before = ledger.store_files() if (self._path / SQLITE_NAME).is_file() else {}
        ledger.store_opened()
        if damages := self._plan.presence.damages:
            self._before = {}
            known = _LedgerVectors(ledger, self._generation.id, self._cache)
            report = repair(
                self._path, damages, self._opened, known.vectors, aside=self._settings.hashes / "set-aside",
                checksum=known.checksum, batch=self._settings.store_batch,
            )  # fmt: skip
            self._note(report, ledger, known)
        return Store(self._settings)

    def close(self, ledger: Ledger) -> None:
        """After the store was closed: audit what changed, and let the ledger know the files as clean.

        Raises:
            Damaged: Chroma left files that do not verify; the next run mends them.
        """
        if self._before is None:
            return
        damages = audit(self._path, suspects(self._path, self._before))
        if bad := [damage for damage in damages if damage.remedy not in (Remedy.OPEN, Remedy.REFUSE)]:
            raise Damaged(
                f"after the write the store does not verify: {bad[0].collection}: {bad[0].detail}",
                "see that the disk is not full, then run again: it mends the store from the vector cache, unpaid",
            )
        files = fingerprint(self._path)
        _sync(self._path, [name for name, stamp in files.items() if self._before.get(name) != stamp])
        ledger.store_closed(files)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Store]:
        store = Store(self._settings)
        try:
            yield store
        finally:
            store.close()

    def _note(self, report: RepairReport, ledger: Ledger, known: _LedgerVectors) -> None:
        self.repaired = sum(report.refilled.values())
        names = sorted({*report.rebuilt, *report.refilled, *report.deleted})
        self.notes.append(f"mended the index of {', '.join(names)}: {self.repaired} vectors, nothing paid")
        lost = {known.doc_key(id_): name for name, ids in report.lost.items() for id_ in ids}
        again = [Intent(key, name, count) for key, name in lost.items() if (count := known.count(key))]
        if again:  # the next plan treats them as half-written, and writes them anew
            ledger.intend(self._generation.id, again)
            self.notes.append(f"{len(again)} documents' vectors are lost: the next run writes them again")


def _sync(store: Path, names: Iterable[str]) -> None:
    """Onto the disk, which Chroma leaves to chance: else a power cut could tear files that the ledger calls clean."""
    for name in names:
        handle = os.open(store / name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _LedgerVectors:
    """Vectors and their checksums by chunk id, as the ledger knows them."""

    def __init__(self, ledger: Ledger, generation: int, cache: VectorCache) -> None:
        self._ledger, self._generation, self._cache = ledger, generation, cache

    @staticmethod
    def doc_key(id_: str) -> str:
        """The document of a chunk id."""
        return id_.rpartition("#")[0]

    def count(self, doc_key: str) -> int:
        """How many chunks a document has."""
        row = self._ledger.document(self._generation, doc_key)
        return len(row.chunks) if row else 0

    def vectors(self, collection: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """The cache's vectors of those ids whose checksum is the ledger's."""
        records = {id_: record for id_ in ids if (record := self._record(id_))}
        cached = self._cache.get_many([record.hash for record in records.values()])
        return {
            id_: vector
            for id_, record in records.items()
            if (vector := cached.get(record.hash)) is not None and vector_crc(vector) == record.vector_crc
        }

    def checksum(self, collection: str, id_: str) -> int | None:
        """The CRC-32 of an id's vector."""
        record = self._record(id_)
        return record.vector_crc if record else None

    def _record(self, id_: str) -> ChunkRecord | None:
        doc_key, _, number = id_.rpartition("#")
        row = self._ledger.document(self._generation, doc_key)
        return row.chunks[int(number)] if row and number.isdigit() and int(number) < len(row.chunks) else None
