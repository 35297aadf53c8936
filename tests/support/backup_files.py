"""Backups as the catalogue sees them: an archive of some bytes, and its sidecar."""

from __future__ import annotations

import calendar
import hashlib
import random
import time
from pathlib import Path

from vectorstore.backups.catalog import Backup, partial_path, publish
from vectorstore.backups.manifest import Manifest, Sidecar, archive_file

VERSIONS = {"vectorkeep": "0.1.0", "chromadb": "1.5.9", "python": "3.11.7"}
RECIPIENT = "age1" + "q" * 58


def name_at(text: str) -> str:
    """``"2026-11-21 17:12:00"`` as a backup's name."""
    return time.strftime("backup_%Y%m%d_%H%M%S", time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def unix(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S")))


def sidecar_of(name: str, data: bytes, *, encrypted: bool = False) -> Sidecar:
    manifest = None if encrypted else Manifest(name, "full", 1.0, VERSIONS, "", {"docs": 3}, 1, 3, ("store",))
    return Sidecar(
        name, archive_file(name, encrypted), "encrypted" if encrypted else "full", 1.0, len(data),
        hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest(), VERSIONS,
        (RECIPIENT,) if encrypted else (), manifest,
    )  # fmt: skip


def data_of(name: str, size: int = 10_000) -> bytes:
    """Bytes of its own for every name."""
    return random.Random(name).randbytes(size)


def written(folder: Path, name: str, size: int = 10_000, *, encrypted: bool = False) -> tuple[Path, Sidecar]:
    """An archive as a backup has written it, not published yet."""
    folder.mkdir(exist_ok=True)
    data, partial = data_of(name, size), partial_path(folder, name)
    partial.write_bytes(data)
    return partial, sidecar_of(name, data, encrypted=encrypted)


def make_backup(folder: Path, name: str, size: int = 10_000, *, encrypted: bool = False) -> Backup:
    """A published one."""
    partial, sidecar = written(folder, name, size, encrypted=encrypted)
    return publish(partial, sidecar, folder)


def assert_sound(folder: Path, backups: list[Backup]) -> None:
    """None has a problem, and each archive in ``folder`` is what its sidecar says."""
    for backup in backups:
        assert not backup.problem, backup
        assert backup.sidecar
        data = (folder / backup.archive.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == backup.sidecar.sha256
