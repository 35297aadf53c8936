"""The writing stage: a thread that coalesces documents into writes the store takes well.

Per write: intents into the ledger, chunks into the store, read back, leftovers of older versions out of the store, and
only then the documents into the ledger. Old chunks are never deleted before the new ones are there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping

from vectorstore.cache import VectorCache, vector_crc
from vectorstore.chroma.store import Rows, Store, chunk_ids
from vectorstore.embedding import Job
from vectorstore.ledger import ChunkRecord, DocumentRow, Generation, Intent, Ledger
from vectorstore.mending.store_files import StoreFiles
from vectorstore.progress import Progress
from vectorstore.reading import Reading, metadata_crc

_END = object()


class WritingStage:
    """Owns the open store and the ledger's writing connection, both made in its thread when there is work.

    Args:
        leftovers: chunks that the store may hold of a document beyond what the ledger knows.
        outstanding_limit: how many chunks may be on their way before ``admit`` blocks.
        failed: called with what stopped the stage for good.
    """

    def __init__(
        self,
        files: StoreFiles,
        open_ledger: Callable[[], Ledger],
        cache: VectorCache,
        progress: Progress,
        generation: Generation,
        *,
        batch: int,
        outstanding_limit: int,
        leftovers: Mapping[str, int],
        written: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._files, self._open_ledger, self._cache, self._progress = files, open_ledger, cache, progress
        self._generation, self._pipeline, self._leftovers = generation.id, generation.pipeline, leftovers
        self._batch, self._limit, self._written, self._failed = batch, outstanding_limit, written, failed
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._outstanding = 0
        self._blocked = False
        self._changed = threading.Condition()
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._thread = threading.Thread(target=self._run, name="write")
        self.failures: dict[str, str] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_full(self, chunks: int) -> bool:
        """Whether ``admit`` would block."""
        with self._changed:
            return bool(self._outstanding) and self._outstanding + chunks > self._limit

    def admit(self, chunks: int, halted: Callable[[], bool]) -> None:
        """Wait until ``chunks`` more may be on their way: memory follows the batch, not the corpus."""
        with self._changed:
            while self._outstanding and self._outstanding + chunks > self._limit and not halted():
                self._blocked = True  # the writer need not wait for a full batch
                self._changed.wait(0.1)
            self._blocked = False

    def expect(self, chunks: int) -> None:
        """``chunks`` more are on their way."""
        with self._changed:
            self._outstanding += chunks

    def put(self, job: Job) -> None:
        """A job with all its vectors, or a failed or aborted one; from any thread."""
        self._queue.put(job)

    def call(self, action: Callable[[Store, Ledger], None]) -> None:
        """Run ``action`` in this thread after everything put before it."""
        self._queue.put(action)

    def close(self) -> None:
        """Write what is left, then close store and ledger."""
        self._queue.put(_END)
        self._thread.join()

    def _run(self) -> None:
        jobs: list[Job] = []
        chunks = 0
        try:
            while True:
                try:
                    item = self._queue.get(timeout=0.2)
                except queue.Empty:
                    if self._blocked and jobs:
                        self._flush(jobs)
                        chunks = 0
                    continue
                if isinstance(item, Job):
                    jobs.append(item)
                    chunks += len(item.reading.write)
                if chunks >= self._batch or len(jobs) >= 4 * self._batch or item is _END or callable(item):
                    self._flush(jobs)
                    chunks = 0
                if item is _END:
                    return
                if callable(item):
                    item(*self._opened())
        except BaseException as error:
            self._failed(error)
        finally:
            self._close()

    def _opened(self) -> tuple[Store, Ledger]:
        if self._ledger is None:
            self._ledger = self._open_ledger()
        if self._store is None:
            self._store = self._files.open(self._ledger)
        return self._store, self._ledger

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._ledger is not None:
            self._ledger.close()

    def _flush(self, jobs: list[Job]) -> None:
        good = [job for job in jobs if not job.failure and not job.aborted]
        self.failures.update({job.reading.work.doc_key: job.failure for job in jobs if job.failure})
        if good:
            self._write(good)
        with self._changed:
            self._outstanding -= sum(len(job.reading.write) for job in jobs)
            self._changed.notify_all()
        failed = sum(bool(job.failure) for job in jobs)
        self._progress.add(documents_done=len(good) + failed, failed=failed)
        for job in good:
            self._progress.count_kind(job.reading.kind)
        jobs.clear()
        self._written()

    def _write(self, jobs: list[Job]) -> None:
        store, ledger = self._opened()
        ledger.intend(self._generation, [self._intent(job.reading) for job in jobs])
        by_collection: dict[str, list[Job]] = {}
        for job in jobs:
            by_collection.setdefault(job.reading.work.collection, []).append(job)
        for name, members in by_collection.items():
            store.prepare(name, self._pipeline)
            rows = _rows(members)
            if rows.ids:
                store.upsert(name, rows)
            self._progress.add(chunks_written=len(rows.ids))
            leftover = [id_ for job in members for id_ in self._leftover_ids(job.reading)]
            store.delete(name, leftover)
            self._progress.add(chunks_deleted=len(leftover))
        ledger.commit(self._generation, [_row(job) for job in jobs])
        self._cache.released(hash_ for job in jobs for hash_ in _dropped(job.reading))
        self._progress.last_document = jobs[-1].reading.work.doc_key

    def _held(self, reading: Reading) -> int:
        """How many chunks the store may hold of a document, by all that is known."""
        return max(len(reading.old.chunks) if reading.old else 0, self._leftovers.get(reading.work.doc_key, 0))

    def _intent(self, reading: Reading) -> Intent:
        chunks = max(self._held(reading), len(reading.chunks))
        return Intent(reading.work.doc_key, reading.work.collection, chunks)

    def _leftover_ids(self, reading: Reading) -> list[str]:
        return chunk_ids(reading.work.doc_key, range(len(reading.chunks), self._held(reading)))


def _rows(jobs: list[Job]) -> Rows:
    import numpy as np

    ids: list[str] = []
    documents: list[str] = []
    metadatas: list[dict[str, str | int]] = []
    vectors = []
    for job in jobs:
        reading = job.reading
        ids += chunk_ids(reading.work.doc_key, reading.write)
        documents += [reading.chunks[number].text for number in reading.write]
        metadatas += [reading.metadatas[number] for number in reading.write]
        vectors += [job.vectors[number] for number in reading.write]
    return Rows(ids, np.asarray(vectors, dtype=np.float32), documents, metadatas)


def _row(job: Job) -> DocumentRow:
    reading = job.reading
    document, entry = reading.document, reading.document.entry
    return DocumentRow(
        document.doc_key, reading.work.collection, entry.size, entry.mtime_ns, entry.ctime_ns, document.racy,
        sum(chunk.tokens for chunk in reading.chunks), document.content_hash,
        tuple(_record(job, number) for number in range(len(reading.chunks))),
    )  # fmt: skip


def _record(job: Job, number: int) -> ChunkRecord:
    reading = job.reading
    if number in job.vectors:
        crc = vector_crc(job.vectors[number])
    else:  # not written, so it is the old chunk of this number
        assert reading.old is not None
        crc = reading.old.chunks[number].vector_crc
    return ChunkRecord(reading.hashes[number], crc, metadata_crc(reading.metadatas[number]))


def _dropped(reading: Reading) -> set[bytes]:
    return {chunk.hash for chunk in reading.old.chunks} - set(reading.hashes) if reading.old else set()
