"""Update: bring the store in step with the documents.

scan -> compare -> plan -> (read, chunk, look into the cache, reserve, embed, cache, upsert, read back, commit) ->
deletes -> report. Whatever happened to the run before, run again: the ledger decides.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from vectorstore.backups.exchange import writing
from vectorstore.errors import VectorkeepError
from vectorstore.ledger import Ledger
from vectorstore.pipeline import Pipeline
from vectorstore.plan import Plan
from vectorstore.planning import make_plan
from vectorstore.progress import Checkpoint, Progress
from vectorstore.settings import Settings

TOUCH_PAGE = 5_000  # documents a transaction
CHECKPOINT_FAILURES = 20
STATES = {1: "failed", 2: "failed", 3: "capped", 5: "refused", 6: "failed", 130: "interrupted"}  # by exit code


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Attributes:
        state: ``completed`` (also when there was nothing to do), ``capped``, ``interrupted``, ``refused``, ``failed``.
        exit_code: 0 done, 1 some documents failed, else that of the error that ended the run.
        error, message, hint: what ended it early, by its class in ``errors``; why, and the next step.
        kinds: documents by what they turned out to be: added, moved, changed, unchanged, missing, stale, all, deleted,
            unknown.
        collections: the plan's counts by collection.
        failures: document or folder -> reason; tried again by the next run.
        notes: what else a person should know: repairs, a damaged cache.
        tokens_billed, cost_usd: as the provider reported; what is uncertain is counted as spent.
        requests: sent to a provider that bills, those that failed among them.
    """

    run: str
    state: str
    exit_code: int
    seconds: float
    error: str = ""
    message: str = ""
    hint: str = ""
    kinds: dict[str, int] = field(default_factory=dict)
    collections: dict[str, dict[str, int]] = field(default_factory=dict)
    chunks_written: int = 0
    chunks_embedded: int = 0
    chunks_from_cache: int = 0
    chunks_deleted: int = 0
    chunks_repaired: int = 0
    tokens_embedded: int = 0
    tokens_billed: int = 0
    requests: int = 0
    cost_usd: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def update(
    settings: Settings,
    *,
    mode: str = "changed",
    collections: Collection[str] = (),
    doc_keys: Collection[str] = (),
    verify_content: bool = False,
    max_deletes: int | None = None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> UpdateReport:
    """Bring the store in step.

    Args:
        settings: of the workspace.
        mode, collections, doc_keys, verify_content, max_deletes: see ``planning.make_plan``.
        on_plan: called with the plan before anything is done.
        on_progress: called with the counters now and then, from any thread.
        stop: set it to stop at a batch's end; the run then reports ``interrupted``.

    Returns:
        The report, also of a run that was capped, interrupted or refused, or that failed on the way.

    Raises:
        Locked: another run writes.
        ConfigurationError, EmptySource, Damaged: before anything was done.
        BaseException: what the caller's own thread was hit by, after what was in flight was kept.
    """
    choice = {
        "mode": mode, "collections": collections, "doc_keys": doc_keys,
        "verify_content": verify_content, "max_deletes": max_deletes,
    }  # fmt: skip
    return _Update(settings, on_plan, on_progress, stop or threading.Event(), clock).run(choice)


class _Update:
    """One update, from the lock to the report."""

    def __init__(
        self,
        settings: Settings,
        on_plan: Callable[[Plan], None],
        on_progress: Callable[[Progress], None],
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._pipeline = settings, Pipeline.of(settings)
        self._on_plan, self._on_progress, self._stop, self._clock = on_plan, on_progress, stop, clock
        started = clock()
        id_ = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started)) + os.urandom(3).hex()
        self._progress = Progress(id_, "update", started)
        self._checkpoint = Checkpoint(settings.hashes, self._progress, clock=clock)
        self._error: VectorkeepError | None = None
        self._failures: dict[str, str] = {}
        self._notes: list[str] = []

    def run(self, choice: dict[str, Any]) -> UpdateReport:
        settings = self._settings
        with writing(settings, "vectorkeep update"):
            ledger = Ledger(settings.hashes / "ledger.sqlite3", clock=self._clock)
            try:
                self._finish_swap(ledger)
                with make_plan(settings, ledger, self._pipeline.id, **choice) as plan:
                    self._carry_out(plan, ledger)
                    return self._conclude(plan, ledger)
            finally:
                ledger.close()

    def _carry_out(self, plan: Plan, ledger: Ledger) -> None:
        if not plan.refusals:
            self._touch(plan, ledger)
        self._on_plan(plan)
        self._notes += plan.notes
        self._failures = {problem.doc_key: problem.reason for problem in plan.problems}
        self._progress.documents_total = plan.to_read + plan.counts["deleted"]
        self._progress.kinds = {kind: plan.counts[kind] for kind in ("unchanged", "unknown") if plan.counts[kind]}
        if plan.refusals:
            self._error = plan.refusals[0]
        elif not plan.nothing_to_do:
            self._apply(plan, ledger)
            if plan.generation.state == "building" and self._error is None:
                self._swap(plan, ledger)
        elif plan.presence.files:
            ledger.store_closed(plan.presence.files)  # looked at and found whole

    def _touch(self, plan: Plan, ledger: Ledger) -> None:
        """Bring the ledger's times up to date where only they changed: that needs no store and no embedder."""
        from vectorstore.reading import find_untouched

        page: list[tuple[str, int, int, int, bool]] = []
        for document in find_untouched(plan, ledger):
            entry = document.entry
            page.append((document.doc_key, entry.size, entry.mtime_ns, entry.ctime_ns, document.racy))
            if len(page) >= TOUCH_PAGE:
                ledger.touch(plan.generation.id, page)
                page.clear()
            if self._stop.is_set():
                break
        if page:
            ledger.touch(plan.generation.id, page)

    def _apply(self, plan: Plan, ledger: Ledger) -> None:
        from vectorstore.run import Run  # the heavy imports start here, when there is work

        run = Run(self._settings, self._pipeline, plan, ledger, self._progress, self._stop, self._tick, self._clock)
        try:
            self._tick()
            run.execute()
        except VectorkeepError as error:
            self._error = error
        except BaseException:
            self._progress.state = "interrupted"
            self._checkpoint.write(now=True)
            raise
        finally:
            self._failures |= run.failures
            self._notes += run.notes

    def _tick(self) -> None:
        self._checkpoint.write()
        self._on_progress(self._progress)

    def _finish_swap(self, ledger: Ledger) -> None:
        """Go on with a swap that was killed."""
        if ledger.fact("swap"):
            from vectorstore.swap import finish_swap

            self._notes += finish_swap(self._settings, ledger)

    def _swap(self, plan: Plan, ledger: Ledger) -> None:
        """Let what was built serve, unless it lacks documents that are served today."""
        from vectorstore.swap import begin_swap, finish_swap

        serving = ledger.generation(plan.generation.template)
        assert serving is not None
        lacking = [key for key in self._failures if key.endswith("/") or ledger.document(serving.id, key)]
        if lacking or not plan.whole:
            why = f"{len(lacking)} documents that serve today failed" if lacking else "only a part was asked for"
            self._notes.append(f"the new vectors do not serve yet: {why}; run `vectorkeep update --mode stale` again")
            return
        if faults := self._faults_of(plan):
            self._notes.append(
                f"the new vectors do not serve yet: a health check found fault with them: {faults[0]};"
                " run `vectorkeep health --fix --depth deep`, then `vectorkeep update --mode stale` again"
            )
            return
        begin_swap(ledger, serving, plan.generation, self._clock())
        self._notes += finish_swap(self._settings, ledger)

    def _faults_of(self, plan: Plan) -> list[str]:
        """What a deep health check has against the collections that were built."""
        from vectorstore.documents.naming import building_suffix
        from vectorstore.findings import Depth, Severity, held
        from vectorstore.health import examine

        suffix = building_suffix(plan.generation.pipeline)
        with examine(self._settings, depth=Depth.DEEP, probe=False, writer=True, clock=self._clock) as examination:
            findings = examination.report.findings
        if holder := held(findings):
            return [holder.message]
        return [
            f"{each.collection}: {each.message}" for each in findings
            if each.severity is Severity.FAIL and each.collection.endswith(suffix)
        ]  # fmt: skip

    def _conclude(self, plan: Plan, ledger: Ledger) -> UpdateReport:
        report = self._report(plan)
        self._progress.state = report.state
        if plan.generation.id:
            _record_failures(ledger, plan, report)
        ledger.record_run(report.run, "update", self._progress.started, report.state, report.to_dict())
        failures = dict(list(report.failures.items())[:CHECKPOINT_FAILURES])
        self._checkpoint.write(now=True, message=report.message, hint=report.hint, failures=failures)
        return report

    def _report(self, plan: Plan) -> UpdateReport:
        error = self._error
        exit_code = error.exit_code if error else int(bool(self._failures))
        counters = self._progress.snapshot()
        counted = {name: value for name, value in counters.items() if name in UpdateReport.__dataclass_fields__}
        return UpdateReport(
            **counted
            | {
                "state": STATES.get(exit_code, "failed") if error else "completed",
                "exit_code": exit_code,
                "seconds": self._clock() - self._progress.started,
                "error": type(error).__name__ if error else "",
                "message": error.message if error else "",
                "hint": error.hint if error else "",
                "collections": plan.by_collection,
                "failures": self._failures,
                "notes": self._notes,
            }
        )


def _record_failures(ledger: Ledger, plan: Plan, report: UpdateReport) -> None:
    failed = {key: reason for key, reason in report.failures.items() if not key.endswith("/")}
    if failed:
        ledger.fail(plan.generation.id, failed)
    if report.state == "completed" and plan.whole:  # all documents were looked at
        ledger.keep_failures(plan.generation.id, failed)
