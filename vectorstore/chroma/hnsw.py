"""A vector segment's folder: header, slots, links and the id map, read as they lie on disk.

The format is that of Chroma's hnswlib, version 1, little-endian. Every reader raises `TornFileError` when a
file can't be what Chroma wrote, and `UnknownFormatError` when it may be a format that this module does not
know.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Iterator
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT_VERSION = 1
_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
_UINT = 4
_LABEL = 8
_NO_SLOT = 0xFFFFFFFF
_BLOCK_BYTES = 1 << 20
_PICKLE_KEYS = {"dimensionality", "total_elements_added", "id_to_label", "label_to_id"}


class TornFileError(Exception):
    """A segment file is cut short, half written or inconsistent in itself."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class UnknownFormatError(TornFileError):
    """A segment file has a version or sizes that this module does not know."""


class Header(NamedTuple):
    """The 100 bytes of `header.bin`, in the order of the file; offsets and sizes in bytes."""

    version: int
    level0_offset: int
    capacity: int
    slots: int
    slot_size: int
    label_offset: int
    vector_offset: int
    max_level: int
    entry_slot: int
    max_links_upper: int
    max_links_level0: int
    links_per_insert: int
    level_factor: float
    ef_construction: int

    @property
    def dimension(self) -> int:
        """Floats per vector."""
        return (self.label_offset - self.vector_offset) // _UINT

    @property
    def upper_list_size(self) -> int:
        """Bytes of one upper-level link list: its count and its links."""
        return _UINT * (self.max_links_upper + 1)


class IdMap(NamedTuple):
    """What `index_metadata.pickle` says: labels by id, and the highest label ever given."""

    labels: dict[str, int]
    last_label: int


class UpperLinks(NamedTuple):
    """`link_lists.bin`, parsed."""

    levels: NDArray[np.int32]
    """Shape (slots,): the highest level of each slot."""
    lists: NDArray[np.uint32]
    """Shape (lists, 1 + links): one row per slot and level above 0, its first number the link count."""
    list_levels: NDArray[np.int32]
    """Shape (lists,): the level that each row of `lists` belongs to."""
    size: int
    """Bytes that the records take."""


def read_header(folder: Path, dimension: int | None) -> Header:
    """Read `header.bin` and check it in itself; `dimension` is the collection's, None if not known.

    Raises: TornFileError, UnknownFormatError.
    """
    size = file_size(folder, "header.bin")
    if size != _HEADER.size:
        raise TornFileError("header.bin", f"{size} bytes where {_HEADER.size} are due")
    raw = (folder / "header.bin").read_bytes()
    header = Header(*_HEADER.unpack(raw))
    if 1 < header.version < 1000:
        raise UnknownFormatError("header.bin", f"format version {header.version}, known is {FORMAT_VERSION}")
    for problem in _header_problems(header, dimension):
        raise TornFileError("header.bin", problem)
    return header


def _header_problems(header: Header, dimension: int | None) -> list[str]:
    links = _UINT * (header.max_links_level0 + 1)
    checks = {
        "format version": header.version == FORMAT_VERSION,
        "links per slot": 0 < header.max_links_upper <= header.max_links_level0 < 1 << 16,
        "vector offset": header.level0_offset == 0 and header.vector_offset == links,
        "slot size": header.slot_size == header.label_offset + _LABEL,
        "dimension": header.dimension == dimension if dimension is not None else header.dimension > 0,
        "count": 0 <= header.slots <= header.capacity < _NO_SLOT,
        "entry point": header.entry_slot < header.slots if header.slots else header.entry_slot in (0, _NO_SLOT),
        "top level": -1 <= header.max_level < 64,
    }
    return [f"{name} is not possible" for name, holds in checks.items() if not holds]


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not plain data")


