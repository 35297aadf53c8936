"""Copies of backups off-site: pushed, read back before they get their name, listed, verified, fetched.

As at home the sidecar is there before its archive, nothing is overwritten, and what a kill leaves (``….part``, and a
sidecar beside one) is taken away by the next push to the place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vectorstore.backups.catalog import find, hold, partial_path, publish, sweep
from vectorstore.backups.listing import (
    NO_ARCHIVE,
    PART,
    Backup,
    choose,
    created_at,
    entries,
    is_half,
    mismatch,
    split_file,
)  # fmt: skip
from vectorstore.backups.manifest import LARGEST, Sidecar, archive_file, sidecar_file
from vectorstore.backups.places import BLOCK, FolderPlace, Place
from vectorstore.backups.placing import unlink, write_all
from vectorstore.backups.reaching import at_place
from vectorstore.errors import BadBackup, ConfigurationError, NoBackup
from vectorstore.settings import Settings

OnBytes = Callable[[int], None]


def url_of(settings: Settings) -> str:
    """Where the settings want copies; a folder's path is made absolute.

    Raises:
        ConfigurationError: they name no place.
    """
    url = settings.offsite_url
    if not url:
        raise ConfigurationError("no place for copies is set", "set offsite_url to a folder or an address")
    return url if "://" in url else str(settings.path(Path(url)))


def push(backup: Backup, url: str, *, on_bytes: OnBytes = lambda count: None) -> bool:
    """Copy a backup there, and read the copy back before it gets its name.

    Args:
        backup: without a problem.
        url: a folder's path or an address of fsspec's.
        on_bytes: called with bytes sent and with bytes read back: twice the archive's size, if no attempt is repeated.

    Returns:
        Whether it was copied; else the same copy is there already.

    Raises:
        BadBackup: the backup has a problem or does not match its digest, or another of its name is there.
        ConfigurationError: the place can't be what is meant.
        VectorkeepError: the way there failed for good; there is no bad copy.
    """
    if backup.sidecar is None or backup.problem:
        raise BadBackup(f"{backup.name} {backup.problem}")
    sidecar = backup.sidecar
    return at_place(url, f"copying {backup.name}", lambda place: _push(place, backup.archive, sidecar, on_bytes))


def list_remote(url: str) -> list[Backup]:
    """The backups there, the newest first, with what is wrong with them.

    Raises:
        ConfigurationError, VectorkeepError: see `push`.
    """
    return at_place(url, "listing backups", _list)


def verify_remote(url: str, which: str, *, on_bytes: OnBytes = lambda count: None) -> Backup:
    """Read a copy and compare it with its sidecar; ``which`` as for ``catalog.find``.

    Raises:
        NoBackup: there is none.
        BadBackup: it does not verify.
        ConfigurationError, VectorkeepError: see `push`.
    """

    def verify(place: Place) -> Backup:
        backup, sidecar = _chosen(place, which)
        if _digest(place.read(sidecar.file), sidecar.size, on_bytes) != sidecar.sha256:
            raise BadBackup(f"{sidecar.file} in {url} is not what its sidecar says")
        return backup

    return at_place(url, f"verifying {which}", verify)


def fetch(url: str, which: str, into: Path, *, on_bytes: OnBytes = lambda count: None) -> Backup:
    """Bring a copy home, into a folder of backups; compared with its sidecar before it gets its name.

    The caller holds the writer's lock, or ``into`` is its own.

    Returns:
        The backup in ``into``; one that is there already and says the same of itself stays as it is.

    Raises:
        NoBackup: there is none.
        BadBackup: it does not verify, or another of its name is in ``into``.
        ConfigurationError, VectorkeepError: see `push`.
    """
    return at_place(url, f"fetching {which}", lambda place: _fetch(place, which, into, on_bytes))


def _push(place: Place, archive: Path, sidecar: Sidecar, on_bytes: OnBytes) -> bool:
    if isinstance(place, FolderPlace) and place.folder.samefile(archive.parent):
        raise ConfigurationError(f"{place.where} is the folder of the backups itself", "name another place")
    _tidy(place)
    sizes, beside = place.sizes(), sidecar_file(sidecar.name)
    if beside in sizes and _read_sidecar(place, beside) != sidecar:
        raise BadBackup(f"another {sidecar.name} is in {place.where}", "nothing is overwritten: move it away yourself")
    if sidecar.file in sizes:
        known = beside in sizes and sizes[sidecar.file] == sidecar.size
        if not known and _digest(place.read(sidecar.file), sidecar.size, on_bytes) != sidecar.sha256:
            raise BadBackup(f"{sidecar.file} in {place.where} is damaged", "move it away, then run again")
    else:
        _put(place, sidecar.file, _blocks(archive, sidecar), sidecar.size, sidecar.sha256, on_bytes)
    if beside not in sizes:
        text = sidecar.to_text().encode()
        _put(place, beside, [text], len(text), hashlib.sha256(text).hexdigest(), lambda count: None)
        place.move(beside + PART, beside)
    if sidecar.file in sizes:
        return False
    place.move(sidecar.file + PART, sidecar.file)
    return True


def _tidy(place: Place) -> None:
    """Take away what killed pushes left: sidecars first, since the parts tell that these are halves."""
    names = place.sizes()
    for name in [name for name in names if is_half(name, names)]:
        place.remove(name)
    for name in names:
        if name.endswith(PART) and split_file(name.removesuffix(PART))[0]:
            place.remove(name)


def _put(place: Place, name: str, blocks: Iterable[bytes], size: int, sha256: str, on_bytes: OnBytes) -> None:
    """Write a part and read it back."""
    place.write(name + PART, _counted(blocks, on_bytes))
    if _digest(place.read(name + PART), size, on_bytes) != sha256:
        raise OSError(errno.EIO, f"what was read back of {name} is not what was written")


def _blocks(archive: Path, sidecar: Sidecar) -> Iterator[bytes]:
    """The archive's bytes; at their end it is seen whether they are the right ones."""
    digest = hashlib.sha256()
    with open(archive, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            yield block
    if digest.hexdigest() != sidecar.sha256:
        raise BadBackup(f"{archive.name} is not what its sidecar says", "run `vectorkeep verify`")


def _counted(blocks: Iterable[bytes], on_bytes: OnBytes) -> Iterator[bytes]:
    for block in blocks:
        yield block
        on_bytes(len(block))


def _digest(blocks: Iterable[bytes], size: int, on_bytes: OnBytes) -> str:
    """SHA-256 of exactly ``size`` bytes, hex; of more or less it is none."""
    digest, count = hashlib.sha256(), 0
    for block in _counted(blocks, on_bytes):
        count += len(block)
        if count > size:
            break
        digest.update(block)
    return digest.hexdigest() if count == size else ""


def _list(place: Place) -> list[Backup]:
    sizes = place.sizes()
    return [_read(place, sizes, name, file) for name, file in entries(sizes)]


def _read(place: Place, sizes: dict[str, int], name: str, file: str) -> Backup:
    sidecar, problem, beside = None, "" if file else NO_ARCHIVE, sidecar_file(name)
    if file and beside in sizes:
        try:
            sidecar = _read_sidecar(place, beside)
        except BadBackup as error:
            problem = error.message
    shown, size = file or archive_file(name, False), sizes.get(file, 0)
    problem = problem or mismatch(name, shown, size, sidecar)
    return Backup(name, Path(shown), sidecar, problem, size, created_at(name))


def _read_sidecar(place: Place, name: str) -> Sidecar:
    data = bytearray()
    for block in place.read(name):
        data += block
        if len(data) > LARGEST:
            raise BadBackup(f"{name} in {place.where} is larger than any sidecar")
    try:
        return Sidecar.from_bytes(bytes(data))
    except BadBackup as error:
        raise BadBackup(f"{name} in {place.where}: {error.message}") from error


def _chosen(place: Place, which: str) -> tuple[Backup, Sidecar]:
    backup = choose(_list(place), which, place.where)
    if backup.sidecar is None or backup.problem:
        raise BadBackup(f"{backup.name} in {place.where}: {backup.problem}")
    return backup, backup.sidecar


def _fetch(place: Place, which: str, into: Path, on_bytes: OnBytes) -> Backup:
    backup, sidecar = _chosen(place, which)
    with contextlib.suppress(NoBackup):
        there = find(into, backup.name)
        if there.sidecar == sidecar and not there.problem:
            return there
        raise BadBackup(f"another {backup.name} is in {into}", "fetch into another folder")
    sweep(into, backup.name)
    partial = partial_path(into, backup.name)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        hold(handle)
        _save(place, sidecar, handle, on_bytes)
        return publish(partial, sidecar, into)
    except BaseException:
        unlink(partial)
        raise
    finally:
        os.close(handle)


def _save(place: Place, sidecar: Sidecar, handle: int, on_bytes: OnBytes) -> None:
    """Write what comes, but no more than the sidecar says."""

    def taken() -> Iterator[bytes]:
        count = 0
        for block in place.read(sidecar.file):
            count += len(block)
            if count <= sidecar.size:
                write_all(handle, block)
            yield block

    if _digest(taken(), sidecar.size, on_bytes) != sidecar.sha256:
        raise BadBackup(f"{sidecar.file} in {place.where} is not what its sidecar says")
