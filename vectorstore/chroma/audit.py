"""Audit a Chroma store's files before Chroma opens it.

A SIGKILL inside Chroma's index write leaves files that Chroma opens without complaint and then fails on,
crashes on, or grows without bound. `audit` finds that from the files alone: it changes nothing and costs
about a second of CPU for 100,000 vectors of 1,536 floats. What it finds carries the remedy that `repair`
applies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.fingerprint import SQLITE_NAME
from vectorstore.chroma.vector_facts import squared_lengths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SQLITE_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_IOERR,
}


class Remedy(StrEnum):
    """What mends a damage."""

    OPEN = "open"
    """Nothing to do: Chroma mends it itself when it opens the store."""
    DELETE = "delete"
    """Delete the damage's ids through Chroma."""
    REFILL = "refill"
    """Upsert the vectors of the damage's ids through Chroma."""
    REBUILD = "rebuild"
    """Take the segment folder away and upsert all vectors of the collection through Chroma."""
    RESTORE = "restore"
    """Restore a backup, or fill a new store: SQLite itself is damaged."""
    REFUSE = "refuse"
    """Leave it alone: the files are of a version that is not known."""


class DamageKind(StrEnum):
    """What is wrong with the files."""

    UNKNOWN_LAYOUT = "unknown_layout"
    UNFINISHED_TRANSACTION = "unfinished_transaction"
    SQLITE_MISSING = "sqlite_missing"
    SQLITE_CORRUPT = "sqlite_corrupt"
    SQLITE_SCHEMA = "sqlite_schema"
    QUEUE_BEHIND = "queue_behind"
    QUEUE_TORN = "queue_torn"
    INDEX_MISSING = "index_missing"
    HEADER_TORN = "header_torn"
    ID_MAP_TORN = "id_map_torn"
    SLOTS_TORN = "slots_torn"
    LENGTHS_TORN = "lengths_torn"
    UPPER_LINKS_TORN = "upper_links_torn"
    LINKS_OUT_OF_RANGE = "links_out_of_range"
    LABELS_DIFFER = "labels_differ"
    VECTORS_NOT_FINITE = "vectors_not_finite"
    VECTORS_ZERO = "vectors_zero"
    IDS_MISSING = "ids_missing"
    IDS_LEFT_BEHIND = "ids_left_behind"
    INDEX_WORN = "index_worn"
    """Sound, but full of dead slots or badly linked: `audit` does not look for it, a health check does."""

    @property
    def remedy(self) -> Remedy:
        """What mends this kind."""
        return _REMEDIES.get(self, Remedy.REBUILD)


