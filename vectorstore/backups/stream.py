"""An archive as a stream of bytes: hashed where it lies, decrypted if need be, unpacked piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vectorstore.backups.age_stream import MAGIC, Reader, decrypting
from vectorstore.backups.manifest import Sidecar
from vectorstore.errors import BadBackup, KeyRefused

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

PIECE = 1 << 18  # bytes: what the processor's cache holds


class Source:
    """An archive's file, and the SHA-256 and number of its bytes read so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        data = self._file.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def check(self, sidecar: Sidecar) -> None:
        """That the whole file, read to its end, is the one that the sidecar is of; ``BadBackup`` if not."""
        while self.read(PIECE):
            pass
        check_size(sidecar, self.size)
        if self._sha256.hexdigest() != sidecar.sha256:
            raise BadBackup(f"{sidecar.file} is damaged: its SHA-256 is not the one in its sidecar")


class Inflated:
    """The contents of one gzip member, which must be all there is."""

    def __init__(self, source: Reader) -> None:
        from isal import igzip_lib

        self._source = source
        self._inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._piece = memoryview(b"")

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes, as they come."""
        while size:
            if not self._piece and not self._more():
                raise BadBackup("the archive is cut off")
            piece = self._piece[:size]
            self._piece = self._piece[size:]
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        return b"".join(self.pieces(size))

    def finish(self) -> None:
        """That this is the end: of the gzip member, whose CRC is compared there, and of the file."""
        if self._piece or self._more() or self._inflate.unused_data or self._source.read(1):
            raise BadBackup("the archive holds more after its end")

    def _more(self) -> bool:
        """Unpack the next piece; false at the member's end."""
        from isal.igzip_lib import IsalError

        while not self._piece and not self._inflate.eof:
            packed = b""
            if self._inflate.needs_input:
                packed = self._source.read(PIECE)
                if not packed:
                    raise BadBackup("the archive is cut off")
            try:
                self._piece = memoryview(self._inflate.decompress(packed, PIECE))
            except IsalError as error:  # type: ignore[misc]  # in its stub it is an instance
                raise BadBackup(f"the archive is damaged: {error}") from error
        return bool(self._piece)


def is_encrypted(path: Path) -> bool:
    """Whether a file is encrypted with age."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def check_size(sidecar: Sidecar, size: int) -> None:
    """That a file is as large as its sidecar says; ``BadBackup`` if not."""
    if size != sidecar.size:
        raise BadBackup(f"{sidecar.file} is damaged: {size} bytes, and its sidecar says {sidecar.size}")


@contextmanager
def opened(path: Path, sidecar: Sidecar | None, identity: Identity | None) -> Iterator[tuple[Source, Reader]]:
    """The file of an archive, and a reader of what it is when decrypted.

    Raises:
        KeyRefused: it is encrypted, and the key is missing or another's. Damage goes first: a file that is not what its
            sidecar says is a ``BadBackup``, whatever age makes of it.
    """
    with open(path, "rb", buffering=0) as file:
        source = Source(file)
        if sidecar:
            check_size(sidecar, path.stat().st_size)
        if not is_encrypted(path):
            yield source, source
            return
        if identity is None:
            raise KeyRefused(f"{path.name} is encrypted", "give the key that it was encrypted to, and its password")
        try:
            with decrypting(source, identity) as reader:
                yield source, reader
        except KeyRefused:
            if sidecar:
                source.check(sidecar)
            raise
