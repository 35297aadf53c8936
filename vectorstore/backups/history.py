"""What became of the backups: ``backups/history.jsonl``, a line an event, only ever added to.

It lies beside the backups and not in the ledger, so that a restore does not set it back. A line that a crash cut is
passed over, and the next one begins anew after it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.backups.placing import disk_errors, sync_folder

if TYPE_CHECKING:
    from vectorstore.backups.catalog import Backup

FILE = "history.jsonl"
EVENTS = ("backup", "verify", "drill", "restore", "prune", "offsite")
LOOKS = ("backup", "verify", "drill")  # events that tell whether an archive is sound; a backup ends with a look at it
_KINDS: dict[str, Any] = {
    "event": str, "name": str, "time": (int, float), "level": str, "ok": bool, "seconds": (int, float), "message": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done with a backup.

    Attributes:
        event: one of ``EVENTS``.
        name: of the backup; empty where it is about none in particular.
        time: Unix time of its end.
        level: of a verification: ``digest``, ``deep``, ``drill``; of others what the verb says.
        ok: whether it ended well.
        seconds: how long it took.
        message: for a person, above all what went wrong.
    """

    event: str
    name: str
    time: float
    level: str = ""
    ok: bool = True
    seconds: float = 0.0
    message: str = ""


def append(folder: Path, event: Event) -> None:
    """Add an event to the history of the backups in ``folder``, on the disk when this returns.

    Raises:
        VectorkeepError: it can't be written.
    """
    assert event.event in EVENTS, event.event
    line = json.dumps(asdict(event), separators=(",", ":")).encode() + b"\n"
    path = folder / FILE
    with disk_errors(f"writing {path}"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # after one that a crash or a full disk cut
            if os.write(handle, line) < len(line):  # in one call: events of two processes do not mix
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle)
        finally:
            os.close(handle)
        if not size:
            sync_folder(folder)


def read(folder: Path) -> list[Event]:
    """All events, the oldest first; lines that can't be understood are left out."""
    return list(_backwards(folder))[::-1]


def last(folder: Path, event: str, ok: bool | None = True) -> Event | None:
    """The last event of a kind that ended well (``ok=False``: badly; ``None``: either way)."""
    return next((each for each in _backwards(folder) if each.event == event and ok in (None, each.ok)), None)


def looks(events: Iterable[Event]) -> dict[str, Event]:
    """By backup the last look at it, of events in their order: it is sound if that look was ``ok``."""
    return {each.name: each for each in events if each.event in LOOKS}


def drilled(events: Iterable[Event], ok: bool | None = True) -> dict[str, float]:
    """By backup the Unix time of its last drill; ``ok`` as for `last`."""
    return {each.name: each.time for each in events if each.event == "drill" and ok in (None, each.ok)}


def next_to_drill(backups: Iterable[Backup], tried: Mapping[str, float]) -> Backup | None:
    """Whose turn it is: of those never drilled the newest and the oldest in turn; else whose drill is longest ago.

    Always the newest, and a daily backup would leave those of last month unproven for good.

    Args:
        backups: to choose from; those with a problem are left out.
        tried: ``drilled(events, ok=None)``: one that failed has had its turn, too, so that it does not keep the others
            from theirs.
    """
    sound = sorted((each for each in backups if not each.problem), key=lambda each: each.name, reverse=True)
    never = [each for each in sound if each.name not in tried]
    if never:
        return never[-(len(tried) % 2)]
    return min(sound, key=lambda each: tried[each.name], default=None)


def _backwards(folder: Path) -> Iterator[Event]:
    """The events, the newest first, each read only when it is asked for."""
    lines: list[bytes] = []
    with disk_errors(f"reading {folder / FILE}"), contextlib.suppress(FileNotFoundError):
        lines = (folder / FILE).read_bytes().split(b"\n")
    for line in reversed(lines):
        event = _event(line) if line else None
        if event:
            yield event


def _event(line: bytes) -> Event | None:
    """A line's event; fields that a later version adds are passed over."""
    try:
        known = json.loads(line)
        values = {spec.name: known[spec.name] for spec in fields(Event)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    sound = all(isinstance(values[name], kind) for name, kind in _KINDS.items())
    if not sound or values["event"] not in EVENTS or not isfinite(values["time"]):
        return None
    return Event(**values)
