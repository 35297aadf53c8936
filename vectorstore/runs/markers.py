"""Marks of runs that go on, in ``.hashes/running/``: a file each, locked for as long as its run lives.

The kernel frees the lock however a run dies, so a mark that nobody holds is of a run that was killed; a process id used
anew is no mistake. A mark gets its name when it is locked and whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

FOLDER = "running"
_NEW = ".new"  # suffix of a mark that is not whole yet
_NEW_S = 3600.0  # for so long at most


class Marker:
    """The mark of a run of this process.

    Args:
        folder: ``.hashes``.
        run: its name.
        about: for whoever finds it.

    Raises:
        OSError: it can't be written; nothing is left of it.
    """

    def __init__(self, folder: Path, run: str, about: dict[str, Any]) -> None:
        self._path = folder / FOLDER / f"{run}.json"
        self._path.parent.mkdir(exist_ok=True)
        unnamed = self._path.with_suffix(_NEW)
        self._handle = open(unnamed, "x", encoding="utf-8")  # noqa: SIM115  held until `remove`
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._handle.write(json.dumps(about))
            self._handle.flush()
            unnamed.rename(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                unnamed.unlink()
            with contextlib.suppress(OSError):  # what is in its buffer has no room on a full disk
                self._handle.close()
            raise

    def remove(self) -> None:
        """The run is over."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self._handle.close()


def dead(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The marks of runs that were killed, with what they say; each is this process's alone until the next is asked for.

    A mark that says nothing any more (a power cut) is removed.
    """
    try:
        names = sorted(os.listdir(folder / FOLDER))
    except OSError:
        return
    for name in names:
        path = folder / FOLDER / name
        with contextlib.suppress(OSError), open(path, "r+", encoding="utf-8") as handle:
            if not _is_ours(handle, path):
                continue
            about = _said(handle)
            if path.suffix == ".json" and about:
                yield path, about
            elif path.suffix == ".json" or time.time() - os.fstat(handle.fileno()).st_mtime > _NEW_S:
                path.unlink()


def living(folder: Path) -> int:
    """How many runs go on now. Changes nothing."""
    count = 0
    with contextlib.suppress(OSError):
        for path in (folder / FOLDER).glob("*.json"):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    count += 1
    return count


def _is_ours(handle: IO[str], path: Path) -> bool:
    """Lock a mark; not one that lives, nor one that another process has just dealt with."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.fstat(handle.fileno()).st_ino == path.stat().st_ino


def _said(handle: IO[str]) -> dict[str, Any] | None:
    try:
        about = json.load(handle)
        sound = isinstance(about["pid"], int) and isinstance(about["started"], int | float)
        return about if sound and isinstance(about["verb"], str) and isinstance(about["by"], str) else None
    except (ValueError, KeyError, TypeError):
        return None
