"""Packs bytes into one gzip member that every tool reads, and spends nothing on what hardly shrinks.

Vectors shrink by some 8 %, which costs as much as all that shrinks by half. So where packing saves less than a tenth,
the next pieces are stored as they are, until a look at one says otherwise. Unpacking is faster then too.
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
_WINDOW = 1 << 20  # bytes by which it is told whether packing goes on to be worth it
_FIRST_REST, _LONGEST_REST = 8, 32  # pieces that are stored between two looks
_WORTH = 0.9


class GzipPacker:
    """One gzip member; the same pieces always give the same bytes."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._isal = isal_zlib
        self._packing: Compress | None = None  # what it has taken and not given out yet
        self._rest = _FIRST_REST
        self._until_look = 0
        self._unsure = True
        self._taken = self._given = 0  # bytes of the window
        self._crc = self._size = 0
        self._header = _HEADER

    def look_again(self) -> None:
        """Other contents begin: what was seen so far says nothing of them."""
        self._until_look, self._rest, self._unsure = 0, _FIRST_REST, True

    def pack(self, data: bytes | memoryview) -> bytes:
        """Take a piece; what can be given out already."""
        self._crc = self._isal.crc32(data, self._crc)
        self._size += len(data)
        header, self._header = self._header, b""
        if len(data) < _SMALLEST_LOOK:
            return header + self._pack(data)
        if self._until_look:
            self._until_look -= 1
            return header + self._align() + _stored(data)
        return header + (self._look(data) if self._unsure else self._watch(data))

    def end(self) -> bytes:
        """The end of the member."""
        header, self._header = self._header, b""
        end = (self._packing or self._new()).flush()
        self._packing = None
        return header + end + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)

    def _look(self, data: bytes | memoryview) -> bytes:
        """Pack one piece by itself, to see what it saves."""
        before = self._align()
        packed = self._pack(data) + self._align(go_on=True)
        self._unsure = len(packed) > _WORTH * len(data)
        if self._unsure:
            self._until_look, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST)
        else:
            self._rest, self._taken, self._given = _FIRST_REST, 0, 0
        return before + packed

    def _watch(self, data: bytes | memoryview) -> bytes:
        """Pack one piece of many; what the compressor holds back is little beside a window."""
        packed = self._pack(data)
        self._taken, self._given = self._taken + len(data), self._given + len(packed)
        if self._taken >= _WINDOW:
            self._unsure = self._given > _WORTH * self._taken
            self._taken = self._given = 0
        return packed

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
