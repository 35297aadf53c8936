"""Health: one pass over documents, ledger and store: what is wrong, why, and what to do. It changes nothing.

ledger and machine -> the store's SQLite side -> its index files -> source -> every collection: ids, and rows with their
texts, metadata and vectors -> what search answers. An embedded store is read from its files; Chroma itself only ever
opens a copy.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore import sqlite_checks, workspace_checks
from vectorstore.collection_checks import CollectionPass, Known
from vectorstore.errors import Damaged, StoreUnreachable
from vectorstore.faults import Faults
from vectorstore.findings import UPDATE, Action, CollectionHealth, Depth, Findings, HealthReport, Severity
from vectorstore.fingerprint import SQLITE_NAME, fingerprint
from vectorstore.ledger import Generation, Ledger
from vectorstore.progress import Progress
from vectorstore.rows import RowReader, StoredCollection
from vectorstore.settings import Settings
from vectorstore.source_checks import SourceView, check_source

if TYPE_CHECKING:
    from vectorstore.audit import Damage

SAMPLE = 2_000  # rows that a standard check looks at
TURN = "health_turn"  # a file in .hashes: which part of the rows a standard check looks at next


@dataclass
class Examination:
    """A health check and what `fix` needs of it beyond the report.

    Attributes:
        faults: all ids at fault.
        damages: what is wrong with the index files.
        leaked: folders that no index uses.
        ids: Chroma's ids of the collections, by name.
    """

    report: HealthReport
    faults: Faults
    damages: list[Damage] = field(default_factory=list)
    leaked: list[Path] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)


def health(
    settings: Settings,
    *,
    depth: Depth = Depth.STANDARD,
    way: str = "",
    probe: bool | None = None,
    verify_content: bool = False,
    seed: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.time,
) -> HealthReport:
    """Look at everything and say what is wrong.

    Args:
        depth: how far to look.
        way: ``files`` or ``api`` to insist on a way of reading an embedded store; empty to choose.
        probe: whether Chroma is made to open a copy at depth deep; ``None``: when the store is small enough or its
            index files are doubtful.
        verify_content: read every document of the source and every vector of the cache, whatever the times say.
        seed: which part of the rows a standard check looks at; ``None``: the next one, so that all come in turn.
        on_progress: called with the counters now and then.

    Returns:
        The report. That a ledger, store or source can't be read is a finding of it, not an error.

    Raises:
        ConfigurationError: the settings can't be right.
    """
    with examine(
        settings, depth=depth, way=way, probe=probe, verify_content=verify_content, seed=seed,
        on_progress=on_progress, clock=clock,
    ) as examination:  # fmt: skip
        return examination.report


@contextmanager
def examine(
    settings: Settings,
    *,
    depth: Depth,
    way: str = "",
    probe: bool | None = None,
    verify_content: bool = False,
    seed: int | None = None,
    writer: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Examination]:
    """`health` with all that it found; ``writer``: the caller holds the writer's lock itself."""
    with ExitStack() as stack:
        part = _part(settings, depth, seed)
        check = _Health(settings, depth, way, probe, verify_content, part, writer, on_progress, clock, stack)
        yield check.run()


