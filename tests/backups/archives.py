"""Small archives for tests: honest ones, and ones put together by a forger who gets every digest right."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vectorstore.backups.archive import ArchiveWriter
from vectorstore.backups.manifest import Manifest, Member, Sidecar, archive_file
from vectorstore.backups.tar_header import END, header, padding
from vectorstore.backups.walk import manifest_member

FACTS = Manifest(
    name="backup_20261121_171200",
    kind="full",
    created=1763744000.25,
    versions={"vectorkeep": "0.1.0"},
    pipeline="p",
    collections={"docs": 3},
    documents=2,
    chunks=3,
    includes=("store",),
)


def write_files(folder: Path, sizes: Sequence[int] = (0, 1, 511, 512, 513, 70_000, 600_000)) -> list[Path]:
    """Files of noise, text and zeros, with modes and times of their own."""
    rng = random.Random(7)
    paths = []
    for number, size in enumerate(sizes):
        path = folder / f"part{number % 2}" / f"größe {size}"
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = (rng.randbytes(size), b"some words " * size, bytes(size))[number % 3]
        path.write_bytes(contents[:size])
        path.chmod((0o644, 0o600, 0o444)[number % 3])
        os.utime(path, ns=(0, (1_763_744_000_123_456_789, -1, 0, 2**33 * 10**9 + 7)[number % 4]))
        paths.append(path)
    return paths


def make_archive(folder: Path, source: Path, recipients: Sequence[str] = ()) -> tuple[Path, Sidecar]:
    """An archive of all files below ``source``."""
    path = folder / archive_file(FACTS.name, encrypted=bool(recipients))
    with ArchiveWriter(path, recipients) as writer:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            writer.add_file(str(file.relative_to(source)), file)
        return path, writer.close(FACTS)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Contents, mode and time of each file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def member(name: str, data: bytes = b"x") -> Member:
    return Member(name, len(data), hashlib.sha256(data).hexdigest(), 0o600, 5)


def entry(one: Member, data: bytes) -> bytes:
    """A member in a tar."""
    return header(one) + data + bytes(padding(len(data)))


def forge(folder: Path, blocks: bytes, members: Sequence[Member], *, end: bytes = END) -> tuple[Path, Sidecar]:
    """An archive of any blocks, whose manifest lists any members, and a sidecar that vouches for it."""
    manifest = replace(FACTS, members=tuple(members))
    text = manifest.to_text().encode()
    return forge_bytes(
        folder, gzip.compress(blocks + entry(manifest_member(manifest, len(text)), text) + end), manifest
    )


def forge_bytes(folder: Path, data: bytes, manifest: Manifest) -> tuple[Path, Sidecar]:
    """Any bytes as an archive, and a sidecar that vouches for them."""
    path = folder / archive_file(manifest.name, encrypted=False)
    path.write_bytes(data)
    return path, Sidecar(
        name=manifest.name,
        file=path.name,
        kind=manifest.kind,
        created=manifest.created,
        size=len(data),
        md5=hashlib.md5(data).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
        versions=manifest.versions,
        manifest=manifest,
    )
