"""Is the store still what the last run left? Looking changes nothing.

A store whose files are as the last run closed them is believed. Otherwise files that a kill may have torn are audited
before Chroma may open them, ids are counted, and where a count is off they are compared one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.chroma.fingerprint import SQLITE_NAME, Files, fingerprint
from vectorstore.errors import ConfigurationError, Damaged
from vectorstore.ledger import Generation, Ledger
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from vectorstore.chroma.audit import Damage


class Presence:
    """What the store lacks, and what it holds beyond the ledger.

    Attributes:
        damages: what must be mended before Chroma may open the store.
        leftovers: document -> how many chunks of it the store may hold, where the ledger knows fewer.
        lost_documents: how many documents lack chunks in the store.
        files: the store's files, when they were looked at closely and nothing is wrong.
        notes: what else a person should know.
    """

    def __init__(self) -> None:
        self.damages: list[Damage] = []
        self.leftovers: dict[str, int] = {}
        self.files: Files | None = None
        self.notes: list[str] = []
        self._lost: set[tuple[str, str]] = set()
        self._lost_collections: dict[str, int] = {}

    @property
    def lost_documents(self) -> int:
        """How many documents lack chunks in the store."""
        return len(self._lost) + sum(self._lost_collections.values())

    @property
    def damage(self) -> list[str]:
        """What must be mended, in words."""
        return [f"mend {damage.collection or 'the store'}: {damage.detail}" for damage in self.damages]

    def lost(self, collection: str, doc_key: str) -> bool:
        """Whether a document's chunks are not all in the store."""
        return collection in self._lost_collections or (collection, doc_key) in self._lost

    def compare(self, ledger: Ledger, generation: Generation, collection: str, ids: Iterable[str]) -> None:
        """Note what a collection's ids lack, or have beyond the ledger."""
        present = set(ids)
        for row in ledger.documents(generation.id, collection):
            expected = {f"{row.doc_key}#{number:05d}" for number in range(len(row.chunks))}
            if not expected <= present:
                self._lost.add((collection, row.doc_key))
            present -= expected
        for id_ in present:
            doc_key, _, number = id_.rpartition("#")
            if number.isdigit():
                self.leftovers[doc_key] = max(int(number) + 1, self.leftovers.get(doc_key, 0))
                if ledger.document(generation.id, doc_key):
                    self._lost.add((collection, doc_key))  # written anew, it loses what is too much

    def lose(self, collection: str, documents: int) -> None:
        """Note that a whole collection is gone."""
        self._lost_collections[collection] = documents


def look_at_store(settings: Settings, ledger: Ledger, generation: Generation) -> Presence:
    """Compare the store with the ledger's generation.

    Raises:
        Damaged: the store can't be read, and no repair of Vectorkeep's own mends it.
        StoreUnreachable: a server that does not answer.
    """
    presence = Presence()
    expected = {name: counts for name, counts in ledger.collections(generation.id).items() if counts[1]}
    if settings.chroma_url:
        _look_at_server(settings, ledger, generation, presence, expected)  # also to know that it answers, before paying
        return presence
    store = settings.path(settings.chroma_path)
    if not (store / SQLITE_NAME).is_file():
        for name, (documents, _) in expected.items():
            presence.lose(name, documents)
        return presence
    closed = ledger.store_files()
    if closed and fingerprint(store) == closed:
        return presence
    from vectorstore.chroma.audit import DamageKind, Remedy, audit  # heavier than a look that finds all as it was

    now = fingerprint(store)
    damages = audit(store, suspects(store, closed))
    unknown = [damage for damage in damages if damage.kind is DamageKind.UNKNOWN_LAYOUT]
    if unknown:
        presence.notes.append(f"the store was not audited: {unknown[0].detail} is not a layout that is known")
        return presence
    refuse_hopeless(damages, store)
    presence.damages = [damage for damage in damages if damage.remedy is not Remedy.OPEN]
    _count(store, ledger, generation, presence, expected)
    if not damages and not presence.lost_documents and fingerprint(store) == now:
        presence.files = now
    return presence


