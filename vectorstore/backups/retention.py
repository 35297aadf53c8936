"""Retention: which backups to keep, and why. Pure rules; `vectorstore.prune` applies them.

A backup stays if any rule wants it. Ages count from the newest backup and not from today: a machine that stood still
for a year does not lose what it has on the day it wakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields

from vectorstore.backups.listing import Backup
from vectorstore.errors import ConfigurationError, Refused

DAY_S = 86_400
AHEAD_S = DAY_S  # a backup dated so far after now was made under a wrong clock
REPLACED = "what was there before"  # how the reason begins for which a restore pins its own backup
_PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G week %V", "monthly": "%Y-%m"}  # of UTC


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep; 0 turns a rule off.

    Attributes:
        keep: the newest so many.
        days: all younger than so many days, counted from the newest.
        daily, weekly, monthly: the newest of each of the last so many days, weeks (from Monday), months that have a
            backup; all of UTC.

    Raises:
        ConfigurationError: a number is negative.
    """

    keep: int = 10
    days: int = 30
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __post_init__(self) -> None:
        for spec in fields(self):
            if getattr(self, spec.name) < 0:
                raise ConfigurationError(f"retention: {spec.name} = {getattr(self, spec.name)} is below 0")

    @property
    def is_empty(self) -> bool:
        """Whether it keeps nothing."""
        return not any(getattr(self, spec.name) for spec in fields(self))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a backup, and why."""

    name: str
    keep: bool
    reason: str


def decide(
    backups: Iterable[Backup],
    policy: Policy,
    now: float,
    *,
    verified: Collection[str] = (),
    drilled: Collection[str] = (),
) -> list[Decision]:
    """A decision for each backup, the newest first.

    Those with a problem, and those dated in the future, are kept for a person to see to; no rule counts them.

    Args:
        backups: in any order.
        now: Unix time.
        verified, drilled: names of those that verified, and that a drill restored; the newest of each is kept always.

    Raises:
        Refused: the policy keeps nothing.
    """
    if policy.is_empty:
        raise Refused(
            "the retention policy keeps nothing", "set backup_keep, backup_days, or a daily, weekly or monthly rule"
        )
    ordered = sorted(backups, key=lambda each: (each.name, each.archive.name), reverse=True)
    sound = [each for each in ordered if not each.problem and each.created <= now + AHEAD_S]
    wanted = _wanted(sound, policy)
    for names, why in ((verified, "the newest that verified"), (drilled, "the newest that a drill restored")):
        if newest := next((each for each in sound if each.name in names), None):
            wanted[newest.name].append(why)
    return [_decision(each, wanted, sound, policy) for each in ordered]


def _wanted(sound: Sequence[Backup], policy: Policy) -> dict[str, list[str]]:
    """Why a backup is to be kept by the policy, by name; ``sound``: the newest first."""
    wanted: dict[str, list[str]] = {each.name: [] for each in sound}
    for each in sound[: policy.keep]:
        wanted[each.name].append(f"one of the newest {policy.keep}")
    for each in sound:
        if sound[0].created - each.created < policy.days * DAY_S:
            wanted[each.name].append(f"younger than {policy.days} days")
    for rule, form in _PERIODS.items():
        for period, each in _newest_of_each(sound, form, getattr(policy, rule)):
            wanted[each.name].append(f"{rule}: the newest of {period}")
    return wanted


def _newest_of_each(sound: Sequence[Backup], form: str, most: int) -> list[tuple[str, Backup]]:
    """The newest backup of each of the last ``most`` periods that have one."""
    period: Callable[[Backup], str] = lambda each: time.strftime(form, time.gmtime(each.created))  # noqa: E731
    newest: dict[str, Backup] = {}
    for each in sound:
        newest.setdefault(period(each), each)
    return list(newest.items())[:most]


def _is_superseded(each: Backup, sound: Sequence[Backup]) -> bool:
    """Whether it is what a restore replaced, and a later restore has made a newer one: only the last can be undone."""
    replaced = (other for other in sound if other.pinned.startswith(REPLACED))
    return each.pinned.startswith(REPLACED) and next(replaced, each).name != each.name


def _decision(each: Backup, wanted: dict[str, list[str]], sound: Sequence[Backup], policy: Policy) -> Decision:
    if each.problem:
        return Decision(each.name, True, f"has a problem: {each.problem}; see to it")
    if each not in sound:
        return Decision(each.name, True, "dated in the future: see the clock, and remove it if it is not wanted")
    reasons = [f"pinned: {each.pinned}"] if each.pinned and not _is_superseded(each, sound) else []
    reasons += wanted[each.name]
    if reasons:
        return Decision(each.name, True, "; ".join(reasons))
    days = (sound[0].created - each.created) / DAY_S
    return Decision(each.name, False, f"not one of the newest {policy.keep}, {days:.1f} days before the newest")
