"""One run over a plan: the stages, how they start, and how they end, whatever ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vectorstore.budget import Budget
from vectorstore.cache import VectorCache
from vectorstore.chroma.store import Store, chunk_ids
from vectorstore.documents.chunks import Chunker
from vectorstore.embedders import make_embedder
from vectorstore.embedders.limiter import RateLimiter
from vectorstore.embedders.requester import Requester
from vectorstore.embedding import EmbeddingStage, Job
from vectorstore.errors import DocumentError, Interrupted, VectorkeepError, unforeseen
from vectorstore.ledger import Generation, Ledger
from vectorstore.mending.store_files import StoreFiles
from vectorstore.pipeline import Pipeline
from vectorstore.plan import Plan
from vectorstore.prices import price_per_token, usd
from vectorstore.progress import Progress
from vectorstore.reading import Reader
from vectorstore.settings import Settings
from vectorstore.writing import WritingStage

DELETE_PAGE = 500  # documents
# Chroma holds the interpreter's lock while it writes, some 2 ms a chunk: a longer write would keep paid requests from
# leaving in time for the provider's rate to be used.
WRITE_BESIDE_REQUESTS = 100  # chunks
_Item = TypeVar("_Item")


class Run:
    """Applies a plan. The thread that calls ``execute`` reads; a pool embeds; a thread writes.

    Attributes:
        failures: document -> reason.
        notes: what else a person should know.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        plan: Plan,
        ledger: Ledger,
        progress: Progress,
        stop: threading.Event,
        tick: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._pipeline, self._plan, self._ledger = settings, pipeline, plan, ledger
        self._progress, self._stop, self._tick, self._clock = progress, stop, tick, clock
        self._error: BaseException | None = None
        self._give_up = threading.Event()  # set by an error or by ``stop``: nobody waits any longer
        self.failures: dict[str, str] = {}
        self.notes: list[str] = []
        self._empty: list[str] = []
        self._moved_from: set[str] = set()
        self._embedder = make_embedder(settings)  # a missing key or an unknown price stops a run before it starts
        self._budget = self._open_budget()
        self._cache = VectorCache(settings.hashes / "cache.sqlite3", pipeline.embedding, settings.dimension, clock)
        plan.generation = ledger.begin(plan.generation)
        self._files = StoreFiles(settings, plan.presence.damages, {pipeline.embedding: self._cache})
        self._writing = self._writing_stage(plan.generation)
        self._embedding = self._embedding_stage()

    def execute(self) -> None:
        """Apply the plan.

        Raises:
            VectorkeepError: what ended the run early; what was paid or written before is kept.
            BaseException: a signal's, as it came.
        """
        if self._cache.damage:
            self.notes.append(self._cache.damage)
        try:
            self._run_stages()
            self._conclude()
        finally:
            self._count_money()
            self.failures |= self._writing.failures
            if self._empty:
                self.notes.append(f"{len(self._empty)} documents have no text, {self._empty[0]!r} among them")
            self.notes += self._files.notes
            self._progress.add(chunks_repaired=self._files.repaired)
            self._cache.close()
            self._budget.close()
            self._embedder.close()

    def _run_stages(self) -> None:
        self._writing.start()
        try:
            self._read_all()
            self._embedding.close()
            plan = self._plan
            if not self._halted() and (plan.counts["deleted"] or plan.abandoned or plan.damage):
                # Last: a moved document's old place goes only when its new one is written.
                self._writing.call(self._delete_gone)
        except BaseException as error:
            self._fail(error)
            self._embedding.stop()
            self._embedding.close()
        finally:
            self._writing.close()

    def _conclude(self) -> None:
        self._close_files()
        if isinstance(self._error, Exception) and not isinstance(self._error, VectorkeepError):
            raise unforeseen(self._error) from self._error
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise Interrupted("stopped by request at the end of a batch", "run again to go on")
        self._evict()

    def _close_files(self) -> None:
        try:
            self._files.close(self._ledger)
        except Exception as error:
            self._fail(error)  # the first error is the cause

    def _read_all(self) -> None:
        plan, writing = self._plan, self._writing
        reader = Reader(
            self._plan.source, Chunker(self._settings.chunk_tokens, self._settings.encoding), self._ledger,
            plan.generation.id, plan.is_deleted,
        )  # fmt: skip
        for work in plan.work():
            if self._halted():
                return
            try:
                reading = reader.read(work)
            except DocumentError as error:
                self.failures[work.doc_key] = error.reason
                self._progress.add(failed=1, documents_done=1)
                continue
            if reading.moved_from:
                self._moved_from.add(reading.moved_from)
            if not reading.chunks:
                self._empty.append(work.doc_key)
            if writing.is_full(len(reading.write)):
                self._embedding.flush()  # what has gathered must not wait for a reader that waits for it
                writing.admit(len(reading.write), self._halted)
            writing.expect(len(reading.write))
            self._embedding.submit(Job(reading))

    def _delete_gone(self, store: Store, ledger: Ledger) -> None:
        generation = self._plan.generation.id
        for page in _pages(self._plan.deletes(), DELETE_PAGE):
            by_collection: dict[str, list[str]] = {}
            for doc_key, collection in page:
                row = ledger.document(generation, doc_key)
                count = max(len(row.chunks) if row else 0, self._plan.leftovers.get(doc_key, 0))
                by_collection.setdefault(collection, []).extend(chunk_ids(doc_key, range(count)))
                if row:
                    self._cache.released(chunk.hash for chunk in row.chunks)
            self._delete_chunks(store, by_collection)
            ledger.forget(generation, [doc_key for doc_key, _ in page])
            for doc_key, _ in page:
                if doc_key not in self._moved_from:
                    self._progress.count_kind("deleted")
            self._progress.add(documents_done=len(page))
            self._tick()
        self._sweep_up(store, ledger)

    def _sweep_up(self, store: Store, ledger: Ledger) -> None:
        """Delete what killed runs left of documents that are gone."""
        for intents in _pages(self._plan.abandoned, DELETE_PAGE):
            by_collection: dict[str, list[str]] = {}
            for intent in intents:
                by_collection.setdefault(intent.collection, []).extend(chunk_ids(intent.doc_key, range(intent.chunks)))
            self._delete_chunks(store, by_collection)
            ledger.resolve(self._plan.generation.id, intents)

    def _delete_chunks(self, store: Store, by_collection: dict[str, list[str]]) -> None:
        for collection, ids in by_collection.items():
            store.delete(collection, ids)
            self._progress.add(chunks_deleted=len(ids))

    def _open_budget(self) -> Budget:
        settings, embedder = self._settings, self._embedder
        price = price_per_token(embedder.model, settings.prices, billable=embedder.billable)
        return Budget(
            settings.path(settings.spend_ledger), self._progress.run, embedder.model, price,
            settings.max_cost_usd, settings.max_cost_usd_per_day, self._clock,
        )  # fmt: skip

    def _writing_stage(self, generation: Generation) -> WritingStage:
        settings = self._settings
        return WritingStage(
            self._files,
            lambda: Ledger(self._ledger.path, clock=self._clock),
            self._cache,
            self._progress,
            generation,
            batch=min(settings.store_batch, WRITE_BESIDE_REQUESTS) if self._embedder.billable else settings.store_batch,
            # Twice a write, so that one fills while one is written, and what the requests in flight carry.
            outstanding_limit=2 * settings.store_batch + settings.concurrency * settings.batch_texts,
            leftovers=self._plan.leftovers,
            written=self._written,
            failed=self._fail,
        )

    def _embedding_stage(self) -> EmbeddingStage:
        settings = self._settings
        limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute, stop=self._give_up)
        requester = Requester(
            self._embedder, limiter, self._budget, max_attempts=settings.max_attempts,
            batch_texts=settings.batch_texts, batch_tokens=settings.batch_tokens, stop=self._give_up,
        )  # fmt: skip
        computes_here = not self._embedder.billable  # more threads would only share the interpreter's lock
        return EmbeddingStage(
            requester, self._cache, self._progress, concurrency=1 if computes_here else settings.concurrency,
            batch_texts=requester.max_texts, batch_tokens=requester.max_tokens,
            ready=self._writing.put, failed=self._fail, waiting=self._halted,
        )  # fmt: skip

    def _written(self) -> None:
        self._count_money()
        self._tick()

    def _count_money(self) -> None:
        picousd, tokens = self._budget.spent()
        with self._progress.lock:
            self._progress.cost_usd, self._progress.tokens_billed = usd(picousd), tokens
            self._progress.requests = self._budget.requests

    def _evict(self) -> None:
        """Once a day: which vectors are needed takes a pass over the ledger."""
        today = int(self._clock() // 86_400)
        if self._ledger.fact("evicted_on") != today:
            self._cache.evict(
                self._ledger.needed_hashes(), self._settings.cache_keep_days, self._settings.cache_max_mb * 1_000_000
            )
            self._ledger.remember("evicted_on", today)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._give_up.set()

    def _halted(self) -> bool:
        if self._stop.is_set():
            self._give_up.set()
        return self._give_up.is_set()


def _pages(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    page: list[_Item] = []
    for item in items:
        page.append(item)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
