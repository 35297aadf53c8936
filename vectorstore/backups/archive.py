"""Archives: written in one stream, and checked to the last byte.

An archive is a PAX tar, packed by ISA-L where that saves space (``.tar.gz``), and encrypted with age where recipients
are given (``.tar.gz.age``). Its last member is its manifest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vectorstore.backups.age_stream import Encrypting
from vectorstore.backups.gzip_stream import GzipPacker
from vectorstore.backups.manifest import Manifest, Member, Sidecar, archive_file
from vectorstore.backups.naming import Names
from vectorstore.backups.stream import PIECE, Inflated, check_size, opened
from vectorstore.backups.tar_header import END, header, padding
from vectorstore.backups.walk import manifest_member, walk
from vectorstore.errors import BadBackup, VectorkeepError

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

OnBytes = Callable[[int], None]


class ArchiveWriter:
    """Writes one archive. Only a ``close`` that has returned makes it whole; else the partial file is the caller's.

    Args:
        path: a file that is not there yet.
        recipients: public age keys to encrypt to; none: not encrypted.

    Raises:
        FileExistsError: there is something at ``path``.
        KeyRefused: a recipient is no public key.
    """

    def __init__(self, path: Path, recipients: Sequence[str] = ()) -> None:
        self._recipients = tuple(dict.fromkeys(recipients))
        self._landing = _Landing(path)
        try:
            self._out = Encrypting(self._landing, self._recipients) if self._recipients else self._landing
        except BaseException:
            self._landing.abort()
            raise
        self._gzip = GzipPacker()
        self._buffer = memoryview(bytearray(PIECE))
        self._names = Names()
        self._members: list[Member] = []
        self._sound = True  # false as soon as something failed, and after the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._give_up()

    def add_file(
        self, name: str, source: Path, on_bytes: OnBytes | None = None, *, opened: int | None = None
    ) -> Member:
        """Add a regular file, with its mode and time.

        Args:
            opened: a handle of it, which stays open; ``None``: it is opened here, and closed.

        Raises:
            ValueError: the name is not safe, or taken.
            VectorkeepError: it is no regular file, or it changed while it was read.
        """
        self._start(name)
        with _opened_source(source, opened) as handle:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                raise VectorkeepError(f"{source} is no regular file")
            member = Member(name, before.st_size, "", before.st_mode & 0o777, before.st_mtime_ns)
            self._put(header(member))
            self._gzip.look_again()
            digest = self._copy(handle, source, member.size, on_bytes)
            after = os.fstat(handle)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(source)
        return self._end(replace(member, sha256=digest))

    def add_bytes(self, name: str, data: bytes, mode: int = 0o600, mtime_ns: int = 0) -> Member:
        """Add a small member; ``ValueError`` where the name is not safe, or taken."""
        self._start(name)
        member = Member(name, len(data), hashlib.sha256(data).hexdigest(), mode & 0o777, mtime_ns)
        self._put(header(member))
        self._put(data)
        return self._end(member)

    def close(self, manifest: Manifest) -> Sidecar:
        """End the archive with its manifest, and see that it is on the disk.

        Args:
            manifest: all but its members, which are those that were added.

        Raises:
            BadBackup: the manifest would not be read back.
        """
        self._start()
        whole = replace(manifest, members=tuple(sorted(self._members, key=lambda member: member.name)))
        whole = Manifest.from_dict(whole.to_dict())
        data = whole.to_text().encode()
        for part in (header(manifest_member(whole, len(data))), data, bytes(padding(len(data))), END):
            self._put(part)
        self._out.write(self._gzip.end())
        if isinstance(self._out, Encrypting):
            self._out.close()
        return self._landing.close(whole, self._recipients)

    def _start(self, name: str | None = None) -> None:
        """Nothing may be added after something failed; what starts now has failed until it ends."""
        if not self._sound:
            raise ValueError("this archive has ended, or was given up")
        if name is not None:
            self._names.take(name)
        self._sound = False

    def _end(self, member: Member) -> Member:
        self._put(bytes(padding(member.size)))
        self._members.append(member)
        self._sound = True
        return member

    def _put(self, data: bytes | memoryview) -> None:
        if packed := self._gzip.pack(data):
            self._out.write(packed)

    def _copy(self, handle: int, source: Path, size: int, on_bytes: OnBytes | None) -> str:
        """Exactly ``size`` bytes; their SHA-256."""
        digest, left = hashlib.sha256(), size
        while left:
            read = os.readv(handle, [self._buffer[:left]])
            if not read:
                raise _changed(source)
            piece = self._buffer[:read]
            digest.update(piece)
            self._put(piece)
            left -= read
            if on_bytes:
                on_bytes(read)
        return digest.hexdigest()

    def _give_up(self) -> None:
        self._sound = False
        if isinstance(self._out, Encrypting):
            self._out.abort()
        self._landing.abort()


def check_archive(
    path: Path, sidecar: Sidecar | None, *, identity: Identity | None = None, on_bytes: OnBytes | None = None
) -> Manifest:
    """Verify all of an archive in one pass, without writing anything: the file, its gzip stream, each member.

    Args:
        sidecar: ``None``: it is lost, and the archive's own manifest is all there is to compare with.
        identity: opens an encrypted one.
        on_bytes: told how many bytes were unpacked since the last call.

    Raises:
        BadBackup: what differs.
        KeyRefused: it is encrypted, and the key is missing or another's.
    """
    with opened(path, sidecar, identity) as (source, reader):
        manifest = walk(Inflated(reader), sidecar.manifest if sidecar else None, None, on_bytes)
        if sidecar:
            source.check(sidecar)
    check_name(manifest, sidecar)
    return manifest


def read_manifest(path: Path, identity: Identity | None = None) -> Manifest:
    """The manifest in an archive whose sidecar is lost; all of the archive is verified on the way to it."""
    return check_archive(path, None, identity=identity)


def check_digest(path: Path, sidecar: Sidecar, on_bytes: OnBytes | None = None) -> None:
    """Verify size, MD5 and SHA-256 of an archive's file; ``BadBackup`` where they are not the sidecar's."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            md5.update(piece)
            sha256.update(piece)
            size += len(piece)
            if on_bytes:
                on_bytes(len(piece))
    check_size(sidecar, size)
    if (md5.hexdigest(), sha256.hexdigest()) != (sidecar.md5, sidecar.sha256):
        raise BadBackup(f"{sidecar.file} is damaged: its MD5 and SHA-256 are not those in its sidecar")


