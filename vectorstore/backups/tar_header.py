"""Headers of members: one spelling for each, in the PAX format that every tar reads.

What is read is spelled again and compared, so that links, devices, sparse files, foreign extensions and overrides can't
hide in any field: a header is what Vectorkeep writes, byte for byte, or the archive is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vectorstore.backups.manifest import Member
from vectorstore.errors import BadBackup

BLOCK = 512
END = bytes(2 * BLOCK)  # of an archive
_LARGEST_FIELD = 8**11 - 1  # what fits into 11 octal digits; a larger size is told by PAX alone
_LARGEST_PAX = 8 * BLOCK
_TIME = re.compile(rb"(-?)(\d{1,11})\.(\d{9})", re.ASCII)


def padding(size: int) -> int:
    """Zero bytes after a member of ``size`` bytes."""
    return -size % BLOCK


def header(member: Member) -> bytes:
    """All blocks before a member's contents."""
    records = _record("mtime", _decimal(member.mtime_ns)) + _record("path", member.name)
    if member.size > _LARGEST_FIELD:
        records += _record("size", str(member.size))
    short = member.name.encode("ascii", "replace")[:100]
    return (
        _block(b"PaxHeader", len(records), b"x", 0o600, 0)
        + records.ljust(len(records) + padding(len(records)), b"\0")
        + _block(short, member.size, b"0", member.mode, member.mtime_ns // 10**9)
    )


def read_header(read: Callable[[int], bytes]) -> Member | None:
    """The next member, without a digest; ``None`` where a block of zeros ends the members.

    Args:
        read: gives exactly so many bytes.

    Raises:
        BadBackup: it is no header as ``header`` makes it. Whether the name is safe is not looked at.
    """
    first = read(BLOCK)
    if not any(first):
        return None
    length = _octal(first[124:136])
    if first[156:157] != b"x" or not 0 < length <= _LARGEST_PAX:
        raise BadBackup("the archive holds something that is no file of a backup")
    raw = first + read(length + padding(length) + BLOCK)
    records = dict(_records(raw[BLOCK : BLOCK + length]))
    last = raw[-BLOCK:]
    size = records.get(b"size")
    try:
        name = records.get(b"path", b"").decode()
        member = Member(
            name=name,
            size=int(size) if size and size.isdigit() else _octal(last[124:136]),
            sha256="",
            mode=_octal(last[100:108]),
            mtime_ns=_nanoseconds(records.get(b"mtime", b"")),
        )
    except ValueError as error:
        raise BadBackup(f"a member of the archive can't be read: {error}") from error
    if header(member) != raw:
        raise BadBackup(f"{name!r} in the archive is no plain file as Vectorkeep writes it")
    return member


def _record(key: str, value: str) -> bytes:
    """``length key=value``, where the length counts its own digits."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(rest) + len(str(length)) != length:
        length += 1
    return str(length).encode() + rest


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values; whether they are spelled well shows when they are spelled again."""
    pairs = (line.partition(b" ")[2].partition(b"=") for line in data.split(b"\n")[:-1])
    return [(key, value) for key, _, value in pairs]


def _block(name: bytes, size: int, kind: bytes, mode: int, seconds: int) -> bytes:
    shown = size if size <= _LARGEST_FIELD else 0
    parts = [
        name.ljust(100, b"\0"),
        b"%07o\0%07o\0%07o\0%011o\0" % (mode, 0, 0, shown),
        b"%011o\0" % min(max(seconds, 0), _LARGEST_FIELD),
        b" " * 8,  # the place of the checksum
        kind,
        bytes(100),  # a link's target
        b"ustar\x0000",
        bytes(32 + 32),  # names of user and group
        b"%07o\0%07o\0" % (0, 0),
        bytes(155 + 12),
    ]
    block = b"".join(parts)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0")
    if not digits or not digits.isdigit() or digits.strip(b"01234567"):
        raise BadBackup("the archive is damaged: a number of a member's header can't be read")
    return int(digits, 8)


def _decimal(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09d}"


def _nanoseconds(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError("its time is none")
    sign, seconds, rest = found.groups()
    return (-1 if sign else 1) * (int(seconds) * 10**9 + int(rest))
