"""The processes that ``serve`` keeps: started, watched, started again when they die, ended, none left over."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIVED_S = 60.0  # a child that lived so long starts anew at once when it dies
LONGEST_WAIT_S = 60.0
LOG_BYTES = 10_000_000
_SET_DEATH_SIGNAL = 1  # prctl(2)


class Child:
    """One process in a process group of its own, so that Ctrl-C meets nobody but the one that ends them all.

    Args:
        name: for messages.
        command: and its arguments.
        log: the file that its output is appended to; its older part goes to ``.1`` when it has grown large.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._env, self._cwd = list(command), dict(env), cwd
        self._process: subprocess.Popen[Any] | None = None
        self._started = self._due = 0.0
        self._deaths = 0

    @property
    def pid(self) -> int:
        """Of the process that runs now or ran last; 0: none did."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent(),
            )  # fmt: skip

    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def look(self) -> str:
        """Start it again if it died and it is time to; what happened, in words, or nothing."""
        self._shorten_log()
        if self._process is not None and self._process.poll() is not None and not self._due:
            code, lived = self._process.returncode, time.monotonic() - self._started
            _signal_group(self._process.pid, signal.SIGKILL)  # what it started itself: it would hold the port
            self._deaths = 0 if lived > LIVED_S else self._deaths + 1
            wait = min(LONGEST_WAIT_S, 2.0 ** (self._deaths - 1)) if self._deaths else 0.0
            self._due = time.monotonic() + wait
            return f"the {self.name} ended with {code}; it starts again in {wait:.0f} s. Its log: {self.log}"
        if self._due and time.monotonic() >= self._due:
            self._due = 0.0
            self.start()
        return ""

    def end(self, within_s: float) -> None:
        """Ask it to end, wait, kill what is left of its group."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _shorten_log(self) -> None:
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log, f"{self.log}.1")
                os.truncate(self.log, 0)  # it is appended to: the next line goes to the beginning


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_with_parent() -> Any:
    """On Linux a child is told when its parent was killed, so that it does not stay alone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
