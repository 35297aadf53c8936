"""The backups that a folder holds, as they are seen from outside: which there are, and what is wrong with them.

A backup is an archive ``backup_YYYYMMDD_HHMMSS.tar.gz`` (``.age`` if encrypted) with its sidecar beside it; anything
else in the folder is no backup. What is on its way in is called ``.partial-…``, what is on its way out ``.gone-…``.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vectorstore.backups.manifest import SIDECAR_SUFFIX, Sidecar, archive_file, sidecar_file
from vectorstore.backups.placing import disk_errors
from vectorstore.errors import BadBackup, NoBackup

PARTIAL, GONE = ".partial-", ".gone-"
PART = ".part"  # on its way in off-site, beside its name
PIN_SUFFIX = ".pin"
LATEST = "latest"
NO_ARCHIVE, NO_SIDECAR = "its archive is missing", "its sidecar is missing"
_FILE = re.compile(r"(backup_\d{8}_\d{6})(\.tar\.gz|\.tar\.gz\.age|\.manifest\.json|\.pin)", re.ASCII)
_ARCHIVES = (".tar.gz", ".tar.gz.age")
TIME = "backup_%Y%m%d_%H%M%S"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as it is listed: looked at from outside, not verified.

    Attributes:
        name: ``backup_YYYYMMDD_HHMMSS``.
        archive: where it lies; of one off-site its file name only.
        sidecar: ``None`` where it is missing or does not verify.
        problem: why it can't be used as it is; empty: none is seen.
        size: bytes of the archive; 0 where it is missing.
        created: Unix time, by its name.
        pinned: why retention must keep it; empty: it is not pinned.
    """

    name: str
    archive: Path
    sidecar: Sidecar | None
    problem: str
    size: int
    created: float
    pinned: str = ""


def list_backups(folder: Path) -> list[Backup]:
    """The backups in ``folder``, the newest first; none where there is no such folder.

    An archive without its sidecar and a sidecar without its archive are listed, with their problem.
    """
    names = names_in(folder)
    return [read_backup(folder, name, file, sidecar_file(name) in names) for name, file in entries(names)]


def entries(names: Collection[str]) -> list[tuple[str, str]]:
    """The backups among file names, the newest first: name and archive, which is empty where only the sidecar is there.

    A sidecar whose archive is on its way in or out is none.
    """
    found = []
    for file in names:
        name, suffix = split_file(file)
        if suffix in _ARCHIVES:
            found.append((name, file))
        elif suffix == SIDECAR_SUFFIX and not archives_of(name, names) and not under_way(name, names):
            found.append((name, ""))
    return sorted(found, reverse=True)


def find(folder: Path, which: str) -> Backup:
    """A backup by ``latest`` (the newest without a problem), its name, or the name of one of its files.

    Raises:
        NoBackup: there is none.
    """
    return choose(list_backups(folder), which, str(folder))


def choose(backups: list[Backup], which: str, where: str) -> Backup:
    """`find` among backups that were listed, the newest first; ``where`` they lie, in words."""
    name = split_file(which)[0] or which
    wanted = [
        each for each in backups
        if (which == LATEST and not each.problem) or each.archive.name == which
        or (each.name == name and which in (name, sidecar_file(name)))
    ]  # fmt: skip
    if wanted:
        return wanted[0] if which == LATEST else min(wanted, key=lambda each: bool(each.problem))
    names = [each.name for each in backups]
    there = f"there are {', '.join(names[:10])}{', …' if names[10:] else ''}" if names else "run `vectorkeep backup`"
    if which == LATEST and backups:
        raise NoBackup(f"no backup in {where} is sound: {backups[0].name}: {backups[0].problem}", there)
    raise NoBackup(f"there is no backup {'' if which == LATEST else f'{which!r} '}in {where}", there)


def split_file(file: str) -> tuple[str, str]:
    """A file's backup and what the file is of it, by its suffix; two empty texts where it is of none."""
    match = _FILE.fullmatch(file)
    if not match:
        return "", ""
    try:
        created_at(match[1])
    except ValueError:
        return "", ""
    return match[1], match[2]


def created_at(name: str) -> float:
    """The Unix time that a backup's name tells; ``ValueError`` where there is no such time."""
    return float(calendar.timegm(time.strptime(name, TIME)))


def read_backup(folder: Path, name: str, file: str, has_sidecar: bool) -> Backup:
    """One backup of a folder; ``file`` as `entries` gives it."""
    beside, sidecar, problem, size = folder / sidecar_file(name), None, "", 0
    try:
        about = (folder / file).lstat()
        size = about.st_size
        if not file:
            problem, size = NO_ARCHIVE, 0
        elif not stat.S_ISREG(about.st_mode):
            problem = "its archive is no regular file"
        elif not has_sidecar:
            problem = NO_SIDECAR
        elif not stat.S_ISREG(beside.lstat().st_mode):
            problem = "its sidecar is no regular file"
        else:
            sidecar = Sidecar.read(beside)
    except BadBackup as error:
        problem = error.message
    except OSError as error:
        problem = f"it can't be read: {error.strerror}"
    path = folder / (file or archive_file(name, False))
    problem = problem or mismatch(name, path.name, size, sidecar)
    return Backup(name, path, sidecar, problem, size, created_at(name), _pinned(folder, name))


def mismatch(name: str, file: str, size: int, sidecar: Sidecar | None) -> str:
    """Why a sidecar is not that of an archive of this name and size; empty if it is."""
    if sidecar is None:
        return NO_SIDECAR
    if (sidecar.name, sidecar.file) != (name, file):
        return f"its sidecar is of {sidecar.file}"
    if sidecar.size != size:
        return f"its archive has {size:,} bytes, its sidecar says {sidecar.size:,}"
    return ""


def _pinned(folder: Path, name: str) -> str:
    path = folder / (name + PIN_SUFFIX)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "pinned"
        with open(path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read(1000).split()) or "pinned"
    except FileNotFoundError:
        return ""
    except OSError:
        return "pinned"  # whatever it says: rather kept than lost


def names_in(folder: Path) -> dict[str, None]:
    """What lies in the folder; ``VectorkeepError`` where that can't be read."""
    with disk_errors(f"reading {folder}"), contextlib.suppress(FileNotFoundError):
        return dict.fromkeys(sorted(os.listdir(folder)))
    return {}


def archives_of(name: str, names: Collection[str]) -> list[str]:
    """The archives of a backup among file names: one, if nobody meddled."""
    return [file for file in (name + suffix for suffix in _ARCHIVES) if file in names]


def under_way(name: str, names: Collection[str]) -> bool:
    """Whether a backup's archive is on its way in or out, or a kill cut that short."""
    files = [name + suffix for suffix in _ARCHIVES]
    ways = (*(PARTIAL + file for file in files), *(GONE + file for file in files), *(file + PART for file in files))
    return any(way in names for way in ways)


def is_half(file: str, names: Collection[str]) -> bool:
    """Whether it is the sidecar of an archive that is not there yet, or no longer."""
    name, suffix = split_file(file)
    return suffix == SIDECAR_SUFFIX and not archives_of(name, names) and under_way(name, names)
