"""The embedding stage: texts go out in batches, vectors come back through the cache.

One thread submits; a pool waits for the provider. Every vector is in the cache before anybody hears of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from vectorstore.cache import VectorCache
from vectorstore.embedders.requester import Requester
from vectorstore.progress import Progress
from vectorstore.reading import Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Job:
    """A document between reading and writing: its vectors gather here."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.vectors: dict[int, NDArray[np.float32]] = {}
        self.failure = ""
        self.aborted = False
        self.missing = len(reading.write)

    def settle(self, number: int, vector: NDArray[np.float32] | None, failure: str) -> bool:
        """One chunk's answer; whether it was the last."""
        if vector is None:
            self.failure = self.failure or failure
            self.aborted = self.aborted or not failure
        else:
            self.vectors[number] = vector
        self.missing -= 1
        return not self.missing


class _Text:
    """A text on its way, and the chunks that wait for its vector."""

    def __init__(self, hash_: bytes, text: str, tokens: int) -> None:
        self.hash, self.text, self.tokens = hash_, text, tokens
        self.waiting: list[tuple[Job, int]] = []


class EmbeddingStage:
    """Sends texts that the cache lacks to the embedder.

    Args:
        ready: called with each job that has all its vectors, or failed, or was aborted; from any thread.
        failed: called with what stopped the stage for good; from a pool thread. Nothing is sent after it.
        waiting: called now and then while ``submit`` or ``close`` blocks.
    """

    def __init__(
        self,
        requester: Requester,
        cache: VectorCache,
        progress: Progress,
        *,
        concurrency: int,
        batch_texts: int,
        batch_tokens: int,
        ready: Callable[[Job], None],
        failed: Callable[[BaseException], None],
        waiting: Callable[[], object],
    ) -> None:
        self._requester, self._cache, self._progress = requester, cache, progress
        self._batch_texts, self._batch_tokens = batch_texts, batch_tokens
        self._ready, self._failed, self._waiting = ready, failed, waiting
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="embed")
        # A few batches may wait for a thread, so that none waits for the reader; more would be memory without use.
        self._slots = threading.Semaphore(concurrency + 2)
        self._lock = threading.Lock()
        self._on_the_way: dict[bytes, _Text] = {}
        self._batch: list[_Text] = []
        self._tokens = 0
        self._stopped = threading.Event()
        self._requests: set[Future[None]] = set()

    def submit(self, job: Job) -> None:
        """Get the job's vectors; may block until a request ends. Only from one thread."""
        wanted: dict[bytes, list[int]] = {}
        for number in job.reading.write:
            wanted.setdefault(job.reading.hashes[number], []).append(number)
        # First the texts on their way, then the cache: a vector enters the cache before its text leaves the way.
        with self._lock:
            for hash_ in [hash_ for hash_ in wanted if hash_ in self._on_the_way]:
                self._on_the_way[hash_].waiting += [(job, number) for number in wanted.pop(hash_)]
        found = self._cache.get_many(list(wanted))
        with self._lock:
            done = not job.reading.write
            for hash_, numbers in wanted.items():
                if hash_ in found:
                    for number in numbers:
                        done = job.settle(number, found[hash_], "")
                else:
                    self._add(job, hash_, numbers)
        asked_for = len(wanted) - len(found)  # texts; whatever else the job needs costs nothing
        self._progress.add(chunks_from_cache=len(job.reading.write) - asked_for)
        if done:
            self._ready(job)
        while len(self._batch) >= self._batch_texts or self._tokens >= self._batch_tokens:
            self._send()

    def flush(self) -> None:
        """Send what has gathered, full batch or not."""
        while self._batch:
            self._send()

    def stop(self) -> None:
        """Send nothing more; jobs that wait for what was not sent are aborted."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for the requests in flight."""
        self.flush()
        while self._busy():
            self._waiting()
        self._pool.shutdown(wait=True)

    def _busy(self) -> bool:
        with self._lock:
            requests = list(self._requests)
        return bool(wait(requests, timeout=0.5).not_done)

    def _add(self, job: Job, hash_: bytes, numbers: Sequence[int]) -> None:
        chunk = job.reading.chunks[numbers[0]]
        text = self._on_the_way[hash_] = _Text(hash_, chunk.text, chunk.tokens)
        text.waiting = [(job, number) for number in numbers]
        self._batch.append(text)
        self._tokens += chunk.tokens

    def _send(self) -> None:
        count = tokens = 0
        for text in self._batch[: self._batch_texts]:
            if count and tokens + text.tokens > self._batch_tokens:
                break
            count, tokens = count + 1, tokens + text.tokens
        batch, self._batch = self._batch[:count], self._batch[count:]
        self._tokens -= tokens
        while not self._slots.acquire(timeout=0.5):
            self._waiting()
        request = self._pool.submit(self._embed, batch)
        with self._lock:
            self._requests.add(request)
        request.add_done_callback(self._forget)

    def _forget(self, request: Future[None]) -> None:
        with self._lock:
            self._requests.discard(request)

    def _embed(self, batch: list[_Text]) -> None:
        try:
            if self._stopped.is_set():
                return
            outcome = self._requester.embed(
                [text.text for text in batch],
                [text.tokens for text in batch],
                landed=lambda positions, vectors: self._landed(batch, positions, vectors),
            )
            self._settle([(batch[position], None, reason) for position, reason in outcome.failed.items()])
        except BaseException as error:
            self.stop()
            self._failed(error)
        finally:
            with self._lock:
                left = [text for text in batch if self._on_the_way.get(text.hash) is text]
            self._settle([(text, None, "") for text in left])
            self._slots.release()

    def _landed(self, batch: list[_Text], positions: Sequence[int], vectors: NDArray[np.float32]) -> None:
        texts = [batch[position] for position in positions]
        self._cache.put_many([text.hash for text in texts], vectors)
        self._progress.add(chunks_embedded=len(texts), tokens_embedded=sum(text.tokens for text in texts))
        self._settle([(text, vector, "") for text, vector in zip(texts, vectors, strict=True)])

    def _settle(self, answers: Sequence[tuple[_Text, NDArray[np.float32] | None, str]]) -> None:
        finished: list[Job] = []
        with self._lock:
            for text, vector, failure in answers:
                self._on_the_way.pop(text.hash, None)
                finished += [job for job, number in text.waiting if job.settle(number, vector, failure)]
        for job in finished:
            self._ready(job)