_REMEDIES = {
    DamageKind.UNKNOWN_LAYOUT: Remedy.REFUSE,
    DamageKind.UNFINISHED_TRANSACTION: Remedy.OPEN,
    DamageKind.SQLITE_MISSING: Remedy.RESTORE,
    DamageKind.SQLITE_CORRUPT: Remedy.RESTORE,
    DamageKind.SQLITE_SCHEMA: Remedy.RESTORE,
    DamageKind.QUEUE_BEHIND: Remedy.RESTORE,
    DamageKind.QUEUE_TORN: Remedy.RESTORE,
    DamageKind.VECTORS_ZERO: Remedy.REFILL,
    DamageKind.IDS_MISSING: Remedy.REFILL,
    DamageKind.IDS_LEFT_BEHIND: Remedy.DELETE,
}
_FILE_KINDS = {
    "header.bin": DamageKind.HEADER_TORN,
    "data_level0.bin": DamageKind.SLOTS_TORN,
    "length.bin": DamageKind.LENGTHS_TORN,
    "link_lists.bin": DamageKind.UPPER_LINKS_TORN,
    "index_metadata.pickle": DamageKind.ID_MAP_TORN,
}


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong, in one collection or (collection None) in the whole store."""

    kind: DamageKind
    detail: str
    collection: str | None = None
    collection_id: str | None = None
    ids: tuple[str, ...] = ()
    """All ids concerned, where the remedy works by id; empty otherwise."""

    @property
    def remedy(self) -> Remedy:
        """What mends it."""
        return self.kind.remedy

    @property
    def safe_to_open(self) -> bool:
        """Whether Chroma may open the store as it is: no crash, no growth, nothing lost by it."""
        return self.remedy in (Remedy.OPEN, Remedy.DELETE, Remedy.REFILL)


class SlotWatcher(Protocol):
    """Is given the slots as the audit reads them, so that nobody reads them again."""

    def begin(self, collection: files.StoredCollection, folder: Path, header: hnsw.Header, id_map: hnsw.IdMap) -> None:
        """The slots of a collection come next."""

    def add(self, first: int, block: NDArray[np.void], squares: NDArray[np.float32]) -> None:
        """Slots from number ``first`` on, of ``hnsw.slot_dtype``, and ``vector_facts.squared_lengths`` of them.

        The next block replaces this one.
        """


def audit(
    store: Path,
    collections: Collection[str] | None = None,
    scratch: Path | None = None,
    watcher: SlotWatcher | None = None,
) -> list[Damage]:
    """What is wrong with the files of the Chroma store at `store`; an empty list when nothing is.

    `collections` limits the index checks to these names. `scratch` takes a copy of SQLite when a journal is
    left. `watcher` is given the slots. The caller must keep writers away. Memory follows the ids of the
    largest collection, not the vectors.

    Raises: StoreMissingError when there is no folder; sqlite3.OperationalError when SQLite is locked or
    unreadable.
    """
    if not store.is_dir():
        raise files.StoreMissingError(f"no folder {store}")
    if not files.sqlite_path(store).is_file():
        return [Damage(DamageKind.SQLITE_MISSING, f"{SQLITE_NAME} is missing")]
    journals = files.pending_journals(store)
    found = [Damage(DamageKind.UNFINISHED_TRANSACTION, f"{path.name} is left behind") for path in journals]
    try:
        if not journals:
            found.extend(_check_sqlite_size(files.sqlite_path(store)))
        with files.open_snapshot(store, scratch) as db:
            found.extend(_audit_snapshot(db, store, collections, watcher))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _SQLITE_DAMAGE:
            raise
        found.append(Damage(DamageKind.SQLITE_CORRUPT, str(error)))
    return found


def _check_sqlite_size(path: Path) -> Iterator[Damage]:
    """SQLite opens a file that is cut short and fails only on the pages that it misses."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        yield Damage(DamageKind.SQLITE_CORRUPT, "the file header is not SQLite's")
        return
    page_size = int.from_bytes(head[16:18], "big")
    page_size = 65_536 if page_size == 1 else page_size
    pages = int.from_bytes(head[28:32], "big")
    # The page count is only to be trusted when the writer noted it with its last change.
    if head[24:28] == head[92:96] and path.stat().st_size < pages * page_size:
        yield Damage(DamageKind.SQLITE_CORRUPT, f"{path.stat().st_size} bytes where {pages * page_size} are due")


def _audit_snapshot(
    db: sqlite3.Connection, store: Path, names: Collection[str] | None, watcher: SlotWatcher | None
) -> Iterator[Damage]:
    layout = files.read_layout(db)
    if not layout.known:
        yield Damage(DamageKind.UNKNOWN_LAYOUT, f"Chroma migrations {layout.migrations or 'missing'}")
        return
    if layout.missing:
        yield Damage(DamageKind.SQLITE_SCHEMA, f"missing: {', '.join(layout.missing)}")
        return
    yield from _check_queue_position(db)
    try:
        pending = files.read_pending(db)
    except ValueError as error:
        yield Damage(DamageKind.QUEUE_TORN, str(error))
        return
    for collection in files.list_collections(db, store):
        if names is None or collection.name in names:
            yield from _audit_collection(db, store, collection, pending.get(collection.id, []), watcher)


def _check_queue_position(db: sqlite3.Connection) -> Iterator[Damage]:
    """The queue's highest row gives the next number: behind the segments, new writes are dropped silently."""
    sql = "SELECT (SELECT max(seq_id) FROM max_seq_id), (SELECT max(seq_id) FROM embeddings_queue)"
    applied, queued = db.execute(sql).fetchone()
    if applied and (queued or 0) < applied:
        yield Damage(DamageKind.QUEUE_BEHIND, f"queue ends at {queued or 0}, segments have taken in {applied}")