def read_id_map(folder: Path) -> IdMap | None:
    """Read `index_metadata.pickle` without letting it import anything. None if there is none.

    Raises: TornFileError when it is cut short, holds anything but plain data, or its two maps disagree.
    """
    name = "index_metadata.pickle"
    try:
        raw = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = _PlainUnpickler(io.BytesIO(raw)).load()
    except Exception as error:  # a torn pickle can raise nearly anything
        raise TornFileError(name, f"can't be read ({type(error).__name__})") from error
    if not isinstance(content, dict) or not content.keys() >= _PICKLE_KEYS:
        raise TornFileError(name, "is not an id map")
    labels, ids, last = content["id_to_label"], content["label_to_id"], content["total_elements_added"]
    if not isinstance(labels, dict) or not isinstance(ids, dict) or not isinstance(last, int):
        raise TornFileError(name, "is not an id map")
    if len(labels) != len(ids) or not all(map(eq, map(ids.get, labels.values()), labels)):
        raise TornFileError(name, "its two maps disagree")
    return IdMap(labels, last)


def file_size(folder: Path, name: str) -> int:
    """Size in bytes. Raises: TornFileError when the file is missing."""
    try:
        return os.stat(folder / name).st_size
    except FileNotFoundError as error:
        raise TornFileError(name, "is missing") from error


def slot_dtype(header: Header) -> np.dtype[np.void]:
    """The record type of one slot: link count, delete mark, links, vector, label."""
    import numpy as np

    return np.dtype(
        {
            "names": ["count", "mark", "links", "vector", "label"],
            "formats": ["<u2", "u1", ("<u4", header.max_links_level0), ("<f4", header.dimension), "<u8"],
            "offsets": [0, 2, _UINT, header.vector_offset, header.label_offset],
            "itemsize": header.slot_size,
        }
    )


def iter_slots(folder: Path, header: Header, block: int = 4_096) -> Iterator[tuple[int, NDArray[np.void]]]:
    """The slots of `data_level0.bin` in blocks: the first slot's number and an array of shape (<= block,).

    Each block is memory-mapped read-only on its own, so that resident memory stays at a block. A file that
    is cut short gives the slots that are whole.
    """
    import numpy as np

    path, dtype = folder / "data_level0.bin", slot_dtype(header)
    slots = min(header.slots, file_size(folder, path.name) // header.slot_size)
    for first in range(0, slots, block):
        shape = (min(block, slots - first),)
        yield first, np.memmap(path, dtype=dtype, mode="r", offset=first * header.slot_size, shape=shape)


def read_slots(folder: Path, header: Header) -> Iterator[tuple[int, NDArray[np.void]]]:
    """All slots like `iter_slots`, but each block replaces the one before it.

    Reading into one buffer that stays in the processor's cache costs a third less than mapping the file.

    Raises: TornFileError when the file is shorter than its slots.
    """
    import numpy as np

    buffer = np.empty(max(1, _BLOCK_BYTES // header.slot_size), slot_dtype(header))
    with (folder / "data_level0.bin").open("rb", buffering=0) as file:
        for first in range(0, header.slots, len(buffer)):
            block = buffer[: header.slots - first]
            if file.readinto(block.data.cast("B")) != block.nbytes:
                raise TornFileError("data_level0.bin", "became shorter while it was read")
            yield first, block


def read_upper_links(folder: Path, header: Header) -> UpperLinks:
    """Walk `link_lists.bin` record by record. Never reads more than the header allows for.

    Raises: TornFileError when a record ends past the file or has a size that no level gives.
    """
    import numpy as np

    limit = header.slots * (_UINT + max(header.max_level, 0) * header.upper_list_size)
    words = np.fromfile(folder / "link_lists.bin", dtype="<u4", count=limit // _UINT)
    numbers = words.tolist()
    row = header.max_links_upper + 1
    levels = np.zeros(header.slots, np.int32)
    starts: list[int] = []
    list_levels: list[int] = []
    position = 0
    try:
        for slot in range(header.slots):
            size = numbers[position]
            position += 1
            if size:
                level, rest = divmod(size, header.upper_list_size)
                if rest or level > header.max_level:
                    raise TornFileError("link_lists.bin", f"slot {slot} has {size} bytes of links")
                levels[slot] = level
                starts.extend(range(position, position + level * row, row))
                list_levels.extend(range(1, level + 1))
                position += level * row
    except IndexError:
        raise TornFileError("link_lists.bin", f"ends at slot {slot} of {header.slots}") from None
    if position > len(numbers):
        raise TornFileError("link_lists.bin", f"ends inside the last of {header.slots} slots")
    index = np.array(starts, np.int64)[:, None] + np.arange(row)
    return UpperLinks(levels, words[index], np.array(list_levels, np.int32), position * _UINT)
