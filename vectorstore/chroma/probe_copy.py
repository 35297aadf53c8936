"""A throwaway copy of an embedded store: consistent, sparse where the store's files are, and removed in any case."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vectorstore.chroma.files import list_collections, read_layout, sqlite_path
from vectorstore.chroma.fingerprint import SQLITE_NAME, Files, fingerprint

PREFIX = "vectorkeep-probe-"
OWNER = "owner.lock"
STALE_S = 24 * 3600
SPARE_SHARE, SPARE_BYTES = 0.2, 64 << 20  # beyond the copy itself: what Chroma writes when it opens one
DEFAULT_DATABASE = ("default_tenant", "default_database")


class NotCopied(Exception):
    """There is no copy; the message says why."""


class Changed(Exception):
    """Somebody wrote to the store while it was copied."""


@dataclass(frozen=True, slots=True)
class StoreCopy:
    """A copy of a store.

    Attributes:
        path: where it is.
        original: the fingerprint of the store that it was made from.
        collections: names of those in it that may be asked; empty where they can't be told.
        databases: (tenant, database) of these.
        sizes: bytes by relative path of the copied files.
        on_disk: the same without holes.
        free: bytes left on the disk after it was made.
    """

    path: Path
    original: Files
    collections: frozenset[str]
    databases: tuple[tuple[str, str], ...]
    sizes: dict[str, int]
    on_disk: dict[str, int]
    free: int


@contextmanager
def throwaway_folder(parent: Path) -> Iterator[Path]:
    """A folder that is removed at the end. One that a kill leaves is removed by the first call a day later."""
    _remove_stale(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent.absolute()))
    try:
        with open(folder / OWNER, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel frees it when this process dies, however it dies
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, or gone meanwhile
            status = folder.lstat()
            mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if not mine or time.time() - status.st_mtime < STALE_S:
                continue
            with open(folder / OWNER, "w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def copy_store(store: Path, target: Path, names: Collection[str] | None) -> StoreCopy:
    """Copy SQLite with its journals, and the index folders of the collections called ``names`` (``None``: of all).

    ``target`` is made. A store of a layout that is not known, or whose SQLite file can't be read, is copied whole.

    Raises:
        NotCopied: no store, no room, or a file that can't be read.
        Changed: the copy may be of two different moments.
    """
    if not sqlite_path(store).is_file():
        raise NotCopied(f"there is no {SQLITE_NAME} in {store}")
    try:
        before = fingerprint(store)
        target.mkdir()
        copier = _Copier(store, target)
        copier.copy([name for name in before if "/" not in name and not name.endswith("-shm")])
        contents = _read_contents(store, target, names)
        copier.copy(_files_below(store, contents.segments))
        for segment in contents.segments or ():
            if (store / segment).is_dir():
                (target / segment).mkdir(exist_ok=True)
        after = fingerprint(store)
    except FileNotFoundError as error:
        raise Changed(str(error)) from error
    except OSError as error:
        raise NotCopied(f"the store can't be copied: {error}") from error
    if before != after:
        raise Changed("its files differ before and after")
    free = shutil.disk_usage(target).free
    return StoreCopy(target, after, contents.names, contents.databases, copier.sizes, copier.on_disk, free)


class _Contents(NamedTuple):
    segments: frozenset[str] | None = None  # index folders; None where they can't be told
    names: frozenset[str] = frozenset()
    databases: tuple[tuple[str, str], ...] = (DEFAULT_DATABASE,)


def _read_contents(store: Path, copy: Path, names: Collection[str] | None) -> _Contents:
    try:
        with closing(sqlite3.connect(sqlite_path(copy))) as db:  # takes back what a killed writer left, as Chroma does
            layout = read_layout(db)
            if not layout.known or layout.missing:
                return _Contents()
            found = [each for each in list_collections(db, store) if names is None or each.name in names]
            sql = "SELECT c.id, d.tenant_id, d.name FROM collections c JOIN databases d ON d.id = c.database_id"
            place = {collection: (tenant, database) for collection, tenant, database in db.execute(sql)}
    except sqlite3.Error:
        return _Contents()
    databases = {place.get(each.id, DEFAULT_DATABASE) for each in found} or {DEFAULT_DATABASE}
    segments = frozenset(each.vector_segment for each in found)
    if not all(segment.replace("-", "").isalnum() for segment in segments):
        return _Contents()  # not what Chroma writes; such a path could lead out of the copy
    return _Contents(segments, frozenset(each.name for each in found), tuple(sorted(databases)))


def _files_below(store: Path, folders: Collection[str] | None) -> list[str]:
    """Paths, relative to the store, of all files below some of its folders; ``None``: of all that is not SQLite's."""
    roots = [store] if folders is None else [store / folder for folder in sorted(folders)]
    return [
        path
        for root in roots
        for folder, _, files in os.walk(root)
        for path in (os.path.relpath(os.path.join(folder, name), store) for name in files)
        if not path.startswith(SQLITE_NAME)
    ]


class _Copier:
    def __init__(self, store: Path, target: Path) -> None:
        self._store = store
        self._target = target
        self.sizes: dict[str, int] = {}
        self.on_disk: dict[str, int] = {}

    def copy(self, paths: list[str]) -> None:
        """Copy regular files; what else lies there (a pipe would be waited for) Chroma shall miss."""
        status = {path: (self._store / path).stat() for path in paths}
        regular = {path: each for path, each in status.items() if stat.S_ISREG(each.st_mode)}
        self.sizes |= {path: each.st_size for path, each in regular.items()}
        on_disk = {path: each.st_blocks * 512 for path, each in regular.items()}
        self.on_disk |= on_disk
        self._require_room(sum(on_disk.values()))
        for path in regular:
            (self._target / path).parent.mkdir(parents=True, exist_ok=True)
            copy_sparse(self._store / path, self._target / path)

    def _require_room(self, size: int) -> None:
        needed = int(size * (1 + SPARE_SHARE)) + SPARE_BYTES
        free = shutil.disk_usage(self._target).free
        if free < needed:
            raise NotCopied(
                f"{needed >> 20} MB are needed in {self._target.parent.parent} and {free >> 20} MB are free"
            )


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's data, and no holes: a damaged index can have terabytes of them."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # holes to the end
                    return
                raise
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            _copy_range(reader.fileno(), writer.fileno(), start, end)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(reader, writer, end - start, start, start)  # shares blocks where the disk can
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            copied = os.pwrite(writer, os.pread(reader, min(end - start, 1 << 20), start), start)
        if not copied:
            return  # cut short meanwhile, which the fingerprint will show
        start += copied
