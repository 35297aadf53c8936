"""Documents that are adopted: matched with the rows of foreign collections, and written as every document is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from vectorstore.adoption.matching import Matcher
from vectorstore.cache import VectorCache
from vectorstore.embedding import Job
from vectorstore.errors import Interrupted, VectorkeepError, unforeseen
from vectorstore.ledger import Intent, Ledger
from vectorstore.mending.store_files import StoreFiles
from vectorstore.plan import Plan
from vectorstore.progress import Progress
from vectorstore.settings import Settings
from vectorstore.writing import WritingStage

EXAMPLES = 20  # documents that are left


class AdoptedDocuments:
    """Takes over what a matcher finds of a plan. This thread reads and matches; the writing stage's writes.

    Args:
        cache: holds the vectors; not needed for a dry run.
        tick: called now and then, from any thread.

    Attributes:
        documents, chunks: taken over.
        written: chunks of them that were not in their place already.
        left: why how many documents were left to an update; ``examples`` of them.
        notes: what else a person should know.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        ledger: Ledger,
        cache: VectorCache | None,
        matcher: Matcher,
        progress: Progress,
        tick: Callable[[], None],
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._plan, self._ledger, self._cache = settings, plan, ledger, cache
        self._matcher, self._progress, self._tick, self._stop, self._clock = matcher, progress, tick, stop, clock
        self._error: BaseException | None = None
        self.documents = self.chunks = self.written = 0
        self.left: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.notes: list[str] = []

    def count(self) -> None:
        """Only see what there is: a dry run."""
        for _ in self._jobs():
            self._done()
        self._raise()

    def take(self) -> None:
        """Write them.

        Raises:
            VectorkeepError: what ended it early; what was written before stays.
            Interrupted: it was stopped at the end of a batch.
        """
        jobs = self._jobs()
        first = next(jobs, None)
        if first is not None:
            self._write(chain([first], jobs))
        self._raise()

    def _jobs(self) -> Iterator[Job]:
        """Documents that no run has written yet, or that the store lost, and whose chunks are all there."""
        plan = self._plan
        self._progress.documents_total = plan.counts["added"] + plan.counts["missing"]
        self._tick()
        for work in plan.work():
            if self._halted():
                return
            if work.kind not in ("added", "missing"):
                continue
            job = self._matcher.job(work)
            if isinstance(job, str):
                self.left[job] += 1
                if len(self.examples) < EXAMPLES:
                    self.examples[work.doc_key] = job
                self._done()
                continue
            self.documents += 1
            self.chunks += len(job.reading.chunks)
            self.written += len(job.reading.write)
            plan.drop(work)
            yield job

    def _write(self, jobs: Iterable[Job]) -> None:
        settings, plan, ledger = self._settings, self._plan, self._ledger
        assert self._cache
        plan.generation = ledger.begin(plan.generation)
        if ledger.is_empty(plan.generation.id):  # once it is not, nobody looks for leftovers in all our collections
            ledger.intend(plan.generation.id, _leftovers(plan))
        files = StoreFiles(settings, plan.presence.damages, {plan.generation.pipeline.rpartition("/")[0]: self._cache})
        stage = WritingStage(
            files, lambda: Ledger(ledger.path, clock=self._clock), self._cache, self._progress, plan.generation,
            batch=settings.store_batch, outstanding_limit=2 * settings.store_batch, leftovers=plan.leftovers,
            written=self._tick, failed=self._fail,
        )  # fmt: skip
        stage.start()
        try:
            for job in jobs:
                stage.admit(len(job.reading.write), self._halted)
                stage.expect(len(job.reading.write))
                stage.put(job)
        except BaseException as error:
            self._fail(error)
        finally:
            stage.close()
        try:
            files.close(ledger)
        except Exception as error:
            self._fail(error)  # the first error is the cause
        self.notes += files.notes

    def _done(self) -> None:
        self._progress.add(documents_done=1)
        self._tick()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error

    def _halted(self) -> bool:
        return self._error is not None or self._stop.is_set()

    def _raise(self) -> None:
        if isinstance(self._error, Exception) and not isinstance(self._error, VectorkeepError):
            raise unforeseen(self._error) from self._error
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise Interrupted("stopped by request at the end of a batch", "run again to go on")


def _leftovers(plan: Plan) -> list[Intent]:
    """What our collections may hold of documents that are in the source."""
    return [
        Intent(work.doc_key, work.collection, plan.leftovers[work.doc_key])
        for work in plan.work()
        if work.doc_key in plan.leftovers
    ]
