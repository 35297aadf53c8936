"""The audit of the index files, as findings."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.audit import Damage, DamageKind, audit
from vectorstore.chroma.search_quality import SearchQuality
from vectorstore.chroma.slot_pass import SlotPass
from vectorstore.chroma.vector_facts import SlotFacts
from vectorstore.findings import Findings

# Found row by row, with their ids, where the rows are looked at: and they are, all of them, once one of these is there.
_BY_ROW = {DamageKind.VECTORS_NOT_FINITE, DamageKind.VECTORS_ZERO}
_CHECKS = {
    DamageKind.UNKNOWN_LAYOUT: "layout",
    DamageKind.UNFINISHED_TRANSACTION: "journal",
    DamageKind.SQLITE_MISSING: "store",
    DamageKind.SQLITE_CORRUPT: "sqlite",
    DamageKind.SQLITE_SCHEMA: "sqlite",
    DamageKind.QUEUE_BEHIND: "queue",
    DamageKind.QUEUE_TORN: "queue",
    DamageKind.IDS_MISSING: "index_ids",
    DamageKind.IDS_LEFT_BEHIND: "index_ids",
}
_SAID_ELSEWHERE = {DamageKind.UNFINISHED_TRANSACTION, DamageKind.QUEUE_BEHIND}
_NO_VECTORS = {
    DamageKind.UNKNOWN_LAYOUT, DamageKind.QUEUE_TORN, DamageKind.HEADER_TORN, DamageKind.ID_MAP_TORN,
    DamageKind.SLOTS_TORN, DamageKind.LABELS_DIFFER, DamageKind.INDEX_MISSING,
}  # fmt: skip
SMALL = 2_000  # slots: a small index is never called bloated


class IndexChecks(NamedTuple):
    """What the audit found, ids of the collections whose vectors can't be read, and what was seen of the slots."""

    damages: Sequence[Damage] = ()
    unreadable: frozenset[str] = frozenset()
    facts: Mapping[str, SlotFacts] = MappingProxyType({})
    quality: Mapping[str, SearchQuality] = MappingProxyType({})


def check_index(
    store: Path, db: sqlite3.Connection, found: Findings, *, vectors: bool, queries: int, seed: int
) -> IndexChecks:
    """Audit all index files; the other arguments are ``slot_pass.SlotPass``'s."""
    for check in ("index", "index_ids", "bloat"):
        found.looked(check)
    slots = SlotPass(vectors=vectors, queries=queries, seed=seed)
    damages = audit(store, watcher=slots)
    slots.end()
    for damage in damages:
        if damage.kind not in _BY_ROW | _SAID_ELSEWHERE:
            found.add(
                _check_of(damage, store, db), damage.detail, collection=damage.collection or "",
                count=max(len(damage.ids), 1), ids=damage.ids,
            )  # fmt: skip
    damaged = {damage.collection_id for damage in damages}
    collections = files.list_collections(db, store)
    for collection in collections:
        if collection.id not in damaged and collection.has_folder:
            _check_bloat(store, db, collection, found)
    queued = {each.id for each in collections if not each.vector_seq}  # no index was due: vectors are in the queue
    torn = {str(each.collection_id) for each in damages if each.kind in _NO_VECTORS and each.collection_id}
    missing = {each.collection_id for each in damages if each.kind is DamageKind.INDEX_MISSING}
    return IndexChecks(damages, frozenset(torn - (missing & queued)), slots.facts, slots.quality)


def _check_of(damage: Damage, store: Path, db: sqlite3.Connection) -> str:
    if damage.kind is DamageKind.INDEX_MISSING:
        collection = next(each for each in files.list_collections(db, store) if each.id == damage.collection_id)
        if not collection.vector_seq:
            return "index_ids"  # no index was ever due: what is lost was lost from the queue
        return "index" if collection.has_folder else "segments"
    return _CHECKS.get(damage.kind, "index")


def _check_bloat(store: Path, db: sqlite3.Connection, collection: files.StoredCollection, found: Findings) -> None:
    try:
        slots = hnsw.read_header(store / collection.vector_segment, collection.dimension).slots
    except hnsw.TornFileError:
        return
    dead = slots - files.count_ids(db, collection)
    if slots >= SMALL and dead > 0:
        found.add(
            "bloat", f"{dead:,} of {slots:,} places in the index are dead", collection=collection.name, count=dead,
            total=slots, value=dead / slots,
        )  # fmt: skip
