"""Health: one pass over documents, ledger and store: what is wrong, why, and what to do. It changes nothing.

ledger and machine -> source -> the store's SQLite side -> its index files -> every collection: ids, and rows with their
texts, metadata and vectors -> what search answers. An embedded store is read from its files; Chroma itself only ever
opens a copy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.checks import workspace as workspace_checks
from vectorstore.checks.faults import Faults
from vectorstore.checks.source import check_source
from vectorstore.checks.store import StoreChecks
from vectorstore.checks.view import Choice, View
from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.errors import Damaged
from vectorstore.findings import Depth, HealthReport, Severity
from vectorstore.ledger import Ledger
from vectorstore.progress import Progress
from vectorstore.redaction import redacted
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from vectorstore.chroma.audit import Damage


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
    damages: Sequence[Damage] = ()
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
        seed: which part of the rows a standard check looks at; ``None``: it goes by the hour, so that all come in turn.
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
        part = int(clock() // 3600) if seed is None else seed
        choice = Choice(depth, way, probe, verify_content, part, writer)
        yield _Health(settings, choice, on_progress, clock, stack).run()


class _Health:
    """One health check."""

    def __init__(
        self, settings: Settings, choice: Choice, on_progress: Callable[[Progress], None], clock: Callable[[], float],
        stack: ExitStack,
    ) -> None:  # fmt: skip
        started = clock()
        run = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(started)) + os.urandom(3).hex()
        self._clock, self._stack = clock, stack
        self._view = View(settings, choice, Progress(run, "health", started), on_progress)
        stack.callback(self._view.faults.close)

    def run(self) -> Examination:
        view = self._view
        at_work = False if view.choice.writer else workspace_checks.check_lock(view.settings, view.found)
        self._open_ledger(at_work)
        if view.ledger:
            self._check_workspace(view.ledger)
        if view.choice.standard and view.ledger:
            view.source = check_source(
                view.settings, view.ledger, view.serving, view.found, contents=view.choice.verify_content
            )
        if view.source:
            view.faults.add("ledger_places", "", view.source.misplaced)
        before = self._fingerprint()
        store = StoreChecks(view, self._stack, at_work=at_work)
        store.run()
        if not view.choice.writer and self._fingerprint() != before:
            view.notes.append("the store was written to while it was looked at: look again when nobody writes")
        return Examination(self._report(), view.faults, store.damages, store.leaked, view.ids)

    def _open_ledger(self, at_work: bool) -> None:
        view = self._view
        path = view.settings.hashes / "ledger.sqlite3"
        view.found.looked("ledger", "" if path.exists() else "there is no ledger: nothing was ever stored from here")
        try:
            ledger = Ledger(path, readonly=True, clock=self._clock)
            self._stack.callback(ledger.close)
            if not path.exists():
                return
            workspace_checks.check_ledger(ledger, view.found, thorough=view.choice.standard, at_work=at_work)
            view.serving = ledger.generation(view.settings.collection)
            view.generations = ledger.generations_by_collection()
            view.counted = {each.id: ledger.counted(each.id) for each in ledger.generations()}
        except Damaged as error:
            view.found.add("ledger", error.message, remedy=error.hint)
            return
        if not any(each.check == "ledger" and each.severity is Severity.FAIL for each in view.found.result()):
            view.ledger = ledger

    def _check_workspace(self, ledger: Ledger) -> None:
        settings, found, thorough = self._view.settings, self._view.found, self._view.choice.standard
        workspace_checks.check_runs(settings, ledger, self._view.serving, found)
        workspace_checks.check_money(settings, found, self._clock)
        workspace_checks.check_backups(settings, found, self._clock)
        if thorough:
            vectors = self._view.choice.verify_content
            workspace_checks.check_cache(settings, ledger, self._view.serving, found, vectors=vectors)

    def _fingerprint(self) -> object:
        settings = self._view.settings
        with suppress(OSError):
            return None if settings.chroma_url else fingerprint(settings.path(settings.chroma_path))
        return None

    def _report(self) -> HealthReport:
        view = self._view
        settings = view.settings
        return HealthReport(
            run=view.progress.run,
            started=view.progress.started,
            seconds=self._clock() - view.progress.started,
            depth=view.choice.depth.name.lower(),
            way=view.way,
            workspace=str(settings.workspace),
            store=redacted(settings.chroma_url) or str(settings.path(settings.chroma_path)),
            source=str(settings.path(settings.source)),
            pipeline=view.serving.pipeline if view.serving else "",
            findings=view.found.result(),
            collections=sorted(view.collections, key=lambda each: each.name),
            norms=dict(sorted(view.norms.items())),
            notes=view.notes,
        )