def unsafe_files(settings: Settings, ledger: Ledger) -> list[Damage]:
    """What forbids a reader to open the embedded store as it is; always empty for a server.

    Raises:
        ConfigurationError: there is no store, and Chroma would silently make an empty one.
    """
    if settings.chroma_url:
        return []
    store = settings.path(settings.chroma_path)
    if not (store / SQLITE_NAME).is_file():
        raise ConfigurationError(f"there is no store at {store}", "run `vectorkeep update`: it refills it, unpaid")
    closed = ledger.store_files()
    if closed and fingerprint(store) == closed:
        return []
    from vectorstore.chroma.audit import audit

    return [damage for damage in audit(store, suspects(store, closed)) if not damage.safe_to_open]


def suspects(store: Path, before: Files) -> list[str] | None:
    """Names of our collections whose index files differ from ``before``, of all of them when that is empty.

    Somebody else's are not ours to mend, and Chroma opens an index when its collection is used, so we never do.
    ``None`` when SQLite can't be read: an audit of everything says what is wrong.
    """
    from vectorstore.chroma.files import list_collections, open_snapshot, read_marks
    from vectorstore.chroma.store import PIPELINE_KEY

    now = fingerprint(store)
    changed = {path.partition("/")[0] for path in now.keys() | before.keys() if now.get(path) != before.get(path)}
    try:
        with open_snapshot(store) as db:
            ours = read_marks(db, PIPELINE_KEY)
            return [
                each.name
                for each in list_collections(db, store)
                if each.name in ours and (each.vector_segment in changed or not before)
            ]
    except sqlite3.DatabaseError:
        return None


def refuse_hopeless(damages: Iterable[Damage], store: Path) -> None:
    """Raise for damage that only a backup or a new store mends."""
    from vectorstore.chroma.audit import Remedy

    for damage in damages:
        if damage.remedy in (Remedy.RESTORE, Remedy.REFUSE):
            raise Damaged(
                f"the store {store} is damaged: {damage.kind}: {damage.detail}",
                f"restore a backup; or move {store.name} away and run `vectorkeep update`: it fills a new one from the"
                " vector cache, without paying again",
            )


def _knows_nothing(ledger: Ledger, generation: Generation) -> bool:
    """Whether the ledger may have been lost: then what no other generation made may be what it wrote."""
    return generation.state == "serving" and (not generation.id or ledger.is_empty(generation.id))


def _count(
    store: Path, ledger: Ledger, generation: Generation, presence: Presence, expected: dict[str, tuple[int, int]]
) -> None:
    from vectorstore.chroma.files import count_ids, iter_ids, list_collections, open_snapshot, read_marks
    from vectorstore.chroma.store import PIPELINE_KEY

    lost = _knows_nothing(ledger, generation)
    with open_snapshot(store) as db:
        there = {each.name: each for each in list_collections(db, store)}
        made_by = read_marks(db, PIPELINE_KEY) if lost else {}
        mine = {name for name in there if made_by.get(name) == generation.pipeline}
        for name in mine - ledger.collection_names() if lost else expected.keys():
            documents, chunks = expected.get(name, (0, 0))
            if name not in there:
                presence.lose(name, documents)
            elif count_ids(db, there[name]) != chunks:
                presence.compare(ledger, generation, name, iter_ids(db, there[name]))


def _look_at_server(
    settings: Settings,
    ledger: Ledger,
    generation: Generation,
    presence: Presence,
    expected: dict[str, tuple[int, int]],
) -> None:
    from vectorstore.chroma.store import Store

    store = Store(settings)
    try:
        counts = store.counts()
        if _knows_nothing(ledger, generation):
            made_by = store.pipelines()
            mine = {name for name in counts.keys() - ledger.collection_names() if made_by[name] == generation.pipeline}
            for name in mine:
                presence.compare(ledger, generation, name, store.ids(name))
        for name, (documents, chunks) in expected.items():
            if name not in counts:
                presence.lose(name, documents)
            elif counts[name] != chunks:
                presence.compare(ledger, generation, name, store.ids(name))
    finally:
        store.close()
