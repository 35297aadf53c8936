"""The plan: what an update would do. Making one changes nothing.

The scan and the ledger are both in ``doc_key`` order and are merged as they stream; what is left to do is spooled to a
temporary file. So a plan over 280,000 unchanged documents costs little more than looking at them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from vectorstore.comparison import Comparison
from vectorstore.errors import ConfigurationError, DocumentError, Refused
from vectorstore.guards import check_guards, pipeline_mismatch
from vectorstore.ledger import Generation, Intent, Ledger
from vectorstore.naming import building_suffix, collection_name
from vectorstore.presence import Presence, look_at_store
from vectorstore.prices import price_per_token, usd
from vectorstore.settings import Settings
from vectorstore.source import Entry, FileSource

MODES = ("changed", "missing", "stale", "all")
BYTES_PER_TOKEN = 4.0  # until the ledger knows this corpus better


class Work(NamedTuple):
    """A document that needs a look at its content, as the scan saw it."""

    doc_key: str
    collection: str
    kind: str  # added, changed, missing (its chunks are not in the store), stale, all
    entry: Entry


class Plan:
    """What an update would do.

    Attributes:
        counts: documents by kind: added, changed, missing, stale, all, deleted, unchanged, unknown (in a folder that
            can't be read). An added document may turn out to be a moved one, a changed one to be unchanged, once its
            content is read.
        bytes: of the documents to read.
        tokens_per_byte: of this corpus, as far as the ledger knows it.
        usd_per_token: what the embedder charges.
        problems: documents and folders that the scan could not see.
        refusals: the guards that say no, if any; an update raises the first.
        damage: what an update would mend in the store first, in words.
        leftovers: how many chunks of a document the store may hold, where that is more than the ledger knows.
        abandoned: what killed runs wrote of documents that are gone.
        whole: whether all documents were looked at.
        notes: what else a person should know.
    """

    def __init__(self, generation: Generation, source: FileSource, presence: Presence, intents: list[Intent]) -> None:
        self.generation = generation
        self.source = source
        self.presence = presence
        self.leftovers = dict(presence.leftovers)
        for intent in intents:
            self.leftovers[intent.doc_key] = max(intent.chunks, self.leftovers.get(intent.doc_key, 0))
        self.abandoned: list[Intent] = []
        self.notes = list(presence.notes)
        self.whole = True
        self.counts: dict[str, int] = dict.fromkeys(
            ("added", "changed", "missing", "stale", "all", "deleted", "unchanged", "unknown"), 0
        )
        self.bytes = self.emptied = 0
        self.tokens_per_byte = self.usd_per_token = 0.0
        self.by_collection: dict[str, dict[str, int]] = {}
        self.problems: list[DocumentError] = []
        self.refusals: list[Refused] = []
        # An unnamed SQLite file: SQLite keeps it in memory while it is small and deletes it in any case.
        self._spool = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._spool.execute(
            "CREATE TABLE work (doc_key TEXT PRIMARY KEY, collection TEXT, kind TEXT, size, mtime_ns, ctime_ns)"
            " WITHOUT ROWID"
        )
        self._spool.execute("CREATE TABLE deletes (doc_key TEXT PRIMARY KEY, collection TEXT) WITHOUT ROWID")

    @property
    def damage(self) -> list[str]:
        """What an update would mend in the store before it writes."""
        return self.presence.damage

    @property
    def to_read(self) -> int:
        """How many documents an update would read."""
        return sum(self.counts[kind] for kind in ("added", "changed", "missing", "stale", "all"))

    @property
    def estimated_tokens(self) -> int:
        """Of the documents to read, roughly."""
        return round(self.bytes * self.tokens_per_byte)

    @property
    def estimated_cost_usd(self) -> float:
        """Of the documents to read, roughly, and as if nothing of them were in the vector cache."""
        return self.estimated_tokens * self.usd_per_token

    @property
    def nothing_to_do(self) -> bool:
        """Whether an update would leave the store as it is."""
        building = self.generation.state == "building"  # then at least the swap is left to do
        return not (self.to_read or self.counts["deleted"] or self.abandoned or self.damage or building)

    def work(self, kind: str = "%") -> Iterator[Work]:
        """The documents to read, or those of one kind, by ``doc_key``."""
        sql = "SELECT * FROM work WHERE kind LIKE ? ORDER BY doc_key"
        for key, collection, what, *stat in self._spool.execute(sql, (kind,)):
            yield Work(key, collection, what, Entry(key, *stat))

    def drop(self, work: Work) -> None:
        """Take out a document that turned out to be unchanged."""
        self._spool.execute("DELETE FROM work WHERE doc_key = ?", (work.doc_key,))
        self.counts[work.kind] -= 1
        self.counts["unchanged"] += 1
        self.by_collection[work.collection][work.kind] -= 1
        self.bytes -= work.entry.size

    def deletes(self) -> Iterator[tuple[str, str]]:
        """``(doc_key, collection)`` of the documents that are gone from the source."""
        yield from self._spool.execute("SELECT doc_key, collection FROM deletes ORDER BY doc_key")

    def is_deleted(self, doc_key: str) -> bool:
        """Whether the plan deletes a document."""
        return bool(self._spool.execute("SELECT 1 FROM deletes WHERE doc_key = ?", (doc_key,)).fetchone())

    def close(self) -> None:
        """Drop the spool."""
        self._spool.close()

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, work: list[tuple[object, ...]], deletes: list[tuple[str, str]]) -> None:
        self._spool.execute("BEGIN")
        self._spool.executemany("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)", work)
        self._spool.executemany("INSERT INTO deletes VALUES (?, ?)", deletes)
        self._spool.execute("COMMIT")
        work.clear()
        deletes.clear()


def make_plan(
    settings: Settings,
    ledger: Ledger,
    pipeline: str,
    *,
    mode: str = "changed",
    collections: Collection[str] = (),
    doc_keys: Collection[str] = (),
    verify_content: bool = False,
    max_deletes: int | None = None,
) -> Plan:
    """Compare source, ledger and store.

    Args:
        settings: names source, template and guards.
        ledger: may be read-only.
        pipeline: the pipeline id that the settings stand for.
        mode: ``changed`` (whatever is out of step), ``missing`` (only what the store lacks), ``stale`` (only what
            another pipeline made: it is built anew beside it, and swapped in when all is there), ``all`` (every
            document again).
        collections: only these, by name; empty for all.
        doc_keys: only these; empty for all.
        verify_content: read every document, whatever its times say.
        max_deletes: allow this many deletes instead of the guard's share.

    Raises:
        ConfigurationError: an unknown mode, collection or document.
        EmptySource: the source root is missing or can't be read.
    """
    if mode not in MODES:
        raise ConfigurationError(f"mode {mode!r} is unknown", f"choose one of {', '.join(MODES)}")
    generation, mismatch = _choose_generation(settings, ledger, pipeline, mode)
    source = FileSource(
        settings.path(settings.source), settings.include, settings.exclude, int(settings.max_document_mb * 1_000_000)
    )
    intents = ledger.intents(generation.id)
    plan = Plan(generation, source, look_at_store(settings, ledger, generation), intents)
    plan.whole = not collections and not doc_keys and (mode in ("changed", "all") or generation.state == "building")
    scope = _scope(settings, collections, doc_keys)
    comparison = Comparison(plan, settings, mode, scope, verify_content, intents)
    seen = comparison.run(source, ledger)
    plan.abandoned = comparison.abandoned(source)
    if comparison.strays and plan.whole:
        plan.notes.append(
            f"the store holds chunks of {len(comparison.strays)} documents that neither source nor ledger knows,"
            f" {min(comparison.strays)!r} among them; they are left alone"
        )
    plan.problems = [p for p in source.problems if scope is None or _problem_in_scope(p, doc_keys)]
    _check_scope(plan, ledger, collections, doc_keys)
    if mismatch:
        plan.counts = dict.fromkeys(plan.counts, 0)
        plan.counts["stale"] = sum(documents for documents, _ in ledger.collections(generation.id).values())
        plan.refusals.append(pipeline_mismatch(generation, pipeline, plan.counts["stale"]))
    check_guards(plan, settings, ledger, seen, comparison.known, max_deletes)
    if not seen and not comparison.known and plan.whole:
        plan.notes.append(f"no document in {source.root} matches include = {list(settings.include)}")
    if plan.to_read:
        _estimate(plan, settings, ledger)
    return plan


def _estimate(plan: Plan, settings: Settings, ledger: Ledger) -> None:
    size, tokens = ledger.tokens(plan.generation.id)
    plan.tokens_per_byte = tokens / size if size and tokens else 1 / BYTES_PER_TOKEN
    plan.usd_per_token = usd(price_per_token(settings.model_name, settings.prices, billable=settings.is_billable))


def _choose_generation(settings: Settings, ledger: Ledger, pipeline: str, mode: str) -> tuple[Generation, bool]:
    """The generation to work on, and whether it holds vectors of another pipeline than the settings ask for."""
    serving = ledger.generation(settings.collection)
    if serving is None:
        return Generation(0, settings.collection, pipeline, "serving"), False  # an update writes it down
    if serving.pipeline == pipeline:
        return serving, False
    if ledger.is_empty(serving.id):
        return serving._replace(pipeline=pipeline), False
    if mode not in ("stale", "all"):
        return serving, True
    building = ledger.generation(settings.collection, "building")
    if building is None or building.pipeline != pipeline:
        building = Generation(0, settings.collection, pipeline, "building")
    return building, False


def _scope(settings: Settings, collections: Collection[str], doc_keys: Collection[str]) -> Callable[[str], bool] | None:
    if not collections and not doc_keys:
        return None
    names, keys = frozenset(collections), frozenset(doc_keys)
    return lambda key: (not keys or key in keys) and (not names or collection_name(settings.collection, key) in names)


def _problem_in_scope(problem: DocumentError, doc_keys: Collection[str]) -> bool:
    return not doc_keys or any(key.startswith(problem.doc_key) for key in doc_keys)


def _check_scope(plan: Plan, ledger: Ledger, collections: Collection[str], doc_keys: Collection[str]) -> None:
    suffix = building_suffix(plan.generation.pipeline) if plan.generation.state == "building" else ""
    known = {name.removesuffix(suffix) for name in (*plan.by_collection, *ledger.collections(plan.generation.id))}
    for name in collections:
        if name not in known:
            raise ConfigurationError(
                f"no document belongs to a collection {name!r}", f"there are: {', '.join(sorted(known)[:10]) or 'none'}"
            )
    found = sum(plan.counts.values())
    if doc_keys and found < len(set(doc_keys)) and not collections:
        raise ConfigurationError(
            f"{len(set(doc_keys)) - found} of the {len(set(doc_keys))} documents named are neither in the source nor"
            " in the ledger",
            "a doc_key is the path relative to the source root, with forward slashes",
        )
