"""Telling: who is due, sending, writing down who was told; within a few seconds, whatever the addresses do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vectorstore.alerting import state as states
from vectorstore.alerting.addresses import labels as labels_of
from vectorstore.alerting.alert import Alert
from vectorstore.alerting.notice import FIRED, Notice, notice
from vectorstore.alerting.sending import send
from vectorstore.alerting.state import Due, State
from vectorstore.settings import Settings

Sink = Callable[[Notice], None]
"""Takes a notice within this process, at once, or raises."""
SECONDS = 10.0
HOUR = 3600.0


@dataclass
class Told:
    """What holds, what of it was told to at least one address, or would be, and notes for a person."""

    active: list[Alert] = field(default_factory=list)
    fired: list[Alert] = field(default_factory=list)
    resolved: list[Alert] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, due: Due) -> None:
        """Somebody was told."""
        found = self.fired if due.what == FIRED else self.resolved
        if due.alert not in found:
            found.append(due.alert)


def tell(
    settings: Settings,
    judge: Callable[[], Sequence[Alert]],
    addresses: Sequence[str],
    sinks: Mapping[str, Sink],
    clock: Callable[[], float],
    seconds: float = SECONDS,
) -> Told:
    """Judge, and tell who is due: one process at a time, so that two at once tell once.

    Args:
        seconds: for waiting for another check and for sending, together.
    """
    until, labels = time.monotonic() + seconds, [*labels_of(addresses), *sinks]
    cooldown_s = settings.alert_cooldown_hours * HOUR
    found, changes = _look(settings, judge(), labels, clock())
    if not changes:  # most of the time: nothing is locked or written
        return found
    found = Told(found.active)
    with _alone(settings, found.notes, seconds) as may:
        if may:
            state, notes = states.load(settings.hashes)
            found.notes += notes
            found.active = state.see(judge(), clock())
            due = state.due(labels, clock(), cooldown_s)
            if due:
                _keep(settings, state, found.notes)
                left = max(0.0, until - time.monotonic())
                _send(settings, state, due, addresses, sinks, clock(), left, found)
            state.settle(labels, clock())
            _keep(settings, state, found.notes)
    return found


def would_tell(settings: Settings, active: Sequence[Alert], labels: Sequence[str], now: float) -> Told:
    """What ``tell`` would send now; changes nothing."""
    return _look(settings, active, labels, now)[0]


def _look(settings: Settings, active: Sequence[Alert], labels: Sequence[str], now: float) -> tuple[Told, bool]:
    """What is to be told, and whether anything of the state is to be changed."""
    state, notes = states.load(settings.hashes)
    found, before = Told(notes=notes), state.told_to()
    found.active = state.see(active, now)
    due = state.due(labels, now, settings.alert_cooldown_hours * HOUR)
    for each in due:
        found.add(each)
    state.settle(labels, now)
    return found, bool(due or notes) or state.told_to() != before


def _send(
    settings: Settings, state: State, due: Sequence[Due], addresses: Sequence[str], sinks: Mapping[str, Sink],
    now: float, seconds: float, found: Told,
) -> None:  # fmt: skip
    kinds = list({(each.what, each.alert.key): each for each in due})
    alerts = {(each.what, each.alert.key): each.alert for each in due}
    notices = [notice(settings, what, alerts[what, key]) for what, key in kinds]
    known = labels_of(addresses)
    outside = [each for each in due if each.label in known]
    pairs = [(known.index(each.label), kinds.index((each.what, each.alert.key))) for each in outside]
    failed: dict[str, list[str]] = {}
    for each in due:
        if each.label in sinks:
            reason = _into(sinks[each.label], notices[kinds.index((each.what, each.alert.key))])
            _note(state, each, reason, now, found, failed)
    sent = send(addresses, notices, pairs, seconds)
    for each, pair in zip(outside, pairs, strict=True):
        _note(state, each, "" if sent[pair].ok else sent[pair].reason or "it failed", now, found, failed)
    for label, reasons in failed.items():
        found.notes.append(f"{label}: {len(reasons)} not sent, {reasons[0]}; the next check tries again")


def _note(state: State, due: Due, reason: str, now: float, found: Told, failed: dict[str, list[str]]) -> None:
    if reason:
        failed.setdefault(due.label, []).append(reason)
    else:
        state.told(due, now)
        found.add(due)


def _into(sink: Sink, notice: Notice) -> str:
    """Why a sink did not take it; empty: it did."""
    try:
        sink(notice)
    except Exception as error:  # whatever it is, the run that asked must go on
        return type(error).__name__
    return ""


@contextlib.contextmanager
def _alone(settings: Settings, notes: list[str], seconds: float) -> Iterator[bool]:
    """Whether to go on: not while another check does. Where the disk refuses a lock, go on without one."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(states.locked(settings.hashes, seconds))
        except TimeoutError as error:
            notes.append(f"{error.strerror}: what it does not tell, the next one does")
            yield False
            return
        except OSError as error:
            notes.append(f"alerts can't be locked, so they may be told twice: {error.strerror}")
        yield True


def _keep(settings: Settings, state: State, notes: list[str]) -> None:
    try:
        states.save(settings.hashes, state)
    except OSError as error:
        notes.append(f"who was told can't be written down, so alerts may be told again: {error.strerror}")
