"""Mend what `audit` found, through Chroma's own upsert, from vectors that are kept elsewhere.

A damaged segment folder is moved away; Chroma then starts a new index and fills it from its queue, and
every vector that the queue does not hold is upserted without documents or metadata, which leaves both as
they are. A kill at any point leaves a state that `audit` finds and `repair` mends.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vectorstore.chroma import files
from vectorstore.chroma.audit import Damage, Remedy, audit, index_gap
from vectorstore.chroma.salvage import salvage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MENDABLE = {Remedy.OPEN, Remedy.DELETE, Remedy.REFILL, Remedy.REBUILD}


class VectorWriter(Protocol):
    """The two calls that a repair makes on an open store."""

    def upsert_vectors(self, collection: str, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Upsert vectors, shape (len(ids), dimension), and leave documents and metadata as they are."""

    def delete_ids(self, collection: str, ids: Sequence[str]) -> None:
        """Delete ids, of which SQLite may know nothing."""


OpenStore = Callable[[], AbstractContextManager[VectorWriter]]
VectorSource = Callable[[str, Sequence[str]], Mapping[str, "NDArray[np.float32]"]]
"""Collection name and ids -> the vectors that it has; ids it does not know are left out."""
Checksum = Callable[[str, str], int | None]
"""Collection name and id -> CRC-32 of the vector's little-endian float32 bytes; None when not known."""


class NotRepairableError(Exception):
    """The store needs a backup (SQLite is damaged) or a newer release (its layout is not known)."""

    def __init__(self, damages: Sequence[Damage]) -> None:
        super().__init__(damages)
        self.damages = tuple(damages)

    def __str__(self) -> str:
        return "; ".join(f"{damage.kind}: {damage.detail} ({damage.remedy})" for damage in self.damages)


@dataclass(slots=True)
class RepairReport:
    """What a repair did, by collection name."""

    rebuilt: list[str] = field(default_factory=list)
    refilled: dict[str, int] = field(default_factory=dict)
    """Vectors written."""
    deleted: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    """Ids whose vector nobody has: embed them again, or delete them."""
    remaining: list[Damage] = field(default_factory=list)
    """What an audit finds afterwards."""


def repair(
    store: Path,
    damages: Sequence[Damage],
    open_store: OpenStore,
    vectors: VectorSource,
    *,
    aside: Path,
    checksum: Checksum | None = None,
    batch: int = 2_000,
) -> RepairReport:
    """Mend `damages` of the store at `store` and audit it again.

    The caller holds the store's lock, and `open_store` is only called once it is safe. `aside` is a folder
    outside the store, on its file system, that takes the damaged segment folders until every vector is
    back; what `vectors` does not have is salvaged from there, when `checksum` confirms it. At most `batch`
    vectors are in memory.

    Raises: NotRepairableError before anything is touched; what `open_store` and its writer raise.
    """
    if hopeless := [damage for damage in damages if damage.remedy not in _MENDABLE]:
        raise NotRepairableError(hopeless)
    report = RepairReport()
    affected = {damage.collection_id for damage in damages if damage.collection_id}
    for collection in _collections(store, affected):
        if any(d.collection_id == collection.id and d.remedy is Remedy.REBUILD for d in damages):
            _move_aside(store / collection.vector_segment, aside)
            report.rebuilt.append(collection.name)
    plan = _plan(store, damages, affected)
    # Opened even without work: this is when Chroma rolls an unfinished transaction back.
    with open_store() as writer:
        for collection, missing, left in plan:
            lost = _refill(writer, collection, missing, vectors, report, batch)
            lost = _refill_salvaged(writer, store, collection, lost, aside, checksum, report, batch)
            if lost:
                report.lost[collection.name] = sorted(lost)
            if left:
                writer.delete_ids(collection.name, left)
                report.deleted[collection.name] = len(left)
            if not lost:
                _drop_aside(collection.vector_segment, aside)
    report.remaining = audit(store, {collection.name for collection, _, _ in plan})
    return report


def _collections(store: Path, identifiers: set[str]) -> list[files.StoredCollection]:
    with files.open_snapshot(store) as db:
        return [each for each in files.list_collections(db, store) if each.id in identifiers]


def _plan(
    store: Path, damages: Sequence[Damage], affected: set[str]
) -> list[tuple[files.StoredCollection, list[str], list[str]]]:
    """Per affected collection the ids to refill and those to delete, from the files as they are now."""
    plan = []
    with files.open_snapshot(store) as db:
        pending = files.read_pending(db)
        for collection in files.list_collections(db, store):
            if collection.id not in affected:
                continue
            missing, left = index_gap(db, store, collection, pending.get(collection.id, []))
            for damage in damages:
                if damage.collection_id == collection.id and damage.remedy is Remedy.REFILL:
                    missing.update(damage.ids)
            plan.append((collection, sorted(missing), sorted(left)))
    return plan


def _move_aside(folder: Path, aside: Path) -> None:
    """Rename a segment folder into `aside`; an earlier one there stays, it may hold what this one lost."""
    if not folder.exists():
        return
    aside.mkdir(parents=True, exist_ok=True)
    folder.rename(aside / f"{folder.name}.{len(_aside_folders(folder.name, aside))}")
    for changed in (folder.parent, aside):
        descriptor = os.open(changed, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _aside_folders(segment: str, aside: Path) -> list[Path]:
    """Segment folders moved away, the latest first."""
    found = aside.glob(f"{segment}.*")
    return sorted(found, key=lambda path: int(path.suffix[1:]), reverse=True)


def _drop_aside(segment: str, aside: Path) -> None:
    # The oldest last: a kill in between must not free a number that a later folder still orders by.
    for folder in _aside_folders(segment, aside):
        shutil.rmtree(folder)


def _refill(
    writer: VectorWriter,
    collection: files.StoredCollection,
    missing: Sequence[str],
    vectors: VectorSource,
    report: RepairReport,
    batch: int,
) -> set[str]:
    """Upsert what `vectors` has; returns the ids that it does not have."""
    lost: set[str] = set()
    for start in range(0, len(missing), batch):
        ids = missing[start : start + batch]
        found = vectors(collection.name, ids)
        lost.update(identifier for identifier in ids if identifier not in found)
        _upsert(writer, collection, {key: found[key] for key in ids if key in found}, report)
    return lost


def _refill_salvaged(
    writer: VectorWriter,
    store: Path,
    collection: files.StoredCollection,
    lost: set[str],
    aside: Path,
    checksum: Checksum | None,
    report: RepairReport,
    batch: int,
) -> set[str]:
    """Upsert what the moved folders still hold and `checksum` confirms; returns the ids that stay lost."""
    if checksum is None or not lost:
        return lost
    found: dict[str, NDArray[np.float32]] = {}
    for identifier, vector in _candidates(store, collection, aside):
        if identifier in lost and zlib.crc32(vector.tobytes()) == checksum(collection.name, identifier):
            found[identifier] = vector
            lost.discard(identifier)
        if len(found) == batch:
            _upsert(writer, collection, found, report)
            found = {}
    _upsert(writer, collection, found, report)
    return lost


def _candidates(
    store: Path, collection: files.StoredCollection, aside: Path
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for folder in _aside_folders(collection.vector_segment, aside):
        yield from salvage(store, collection, folder)


def _upsert(
    writer: VectorWriter,
    collection: files.StoredCollection,
    found: Mapping[str, NDArray[np.float32]],
    report: RepairReport,
) -> None:
    import numpy as np

    if found:
        writer.upsert_vectors(collection.name, list(found), np.stack(list(found.values())))
        report.refilled[collection.name] = report.refilled.get(collection.name, 0) + len(found)
