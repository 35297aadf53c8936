"""What is packed is one plain gzip member: other tools read it, and it is as small as it is worth the time."""

from __future__ import annotations

import gzip
import random
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from tests.backups.archives import FACTS, member
from vectorstore.backups.archive import ArchiveWriter, check_archive
from vectorstore.backups.gzip_stream import GzipPacker
from vectorstore.backups.tar_header import header, read_header

KINDS = {
    "noise": random.Random(1).randbytes(300_000),
    "text": b"".join(b"line %d of words\n" % number for number in range(20_000))[:300_000],
    "zeros": bytes(300_000),
}


def packed(pieces: Iterable[bytes], look_again: bool = False) -> bytes:
    packer = GzipPacker()
    parts = []
    for piece in pieces:
        if look_again:
            packer.look_again()
        parts.append(packer.pack(piece))
    return b"".join([*parts, packer.end()])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from([0, 1, 512, 65_535, 65_536, 131_072, 200_001]))),
    st.booleans(),
)
def test_any_pieces_come_back(plan: list[tuple[str, int]], look_again: bool) -> None:
    """In any order of what shrinks and what does not; read by another library, which compares CRC and length."""
    pieces = [KINDS[kind][:size] for kind, size in plan]
    data = packed(pieces, look_again)
    assert gzip.decompress(data) == b"".join(pieces)
    assert data == packed(pieces, look_again)


def test_the_tool_reads_it(tmp_path: Path) -> None:
    pieces = [KINDS[kind] for kind in ("text", "noise", "noise", "text", "zeros", "noise")]
    (tmp_path / "a.gz").write_bytes(packed(pieces))
    subprocess.run(["gzip", "-t", tmp_path / "a.gz"], check=True)
    found = subprocess.run(["gzip", "-dc", tmp_path / "a.gz"], check=True, capture_output=True)
    assert found.stdout == b"".join(pieces)


def test_what_does_not_shrink_does_not_grow() -> None:
    noise = random.Random(2).randbytes(1 << 24)
    pieces = [noise[start : start + (1 << 17)] for start in range(0, len(noise), 1 << 17)]
    assert len(packed(pieces)) < 1.001 * len(noise)


def test_what_shrinks_is_as_small_as_without_looking() -> None:
    text = b"".join(b"%d %d words\n" % (number, number * number % 9973) for number in range(500_000))
    pieces = [text[start : start + (1 << 17)] for start in range(0, len(text), 1 << 17)]
    assert len(packed(pieces)) < 1.02 * len(isal_zlib.compress(text, 1))


def test_after_noise_text_is_packed_again() -> None:
    """At the next look at the latest."""
    noise, text = KINDS["noise"][: 1 << 17], KINDS["text"][: 1 << 17]
    assert len(packed([noise] * 8 + [text] * 80)) < 8.1 * len(noise) + 0.6 * 80 * len(text)
    assert len(packed([noise] * 3 + [text] * 8)) > 7 * len(noise) > len(packed([noise] * 3)) + len(packed([text] * 8))


def test_noise_after_text_is_stored() -> None:
    """After a window at the latest: what is saved on noise is not worth its time."""
    noise, text = KINDS["noise"][: 1 << 17], KINDS["text"][: 1 << 17]
    pieces = [text] * 20 + [noise] * 200
    unshrunk = packed(pieces).count(noise[:60_000])
    assert unshrunk > 170


@pytest.mark.slow
def test_more_than_4_gib(tmp_path: Path) -> None:
    """Where gzip's own length starts anew."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate((1 << 32) + 5)
    with ArchiveWriter(tmp_path / "a") as writer:
        writer.add_file("large", tmp_path / "large")
        sidecar = writer.close(FACTS)
    assert check_archive(tmp_path / "a", sidecar).size == (1 << 32) + 5


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 2**40, 2**63 - 1])
@pytest.mark.parametrize("mtime_ns", [-(2**63), -1, 0, 10**9 - 1, 2**63 - 1])
def test_headers_of_any_size_and_time(size: int, mtime_ns: int) -> None:
    one = replace(member("größer/" + "x" * 200), size=size, mtime_ns=mtime_ns, sha256="")
    data = header(one)
    place = 0

    def read(count: int) -> bytes:
        nonlocal place
        place += count
        return data[place - count : place]

    assert read_header(read) == one and place == len(data)
