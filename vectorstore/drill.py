"""Drill: a backup is restored into a scratch folder, by a process of its own, and its store is looked at there.

It is the one proof that a backup restores. Every drill is recorded; without a name the next one in turn is drilled.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vectorstore.backups import catalog, history
from vectorstore.backups.catalog import Backup
from vectorstore.backups.encryption import PASSWORD
from vectorstore.backups.scratch import scratch_folder
from vectorstore.backups.staging import usable
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import BadBackup, Interrupted, KeyRefused, NoBackup, VectorkeepError
from vectorstore.settings import Settings

# Dies with its parent, and does not start if that is dead already.
_CHILD = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv.pop(1)):
    from vectorstore.cli import main
    sys.exit(main(sys.argv[1:]))
"""
_SPARE_BYTES = 1 << 30  # a healthy restore writes no file that is larger than what is in the backup by more than this
_TIMEOUT_S = 24 * 3600.0
_POLL_S = 0.5


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
    stop: threading.Event | None = None,
    on_step: OnStep = lambda step: None,
    clock: Callable[[], float] = time.time,
) -> DrillReport:
    """Restore a backup into a scratch folder and look at every row of it. The workspace is not touched.

    Args:
        which: a backup; empty: whose turn it is, see ``history.next_to_drill``.
        scratch: a folder with room for the unpacked backup; default: that of the backups.
        password: of the key of an encrypted one; those are passed over in turn where there is none.
        timeout_s: after which the process is ended, and the drill has failed.
        stop: once it is set the process is ended, and nothing is recorded.

    Raises:
        Interrupted: it was stopped.
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
    Steps(f"drilling {backup.name}", 0, on_step)
    with scratch_folder(scratch or folder) as (root, handle):
        answer = _restore(settings, backup, root / "restored", handle, password, timeout_s, stop or threading.Event())
    return _conclude(settings, backup, answer, clock() - started, clock)


def _next(folder: Path, password: str | None) -> Backup:
    backups = catalog.list_backups(folder)
    if not password:
        backups = [each for each in backups if not each.archive.name.endswith(".age")]
    found = history.next_to_drill(backups, history.drilled(history.read(folder), ok=None))
    if found is None:
        raise NoBackup(f"there is no backup to drill in {folder}", "run `vectorkeep backup`")
    return found


def _restore(
    settings: Settings, backup: Backup, root: Path, handle: int, password: str | None, timeout_s: float,
    stop: threading.Event,
) -> dict[str, Any]:  # fmt: skip
    """What ``vectorkeep restore --into`` says: the very thing that the worst day needs."""
    command = [
        sys.executable, "-c", _CHILD, str(os.getpid()), "restore", backup.name, "--into", str(root), "--json",
        "--workspace", str(settings.workspace),
    ]  # fmt: skip
    environment = {**os.environ, **({PASSWORD: password} if password else {})}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        pass_fds=(handle,),
    ) as process:  # fmt: skip
        _limit(process.pid, backup)
        try:
            out, err = _said(process, timeout_s, stop)
        except subprocess.TimeoutExpired:
            return {"error": "Timeout", "message": f"it was not done after {timeout_s:.0f} s"}
        finally:
            if process.poll() is None:  # else its number may be another's
                os.killpg(process.pid, signal.SIGKILL)
    try:
        answer = json.loads(out)
    except ValueError:
        last = err.strip().splitlines()[-1:] or [f"it ended with {process.returncode}"]
        return {"error": "Crash", "message": last[0]}
    return dict(answer) | {"exit_code": process.returncode}


def _said(process: subprocess.Popen[str], timeout_s: float, stop: threading.Event) -> tuple[str, str]:
    """What it printed, once it has ended."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return process.communicate(timeout=min(_POLL_S, timeout_s))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= until:
                raise
        if stop.is_set():
            raise Interrupted("stopped before the drill was done", "run again")


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
