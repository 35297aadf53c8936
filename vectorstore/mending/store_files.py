"""Before Chroma opens the embedded store and after it closed it: what makes its index write safe against kills.

Chroma writes its index in place; a kill in it leaves files that it never reads again, and opening them can fill the
disk. So from the moment before the store is opened until it was closed and audited, the ledger knows no clean files;
the next run then audits first, and mends from the vector cache and from what can still be read, without paying.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vectorstore.cache import VectorCache
from vectorstore.chroma.audit import Damage, Remedy, audit
from vectorstore.chroma.fingerprint import SQLITE_NAME, Files, fingerprint
from vectorstore.chroma.repair import RepairReport, repair
from vectorstore.chroma.store import Store
from vectorstore.errors import Damaged
from vectorstore.ledger import Intent, Ledger
from vectorstore.mending.known_vectors import KnownVectors
from vectorstore.presence import suspects
from vectorstore.settings import Settings


class StoreFiles:
    """The embedded store's files over one run; nothing to do for a server.

    Attributes:
        repaired: vectors written to mend the index.
        lost: chunks whose vector nobody has; their documents are to be written anew.
        notes: what a person should know of it.
    """

    def __init__(
        self, settings: Settings, damages: Sequence[Damage], open_caches: Mapping[str, VectorCache] | None = None
    ) -> None:
        self._settings, self._damages, self._caches = settings, damages, open_caches
        self._path = settings.path(settings.chroma_path)
        self._before: Files | None = None  # None: not opened
        self.repaired = self.lost = 0
        self.notes: list[str] = []

    def open(self, ledger: Ledger) -> Store:
        """Mend the files if need be, and open the store."""
        if self._settings.chroma_url:
            return Store(self._settings)
        self._before = ledger.store_files() if (self._path / SQLITE_NAME).is_file() else {}
        ledger.store_opened()
        if self._damages:
            self._before = {}
            with contextlib.closing(
                KnownVectors(ledger, self._settings.hashes / "cache.sqlite3", self._caches)
            ) as known:
                report = repair(
                    self._path, self._damages, self._opened, known.vectors, aside=self._settings.hashes / "set-aside",
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
        if not self._before:  # all of it was audited
            drop_set_aside(self._settings)
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

    def _note(self, report: RepairReport, ledger: Ledger, known: KnownVectors) -> None:
        self.repaired = sum(report.refilled.values())
        names = sorted({*report.rebuilt, *report.refilled, *report.deleted})
        self.notes.append(f"mended the index of {', '.join(names)}: {self.repaired} vectors, nothing paid")
        lost = [(name, id_) for name, ids in report.lost.items() for id_ in ids]
        self.lost = len(lost)
        if again := intend_again(ledger, known, lost):
            self.notes.append(f"{again} documents' vectors are lost: the next run writes them again")


def drop_set_aside(settings: Settings) -> None:
    """Remove index folders that a repair moved away, once an audit of the whole store finds nothing.

    A repair removes them itself; one that was killed just before leaves them.
    """
    for folder in (settings.hashes / "set-aside").glob("*-*-*-*-*.*"):
        if folder.is_dir() and re.fullmatch(r"[0-9a-f-]{36}\.\d+", folder.name):
            shutil.rmtree(folder)


def intend_again(ledger: Ledger, known: KnownVectors, chunks: Iterable[tuple[str, str]]) -> int:
    """Have the next plan treat the documents of some chunks, ``(collection, id)``, as half-written: how many.

    A chunk beyond those that the ledger knows is swept up when its document is written.
    """
    highest: dict[tuple[str, str], int] = {}
    for name, id_ in chunks:
        key, _, number = id_.rpartition("#")
        highest[name, key] = max(highest.get((name, key), 0), int(number) + 1 if number.isdecimal() else 0)
    intents: dict[int, set[Intent]] = {}
    for (name, key), most in highest.items():
        generation = known.generation(name)
        if generation and known.knows(name, key):
            intent = Intent(key, name, max(most, known.chunks(name, key)))
            intents.setdefault(generation.id, set()).add(intent)
    for generation_id, some in intents.items():
        ledger.intend(generation_id, some)
    return sum(map(len, intents.values()))


def _sync(store: Path, names: Iterable[str]) -> None:
    """Onto the disk, which Chroma leaves to chance: else a power cut could tear files that the ledger calls clean."""
    for name in names:
        handle = os.open(store / name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
