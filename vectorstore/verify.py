"""Verify: is a backup what it was? Every look at one is recorded, for retention, for health, for the next drill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from vectorstore.backups import catalog, history
from vectorstore.backups.archive import check_archive, check_digest
from vectorstore.backups.catalog import Backup
from vectorstore.backups.staging import identity_of
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import BadBackup, ConfigurationError, KeyRefused, VectorkeepError
from vectorstore.settings import Settings

ALL = "all"
LEVELS = ("digest", "deep", "drill")


@dataclass(frozen=True)
class Verified:
    """One backup that was looked at.

    Attributes:
        name: of the backup.
        ok: whether it verifies.
        level: how far it was looked at: ``digest`` compares the archive with the sidecar's digests, ``deep`` every
            member with the manifest, ``drill`` restores it and looks at its store.
        message: what is wrong, or what a person should know.
        size: bytes of the archive.
        seconds: that it took.
    """

    name: str
    ok: bool
    level: str
    message: str
    size: int
    seconds: float


@dataclass(frozen=True)
class VerifyReport:
    """The backups that were looked at, the newest first.

    Attributes:
        state: ``verified``, or ``bad`` if one does not verify.
    """

    state: str
    exit_code: int
    seconds: float
    backups: list[Verified] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verify(
    settings: Settings,
    which: str = "latest",
    *,
    level: str = "deep",
    offsite: bool = False,
    password: str | None = None,
    stop: threading.Event | None = None,
    on_step: OnStep = lambda step: None,
    clock: Callable[[], float] = time.time,
) -> VerifyReport:
    """Look at one backup, or at ``all``; a bad one does not keep the others from being looked at.

    Args:
        which: ``latest``, ``all``, a backup's name, or its file's.
        level: ``digest``, ``deep``, ``drill``. An encrypted one is only compared by digest where there is no password.
        offsite: the copies at ``offsite_url``, by digest: they are read back.
        password: of the key of encrypted ones.
        stop: ends a drill once it is set.

    Raises:
        NoBackup: there is none of that name.
        ConfigurationError: there is no such level.
        KeyRefused: the password is wrong.
        Interrupted: it was stopped.
    """
    if level not in LEVELS:
        raise ConfigurationError(f"there is no level {level!r}", f"choose one of {', '.join(LEVELS)}")
    started = clock()
    look = _Look(settings, "digest" if offsite else level, offsite, password, stop, on_step, clock)
    found = [look.at(each) for each in look.chosen(which)]
    bad = any(not each.ok for each in found)
    return VerifyReport("bad" if bad else "verified", 6 if bad else 0, clock() - started, found)


class _Look:
    """How backups are looked at."""

    def __init__(
        self, settings: Settings, level: str, offsite: bool, password: str | None, stop: threading.Event | None,
        on_step: OnStep, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings, self._level, self._offsite = settings, level, offsite
        self._password, self._stop, self._on_step, self._clock = password, stop, on_step, clock

    def chosen(self, which: str) -> list[Backup]:
        """Those to look at."""
        if self._offsite:
            from vectorstore.backups.offsite import list_remote, url_of

            url = url_of(self._settings)
            there, where = list_remote(url), url
        else:
            there, where = catalog.list_backups(self._settings.backups), str(self._settings.backups)
        if which == ALL and there:
            return there
        return [catalog.choose(there, catalog.LATEST if which == ALL else which, where)]

    def at(self, backup: Backup) -> Verified:
        """One of them; recorded if it lies here."""
        started, level, message, ok = self._clock(), self._level_for(backup), "", True
        try:
            message = self._check(backup, level)
        except KeyRefused:
            raise  # the key is at fault, not the backup
        except VectorkeepError as error:
            if not isinstance(error, BadBackup):
                raise
            ok, message = False, error.message
        seconds = self._clock() - started
        if not self._offsite and (level != "drill" or backup.problem):  # a drill records itself
            event = history.Event("verify", backup.name, self._clock(), level, ok, seconds, message)
            history.append(self._settings.backups, event)
        return Verified(backup.name, ok, level, message, backup.size, seconds)

    def _level_for(self, backup: Backup) -> str:
        """How far this one can be looked at."""
        blind = self._level == "deep" and not self._password and backup.archive.name.endswith(".age")
        return "digest" if blind else self._level

    def _check(self, backup: Backup, level: str) -> str:
        """Look at it; returns what a person should know. ``BadBackup`` if it is bad."""
        if self._offsite:
            from vectorstore.backups.offsite import url_of, verify_remote

            steps = Steps("reading back", backup.size, self._on_step)
            verify_remote(url_of(self._settings), backup.name, on_bytes=steps.add)
            return ""
        if backup.problem:  # it may restore all the same, but it is not what it was
            raise BadBackup(backup.problem)
        if level == "drill":
            from vectorstore.drill import drill

            report = drill(
                self._settings, backup.name, password=self._password, stop=self._stop, on_step=self._on_step,
                clock=self._clock,
            )  # fmt: skip
            if report.exit_code:
                raise BadBackup(f"its drill failed: {report.message}")
            return ""
        assert backup.sidecar is not None
        if level == "digest":
            steps = Steps("verifying", backup.size, self._on_step)
            check_digest(backup.archive, backup.sidecar, steps.add)
            return "" if self._level == level else "encrypted: without the password only its digests can be compared"
        manifest = backup.sidecar.manifest
        steps = Steps("verifying", manifest.size if manifest else 0, self._on_step)
        identity = identity_of(self._settings, backup, self._password)
        check_archive(backup.archive, backup.sidecar, identity=identity, on_bytes=steps.add)
        return ""
