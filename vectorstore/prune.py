"""Prune: delete the backups that retention no longer wants. The reason for every backup is in the report.

It runs on its own and after a backup, never within a backup or a restore. What a killed prune left is taken away by the
next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vectorstore.backups import history
from vectorstore.backups.catalog import Backup, list_backups, remove, sweep
from vectorstore.backups.exchange import writing
from vectorstore.backups.retention import Decision, Policy, decide
from vectorstore.errors import Refused, VectorkeepError
from vectorstore.settings import Settings


@dataclass(frozen=True)
class PruneReport:
    """What became of the backups, or would.

    Attributes:
        state: ``planned`` (dry run), ``nothing_to_do``, ``pruned``.
        decisions: for each backup, the newest first.
        deleted: names of those that are gone, or would be.
        freed: bytes of their archives.
        swept: files that killed runs had left and that were taken away.
    """

    state: str
    exit_code: int
    seconds: float
    dry_run: bool
    folder: str
    decisions: list[Decision]
    deleted: list[str] = field(default_factory=list)
    freed: int = 0
    swept: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def prune(settings: Settings, *, dry_run: bool = False, clock: Callable[[], float] = time.time) -> PruneReport:
    """Delete what retention no longer wants.

    Args:
        settings: of the workspace; its ``backup_…`` settings are the policy.
        dry_run: only say what would be deleted; changes nothing and takes no lock.
        clock: Unix time.

    Raises:
        Locked: another run writes.
        Refused: the policy keeps nothing; Vectorkeep is paused.
        VectorkeepError: the disk refused; run again to go on.
    """
    if dry_run:
        return _plan(settings, clock, dry_run=True)[0]
    with writing(settings, "vectorkeep prune"):
        return _prune(settings, clock)


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings ask for."""
    return Policy(
        settings.backup_keep, settings.backup_days, settings.backup_daily, settings.backup_weekly,
        settings.backup_monthly,
    )  # fmt: skip


def _prune(settings: Settings, clock: Callable[[], float]) -> PruneReport:
    if settings.paused:
        raise Refused("Vectorkeep is paused by its settings", "set paused = false to go on")
    started = clock()
    report, doomed = _plan(settings, clock, dry_run=False)
    swept = sweep(settings.backups)
    try:
        for backup in doomed:
            remove(backup)
    except VectorkeepError as error:
        _record(settings, report, clock, error.message)
        raise
    if doomed:
        _record(settings, report, clock)
    state = "pruned" if doomed else "nothing_to_do"
    return replace(report, state=state, seconds=clock() - started, swept=swept)


def _plan(settings: Settings, clock: Callable[[], float], *, dry_run: bool) -> tuple[PruneReport, list[Backup]]:
    """The report as far as it goes, and what is to be deleted, the oldest first: a kill leaves the newer ones."""
    started, folder = clock(), settings.backups
    events = history.read(folder)
    looks = history.looks(events)
    backups = [_with_last_look(each, looks) for each in list_backups(folder)]
    verified = {name for name, look in looks.items() if look.ok}
    decisions = decide(
        backups, policy_of(settings), started, verified=verified, drilled=history.drilled(events)
    )  # fmt: skip
    gone = {each.name for each in decisions if not each.keep}
    doomed = [each for each in reversed(backups) if each.name in gone and not each.problem]
    report = PruneReport(
        state="planned", exit_code=0, seconds=clock() - started, dry_run=dry_run, folder=str(folder),
        decisions=decisions, deleted=[each.name for each in doomed], freed=sum(each.size for each in doomed),
    )  # fmt: skip
    return report, doomed


def _with_last_look(backup: Backup, looks: Mapping[str, history.Event]) -> Backup:
    """A backup whose last verification failed has a problem, whatever its size says: it must not count as kept."""
    look = looks.get(backup.name)
    if backup.problem or look is None or look.ok:
        return backup
    return replace(backup, problem=f"it did not verify: {look.message}")


def _record(settings: Settings, report: PruneReport, clock: Callable[[], float], failed: str = "") -> None:
    done = f"{len(report.deleted)} deleted, {report.freed:,} bytes: {', '.join(report.deleted)}"
    event = history.Event("prune", "", clock(), ok=not failed, message=failed or done)
    history.append(settings.backups, event)
