"""The plan: what an update would do. Making one changes nothing.

The scan and the ledger are both in ``doc_key`` order and are merged as they stream; what is left to do is spooled to a
temporary file. So a plan over 280,000 unchanged documents costs little more than looking at them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from vectorstore.errors import ConfigurationError, DocumentError, EmptySource, PipelineMismatch, Refused, TooManyDeletes
from vectorstore.ledger import Generation, Intent, Ledger, StatRow
from vectorstore.naming import building_suffix, collection_name
from vectorstore.presence import Presence, look_at_store
from vectorstore.prices import price_per_token, usd
from vectorstore.settings import Settings
from vectorstore.source import Entry, FileSource

MODES = ("changed", "missing", "stale", "all")
FEW = 10  # deletes that need no permission, whatever the share
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
        estimated_tokens, estimated_cost_usd: of these documents, from this corpus's own bytes a token, as if nothing
            of them were in the vector cache.
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
        self.bytes = self.emptied = self.estimated_tokens = 0
        self.estimated_cost_usd = 0.0
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
    comparison = _Comparison(plan, settings, mode, scope, verify_content, intents)
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
        plan.counts["stale"] = sum(documents for documents, _ in ledger.collections(generation.id).values())
        plan.refusals.append(_mismatch(generation, pipeline, plan.counts["stale"]))
    _guard(plan, settings, ledger, seen, comparison.known, max_deletes)
    if plan.to_read:
        _estimate(plan, settings, ledger)
    return plan


class _Comparison:
    """The merge of the scan with the ledger."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        mode: str,
        scope: Callable[[str], bool] | None,
        verify_content: bool,
        intents: list[Intent],
    ) -> None:
        self.building = plan.generation.state == "building"
        self.plan, self.scope, self.verify = plan, scope, verify_content
        self.mode = "changed" if self.building else mode  # a building generation is new or half done
        self.suffix = building_suffix(plan.generation.pipeline) if self.building else ""
        self.known = 0  # documents of the ledger in scope
        self.trust_ctime = settings.trust_ctime
        self.template = settings.collection
        self.intents = {intent.doc_key: intent for intent in intents}  # those whose document was not met yet
        self.half_written = frozenset(self.intents)
        self.strays = set(plan.presence.leftovers)  # documents in the store that were not met yet
        self.work: list[tuple[object, ...]] = []
        self.gone: list[tuple[str, str]] = []

    def run(self, source: FileSource, ledger: Ledger) -> int:
        """Merge; how many documents the source has in scope."""
        seen = unchanged = known = 0
        trust_ctime, scope, lost = self.trust_ctime, self.scope, self.plan.presence.lost_documents
        look_anyway = bool(self.verify or self.mode in ("all", "stale") or lost or self.intents)
        entries, rows = source.scan(), ledger.stats(self.plan.generation.id)
        entry, row = next(entries, None), next(rows, None)
        while entry is not None or row is not None:
            if row is None or (entry is not None and entry[0] < row[0]):
                assert entry is not None
                if scope is None or scope(entry[0]):
                    seen += 1
                    name = collection_name(self.template, entry[0]) + self.suffix
                    self._work("stale" if self.building else "added", entry, name)
                entry = next(entries, None)
            elif entry is None or row[0] < entry[0]:
                if scope is None or scope(row[0]):
                    known += 1
                    self._gone(row, source)
                row = next(rows, None)
            else:
                if scope is None or scope(entry[0]):
                    seen += 1
                    known += 1
                    if (
                        entry[2] == row[3]
                        and entry[1] == row[2]
                        and (entry[3] == row[4] or not trust_ctime)
                        and not row[5]
                        and not look_anyway
                    ):
                        unchanged += 1
                    else:
                        self._known(entry, row)
                entry, row = next(entries, None), next(rows, None)
        self.plan._add(self.work, self.gone)
        self.plan.counts["unchanged"] += unchanged
        self.known = known
        return seen

    def _known(self, entry: Entry, row: StatRow) -> None:
        self.intents.pop(row.doc_key, None)
        self.strays.discard(row.doc_key)
        if self.mode == "stale":  # what serves is of the settings' own pipeline: nothing is stale
            self.plan.counts["unchanged"] += 1
            return
        if row.doc_key in self.half_written or self.plan.presence.lost(row.collection, row.doc_key):
            kind = "missing"
        elif self.mode == "all":
            kind = "all"
        elif self.verify or row[2:] != (entry.size, entry.mtime_ns, entry.ctime_ns if self.trust_ctime else row[4], 0):
            kind = "changed"
        else:
            self.plan.counts["unchanged"] += 1
            return
        if self.mode == "missing" and kind != "missing":
            self.plan.counts["unchanged"] += 1
            return
        if not entry.size and row.size:
            self.plan.emptied += 1
        self._work(kind, entry, row.collection)

    def _work(self, kind: str, entry: Entry, collection: str) -> None:
        self.intents.pop(entry.doc_key, None)
        self.strays.discard(entry.doc_key)
        if self.mode == "stale" and kind == "added":
            return
        self.plan.counts[kind] += 1
        self.plan.bytes += entry.size
        self._tally(collection, kind)
        self.work.append((entry.doc_key, collection, kind, entry.size, entry.mtime_ns, entry.ctime_ns))
        if len(self.work) >= 10_000:
            self.plan._add(self.work, self.gone)

    def abandoned(self, source: FileSource) -> list[Intent]:
        """What is left in the store of documents that are neither in the source nor in the ledger."""
        if self.mode not in ("changed", "all"):
            return []
        return [
            intent
            for key, intent in self.intents.items()
            if (self.scope is None or self.scope(key)) and not _is_hidden(key, source)
        ]

    def _gone(self, row: StatRow, source: FileSource) -> None:
        self.intents.pop(row.doc_key, None)
        self.strays.discard(row.doc_key)
        if _is_hidden(row.doc_key, source):
            self.plan.counts["unknown"] += 1  # its folder can't be read: that is no reason to delete it
        elif self.mode in ("missing", "stale"):
            self.plan.counts["unchanged"] += 1
        else:
            self.plan.counts["deleted"] += 1
            self._tally(row.collection, "deleted")
            self.gone.append((row.doc_key, row.collection))

    def _tally(self, collection: str, kind: str) -> None:
        counts = self.plan.by_collection.setdefault(collection, {})
        counts[kind] = counts.get(kind, 0) + 1


