"""What was told to whom: ``.hashes/alerts.json``.

It is written before something is sent and again afterwards. A kill between the two has an alert told twice, and loses
none: who is not written down as told is told by the next check.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from vectorstore.alerting.alert import NAMES, SEVERITIES, Alert
from vectorstore.alerting.notice import FIRED, RESOLVED

FILE, LOCK = "alerts.json", "alerts.lock"
VERSION = 1
KEEP_OVER_S = 7 * 86_400.0  # what is over waits so long for an address that does not answer, or is no more
_LOOK_S = 0.05


@dataclass(slots=True)
class Standing:
    """An alert, and who knows of it.

    Attributes:
        fired: label of an address -> when it was last told.
        over: when it was seen to be over; ``None``: it holds.
        resolved: the addresses that were told that it is over.
    """

    alert: Alert
    fired: dict[str, float] = field(default_factory=dict)
    over: float | None = None
    resolved: list[str] = field(default_factory=list)


class Due(NamedTuple):
    """Something to be told: ``fired`` or ``resolved``, of which alert, to which address."""

    what: str
    alert: Alert
    label: str


class State:
    """All alerts that hold, and those whose end is not told yet, by key."""

    def __init__(self, standings: dict[str, Standing] | None = None) -> None:
        self.standings = standings or {}

    def see(self, active: Iterable[Alert], now: float) -> list[Alert]:
        """Take in what was judged at ``now``; the same, since when each was first seen."""
        found = {alert.key: alert for alert in active}
        for key, alert in found.items():
            standing = self.standings.setdefault(key, Standing(alert))
            first = alert.since if standing.over is not None else min(alert.since, standing.alert.since)
            standing.alert = found[key] = replace(alert, since=first)
            if standing.over is not None:  # it is back: who was told that it is over must hear of it
                standing.fired = {who: at for who, at in standing.fired.items() if who not in standing.resolved}
                standing.over, standing.resolved = None, []
        for key in self.standings.keys() - found.keys():
            standing = self.standings[key]
            standing.over = now if standing.over is None else standing.over
        return list(found.values())

    def told_to(self) -> object:
        """Who was told what: all that is worth writing down."""
        return {key: (each.over, {**each.fired}, [*each.resolved]) for key, each in self.standings.items()}

    def due(self, labels: Sequence[str], now: float, cooldown_s: float) -> list[Due]:
        """What is to be told to whom: once a cool-down (0: once) while it holds, and once when it is over."""
        found = []
        for standing in self.standings.values():
            for label in labels:
                told = standing.fired.get(label)
                if standing.over is not None:
                    if label not in standing.resolved:
                        found.append(Due(RESOLVED, standing.alert, label))
                elif told is None or (cooldown_s and now - told >= cooldown_s):
                    found.append(Due(FIRED, standing.alert, label))
        return found

    def told(self, due: Due, now: float) -> None:
        """Somebody was told."""
        standing = self.standings[due.alert.key]
        if due.what == FIRED:
            standing.fired[due.label] = now
        else:
            standing.resolved.append(due.label)

    def settle(self, labels: Sequence[str], now: float) -> None:
        """Forget what is over, once all that knew of it know that."""
        for key, standing in list(self.standings.items()):
            waiting = {*labels, *standing.fired} - {*standing.resolved}
            if standing.over is not None and (not waiting or now - standing.over > KEEP_OVER_S):
                del self.standings[key]


def load(folder: Path) -> tuple[State, list[str]]:
    """The state in ``folder``, and notes for a person: a file that can't be read is begun anew."""
    path = folder / FILE
    try:
        known = json.loads(path.read_bytes())
        if known["version"] != VERSION:
            raise ValueError(f"version {known['version']!r}")
        return State({key: _standing(key, value) for key, value in known["alerts"].items()}), []
    except FileNotFoundError:
        return State(), []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return State(), [f"{path} can't be read ({type(error).__name__}) and is begun anew: alerts may be told again"]


def save(folder: Path, state: State) -> None:
    """Write the state, whole or not at all, on the disk when this returns.

    Raises:
        OSError: the disk refused.
    """
    known = {"version": VERSION, "alerts": {key: asdict(each) for key, each in state.standings.items()}}
    temporary = folder / f"{FILE}.new"
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(known, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(folder / FILE)


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """One check at a time; the kernel frees the lock when its holder dies.

    Raises:
        TimeoutError: another check held it for so long.
        OSError: the disk refused.
    """
    until = time.monotonic() + seconds
    with open(folder / LOCK, "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimeoutError(errno.ETIMEDOUT, "another check of alerts is under way") from None
                time.sleep(_LOOK_S)
        yield


def _standing(key: str, known: dict[str, Any]) -> Standing:
    alert = Alert(**{spec.name: known["alert"][spec.name] for spec in fields(Alert)})
    fired = {str(label): float(at) for label, at in known["fired"].items()}
    over = None if known["over"] is None else float(known["over"])
    sound = alert.key == key and alert.name in NAMES and alert.severity in SEVERITIES
    if not (sound and isinstance(alert.message, str) and isinstance(alert.hint, str)):
        raise ValueError(key)
    return Standing(alert, fired, over, [str(label) for label in known["resolved"]])
