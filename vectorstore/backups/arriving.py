"""A folder that is filled beside its place and gets its name at the end, so that a kill leaves nothing half there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vectorstore.backups.placing import disk_errors, sync_folder
from vectorstore.errors import Locked, Refused

ARRIVING = ".into-"


@contextlib.contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` at the end of the block, or is removed on any error.

    It lies beside ``target``; what a kill left there is taken away. Where that can't be (``target`` is a mount point,
    or its parent is not ours to write to), it is ``target`` itself.

    Raises:
        Refused: ``target`` is there and is no empty folder.
        Locked: another process fills it.
        VectorkeepError: the disk refused.
    """
    target = check_empty(target)
    with disk_errors(f"restoring into {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.ismount(target) or not os.access(target.parent, os.W_OK):
            with _emptied(target):
                yield target
            return
        folder = target.with_name(ARRIVING + target.name)
        folder.mkdir(exist_ok=True)
        with _held(folder):
            for path in folder.iterdir():
                _remove(path)
            try:
                yield folder
                if target.exists():
                    folder.chmod(target.stat().st_mode & 0o7777)
                folder.rename(target)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            sync_folder(target.parent)


def check_empty(target: Path) -> Path:
    """The folder without links in its path; ``Refused`` where it is there and is no empty folder."""
    target = target.resolve()
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise Refused(f"{target} is not an empty folder", "name one that is empty or does not exist")
    return target


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it when its process dies
        except BlockingIOError:
            raise Locked(f"another run fills {folder}", "wait for it to end, or name another folder") from None
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
