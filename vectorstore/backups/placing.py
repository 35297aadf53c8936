"""Files put in place whole, under names that nobody has: written aside, brought to the disk, linked.

Every change goes through a function of ``os``, called by that name, so that a test can kill before and after each of
them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from vectorstore.errors import VectorkeepError
from vectorstore.sqlite_errors import is_damage

_AT_FDCWD, _NOREPLACE = -100, 1
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FLAGS = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, readable by its owner only, and bring it to the disk.

    Raises:
        FileExistsError: it is there.
        OSError: it can't be written; nothing is left of it.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def write_all(handle: int, data: bytes) -> None:
    """``os.write`` to the last byte: a disk that runs full takes a part first."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place(temporary: Path, final: Path) -> None:
    """Give a file its name, at once and never over another; where there are hard links the old name stays as well.

    Raises:
        FileExistsError: the name is taken; nothing was changed.
    """
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_new(temporary, final)


def _rename_new(temporary: Path, final: Path) -> None:
    """Where there are no links: ``renameat2``; where there is none of that either, a look and a rename."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(temporary), os.fsencode(final)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_FLAGS:
            raise OSError(number, os.strerror(number), str(final))
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    temporary.rename(final)


def unlink(path: Path) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """What the disk raises, for a person: ``doing`` says in words what could not be done.

    Raises:
        VectorkeepError: for every ``OSError`` within, and for what SQLite can't do for a full disk or another's lock.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "make room on its disk" if full else "see that its folder is there and can be written"
        raise VectorkeepError(
            f"{doing} failed: {error.strerror or error}", f"{hint}, then run again: nothing is lost"
        ) from error
    except sqlite3.OperationalError as error:
        if is_damage(error):
            raise
        raise VectorkeepError(
            f"{doing} failed: {error}", "see that its disk has room and is well, then run again: nothing is lost"
        ) from error