def _audit_collection(
    db: sqlite3.Connection,
    store: Path,
    collection: files.StoredCollection,
    queue: list[files.QueuedWrite],
    watcher: SlotWatcher | None,
) -> Iterator[Damage]:
    def damage(kind: DamageKind, detail: str, ids: Iterable[str] = ()) -> Damage:
        return Damage(kind, detail, collection.name, collection.id, tuple(sorted(ids)))

    stored = files.stored_ids(db, collection, queue)
    due = (collection.dimension or 0) * 4
    rewritten: set[str] = set()
    for write in (write for write in queue if write.seq > collection.vector_seq):
        needed = write.operation in (files.Operation.ADD, files.Operation.UPSERT)
        if write.vector_bytes != due and (needed or write.vector_bytes):
            yield damage(DamageKind.QUEUE_TORN, f"row {write.seq} has {write.vector_bytes} bytes, not {due}")
            return
        if write.operation in (files.Operation.UPSERT, files.Operation.UPDATE) and write.vector_bytes:
            rewritten.add(write.id)
    folder = store / collection.vector_segment
    try:
        id_map = hnsw.read_id_map(folder)
        if id_map is not None and id_map.labels:
            for kind, detail, ids in check_index(folder, id_map, collection, watcher):
                # A vector that the queue will overwrite is not wrong for long.
                ids = set(ids) - rewritten
                if ids or kind is not DamageKind.VECTORS_ZERO:
                    yield damage(kind, detail, ids)
    except hnsw.UnknownFormatError as error:
        yield damage(DamageKind.UNKNOWN_LAYOUT, str(error))
        return
    except hnsw.TornFileError as error:
        yield damage(_FILE_KINDS[error.file], error.reason)
        return
    indexed = _indexed_ids(collection, id_map, queue)
    missing, left = stored - indexed, indexed - stored
    if missing:
        kind = DamageKind.INDEX_MISSING if id_map is None else DamageKind.IDS_MISSING
        yield damage(kind, f"{len(missing)} of {len(stored)} ids have no vector", missing)
    if left:
        yield damage(DamageKind.IDS_LEFT_BEHIND, f"{len(left)} vectors belong to no id", left)


def index_gap(
    db: sqlite3.Connection, store: Path, collection: files.StoredCollection, queue: list[files.QueuedWrite]
) -> tuple[set[str], set[str]]:
    """Ids without a vector, and ids of vectors that belong to no id, once Chroma has replayed its queue.

    `queue` is the collection's part of `read_pending`. Raises: TornFileError when the id map can't be read.
    """
    id_map = hnsw.read_id_map(store / collection.vector_segment)
    stored, indexed = files.stored_ids(db, collection, queue), _indexed_ids(collection, id_map, queue)
    return stored - indexed, indexed - stored


def _indexed_ids(
    collection: files.StoredCollection, id_map: hnsw.IdMap | None, queue: list[files.QueuedWrite]
) -> set[str]:
    # Without a map, or with an empty one, Chroma starts a new index and fills it from the queue alone.
    ids = set(id_map.labels) if id_map else set()
    return files.apply_queue(ids, (write for write in queue if write.seq > collection.vector_seq))


Found = tuple[DamageKind, str, Iterable[str]]


