"""The audit trail of fixes: `.hashes/fixes.jsonl`, one JSON object a line, only ever appended to.

Every line says who did what when; an action's line comes before it is done, with what was there, and the run's last
line says what a second check found.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAIL = "fixes.jsonl"


class Trail:
    """Appends lines for one run, each on the disk when the call returns.

    Args:
        folder: `.hashes`.
        run: id of the run.
    """

    def __init__(self, folder: Path, run: str, clock: Callable[[], float] = time.time) -> None:
        self._path, self._run, self._clock = folder / TRAIL, run, clock

    def write(self, event: str, **about: Any) -> None:
        """Append one line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        line = {"at": at, "run": self._run, "who": _who(), "event": event} | about
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in a container
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}, process {os.getpid()}"
