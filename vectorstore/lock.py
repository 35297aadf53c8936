"""The writer's lock: update, restore, fix and prune exclude one another on one store.

``flock`` on a file that is never deleted: the kernel frees it when its holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from vectorstore.errors import Locked
from vectorstore.settings import Settings


def lock_files(settings: Settings) -> list[Path]:
    """What a writer locks: the workspace's ledger, and the embedded store, which another workspace may share."""
    files = [settings.hashes / "writer.lock"]
    if not settings.chroma_url:
        store = Path(os.path.realpath(settings.path(settings.chroma_path)))
        files.append(store.with_name(store.name + ".lock"))  # beside it: a restore swaps the folder itself
    return files


class WriterLock:
    """Holds all of ``files`` or none; a context manager.

    Raises:
        Locked: at once, naming the holder, when another process holds one of them.
    """

    def __init__(self, files: Iterable[Path], command: str) -> None:
        self._files = list(files)
        self._command = command
        self._open: list[IO[str]] = []

    def __enter__(self) -> WriterLock:
        try:
            for path in self._files:
                self._take(path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in reversed(self._open):
            _name(handle, b"")  # a freed lock names nobody
            handle.close()
        self._open.clear()

    def _take(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115  held until __exit__
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with handle:
                raise Locked(
                    f"another run is writing: {holder(path)}", "wait for it to end, or stop it; then run again"
                ) from None
        self._open.append(handle)
        about = {"pid": os.getpid(), "host": os.uname().nodename, "command": self._command, "since": time.time()}
        _name(handle, json.dumps(about).encode())


def _name(handle: IO[str], about: bytes) -> None:
    """For messages only: on a full disk a lock that names nobody is a lock all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), about)


def held_by(path: Path) -> str | None:
    """Who holds a lock now, in words; ``None`` when nobody does. Changes nothing."""
    try:
        with open(path, encoding="utf-8") as handle:
            if not handle.read(1):  # freed in good order; and a look must not get in a writer's way
                return None
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return holder(path)


def holder(path: Path) -> str:
    """Who holds a lock, in words; for messages only."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(about["since"]))
        return f"`{about['command']}`, process {about['pid']} on {about['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not said who it is yet"