def check_index(
    folder: Path, id_map: hnsw.IdMap, collection: files.StoredCollection, watcher: SlotWatcher | None = None
) -> Iterator[Found]:
    """Check the four binary files against each other and against the id map.

    Raises: TornFileError, UnknownFormatError when a file is too damaged to go on.
    """
    header = hnsw.read_header(folder, collection.dimension)
    due = {"data_level0.bin": header.slots * header.slot_size, "length.bin": header.slots * 4}
    for name, size in due.items():
        present = hnsw.file_size(folder, name)
        if present < size:
            raise hnsw.TornFileError(name, f"{present} bytes where {size} are due")
        if present > max(size, header.capacity * size // max(header.slots, 1)):
            raise hnsw.TornFileError(name, f"{present} bytes, more than its capacity of {header.capacity}")
    yield from _check_upper_links(folder, header)
    if watcher:
        watcher.begin(collection, folder, header, id_map)
    yield from _check_slots(folder, header, id_map, watcher)


def _check_upper_links(folder: Path, header: hnsw.Header) -> Iterator[Found]:
    import numpy as np

    present = hnsw.file_size(folder, "link_lists.bin")
    upper = hnsw.read_upper_links(folder, header)
    if present != upper.size:
        raise hnsw.TornFileError("link_lists.bin", f"{present} bytes where {upper.size} are due")
    if header.slots and upper.levels[header.entry_slot] != header.max_level:
        yield DamageKind.HEADER_TORN, "the entry point is not on the top level", ()
    # The upper half of the count's word belongs to the delete mark, on level 0 only.
    counts, links = upper.lists[:, 0] & 0xFFFF, upper.lists[:, 1:]
    used = np.arange(header.max_links_upper) < counts[:, None]
    outside = used & (links >= header.slots)
    if (counts > header.max_links_upper).any() or outside.any():
        yield DamageKind.LINKS_OUT_OF_RANGE, "link_lists.bin: links to slots that don't exist", ()
        return
    # A neighbour below the level of the link has no list there: Chroma would follow a null pointer.
    reached = upper.levels[np.where(used, links, 0)]
    if (used & (reached < upper.list_levels[:, None])).any():
        yield DamageKind.LINKS_OUT_OF_RANGE, "link_lists.bin: links to slots of a lower level", ()


def _check_slots(folder: Path, header: hnsw.Header, id_map: hnsw.IdMap, watcher: SlotWatcher | None) -> Iterator[Found]:
    import numpy as np

    labels = np.empty(header.slots, np.uint64)
    live = np.empty(header.slots, np.bool_)
    broken_links = not_finite = 0
    zero: list[int] = []
    for first, block in hnsw.read_slots(folder, header):
        part = slice(first, first + len(block))
        labels[part], live[part] = block["label"], block["mark"] & 1 == 0
        broken_links += _count_broken_links(block, header)
        squares = squared_lengths(block["vector"])
        not_finite += int(np.isnan(squares).sum())
        zero.extend(labels[part][(squares == 0) & live[part]].tolist())
        if watcher:
            watcher.add(first, block, squares)
    if broken_links:
        yield DamageKind.LINKS_OUT_OF_RANGE, f"data_level0.bin: {broken_links} slots with broken links", ()
    yield from _check_labels(labels, live, id_map)
    if not_finite:
        yield DamageKind.VECTORS_NOT_FINITE, f"{not_finite} vectors hold NaN or infinity", ()
    if zero:
        wanted = set(zero)
        ids = [identifier for identifier, label in id_map.labels.items() if label in wanted]
        yield DamageKind.VECTORS_ZERO, f"{len(zero)} vectors are all zero", ids


def _count_broken_links(block: NDArray[np.void], header: hnsw.Header) -> int:
    import numpy as np

    counts, links = block["count"], block["links"]
    broken = counts > header.max_links_level0
    if links.max(initial=0) >= header.slots:
        used = np.arange(header.max_links_level0) < counts[:, None]
        broken |= (used & (links >= header.slots)).any(axis=1)
    return int(broken.sum())


def _check_labels(labels: NDArray[np.uint64], live: NDArray[np.bool_], id_map: hnsw.IdMap) -> Iterator[Found]:
    import numpy as np

    mapped = np.sort(np.fromiter(id_map.labels.values(), np.uint64, len(id_map.labels)))
    if len(np.unique(labels)) != len(labels):
        yield DamageKind.LABELS_DIFFER, f"{len(labels) - len(np.unique(labels))} slots share a label", ()
    elif not np.array_equal(np.sort(labels[live]), mapped):
        unmapped = len(np.setdiff1d(labels[live], mapped))
        slotless = len(np.setdiff1d(mapped, labels[live]))
        detail = f"{slotless} ids without a slot, {unmapped} slots without an id"
        yield DamageKind.LABELS_DIFFER, detail, ()
    if len(mapped) and mapped[-1] > id_map.last_label:
        yield DamageKind.ID_MAP_TORN, f"label {mapped[-1]} is past the last one, {id_map.last_label}", ()