def check_name(manifest: Manifest, sidecar: Sidecar | None) -> None:
    """An encrypted archive's manifest must be the one of its sidecar, as far as that tells."""
    if sidecar and (manifest.name, manifest.created, manifest.versions) != (
        (sidecar.name, sidecar.created, sidecar.versions)
    ):
        raise BadBackup(f"{sidecar.file} holds {manifest.name}, which is not what its sidecar is of")


@contextmanager
def _opened_source(path: Path, opened: int | None) -> Iterator[int]:
    if opened is not None:
        os.lseek(opened, 0, os.SEEK_SET)
        yield opened
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us up
    try:
        yield handle
    finally:
        os.close(handle)


def _changed(source: Path) -> VectorkeepError:
    return VectorkeepError(f"{source} changed while it was read", "see that nothing writes there, then run again")


class _Landing:
    """The file that an archive is written to; MD5 and SHA-256 of what lands there."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(path, flags, 0o600)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._md5.update(data)
        self._sha256.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self._size += len(data)
        return len(data)

    def close(self, manifest: Manifest, recipients: tuple[str, ...]) -> Sidecar:
        """On the disk; the sidecar of what is there."""
        os.fsync(self._handle)
        self.abort()
        return Sidecar(
            name=manifest.name,
            file=archive_file(manifest.name, encrypted=bool(recipients)),
            kind="encrypted" if recipients else manifest.kind,
            created=manifest.created,
            size=self._size,
            md5=self._md5.hexdigest(),
            sha256=self._sha256.hexdigest(),
            versions=manifest.versions,
            recipients=recipients,
            manifest=None if recipients else manifest,
        )

    def abort(self) -> None:
        """Leave the file as it is."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