def _estimate(plan: Plan, settings: Settings, ledger: Ledger) -> None:
    size, tokens = ledger.tokens(plan.generation.id)
    plan.estimated_tokens = round(plan.bytes / (size / tokens if size and tokens else BYTES_PER_TOKEN))
    price = price_per_token(settings.model_name, settings.prices, billable=settings.embedder == "openai")
    plan.estimated_cost_usd = usd(plan.estimated_tokens * price)


def _is_hidden(doc_key: str, source: FileSource) -> bool:
    """Whether a document lies in a folder that can't be read."""
    return any(problem.doc_key.endswith("/") and doc_key.startswith(problem.doc_key) for problem in source.problems)


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


def _mismatch(generation: Generation, pipeline: str, documents: int) -> PipelineMismatch:
    return PipelineMismatch(
        f"{documents} documents of {generation.template!r} were embedded by {generation.pipeline};"
        f" the settings now ask for {pipeline}. Their vectors must not be mixed",
        "put the old settings back; or run `vectorkeep update --mode stale`: it builds the new vectors beside the old"
        " ones, which serve until all is there (`vectorkeep plan --mode stale` tells the cost)",
    )


def _scope(settings: Settings, collections: Collection[str], doc_keys: Collection[str]) -> Callable[[str], bool] | None:
    if not collections and not doc_keys:
        return None
    names, keys = frozenset(collections), frozenset(doc_keys)
    return lambda key: (not keys or key in keys) and (not names or collection_name(settings.collection, key) in names)


def _problem_in_scope(problem: DocumentError, doc_keys: Collection[str]) -> bool:
    return not doc_keys or any(key.startswith(problem.doc_key) for key in doc_keys)


def _check_scope(plan: Plan, ledger: Ledger, collections: Collection[str], doc_keys: Collection[str]) -> None:
    known = set(plan.by_collection) | set(ledger.collections(plan.generation.id))
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


def _guard(plan: Plan, settings: Settings, ledger: Ledger, seen: int, known: int, max_deletes: int | None) -> None:
    if settings.paused:
        plan.refusals.insert(0, Refused("Vectorkeep is paused by its settings", "set paused = false to go on"))
    deletes = plan.counts["deleted"] + plan.emptied
    if not deletes:
        return
    if not seen and max_deletes is None:
        plan.refusals.append(
            EmptySource(
                f"the source {plan.source.root} has none of the {known} documents that the store holds",
                f"see whether it is mounted; if they are really gone, run again with --max-deletes {deletes}",
            )
        )
        return
    if settings.protected:
        plan.refusals.append(
            Refused(f"the store is protected and {deletes} documents would be deleted", "set protected = false")
        )
    allowed = max(FEW, int(known * settings.max_delete_share)) if max_deletes is None else max_deletes
    if deletes > allowed:
        deletes -= _moves(plan, ledger)
    if deletes > allowed:
        plan.refusals.append(
            TooManyDeletes(
                f"{deletes} of {known} documents would be deleted or emptied; {allowed} are allowed",
                f"look at the source; if they are really gone, run again with --max-deletes {deletes}",
            )
        )


def _moves(plan: Plan, ledger: Ledger) -> int:
    """How many deletes are moves. Reads the added documents, so only when it matters."""
    moved: set[str] = set()
    for work in plan.work():
        if work.kind != "added":
            continue
        with contextlib.suppress(DocumentError):
            content = plan.source.read(work.entry).content_hash
            twins = ledger.keys_of_content(plan.generation.id, content)
            moved.update([key for key in twins if key not in moved and plan.is_deleted(key)][:1])
    return len(moved)
