"""The last step of a restore: what was staged and verified takes its place, and what was there leaves it.

Store and ledger are exchanged one after the other, each at once. A journal says what is to stand where, by inode, so
that a restore that was killed in between is carried to its end by whoever writes next.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vectorstore.backups.placing import disk_errors, sync_folder, unlink, write_new
from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.errors import ConfigurationError, Damaged, VectorkeepError
from vectorstore.ledger import Ledger
from vectorstore.lock import WriterLock, lock_files
from vectorstore.settings import Settings

JOURNAL, _NEW_JOURNAL = "restore.json", "restore.new"
STAGE = ".restore-"  # beside the store, with the backup's name
RESTORED = ("ledger.restored", "cache.restored")  # on the ledger's disk, so that the exchange is a rename
_AT_FDCWD, _EXCHANGE = -100, 2
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_COMPANIONS = ("-wal", "-shm", "-journal")  # of the ledger that goes; SQLite would take them for the new one's


@dataclass(frozen=True)
class Exchange:
    """One thing that takes another's place.

    Attributes:
        staged: where it is, and where the other is afterwards.
        live: where it is to be; maybe nothing is there.
        inode: of what was staged.
    """

    staged: str
    live: str
    inode: int

    @classmethod
    def of(cls, staged: Path, live: Path) -> Exchange:
        """To be done, with what is staged now."""
        return cls(str(staged), str(live), staged.stat().st_ino)

    def do(self) -> None:
        """Carry it out, however much of it was done.

        Raises:
            Damaged: what was staged is gone.
        """
        staged, live, aside = Path(self.staged), Path(self.live), Path(self.staged + ".old")
        if not self.done:
            if _inode(staged) != self.inode:
                raise Damaged(
                    f"a restore was cut short, and what it staged is gone: {staged}",
                    f"remove {JOURNAL}, then restore once more: see `vectorkeep backups`",
                )
            if os.path.lexists(live):
                _exchange(staged, live, aside)
            else:
                staged.rename(live)
        if os.path.lexists(aside) and not os.path.lexists(staged):
            aside.rename(staged)
        sync_folder(live.parent)
        if staged.parent.is_dir():  # else it was done, and the stage is removed already
            sync_folder(staged.parent)

    @property
    def done(self) -> bool:
        """Whether what was staged is in place."""
        return _inode(Path(self.live)) == self.inode


@contextlib.contextmanager
def writing(settings: Settings, command: str) -> Iterator[None]:
    """The writer's lock, with every restore carried to its end that was killed before, and no litter of killed runs.

    Raises:
        Locked: another run writes.
    """
    with WriterLock(lock_files(settings), command):
        settle(settings)
        _tidy(settings.backups)
        yield


def swap_in(settings: Settings, exchanges: Sequence[Exchange], stages: Sequence[Path], **about: str) -> None:
    """Exchange everything, and remove ``stages``, which then hold what was there.

    Args:
        about: for the journal: ``backup``, and ``safety``, the backup of what was there.
    """
    journal = {
        "state": "swapping", **about, "exchanges": [asdict(each) for each in exchanges],
        "stages": [str(stage) for stage in stages],
    }  # fmt: skip
    with disk_errors("restoring"):
        _write(settings, journal)
    settle(settings)


def settle(settings: Settings) -> bool:
    """Carry a restore to its end that was killed while it swapped; whether there was one. The caller holds the lock.

    Raises:
        Damaged: what was staged is gone.
        VectorkeepError: the disk refused; run again to go on.
    """
    journal = read_journal(settings)
    if not journal or journal["state"] != "swapping":
        _sweep(settings)
        return False
    with disk_errors("restoring"):
        for each in (Exchange(**entry) for entry in journal["exchanges"]):
            if each.live.endswith(".sqlite3") and not each.done:  # it goes, and what was not checkpointed with it
                _remove_companions(each.live)
            each.do()
        _believe(settings)
        for stage in journal["stages"]:
            _remove(Path(stage))
        _write(settings, {**journal, "state": "done"})
    return True


def store_folder(settings: Settings) -> Path:
    """Where the embedded store really lies: a link to it stays as it is."""
    return Path(os.path.realpath(settings.path(settings.chroma_path)))


def check_exchangeable(settings: Settings) -> None:
    """See that the store can be exchanged; ``ConfigurationError`` where it is a mount point, which can't be renamed."""
    store = store_folder(settings)
    if os.path.ismount(store) or str(store) in _mount_points():
        raise ConfigurationError(
            f"the store {store} is a mount point, which can't be exchanged",
            "let chroma_path be a folder below it; or restore with --into",
        )


def _mount_points() -> set[str]:
    """Those that another folder of the same disk is bound to as well."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return {line.split()[4].replace("\\040", " ") for line in file}
    return set()


def read_journal(settings: Settings) -> dict[str, Any] | None:
    """The journal of the last restore; ``None`` where there was none, or it can't be read."""
    try:
        found = json.loads((settings.hashes / JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "state" in found else None


def _tidy(backups: Path) -> None:
    """Take away what killed backups and drills left; where the disk refuses, the next backup says so."""
    with contextlib.suppress(OSError, VectorkeepError):
        if any(name.startswith(".") for name in os.listdir(backups)):
            from vectorstore.backups.catalog import sweep
            from vectorstore.backups.scratch import sweep_scratch

            sweep(backups)
            sweep_scratch(backups)


def _sweep(settings: Settings) -> None:
    """Take away what a restore left that was killed before it swapped."""
    for folder in {store_folder(settings).parent, settings.hashes}:
        for path in folder.glob(f"{STAGE}backup_*"):
            _remove(path)
    for name in (*RESTORED, _NEW_JOURNAL):
        unlink(settings.hashes / name)


def _remove_companions(ledger: str) -> None:
    for suffix in _COMPANIONS:
        unlink(Path(ledger + suffix))


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else unlink(path)


def _believe(settings: Settings) -> None:
    """The store's files are those that the restored ledger belongs to."""
    store = store_folder(settings)
    if settings.chroma_url or not store.is_dir() or not (settings.hashes / "ledger.sqlite3").is_file():
        return
    ledger = Ledger(settings.hashes / "ledger.sqlite3")
    try:
        ledger.store_closed(fingerprint(store))
    finally:
        ledger.close()


def _write(settings: Settings, journal: dict[str, Any]) -> None:
    path = settings.hashes / JOURNAL
    temporary = settings.hashes / _NEW_JOURNAL
    unlink(temporary)
    write_new(temporary, (json.dumps(journal, indent=1) + "\n").encode())
    temporary.replace(path)
    sync_folder(path.parent)


def _exchange(staged: Path, live: Path, aside: Path) -> None:
    """At once, where the system can; else by three renames, each of which `Exchange.do` can go on from."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(staged), os.fsencode(live)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_EXCHANGE:
            raise OSError(number, os.strerror(number), str(live))
    live.rename(aside)
    staged.rename(live)
    aside.rename(staged)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
