"""The backups in a folder: their names, how one is published or removed, and what a kill leaves of that.

Until ``.partial-…`` or ``.gone-…`` is away, a sidecar without its archive is a half step, which `sweep` takes back or
ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

from vectorstore.backups.listing import (
    GONE,
    LATEST,
    PARTIAL,
    PIN_SUFFIX,
    TIME,
    Backup,
    choose,
    find,
    is_half,
    list_backups,
    names_in,
    read_backup,
    split_file,
)  # fmt: skip
from vectorstore.backups.manifest import Sidecar, sidecar_file
from vectorstore.backups.placing import disk_errors, place, sync_file, sync_folder, unlink, write_new
from vectorstore.errors import BadBackup, Refused

__all__ = [
    "LATEST", "Backup", "choose", "find", "hold", "list_backups", "new_name", "partial_path", "pin", "publish",
    "remove", "sweep", "unpin",
]  # fmt: skip


def new_name(folder: Path, now: float) -> str:
    """A name for a backup of ``now`` (Unix s), in UTC; where that is taken, of the next second that is not."""
    taken = names_in(folder)
    second = int(now)
    while any(time.strftime(TIME, time.gmtime(second)) in file for file in taken):
        second += 1
    return time.strftime(TIME, time.gmtime(second))


def partial_path(folder: Path, name: str) -> Path:
    """Where the archive of a backup is written until it is published."""
    return folder / f"{PARTIAL}{name}.tar.gz"


def publish(partial: Path, sidecar: Sidecar, folder: Path) -> Backup:
    """Give an archive and its sidecar their names: the sidecar first, so that no archive is ever without one.

    A kill at any step leaves no archive, or a whole backup; `sweep` takes away the rest.

    Args:
        partial: the archive, at ``partial_path(folder, sidecar.name)``; gone afterwards.
        sidecar: of it.

    Raises:
        Refused: the name is taken. Nothing is ever overwritten.
        BadBackup: the archive is not as long as its sidecar says.
        VectorkeepError: the disk refused, a full one among others. ``partial`` is as it was, all else too.
    """
    if partial != partial_path(folder, sidecar.name):
        raise ValueError(f"{partial} is not where the archive of {sidecar.name} is written")
    final, beside = folder / sidecar.file, folder / sidecar_file(sidecar.name)
    with disk_errors(f"publishing {sidecar.name}"):
        if partial.lstat().st_size != sidecar.size:
            raise BadBackup(f"{sidecar.name}: the archive has {partial.lstat().st_size} bytes, not {sidecar.size}")
        if taken := [file for file in names_in(folder) if split_file(file)[0] == sidecar.name]:
            raise Refused(f"{taken[0]} is in {folder} already", "run again: the next backup has another name")
        sync_file(partial)
        _place_new(beside, sidecar.to_text().encode())
        try:
            sync_folder(folder)
            place(partial, final)
        except BaseException as error:
            if isinstance(error, FileExistsError) or not os.path.lexists(final):
                unlink(beside)
            raise
        sync_folder(folder)
        unlink(partial)
    return read_backup(folder, sidecar.name, sidecar.file, True)


def remove(backup: Backup) -> None:
    """Take a backup away: its archive loses its name first, so that no archive is ever without its sidecar.

    A kill at any step leaves the whole backup or none; `sweep` takes away the rest.

    Raises:
        VectorkeepError: the disk refused.
    """
    folder = backup.archive.parent
    gone = folder / f"{GONE}{backup.archive.name}"
    with disk_errors(f"removing {backup.name}"):
        backup.archive.rename(gone)
        sync_folder(folder)
        unlink(folder / sidecar_file(backup.name))
        sync_folder(folder)
        unlink(gone)


def sweep(folder: Path, name: str = "") -> list[str]:
    """Take away what killed runs left: the caller holds the writer's lock.

    A fetch from off-site needs no such lock: it holds its own file (see `hold`), and what is held stays.

    Args:
        folder: of backups.
        name: of a backup, to take away what is left of that one only.

    Returns:
        The names of what is gone.

    Raises:
        VectorkeepError: the disk refused.
    """
    names = names_in(folder)
    leftovers = {file for file in names if file.startswith((PARTIAL + name, GONE + name))}
    held = {file for file in leftovers if _is_held(folder / file)}
    halves = {file for file in names if is_half(file, names) and file.startswith(name)}
    halves -= {file for file in halves if any(split_file(file)[0] in other for other in held)}
    leftovers -= held
    with disk_errors(f"tidying {folder}"):
        for file in halves:
            unlink(folder / file)
        if halves:
            sync_folder(folder)  # before what tells that they are halves
        for file in leftovers:
            _remove_any(folder / file)
    return sorted(halves | leftovers)


def hold(handle: int) -> None:
    """Keep `sweep` away from an open file on its way in; the kernel lets go of it when its process dies."""
    fcntl.flock(handle, fcntl.LOCK_EX)


def pin(folder: Path, which: str, reason: str) -> Backup:
    """Keep a backup whatever retention says; a pin that is there gets the new reason.

    Raises:
        NoBackup: there is none of that name.
        VectorkeepError: the disk refused.
    """
    backup = find(folder, which)
    line = " ".join(reason.split()) or "pinned"
    temporary = folder / f"{PARTIAL}{backup.name}{PIN_SUFFIX}"
    with disk_errors(f"pinning {backup.name}"):
        unlink(temporary)
        write_new(temporary, f"{line}\n".encode())
        temporary.rename(folder / (backup.name + PIN_SUFFIX))
        sync_folder(folder)
    return find(folder, backup.archive.name)


def unpin(folder: Path, which: str) -> Backup:
    """Leave a backup to retention again; one that is not pinned stays as it is.

    Raises:
        NoBackup: there is none of that name.
        VectorkeepError: the disk refused.
    """
    backup = find(folder, which)
    with disk_errors(f"unpinning {backup.name}"):
        unlink(folder / (backup.name + PIN_SUFFIX))
        sync_folder(folder)
    return find(folder, backup.archive.name)


def _place_new(final: Path, data: bytes) -> None:
    """Write a file under its name, whole or not at all, and never over another."""
    temporary = final.with_name(PARTIAL + final.name)
    unlink(temporary)
    write_new(temporary, data)
    try:
        place(temporary, final)
    finally:
        unlink(temporary)


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone, or nothing that anybody holds
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remove_any(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        unlink(path)
