"""Packs bytes into one gzip member that every tool reads, and spends nothing on what hardly shrinks.

Vectors shrink by some 8 %, which costs as much as all that shrinks by half. So one piece in eight is looked at: where
packing saves less than a tenth, the pieces up to the next look are stored as they are. Unpacking is faster then too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isal.isal_zlib import Compress

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate; no time, no name, no system
_RAW = -15  # window bits: the largest window, without gzip's own header: there are several compressors to one stream
_TABLES = 9  # the largest: 0.4 MB
_LARGEST_STORED = 65_535
_SMALLEST_LOOK = 1 << 16  # bytes that tell something
_EVERY = 8
_WORTH = 0.9


class GzipPacker:
    """One gzip member; the same pieces always give the same bytes."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._isal = isal_zlib
        self._packing: Compress | None = None  # what it has taken and not given out yet
        self._storing = False
        self._until_look = 0
        self._crc = self._size = 0
        self._header = _HEADER

    def look_again(self) -> None:
        """Other contents begin: what was seen so far says nothing of them."""
        self._until_look, self._storing = 0, False

    def pack(self, data: bytes | memoryview) -> bytes:
        """Take a piece; what can be given out already."""
        self._crc = self._isal.crc32(data, self._crc)
        self._size += len(data)
        header, self._header = self._header, b""
        if len(data) < _SMALLEST_LOOK:
            return header + self._pack(data)
        if not self._until_look:
            self._until_look = _EVERY
            before = self._align()
            packed = self._pack(data) + self._align(go_on=True)
            self._storing = len(packed) > _WORTH * len(data)
            packed = header + before + packed
        else:
            packed = header + (self._align() + _stored(data) if self._storing else self._pack(data))
        self._until_look -= 1
        return packed

    def end(self) -> bytes:
        """The end of the member."""
        header, self._header = self._header, b""
        end = (self._packing or self._new()).flush()
        self._packing = None
        return header + end + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)

    def _new(self) -> Compress:
        return self._isal.compressobj(1, self._isal.DEFLATED, _RAW, _TABLES)

    def _pack(self, data: bytes | memoryview) -> bytes:
        self._packing = self._packing or self._new()
        return self._packing.compress(data)

    def _align(self, go_on: bool = False) -> bytes:
        """Give out all that was taken, up to a whole byte.

        Args:
            go_on: keep the compressor. It knows nothing of bytes that come between: after them it must be a new one.
        """
        if self._packing is None:
            return b""
        given = self._packing.flush(self._isal.Z_SYNC_FLUSH)
        if not go_on:
            self._packing = None
        return given


def _stored(data: bytes | memoryview) -> bytes:
    """Blocks of a deflate stream that hold bytes as they are."""
    parts: list[bytes | memoryview] = []
    view = memoryview(data)
    for start in range(0, len(view), _LARGEST_STORED):
        block = view[start : start + _LARGEST_STORED]
        parts += (struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block)
    return b"".join(parts)
