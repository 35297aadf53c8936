"""Unpacks an archive by hand: regular files that its manifest lists, into an empty folder, and never past it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vectorstore.backups.age_stream import Reader
from vectorstore.backups.archive import OnBytes, check_archive, check_name
from vectorstore.backups.manifest import Manifest, Member, Sidecar
from vectorstore.backups.stream import Inflated, is_encrypted, opened
from vectorstore.backups.walk import Write, walk
from vectorstore.errors import VectorkeepError

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(
    path: Path,
    sidecar: Sidecar | None,
    into: Path,
    *,
    only: Callable[[str], bool] | None = None,
    identity: Identity | None = None,
    on_bytes: OnBytes | None = None,
) -> Manifest:
    """Unpack an archive, verifying all of it; modes and times are the manifest's, and all is on the disk at the end.

    An encrypted one is first decrypted and verified as a whole, into a file without a name beside ``into``.

    Args:
        sidecar: ``None``: it is lost. The archive is then read twice, the first time for its manifest.
        into: an empty folder. On any error what is in it is the caller's to remove.
        only: which members to write, by their names; the others are verified all the same.
        identity: opens an encrypted one.
        on_bytes: told how many bytes were unpacked since the last call.

    Raises:
        BadBackup: what differs.
        KeyRefused: it is encrypted, and the key is missing or another's; ``into`` is as it was.
        FileExistsError: ``into`` is not empty.
        VectorkeepError: there is not room enough.
    """
    target = _Target(into, only or (lambda name: True))
    try:
        if is_encrypted(path):
            manifest = _extract_encrypted(path, sidecar, target, identity, on_bytes)
        else:
            manifest = _extract_plain(path, sidecar, target, on_bytes)
        target.sync()
    finally:
        target.close()
    return manifest


def _extract_plain(path: Path, sidecar: Sidecar | None, target: _Target, on_bytes: OnBytes | None) -> Manifest:
    manifest = sidecar.manifest if sidecar else None
    if manifest is None:
        manifest = check_archive(path, sidecar)
    target.make_room(manifest)
    with opened(path, sidecar, None) as (source, reader):
        walk(Inflated(reader), manifest, target.receive, on_bytes)
        if sidecar:
            source.check(sidecar)
    return manifest


def _extract_encrypted(
    path: Path, sidecar: Sidecar | None, target: _Target, identity: Identity | None, on_bytes: OnBytes | None
) -> Manifest:
    with tempfile.TemporaryFile(dir=target.path.parent) as plain:  # without a name: a kill leaves nothing in clear
        with opened(path, sidecar, identity) as (source, reader):
            manifest = walk(Inflated(_Tee(reader, plain)), sidecar.manifest if sidecar else None)
            if sidecar:
                source.check(sidecar)
        check_name(manifest, sidecar)
        target.make_room(manifest)
        plain.seek(0)
        return walk(Inflated(plain), manifest, target.receive, on_bytes)


class _Tee:
    """A reader that keeps what was read."""

    def __init__(self, reader: Reader, out: BinaryIO) -> None:
        self._reader, self._out = reader, out

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._out.write(data)
        return data


class _Target:
    """The folder that is written to: held open, so that whoever moves or replaces it or its folders leads us nowhere.

    Raises:
        FileExistsError: it is not empty.
        OSError: it is no folder, or a link to one.
    """

    def __init__(self, path: Path, only: Callable[[str], bool]) -> None:
        self.path, self._only = path, only
        self._folders: set[str] = set()
        self._root = os.open(path, _FOLDER)
        if os.listdir(self._root):
            self.close()
            raise FileExistsError(f"{path} is not empty")

    def make_room(self, manifest: Manifest) -> None:
        """See that the disk can hold what the manifest says; ``VectorkeepError`` if not."""
        needed = sum(member.size for member in manifest.members if self._only(member.name))
        disk = os.fstatvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise VectorkeepError(
                f"{manifest.name} needs {needed} bytes, and the disk of {self.path} has {free} left", "make room"
            )

    def receive(self, member: Member) -> AbstractContextManager[Write]:
        """A new file for a member; for one that is not asked for, nothing."""
        return self._create(member) if self._only(member.name) else nullcontext(lambda piece: None)

    def sync(self) -> None:
        """See that all folders are on the disk."""
        for folder in sorted(self._folders):
            with self._opened(folder.split("/")) as handle:
                os.fsync(handle)
        os.fsync(self._root)

    def close(self) -> None:
        os.close(self._root)

    @contextmanager
    def _create(self, member: Member) -> Iterator[Write]:
        *folders, leaf = member.name.split("/")
        with self._opened(folders) as folder:
            handle = os.open(leaf, _NEW, 0o600, dir_fd=folder)
        try:
            yield partial(_write, handle)
            os.fchmod(handle, member.mode)
            os.utime(handle, ns=(member.mtime_ns, member.mtime_ns))
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _opened(self, folders: list[str]) -> Iterator[int]:
        """A folder below, made where it is not there; no link on the way to it is followed."""
        handle = os.dup(self._root)
        try:
            for depth, folder in enumerate(folders, 1):
                name = "/".join(folders[:depth])
                if name not in self._folders:
                    os.mkdir(folder, dir_fd=handle)
                    self._folders.add(name)
                below = os.open(folder, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


def _write(handle: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(handle, piece) :]
