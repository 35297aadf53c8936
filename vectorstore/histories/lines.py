"""The lines of a history: JSON, one an entry, only ever added to; cheap, and whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LINE_VERSION = 1
LOCK_WAIT_S = 30.0

Row = dict[str, Any]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time; the kernel frees the lock when its holder dies.

    Raises:
        TimeoutError: another one held it for ``LOCK_WAIT_S``.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    with open(path, "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "another run holds its lock", str(path)) from None
                time.sleep(0.02)
        yield


def add_line(path: Path, run: str, rows: Sequence[Row]) -> int:
    """Add a run's rows, whole or not at all; returns the file's size in bytes.

    Raises:
        OSError: it can't be written.
    """
    known = {"version": LINE_VERSION, "run": run, "rows": rows}
    line = json.dumps(known, separators=(",", ":")).encode() + b"\n"
    with open(path, "a+b", buffering=0) as handle:
        before = handle.seek(0, os.SEEK_END)
        if before and os.pread(handle.fileno(), 1, before - 1) != b"\n":
            line = b"\n" + line  # after one that a crash cut
        try:
            if handle.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle.fileno())
        except OSError:
            handle.truncate(before)
            raise
        return before + len(line)


def read_lines(path: Path, notes: list[str]) -> dict[str, list[Row]]:
    """Rows by run, as they were first added; lines that can't be understood are left out, with a note."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, list[Row]] = {}
    lost = 0
    for line in filter(None, lines):
        try:
            known = json.loads(line)
            if known["version"] != LINE_VERSION:
                raise ValueError(known["version"])
            found.setdefault(str(known["run"]), list(known["rows"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            lost += 1
    if lost:
        notes.append(f"{lost:,} of {len(lines):,} lines of {path} can't be read")
    return found
