"""The backups that a folder holds, as they are seen from outside: which there are, and what is wrong with them.

A backup is an archive ``backup_YYYYMMDD_HHMMSS.tar.gz`` (``.age`` if encrypted) with its sidecar beside it; anything
else in the folder is no backup. What is on its way in is called ``.partial-…``, what is on its way out ``.gone-…``.
"""

from __future__ import annotations

import calendar
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vectorstore.backups.manifest import SIDECAR_SUFFIX, Sidecar, archive_file, sidecar_file
from vectorstore.errors import BadBackup, NoBackup

PARTIAL, GONE, PIN_SUFFIX = ".partial-", ".gone-", ".pin"
LATEST = "latest"
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
    found = []
    for file in names:
        name, suffix = split_file(file)
        if suffix in _ARCHIVES:
            found.append(read_backup(folder, name, file, sidecar_file(name) in names))
        elif suffix == SIDECAR_SUFFIX and not archives_of(name, names) and not under_way(name, names):
            lone = Backup(name, folder / archive_file(name, False), None, "its archive is missing", 0, created_at(name))
            found.append(lone)
    return sorted(found, key=lambda each: (each.name, each.archive.name), reverse=True)


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


def judge(name: str, file: str, size: int, sidecar: Sidecar | None, problem: str) -> Backup:
    """A backup by its archive's name and size and its sidecar; ``problem``: what is known to be wrong."""
    if sidecar and not problem:
        if (sidecar.name, sidecar.file) != (name, file):
            problem = f"its sidecar is of {sidecar.file}"
        elif sidecar.size != size:
            problem = f"the archive has {size:,} bytes, its sidecar says {sidecar.size:,}"
    return Backup(name, Path(file), sidecar, problem, size, created_at(name))


def read_backup(folder: Path, name: str, file: str, has_sidecar: bool) -> Backup:
    """One backup; ``file`` is its archive's name."""
    path, beside = folder / file, folder / sidecar_file(name)
    sidecar, problem, size = None, "", 0
    try:
        about = path.lstat()
        size = about.st_size
        if not stat.S_ISREG(about.st_mode):
            problem = "the archive is no regular file"
        elif not has_sidecar:
            problem = "its sidecar is missing"
        elif not stat.S_ISREG(beside.lstat().st_mode):
            problem = "its sidecar is no regular file"
        else:
            sidecar = Sidecar.read(beside)
    except BadBackup as error:
        problem = error.message
    except OSError as error:
        problem = f"it can't be read: {error.strerror}"
    found = judge(name, file, size, sidecar, problem)
    return Backup(name, path, sidecar, found.problem, size, found.created, _pinned(folder, name))


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


def names_in(folder: Path) -> Mapping[str, None]:
    """What lies in the folder."""
    try:
        return dict.fromkeys(sorted(os.listdir(folder)))
    except FileNotFoundError:
        return {}


def archives_of(name: str, names: Iterable[str]) -> list[str]:
    """The archives of a backup among ``names``: one, if nobody meddled."""
    return [file for file in (name + suffix for suffix in _ARCHIVES) if file in names]


def under_way(name: str, names: Iterable[str]) -> bool:
    """Whether a backup is being published or removed, or a kill cut that short."""
    return any(file.startswith((f"{PARTIAL}{name}.tar.gz", f"{GONE}{name}.tar.gz")) for file in names)
