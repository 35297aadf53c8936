"""What a full backup is made of, read while nobody writes: the store's files, ledger, cache, settings.

The names in the archive are those of a workspace with default paths, so that one unpacked by hand is a workspace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vectorstore.chroma.fingerprint import SQLITE_NAME, Files, fingerprint
from vectorstore.errors import ConfigurationError, Damaged, VectorkeepError
from vectorstore.redaction import without_logins
from vectorstore.settings import SETTINGS_FILE, Settings
from vectorstore.sqlite_errors import is_damage

STORE, LEDGER, CACHE = "chroma", ".hashes/ledger.sqlite3", ".hashes/cache.sqlite3"
_BUSY_SECONDS = 60.0
_ATTEMPTS, _STEP_S = 100, 0.05  # to find a pause of a foreign writer; what it writes at once of an index takes less


class Source(NamedTuple):
    """A file for the archive: its name there, and where it lies.

    ``handle`` is open on it where it must be read by that: a process that opens and closes SQLite's file by itself
    loses the lock that SQLite holds on it.
    """

    name: str
    path: Path
    handle: int | None = None

    def copy(self, to: Path) -> None:
        """Copy it, with its mode and time."""
        if self.handle is None:
            shutil.copyfile(self.path, to)
        else:
            os.lseek(self.handle, 0, os.SEEK_SET)
            with open(self.handle, "rb", closefd=False) as here, open(to, "wb") as there:
                shutil.copyfileobj(here, there, 1 << 20)
        shutil.copystat(self.path, to)


@contextlib.contextmanager
def hold_store(settings: Settings, scratch: Path, *, sound: bool = True) -> Iterator[list[Source]]:
    """The embedded store's files, as they stay until the end of the block, even beside a writer that ignores our lock.

    SQLite's write lock keeps every writer of Chroma out; readers go on. What a killed writer left undone in SQLite is
    rolled back by taking it, as Chroma itself would. SQLite's file comes last, with a handle.

    Args:
        scratch: an empty folder, for a copy of SQLite's file where it can't be read in place.
        sound: whether a store is refused whose index files are torn: its backup would verify, and help nobody.

    Raises:
        ConfigurationError: there is no store.
        Damaged: it is not sound.
        VectorkeepError: another program is writing to the store, or it is damaged beyond reading.
    """
    store = settings.path(settings.chroma_path)
    sqlite = store / SQLITE_NAME
    if not sqlite.is_file():
        raise ConfigurationError(f"there is no store at {store}", "run `vectorkeep update`, which makes one")
    with contextlib.ExitStack() as stack:
        handle = os.open(sqlite, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, handle)
        db = stack.enter_context(
            contextlib.closing(sqlite3.connect(sqlite, timeout=_BUSY_SECONDS, isolation_level=None))
        )
        try:
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
            held = _hold_between_steps(db, store, sound)
            source = Source(f"{STORE}/{SQLITE_NAME}", sqlite, handle)
            if mode != "delete":
                source = Source(source.name, _copied(db, scratch / SQLITE_NAME))
                shutil.copystat(sqlite, source.path)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise Damaged(
                    f"the store {store} is damaged, so it is not backed up: {error}",
                    "go back with `vectorkeep restore latest`; `vectorkeep health` tells more",
                ) from error
            raise VectorkeepError(
                f"the store {store} can't be held still: {error}",
                "see who writes to it; `vectorkeep health` tells more",
            ) from error
        yield [*_index_files(store), source]
        if _index_of(store) != held:
            raise VectorkeepError(
                f"the index files of {store} changed while they were held", "see who writes there, then run again"
            )


def torn_files(settings: Settings) -> list[Source]:
    """The files of a store that nobody can hold still, since it is damaged: as they lie there."""
    store = settings.path(settings.chroma_path)
    return [Source(f"{STORE}/{name}", store / name) for name in sorted(fingerprint(store))]


def copy_ledger(settings: Settings, scratch: Path) -> list[Source]:
    """A copy of the ledger; none where there is no ledger."""
    return _copies(settings.hashes / "ledger.sqlite3", LEDGER, scratch)


def copy_cache(settings: Settings, scratch: Path) -> list[Source]:
    """The vector cache, in place where it is one plain file: it is the largest of all."""
    path = settings.hashes / "cache.sqlite3"
    if not path.is_file():
        return []
    plain = not any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    return [Source(CACHE, path)] if plain else _copies(path, CACHE, scratch)


def settings_text(settings: Settings) -> bytes | None:
    """The settings file without logins in addresses; ``None`` where there is none."""
    try:
        text = (settings.workspace / SETTINGS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return without_logins(text).encode()


def _hold_between_steps(db: sqlite3.Connection, store: Path, sound: bool) -> Files:
    """Take the write lock at a moment when no writer is half through: index files are written before SQLite's rows.

    The look comes before the lock, which it would lose: it opens SQLite's file by itself. Returns the index files.
    """
    from vectorstore.chroma.audit import Remedy, audit

    last: Files | None = None
    for _ in range(_ATTEMPTS):
        try:
            found = fingerprint(store)
            damages = [each for each in audit(store) if each.remedy is not Remedy.OPEN]
        except FileNotFoundError:  # a journal, gone since it was listed
            continue
        db.execute("BEGIN IMMEDIATE")
        time.sleep(_STEP_S)
        if fingerprint(store) == found and ((not damages and not _half_taken(db, store)) or found == last):
            if damages and sound:
                where = damages[0].collection or "the store"
                raise Damaged(
                    f"{where} is damaged, so it is not backed up: {damages[0].detail}",
                    "mend it with `vectorkeep health --fix`, or go back with `vectorkeep restore latest`",
                )
            return _index_of(store)
        last = found
        db.execute("ROLLBACK")
        time.sleep(_STEP_S)
    raise VectorkeepError(f"{store} is written to without a pause", "see who writes to it, then run again")


def _half_taken(db: sqlite3.Connection, store: Path) -> bool:
    """Whether Chroma has yet to take writes of its queue into SQLite's rows: its index may have them already."""
    from vectorstore.chroma import files

    if not files.read_layout(db).known:
        return False
    pending = files.read_pending(db)
    return any(
        write.seq > each.metadata_seq
        for each in files.list_collections(db, store)
        for write in pending.get(each.id, [])
    )


def _index_of(store: Path) -> Files:
    return {name: about for name, about in fingerprint(store).items() if "/" in name}


def _index_files(store: Path) -> list[Source]:
    return [Source(f"{STORE}/{name}", store / name) for name in sorted(_index_of(store))]


def _copies(path: Path, name: str, scratch: Path) -> list[Source]:
    if not path.is_file():
        return []
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        copy = _copied(db, scratch / path.name)
    shutil.copystat(path, copy)
    return [Source(name, copy)]


def _copied(db: sqlite3.Connection, to: Path) -> Path:
    with contextlib.closing(sqlite3.connect(to)) as copy:
        db.backup(copy)
    return to
