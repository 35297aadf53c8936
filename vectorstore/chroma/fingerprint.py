"""What tells, by stat alone, whether somebody touched an embedded store since it was closed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SQLITE_NAME = "chroma.sqlite3"
Files = dict[str, tuple[int, int]]  # relative POSIX path -> size in bytes, modification time in ns


def fingerprint(store: Path) -> dict[str, tuple[int, int]]:
    """Size in bytes and modification time in ns of every store file, by relative POSIX path; stat only."""
    found: dict[str, tuple[int, int]] = {}
    for entry in _entries(store):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed: SQLite's journal comes and goes
            if entry.is_file() and entry.name.startswith(SQLITE_NAME):
                found[entry.name] = _stamp(entry)
            elif entry.is_dir() and _is_segment_name(entry.name):
                found |= {f"{entry.name}/{part.name}": _stamp(part) for part in _entries(Path(entry.path))}
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_size, status.st_mtime_ns


def _is_segment_name(name: str) -> bool:
    return len(name) == 36 and name.count("-") == 4
