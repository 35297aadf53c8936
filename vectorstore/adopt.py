"""Adopt: take over a Chroma store that Vectorkeep did not make, or whose ledger and cache are lost, without paying.

Every vector goes into the vector cache under its text. A document whose chunks are all there is written into our own
collection as it was cut, in the order of every write: intents, store, read back, ledger. All others are left to
``update``. The collections that are read stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from vectorstore.adoption.adopted import AdoptedDocuments
from vectorstore.adoption.foreign import open_rows
from vectorstore.adoption.importing import Checksum
from vectorstore.adoption.intake import FOREIGN, Choice, Intake
from vectorstore.adoption.matching import Matcher
from vectorstore.adoption.spool import Spool
from vectorstore.backups.exchange import writing
from vectorstore.cache import VectorCache
from vectorstore.chroma.store import Store
from vectorstore.documents.chunks import Chunker
from vectorstore.errors import EmptySource, Interrupted, PipelineMismatch
from vectorstore.ledger import Ledger
from vectorstore.pipeline import Pipeline
from vectorstore.plan import Plan
from vectorstore.planning import make_plan
from vectorstore.preview import Preview, preview_plan
from vectorstore.progress import Checkpoint, Progress
from vectorstore.settings import Settings
from vectorstore.swap import JOURNAL, finish_swap


@dataclass(frozen=True)
class AdoptReport:
    """What was taken over.

    Attributes:
        dry_run: it was only looked at; the counts say what would have been done.
        collections: by name: its ``kind`` (``foreign``; ``own``: made for this pipeline; ``vectors only``: ours, cut
            by another chunker) and ``rows``; if its rows name documents, the ``document_key`` that does so behind
            ``prefix``, the ``order_key`` that tells their order, and how many are ``named`` and ``unnamed``.
        rows_unused: why how many rows gave no vector.
        texts_cached: texts whose vector is new in the cache.
        chunks_written: of ``chunks_adopted``, those that were not in their place already.
        documents_left: why how many documents, of those that the ledger does not have, are left to ``update``.
        examples: some of them, with the reason.
        next_update: what it would do and cost: a ``preview.Preview``.
    """

    run: str
    state: str
    exit_code: int
    seconds: float
    dry_run: bool
    pipeline: str
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: int = 0
    rows_unused: dict[str, int] = field(default_factory=dict)
    texts_cached: int = 0
    documents_adopted: int = 0
    chunks_adopted: int = 0
    chunks_written: int = 0
    documents_left: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    next_update: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def adopt(
    settings: Settings,
    *,
    collections: Collection[str] = (),
    document_key: str = "",
    order_key: str = "",
    accept_prefixed: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> AdoptReport:
    """Take over what the store holds.

    Args:
        settings: of the workspace; they name the store, the documents, and the model that made the vectors.
        collections, document_key, order_key, accept_prefixed: see ``intake.Choice``.
        dry_run: only look; changes nothing and takes no lock.
        on_progress: called with the counters of what is under way, now and then, from any thread.
        stop: set it to stop at a batch's end.

    Raises:
        Locked: another run writes.
        ConfigurationError: no store, or nothing in it to adopt, an unknown collection or key.
        PipelineMismatch: the vectors are not of the settings' model, as far as that can be told.
        Refused: a collection of somebody else has our name; Vectorkeep is paused.
        EmptySource: there are no documents.
        Damaged: a collection can't be trusted, or a write did not verify.
        Interrupted: it was stopped; run again to go on.
    """
    choice = Choice(collections, document_key, order_key, accept_prefixed)
    adoption = _Adoption(settings, choice, dry_run, on_progress, stop or threading.Event(), clock)
    if dry_run:
        return adoption.run()
    with writing(settings, "vectorkeep adopt"):
        return adoption.run()


class _Adoption:
    """One adoption, from the plan to the report."""

    def __init__(
        self,
        settings: Settings,
        choice: Choice,
        dry_run: bool,
        on_progress: Callable[[Progress], None],
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._pipeline, self._choice, self._dry_run = settings, Pipeline.of(settings), choice, dry_run
        self._on_progress, self._stop, self._clock = on_progress, stop, clock
        started = clock()
        id_ = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started)) + os.urandom(3).hex()
        self._progress = Progress(id_, "adopt", started)
        self._checkpoint = Checkpoint(settings.hashes, self._progress, clock=clock)
        self._notes: list[str] = []

    def run(self) -> AdoptReport:
        ledger = Ledger(self._settings.hashes / "ledger.sqlite3", readonly=self._dry_run, clock=self._clock)
        try:
            if not self._dry_run and ledger.fact(JOURNAL):
                self._notes += finish_swap(self._settings, ledger)
            with make_plan(self._settings, ledger, self._pipeline.id) as plan:
                self._refuse(plan)
                return self._adopt(plan, ledger)
        except BaseException:
            self._end(ledger, "failed")
            raise
        finally:
            ledger.close()

    def _refuse(self, plan: Plan) -> None:
        """Raise what speaks against it; it deletes nothing, so the guards of deletes don't."""
        if self._settings.paused and not self._dry_run:
            raise plan.refusals[0]
        for refusal in plan.refusals:
            if isinstance(refusal, PipelineMismatch | EmptySource):
                raise refusal
        if not any(plan.counts.values()):
            raise EmptySource(
                f"the source {plan.source.root} has no document",
                "see whether it is mounted, and that `source` and `include` in vectorkeep.toml name the documents",
            )

    def _adopt(self, plan: Plan, ledger: Ledger) -> AdoptReport:
        settings = self._settings
        with contextlib.ExitStack() as stack:
            cache = self._open_cache(stack)
            spool = stack.enter_context(contextlib.closing(Spool()))
            intake = self._take_in(plan, ledger, cache, spool)
            chunker = Chunker(settings.chunk_tokens, settings.encoding)
            matcher = Matcher(chunker, plan, ledger, spool, intake.origins, None if self._dry_run else cache)
            documents = AdoptedDocuments(
                settings, plan, ledger, cache, matcher, self._progress, lambda: self._tick(self._progress), self._stop,
                self._clock,
            )  # fmt: skip
            if self._dry_run:
                documents.count()
            else:
                documents.take()
            found = preview_plan(
                settings, self._pipeline, plan, ledger, on_progress=self._on_progress, cached=spool.known
            )
        report = self._report(intake, documents, found)
        self._end(ledger, report.state, report)
        return report

    def _open_cache(self, stack: contextlib.ExitStack) -> VectorCache | None:
        path = self._settings.hashes / "cache.sqlite3"
        if self._dry_run and not path.exists():
            return None
        cache = VectorCache(
            path, self._pipeline.embedding, self._settings.dimension, self._clock, readonly=self._dry_run
        )
        if cache.damage:
            self._notes.append(cache.damage)
        return stack.enter_context(contextlib.closing(cache))

    def _take_in(self, plan: Plan, ledger: Ledger, cache: VectorCache | None, spool: Spool) -> Intake:
        def open_store() -> Store:
            ledger.store_opened()
            return Store(self._settings)

        def is_document(key: str) -> bool:
            return plan.wants(key) or (ledger.document(serving, key) is not None and not plan.is_deleted(key))

        serving = plan.generation.id
        reader = open_rows(self._settings, None if self._dry_run else open_store)
        with contextlib.closing(reader):
            intake = Intake(self._settings, reader, cache, spool, self._choice, self._dry_run)
            intake.look({*plan.by_collection, *ledger.collections(serving)})
            intake.take(
                _checksums(ledger, serving), is_document,
                Progress(self._progress.run, "read", self._progress.started), self._read_on,
            )  # fmt: skip
        return intake

    def _report(self, intake: Intake, documents: AdoptedDocuments, found: Preview) -> AdoptReport:
        foreign = [name for name, about in intake.collections.items() if about["kind"] == FOREIGN]
        if foreign and documents.documents:
            self._notes.append(
                f"{', '.join(foreign)}: only read, and still yours; when you are content, delete it with Chroma"
            )
        return AdoptReport(
            run=self._progress.run,
            state="completed",
            exit_code=0,
            seconds=self._clock() - self._progress.started,
            dry_run=self._dry_run,
            pipeline=self._pipeline.id,
            collections=intake.collections,
            rows=intake.rows,
            rows_unused=dict(intake.unused),
            texts_cached=intake.texts_cached,
            documents_adopted=documents.documents,
            chunks_adopted=documents.chunks,
            chunks_written=documents.written,
            documents_left=dict(documents.left),
            examples=documents.examples,
            next_update=found.to_dict(),
            notes=intake.notes + documents.notes + self._notes,
        )

    def _read_on(self, progress: Progress) -> None:
        self._tick(progress)
        if self._stop.is_set():
            raise Interrupted("stopped by request while the rows were read", "run again to go on")

    def _tick(self, progress: Progress) -> None:
        if not self._dry_run:
            self._checkpoint.write()
        self._on_progress(progress)

    def _end(self, ledger: Ledger, state: str, report: AdoptReport | None = None) -> None:
        self._progress.state = state
        if self._dry_run:
            return
        self._checkpoint.write(now=True)
        if report:
            ledger.record_run(report.run, "adopt", self._progress.started, state, report.to_dict())


def _checksums(ledger: Ledger, generation: int) -> Checksum:
    """What the ledger knows of the vectors of our own rows."""
    document = lru_cache(maxsize=1)(lambda doc_key: ledger.document(generation, doc_key))

    def checksum(collection: str, id_: str) -> int | None:
        doc_key, _, number = id_.rpartition("#")
        row = document(doc_key)
        if row is None or row.collection != collection or not number.isdecimal() or int(number) >= len(row.chunks):
            return None
        return row.chunks[int(number)].vector_crc

    return checksum
