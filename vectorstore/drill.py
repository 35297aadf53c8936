"""Drill: a backup is restored into a scratch folder, by a process of its own, and its store is looked at there.

It is the one proof that a backup restores. Every drill is recorded; without a name the next one in turn is drilled.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vectorstore.backups import catalog, history
from vectorstore.backups.catalog import Backup
from vectorstore.backups.placing import disk_errors
from vectorstore.backups.staging import usable
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import BadBackup, KeyRefused, NoBackup, VectorkeepError
from vectorstore.settings import Settings

PASSWORD = "VECTORKEEP_BACKUP_PASSWORD"
SCRATCH = ".drill-"  # beside the archives, with the number of the process
_SPARE_BYTES = 1 << 30  # a healthy restore writes no file that is larger than what is in the backup by more than this
_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True)
class DrillReport:
    """What a drill showed.

    Attributes:
        state: ``passed`` or ``failed``.
        name: of the backup.
        documents, chunks: that were brought back, as the backup's ledger knows them.
        collections: rows by collection.
        message: what went wrong.
        notes: what else a person should know.
    """

    state: str
    exit_code: int
    seconds: float
    name: str
    documents: int = 0
    chunks: int = 0
    collections: dict[str, int] = field(default_factory=dict)
    message: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def drill(
    settings: Settings,
    which: str = "",
    *,
    scratch: Path | None = None,
    password: str | None = None,
    timeout_s: float = _TIMEOUT_S,
    on_step: OnStep = lambda step: None,
    clock: Callable[[], float] = time.time,
) -> DrillReport:
    """Restore a backup into a scratch folder and look at every row of it. The workspace is not touched.

    Args:
        which: a backup; empty: whose turn it is: the newest never drilled, else the one drilled longest ago.
        scratch: a folder with room for the unpacked backup; default: that of the backups.
        password: of the key of an encrypted one; those are passed over in turn where there is none.
        timeout_s: after which the process is ended, and the drill has failed.

    Raises:
        NoBackup: there is none.
        KeyRefused: it is encrypted, and key or password are missing or wrong.
        VectorkeepError: the disk refused.
    """
    folder, started = settings.backups, clock()
    backup = catalog.find(folder, which) if which else _next(folder, password)
    try:
        usable(backup)
    except BadBackup as error:
        answer = {"error": type(error).__name__, "message": error.message}
        return _conclude(settings, backup, answer, clock() - started, clock)
    _sweep(scratch or folder)
    root = (scratch or folder) / f"{SCRATCH}{os.getpid()}"
    Steps(f"drilling {backup.name}", 0, on_step)
    try:
        with disk_errors("drilling"):
            shutil.rmtree(root, ignore_errors=True)
        answer = _restore(settings, backup, root, password, timeout_s)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(root, ignore_errors=True)
    return _conclude(settings, backup, answer, clock() - started, clock)


def _sweep(folder: Path) -> None:
    """Take away the scratch folders of drills that were killed."""
    for path in folder.glob(f"{SCRATCH}*"):
        number = path.name.removeprefix(SCRATCH)
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _next(folder: Path, password: str | None) -> Backup:
    backups = catalog.list_backups(folder)
    if not password:
        backups = [each for each in backups if not each.archive.name.endswith(".age")]
    found = history.next_to_drill(backups, history.drilled(history.read(folder), ok=None))
    if found is None:
        raise NoBackup(f"there is no backup to drill in {folder}", "run `vectorkeep backup`")
    return found


def _restore(
    settings: Settings, backup: Backup, root: Path, password: str | None, timeout_s: float
) -> dict[str, Any]:  # fmt: skip
    """What ``vectorkeep restore --into`` says: the very thing that the worst day needs."""
    command = [
        sys.executable, "-m", "vectorstore.cli", "restore", backup.name, "--into", str(root), "--json",
        "--workspace", str(settings.workspace),
    ]  # fmt: skip
    environment = {**os.environ, **({PASSWORD: password} if password else {})}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        _limit(process.pid, backup)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"error": "Timeout", "message": f"it was not done after {timeout_s:.0f} s"}
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    try:
        answer = json.loads(out)
    except ValueError:
        last = err.strip().splitlines()[-1:] or [f"it ended with {process.returncode}"]
        return {"error": "Crash", "message": last[0]}
    return dict(answer) | {"exit_code": process.returncode}


def _limit(pid: int, backup: Backup) -> None:
    """No file larger than what the backup can hold: Chroma can fill a disk with what it makes of damaged files."""
    manifest = backup.sidecar.manifest if backup.sidecar else None
    most = (manifest.size if manifest else 20 * backup.size) + _SPARE_BYTES
    with contextlib.suppress(ProcessLookupError, PermissionError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))


def _conclude(
    settings: Settings, backup: Backup, answer: dict[str, Any], seconds: float, clock: Callable[[], float]
) -> DrillReport:  # fmt: skip
    error = answer.get("error", "")
    message = str(answer.get("message", "")) if error else ""
    if error == KeyRefused.__name__:
        raise KeyRefused(message, str(answer.get("hint", "")))
    if error and error not in (BadBackup.__name__, "Damaged", "Timeout", "Crash"):  # the machine's fault
        raise VectorkeepError(f"drilling {backup.name}: {message}", str(answer.get("hint", "")))
    history.append(settings.backups, history.Event("drill", backup.name, clock(), "drill", not error, seconds, message))
    return DrillReport(
        state="failed" if error else "passed", exit_code=6 if error else 0, seconds=seconds, name=backup.name,
        documents=answer.get("documents", 0), chunks=answer.get("chunks", 0),
        collections=answer.get("collections", {}), message=message, notes=answer.get("notes", []),
    )  # fmt: skip