class _Health:
    """One health check."""

    def __init__(
        self, settings: Settings, depth: Depth, way: str, probe: bool | None, verify_content: bool, part: int,
        writer: bool,
        on_progress: Callable[[Progress], None], clock: Callable[[], float], stack: ExitStack,
    ) -> None:  # fmt: skip
        self._settings, self._depth, self._way, self._probe, self._part = settings, depth, way, probe, part
        self._verify_content = verify_content
        self._writer, self._on_progress, self._clock, self._stack = writer, on_progress, clock, stack
        self._store = settings.path(settings.chroma_path)
        self._found = Findings()
        self._faults = Faults()
        stack.callback(self._faults.close)
        self._ledger: Ledger | None = None
        self._serving: Generation | None = None
        self._generations: dict[str, Generation] = {}
        self._source: SourceView | None = None
        self._collections: list[CollectionHealth] = []
        self._ids: dict[str, str] = {}
        self._damages: list[Damage] = []
        self._leaked: list[Path] = []
        self._norms: Counter[str] = Counter()
        self._copies = 0
        self._notes: list[str] = []
        self._used_way = "none"
        started = clock()
        run = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started)) + os.urandom(3).hex()
        self._progress = Progress(run, "health", started)

    def run(self) -> Examination:
        at_work = False if self._writer else workspace_checks.check_lock(self._settings, self._found)
        self._open_ledger(at_work)
        if self._ledger:
            self._check_workspace(self._ledger)
        if self._depth >= Depth.STANDARD and self._ledger:
            self._source = check_source(
                self._settings, self._ledger, self._serving, self._found, contents=self._verify_content
            )
        before = self._fingerprint()
        self._check_store(doubtful=at_work)
        if not self._writer and self._fingerprint() != before:
            self._notes.append("the store was written to while it was looked at: look again when nobody writes")
        return Examination(self._report(), self._faults, self._damages, self._leaked, self._ids)

    # -- ledger and workspace ------------------------------------------------------------------------------------

    def _open_ledger(self, at_work: bool) -> None:
        path = self._settings.hashes / "ledger.sqlite3"
        self._found.looked("ledger", "" if path.exists() else "there is no ledger: nothing was ever stored from here")
        try:
            ledger = Ledger(path, readonly=True, clock=self._clock)
        except Damaged as error:
            self._found.add("ledger", error.message, remedy=error.hint)
            return
        self._stack.callback(ledger.close)
        if not path.exists():
            return
        try:
            thorough = self._depth >= Depth.STANDARD
            workspace_checks.check_ledger(ledger, self._found, thorough=thorough, at_work=at_work)
            self._serving = ledger.generation(self._settings.collection)
            self._generations = ledger.generations_by_collection()
        except Damaged as error:
            self._found.add("ledger", error.message, remedy=error.hint)
            return
        if not any(each.check == "ledger" and each.severity is Severity.FAIL for each in self._found.result()):
            self._ledger = ledger

    def _check_workspace(self, ledger: Ledger) -> None:
        workspace_checks.check_runs(self._settings, ledger, self._serving, self._found)
        thorough = self._depth >= Depth.STANDARD
        workspace_checks.check_money(self._settings, self._found, self._clock, thorough=thorough)
        workspace_checks.check_backups(ledger, self._found, self._clock)
        if thorough:
            workspace_checks.check_cache(
                self._settings, ledger, self._serving, self._found, vectors=self._verify_content
            )

    # -- the store -----------------------------------------------------------------------------------------------

    def _check_store(self, *, doubtful: bool) -> None:
        self._found.looked("store")
        if self._settings.chroma_url:
            self._check_server()
        elif not (self._store / SQLITE_NAME).is_file():
            self._store_missing()
        else:
            workspace_checks.check_machine(self._store, self._found)
            self._check_files(doubtful=doubtful)

    def _store_missing(self) -> None:
        due = sum(chunks for _, chunks in self._ledger.collections(self._serving.id).values()) if (
            self._ledger and self._serving
        ) else 0  # fmt: skip
        if due:
            self._found.add("store", f"there is no store at {self._store}, and it should hold {due:,} chunks")
        else:
            self._found.looked("store", f"there is no store at {self._store} yet")

    def _check_server(self) -> None:
        from vectorstore.api_rows import ApiRows
        from vectorstore.store import Store

        try:
            reader = ApiRows(Store(self._settings))
        except StoreUnreachable as error:
            self._found.add("store", error.message, remedy=error.hint)
            return
        self._stack.callback(reader.close)
        self._check_rows(reader)

    def _check_files(self, *, doubtful: bool) -> None:
        from vectorstore import chroma_files as files

        try:
            db = self._stack.enter_context(files.open_snapshot(self._store))
            layout = files.read_layout(db)
            self._found.looked("layout")
            if not layout.known or self._way == "api":
                self._check_copy(f"Chroma migrations {layout.migrations or 'missing'}" if not layout.known else "")
                return
            self._check_sqlite(db)
            unreadable = self._check_index(db, doubtful=doubtful)
            self._check_rows(self._file_rows(db, unreadable))
        except sqlite3.DatabaseError as error:
            self._found.add("sqlite", f"SQLite can't be read: {error}")

    def _check_sqlite(self, db: sqlite3.Connection) -> None:
        from vectorstore.chroma_files import pending_journals

        self._found.looked("journal")
        if journals := pending_journals(self._store):
            self._found.add("journal", f"{journals[0].name} is left behind")
        sqlite_checks.check_queue(db, self._found)
        self._leaked = sqlite_checks.check_folders(db, self._store, self._found)
        due = {name: _dimension(each) for name, each in self._generations.items()}
        sqlite_checks.check_dimensions(db, self._store, self._found, due)
        sqlite_checks.check_schemas(db, self._found)
        if self._depth >= Depth.STANDARD:
            sqlite_checks.check_integrity(db, self._found)
            sqlite_checks.check_relations(db, self._found)
            at_fault = sqlite_checks.check_fulltext(db, self._found, texts=self._depth >= Depth.DEEP)
            self._faults.add("fulltext", "", at_fault)

    def _check_index(self, db: sqlite3.Connection, *, doubtful: bool) -> frozenset[str]:
        """Audit the index files; ids of the collections whose vectors can't be read."""
        if self._depth < Depth.STANDARD:
            return frozenset()
        if doubtful:
            self._notes.append("a writer is at work: index files and vectors were not looked at")
            return frozenset(each.id for each in self._file_rows(db, frozenset()).collections())
        from vectorstore.index_checks import check_index

        result = check_index(self._store, db, self._found)
        self._damages = result.damages
        return result.unreadable

    def _file_rows(self, db: sqlite3.Connection, unreadable: frozenset[str]) -> RowReader:
        from vectorstore.file_rows import FileRows

        reader = FileRows(self._store, db, unreadable)
        self._stack.callback(reader.close)
        return reader

    # -- rows ----------------------------------------------------------------------------------------------------

    def _check_rows(self, reader: RowReader) -> None:
        self._used_way = reader.way
        collections = reader.collections()
        total = sum(each.count for each in collections)
        self._progress.documents_total = total
        self._looked_at_rows(reader)
        self._ids = {each.name: each.id for each in collections}
        for each in collections:
            self._check_collection(reader, each, total)
            self._progress.add(documents_done=each.count)
            self._on_progress(self._progress)
        self._check_lost(collections)
        if self._depth >= Depth.DEEP and self._copies:
            self._found.add(
                "duplicate_texts", f"{self._copies:,} of {total:,} chunks hold a text that another one has",
                count=self._copies, total=total, value=self._copies / total,
            )  # fmt: skip

    def _looked_at_rows(self, reader: RowReader) -> None:
        checks = ["missing", "orphans", "two_places", "pipeline_mark", "dimension"]
        if self._depth >= Depth.STANDARD:
            checks += ["text", "metadata", "vectors", "no_vector", "not_finite", "zero", "norm"]
        if self._depth >= Depth.DEEP:
            checks += ["duplicate_texts", "duplicate_vectors"]
        for check in checks:
            self._found.looked(check)

    def _check_collection(self, reader: RowReader, each: StoredCollection, total: int) -> None:
        generation = self._generations.get(each.name)
        known: Known | None = (self._ledger, generation) if self._ledger and generation else None
        # Counted, not noted: the ledger's own sums are one of the things that can be wrong.
        documents, chunks = known[0].counted(known[1].id).get(each.name, (0, 0)) if known else (0, 0)
        self._check_mark(each, generation)
        work = CollectionPass(reader, each, known, chunks, self._faults)
        try:
            work.run(
                self._chosen(each, total), rows=self._depth >= Depth.STANDARD, duplicates=self._depth >= Depth.DEEP
            )
        except sqlite3.DatabaseError as error:
            self._found.add("sqlite", f"rows can't be read: {error}", collection=each.name)
        self._norms.update(work.norms)
        self._copies += work.copies
        for check, count in self._faults.checks(each.name):
            self._say(check, count, each, work, generation)
        in_source = self._source.documents.get(each.name, 0) if self._source and generation == self._serving else None
        self._collections.append(
            CollectionHealth(
                each.name, generation.state if generation else "foreign", documents, chunks, work.stored, in_source,
                work.checked, each.dimension, getattr(reader, "slots", lambda _: None)(each),
            )
        )  # fmt: skip

    def _say(
        self, check: str, count: int, each: StoredCollection, work: CollectionPass, generation: Generation | None
    ) -> None:
        total = work.stored if check in ("orphans", "two_places", "missing") else work.checked
        severity = Severity.WARN if generation and generation.state == "retired" else None
        action = None if generation else Action.NONE
        self._found.add(
            check, _MESSAGES[check].format(count=f"{count:,}", total=f"{total:,}"), collection=each.name, count=count,
            total=max(total, count), ids=self._faults.some(check, each.name), severity=severity, action=action,
        )  # fmt: skip

    def _chosen(self, each: StoredCollection, total: int) -> Callable[[str], bool] | None:
        """Which rows are looked at: all at depth deep, and where the index is at fault; else a part that goes round."""
        parts = -(-total // SAMPLE)
        if self._depth >= Depth.DEEP or parts <= 1 or any(d.collection_id == each.id for d in self._damages):
            return None
        part = self._part % parts
        return lambda id_: zlib.crc32(id_.encode(errors="surrogatepass")) % parts == part

    def _check_mark(self, each: StoredCollection, generation: Generation | None) -> None:
        if generation and each.pipeline != generation.pipeline:
            message = f"it names {each.pipeline or 'nobody'} as what made it, the ledger {generation.pipeline}"
            self._found.add("pipeline_mark", message, collection=each.name)
        elif generation is None and each.pipeline and not self._ledger and each.count:
            message = "there is no ledger that can be read, and the store holds a collection that Vectorkeep made"
            self._found.add("ledger", message, collection=each.name, remedy=f"{UPDATE}: it makes a new one, unpaid")
        elif generation is None and each.pipeline and each.count:
            message = f"a collection of {each.count:,} chunks that Vectorkeep made, and the ledger does not know"
            self._found.add(
                "orphans", message, collection=each.name, severity=Severity.WARN, action=Action.NONE,
                count=each.count, total=each.count,
                remedy="restore the ledger that goes with it; or delete the collection if it is not needed",
            )  # fmt: skip
        if generation and each.dimension not in (None, _dimension(generation)) and self._used_way == "api":
            message = f"vectors of {each.dimension} floats where {_dimension(generation)} are due"
            self._found.add("dimension", message, collection=each.name)

    def _check_lost(self, collections: list[StoredCollection]) -> None:
        """Collections of the ledger that the store does not have."""
        there = {each.name for each in collections}
        for name, generation in sorted(self._generations.items()):
            if name in there or self._ledger is None:
                continue
            documents, chunks = self._ledger.collections(generation.id)[name]
            if not chunks:
                continue
            retired = generation.state == "retired"
            self._found.add(
                "missing", f"the collection is gone, with {chunks:,} chunks of {documents:,} documents",
                collection=name, count=chunks, total=chunks, severity=Severity.INFO if retired else None,
                action=Action.NONE if retired else None,
            )  # fmt: skip
            self._collections.append(CollectionHealth(name, generation.state, documents, chunks))

    # -- through Chroma, on a copy -------------------------------------------------------------------------------

    def _check_copy(self, why: str) -> None:
        raise NotImplementedError

    # -- the end -------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> object:
        with suppress(OSError):
            return None if self._settings.chroma_url else fingerprint(self._store)
        return None

    def _report(self) -> HealthReport:
        settings = self._settings
        return HealthReport(
            run=self._progress.run,
            started=self._progress.started,
            seconds=self._clock() - self._progress.started,
            depth=self._depth.name.lower(),
            way=self._used_way,
            workspace=str(settings.workspace),
            store=settings.chroma_url or str(self._store),
            source=str(settings.path(settings.source)),
            pipeline=self._serving.pipeline if self._serving else "",
            findings=self._found.result(),
            collections=sorted(self._collections, key=lambda each: each.name),
            norms=dict(sorted(self._norms.items())),
            notes=self._notes,
        )


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
    "fulltext": "{count} chunks are not in the full-text index as they are",
}


def _dimension(generation: Generation) -> int:
    return int(generation.pipeline.split("/")[-2])


def _part(settings: Settings, depth: Depth, seed: int | None) -> int:
    """Which part of the rows comes next. The counter is a convenience: without it, the hour decides."""
    if seed is not None or depth is not Depth.STANDARD:
        return seed or 0
    path = settings.hashes / TURN
    try:
        turn = int(path.read_text()) + 1
    except (OSError, ValueError):
        turn = int(time.time() // 3600)
    with suppress(OSError):
        path.write_text(str(turn))
    return turn
