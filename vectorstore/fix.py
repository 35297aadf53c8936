"""Fix: turns what a health check found into actions, does them, and checks again.

What an update can do (writing documents, deleting what is gone) is left to an update, which follows; a fix mends what
no update looks for: vectors, metadata and rows that are not what the ledger says. A kill at any point leaves a store
that the next fix, or the next update, goes on with: documents to be written anew are noted in the ledger before the
store is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from vectorstore.backups.exchange import writing
from vectorstore.checks.view import dimension_of
from vectorstore.chroma.rows import PAGE
from vectorstore.errors import Interrupted, Locked, VectorkeepError
from vectorstore.findings import Action, Depth, Finding, HealthReport, Severity, held
from vectorstore.health import Examination, examine, health
from vectorstore.ledger import Ledger
from vectorstore.mending.fix_plan import DELETES, Step, check_guards, forbidding, left_over, not_ours, plan_steps
from vectorstore.mending.known_vectors import KnownVectors
from vectorstore.mending.store_files import StoreFiles, drop_set_aside, intend_again
from vectorstore.mending.trail import Trail
from vectorstore.progress import Progress
from vectorstore.settings import Settings
from vectorstore.update import UpdateReport, update

REFILLED = ("vectors", "no_vector", "not_finite", "zero", "norm", "index_ids")
REWRITTEN = ("missing", "text", "metadata", "fulltext")
_COMPLETE = (Action.REMOVE_FOLDERS, Action.RECOUNT, Action.SAVE_CACHE)  # leave nothing for an update to do
LISTED = 1_000  # ids in a line of the trail


@dataclass(frozen=True)
class FixReport:
    """What a fix did, or would do.

    Attributes:
        state: ``healthy`` (nothing to do), ``planned`` (dry run), ``fixed``, ``partly`` (something is left),
            ``unmendable``, ``refused``, ``capped``, ``interrupted``, ``failed``.
        steps: what was planned, in order.
        left: findings that no action mends, with their remedies.
        before, after: the health reports; ``after`` is ``None`` where nothing was done.
        updated: the report of the update that followed, or ``None``.
        kept: the file of deleted rows, or empty.
        backup: the name of the backup that was made before, or empty.
    """

    run: str
    state: str
    exit_code: int
    seconds: float
    before: HealthReport
    steps: list[Step]
    left: list[Finding]
    error: str = ""
    message: str = ""
    hint: str = ""
    after: HealthReport | None = None
    updated: UpdateReport | None = None
    kept: str = ""
    backup: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run, "state": self.state, "exit_code": self.exit_code, "seconds": round(self.seconds, 3),
            "error": self.error, "message": self.message, "hint": self.hint,
            "steps": [step.to_dict() for step in self.steps], "left": [finding.to_dict() for finding in self.left],
            "before": self.before.to_dict(), "after": self.after.to_dict() if self.after else None,
            "updated": self.updated.to_dict() if self.updated else None, "kept": self.kept,
            "backup": self.backup, "notes": self.notes,
        }  # fmt: skip


def fix(
    settings: Settings,
    *,
    depth: Depth = Depth.STANDARD,
    dry_run: bool = False,
    backup: bool = True,
    max_deletes: int | None = None,
    probe: bool | None = None,
    verify_content: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> FixReport:
    """Check, mend what can be mended, and check again.

    Args:
        depth: of both checks.
        dry_run: only say what would be done; changes nothing.
        backup: make one first, of what is there, as far as it can be read.
        max_deletes: allow this many chunks and documents to be deleted, instead of the guard's share.
        probe, verify_content: of both checks; see `health.health`.
        stop: set it to stop at a page's end; the fix then reports ``interrupted``, and the next one goes on.

    Raises:
        Locked: another run writes.
        ConfigurationError: the settings can't be right.
    """
    looks = {"depth": depth, "probe": probe, "verify_content": verify_content}
    return _Fix(settings, looks, max_deletes, on_progress, stop or threading.Event(), clock).run(dry_run, backup)


class _Fix:
    """One fix."""

    def __init__(
        self, settings: Settings, looks: dict[str, Any], max_deletes: int | None,
        on_progress: Callable[[Progress], None], stop: threading.Event, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings, self._looks, self._max_deletes = settings, looks, max_deletes
        self._on_progress, self._stop, self._clock = on_progress, stop, clock
        self._started = clock()
        self._run = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(self._started)) + os.urandom(3).hex()
        self._trail = Trail(settings.hashes, self._run, clock)
        self._kept = settings.hashes / "set-aside" / f"deleted-{self._run}.parquet"
        self._notes: list[str] = []
        self._backup = ""

    def run(self, dry_run: bool, backup: bool) -> FixReport:
        settings = self._settings
        lock = contextlib.nullcontext() if dry_run else writing(settings, "vectorkeep health --fix")
        with lock, examine(
            settings, writer=not dry_run, on_progress=self._on_progress, clock=self._clock, **self._looks
        ) as examination:  # fmt: skip
            before = examination.report
            if holder := held(before.findings):
                raise Locked(holder.message, holder.remedy)
            if forbidden := forbidding(before.findings):
                self._notes.append(f"nothing was touched: {forbidden[0].check}: {forbidden[0].message}")
                return self._report(before, [], "unmendable")
            steps = plan_steps(before.findings)
            refusal = self._refusal(examination)
            if refusal or dry_run or not steps:
                return self._report(before, steps, "planned" if dry_run and steps and not refusal else "", refusal)
            error = self._back_up(steps) if backup else None
            if error:
                return self._report(before, steps, "", error)
            self._trail.write("start", depth=before.depth, found=before.counts(), steps=len(steps), backup=self._backup)
            error = self._apply(examination, steps)
        updated, error = self._update(steps, error)
        after = health(settings, clock=self._clock, **self._looks)
        self._trail.write("end", found=after.counts(), error=str(error or ""))
        return self._report(before, steps, "", error, after, updated)

    def _refusal(self, examination: Examination) -> VectorkeepError | None:
        stored = sum(each.stored for each in examination.report.collections)
        return check_guards(self._settings, examination.faults, stored, self._max_deletes)

    def _back_up(self, steps: list[Step]) -> VectorkeepError | None:
        """Save what is there before the store is changed; what kept that from being done."""
        if all(step.action in _COMPLETE for step in steps):
            return None
        from vectorstore.backup import catalog_folder, make_backup

        settings = self._settings
        if settings.sensitive:
            self._notes.append("no backup was made before: it would hold the rows that `sensitive` names")
            return None
        try:
            catalog_folder(settings)
            kind = "portable" if settings.chroma_url else "full"
            self._backup = make_backup(settings, kind, sound=False, clock=self._clock).name
        except VectorkeepError as error:
            hint = "see to that; or mend without a backup: --no-backup"
            return type(error)(f"nothing was mended, for no backup could be made: {error.message}", hint)
        return None

    # -- doing it ------------------------------------------------------------------------------------------------

    def _apply(self, examination: Examination, steps: list[Step]) -> VectorkeepError | None:
        """Everything but what the update does; what stopped it."""
        ledger = Ledger(self._settings.hashes / "ledger.sqlite3", clock=self._clock)
        try:
            if any(step.action is Action.RECOUNT for step in steps):
                self._trail.write("recount")
                ledger.recount()
            if doubts := {step.check for step in steps if step.action is Action.SAVE_CACHE}:
                self._trail.write("save_cache")  # first: what comes next is mended from it
                self._save_cache(ledger, damaged="cache" in doubts)
            self._forget(examination, ledger)
            self._remove_folders(examination.leaked)
            self._mend(examination, steps, ledger)
            if self._looks["depth"] >= Depth.STANDARD and not examination.damages:
                drop_set_aside(self._settings)
            ledger.store_opened()  # so that the next update looks closely, instead of trusting that nothing changed
        except VectorkeepError as error:
            return error
        finally:
            ledger.close()
        return None

    def _save_cache(self, ledger: Ledger, *, damaged: bool) -> None:
        from vectorstore.cache import VectorCache, distrust
        from vectorstore.mending.cache_refill import refill_cache

        serving = ledger.generation(self._settings.collection)
        if serving is None:
            return
        embedding = serving.pipeline.rpartition("/")[0]
        path = self._settings.hashes / "cache.sqlite3"
        if damaged:
            distrust(path)  # opening it then salvages what can be read
        cache = VectorCache(path, embedding, dimension_of(serving), self._clock)
        try:
            self._notes += [cache.damage] if cache.damage else []
            put = refill_cache(self._settings, ledger, cache, embedding)
            self._notes.append(f"put {put:,} vectors of the store into the cache")
        finally:
            cache.close()

    def _forget(self, examination: Examination, ledger: Ledger) -> None:
        keys = [key for _, key in examination.faults.ids("ledger_places")]
        if keys:
            self._trail.write("forget", documents=keys)
            for generation in ledger.generations():
                if generation.state == "serving" and generation.template == self._settings.collection:
                    ledger.forget(generation.id, keys)

    def _remove_folders(self, leaked: list[Path]) -> None:
        aside = self._settings.hashes / "set-aside"
        for folder in leaked:
            size = sum(path.stat().st_size for path in folder.iterdir())
            self._trail.write("remove_folder", folder=folder.name, bytes=size)
            aside.mkdir(parents=True, exist_ok=True)
            gone = aside / f"leaked-{folder.name}"
            if gone.exists():
                shutil.rmtree(gone)
            folder.rename(gone)  # a kill while a folder is removed piece by piece must not leave a torn index
            shutil.rmtree(gone)

    def _mend(self, examination: Examination, steps: list[Step], ledger: Ledger) -> None:
        from vectorstore.mending.row_fixes import RowFixes

        if not any(step.action in (Action.REBUILD, Action.REFILL, Action.DELETE, Action.REWRITE) for step in steps):
            return
        faults, others = examination.faults, not_ours(examination.report.findings)

        def pages(*checks: str) -> Iterator[tuple[str, list[str]]]:
            for page in _pages(faults.ids(*checks)):
                if self._stop.is_set():
                    raise Interrupted("stopped at the end of a page", "run again to go on")
                if page[0] not in others:
                    yield page

        forgotten = {key for _, key in faults.ids("ledger_places")}
        known = KnownVectors(ledger, self._settings.hashes / "cache.sqlite3")
        files = StoreFiles(self._settings, self._damages(examination, steps))
        try:
            self._intend(pages(*REWRITTEN), ledger, known)
            store = files.open(ledger)
            try:
                fixes = RowFixes(store, ledger, known, self._trail, self._notes)
                for name, ids in pages(*DELETES):
                    fixes.delete(name, [id_ for id_ in ids if known.doc_key(id_) not in forgotten], self._kept)
                fixes.finish_deletes()
                for name, ids in pages("metadata"):
                    fixes.drop_extra_metadata(name, ids)
                for name, ids in pages(*REFILLED):
                    fixes.refill(name, ids)
            finally:
                store.close()
            if not files.lost:  # else the files can't verify before the update has written the lost ones' documents
                files.close(ledger)
            self._notes += files.notes
        finally:
            known.close()

    def _intend(self, pages: Iterator[tuple[str, list[str]]], ledger: Ledger, known: KnownVectors) -> None:
        """Note the documents that are to be written anew, before anything is touched."""
        for name, ids in pages:
            self._trail.write("rewrite", collection=name, count=len(ids), ids=ids[:LISTED])
            intend_again(ledger, known, ((name, id_) for id_ in ids))

    def _damages(self, examination: Examination, steps: list[Step]) -> list[Any]:
        """The audit's damages, and indexes that are sound but worn."""
        from vectorstore.chroma.audit import Damage, DamageKind, Remedy

        damages = [each for each in examination.damages if each.remedy not in (Remedy.OPEN, Remedy.REFUSE)]
        damaged = {each.collection for each in damages}
        worn = {step.collection for step in steps if step.action is Action.REBUILD} - damaged
        stored = {each.name: each.stored for each in examination.report.collections}
        for each in damages:  # what is written beside so much that is dead would be bloat at once
            if each.kind is DamageKind.IDS_MISSING and len(each.ids) > stored.get(each.collection or "", 0) / 2:
                worn.add(str(each.collection))
        return damages + [
            Damage(DamageKind.INDEX_WORN, "worn", name, examination.ids[name]) for name in sorted(worn) if name
        ]

    def _update(
        self, steps: list[Step], error: VectorkeepError | None
    ) -> tuple[UpdateReport | None, VectorkeepError | None]:  # fmt: skip
        if error or all(step.action in _COMPLETE for step in steps):
            return None, error
        try:
            done = update(
                self._settings, verify_content=self._looks["verify_content"], max_deletes=self._max_deletes,
                on_progress=self._on_progress, stop=self._stop, clock=self._clock,
            )  # fmt: skip
        except VectorkeepError as raised:
            return None, raised
        return done, None

    # -- the report ----------------------------------------------------------------------------------------------

    def _report(
        self, before: HealthReport, steps: list[Step], state: str, error: VectorkeepError | None = None,
        after: HealthReport | None = None, updated: UpdateReport | None = None,
    ) -> FixReport:  # fmt: skip
        last = after or before
        code = error.exit_code if error else max(last.exit_code, updated.exit_code if updated else 0)
        if not state:
            state = _state(error, updated, last, steps)
        message, hint = (error.message, error.hint) if error else ("", "")
        if updated and updated.message and not error:
            message, hint = updated.message, updated.hint
        return FixReport(
            self._run, state, 0 if state == "planned" else code, self._clock() - self._started, before, steps,
            left_over(last.findings, all_of_it=after is not None or not steps),
            type(error).__name__ if error else "", message, hint, after, updated,
            str(self._kept) if self._kept.exists() else "", self._backup, self._notes,
        )  # fmt: skip


def _state(error: VectorkeepError | None, updated: UpdateReport | None, last: HealthReport, steps: list[Step]) -> str:
    if error:
        return {5: "refused", 3: "capped", 130: "interrupted"}.get(error.exit_code, "failed")
    if updated and updated.state != "completed":
        return updated.state
    if last.severity >= Severity.WARN:
        return "partly" if steps else "unmendable"
    return "fixed" if steps else "healthy"


def _pages(ids: Iterator[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """``(collection, ids)``, at most a page at a time."""
    for name, group in groupby(ids, key=itemgetter(0)):
        page: list[str] = []
        for _, id_ in group:
            page.append(id_)
            if len(page) == PAGE:
                yield name, page
                page = []
        if page:
            yield name, page
