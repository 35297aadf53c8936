"""Retention: golden cases, and properties that hold for any backups and any policy."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.backup_files import name_at, unix
from vectorstore.backups.catalog import Backup
from vectorstore.backups.listing import created_at
from vectorstore.backups.retention import DAY_S, REPLACED, Decision, Policy, decide
from vectorstore.errors import ConfigurationError, Refused

NOW = unix("2026-11-21 17:12:00")
OFF = {"keep": 0, "days": 0}


def backup(when: str | float) -> Backup:
    text = when if isinstance(when, str) else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
    name = name_at(text)
    return Backup(name, Path(f"{name}.tar.gz"), None, "", 1, created_at(name))


def every(hours: float, count: int, until: float = NOW) -> list[Backup]:
    """The newest first."""
    return [backup(until - n * hours * 3600) for n in range(count)]


def kept(decisions: list[Decision]) -> list[str]:
    return [each.name for each in decisions if each.keep]


def test_the_defaults_keep_ten_and_a_month() -> None:
    backups = every(24, 100)
    assert kept(decide(backups, Policy(), NOW)) == [each.name for each in backups[:30]]
    weekly = every(7 * 24, 30)
    assert kept(decide(weekly, Policy(), NOW)) == [each.name for each in weekly[:10]]


def test_an_age_counts_from_the_newest_and_not_from_today() -> None:
    backups = every(24, 100)
    assert kept(decide(backups, Policy(), NOW + 400 * DAY_S)) == [each.name for each in backups[:30]]


def test_days_end_to_the_second() -> None:
    edge = [backup(NOW), backup(NOW - 30 * DAY_S + 1), backup(NOW - 30 * DAY_S)]
    assert kept(decide(edge, Policy(keep=0), NOW)) == [each.name for each in edge[:2]]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(keep=1, days=0), ["03-01 06"]),
        (Policy(**OFF, daily=2), ["03-01 06", "02-28 23"]),
        (Policy(**OFF, daily=6), ["03-01 06", "02-28 23", "02-25 12", "02-22 23", "02-16 00", "01-31 23"]),
        (Policy(**OFF, weekly=2), ["03-01 06", "02-22 23"]),
        (Policy(**OFF, weekly=3), ["03-01 06", "02-22 23", "01-31 23"]),
        (Policy(**OFF, weekly=9), ["03-01 06", "02-22 23", "01-31 23", "01-01 00", "12-28 12"]),
        (Policy(**OFF, monthly=2), ["03-01 06", "02-28 23"]),
        (Policy(**OFF, monthly=3), ["03-01 06", "02-28 23", "01-31 23"]),
        (Policy(**OFF, monthly=9), ["03-01 06", "02-28 23", "01-31 23", "12-28 12"]),
        (Policy(keep=2, days=0, monthly=2), ["03-01 06", "03-01 00", "02-28 23"]),
        (Policy(keep=0, days=2, weekly=2), ["03-01 06", "03-01 00", "02-28 23", "02-22 23"]),
    ],
)  # fmt: skip
def test_golden(policy: Policy, expected: list[str]) -> None:
    """2026-02-23 is a Monday; the week of 2026-01-01 began on Monday 2025-12-29."""
    days = ["03-01 06", "03-01 00", "02-28 23", "02-25 12", "02-22 23", "02-16 00", "01-31 23", "01-01 00", "12-28 12"]
    by_day = {day: backup(f"{2025 if day[:2] == '12' else 2026}-{day}:00:00") for day in days}
    names = kept(decide(by_day.values(), policy, unix("2026-03-01 07:00:00")))
    assert [day for day in days if by_day[day].name in names] == expected


def test_a_week_belongs_to_one_year() -> None:
    """2025-12-30 and 2026-01-01 are of one week, the first of 2026; 2025-01-02 is of the first of 2025."""
    backups = [backup(f"{day} 03:00:00") for day in ("2026-01-01", "2025-12-30", "2025-01-02")]
    names = kept(decide(backups, Policy(**OFF, weekly=9), NOW))
    assert names == [backups[0].name, backups[2].name]


def test_months_and_weeks_of_a_year() -> None:
    backups = every(24, 400)
    decisions = decide(backups, Policy(**OFF, daily=7, weekly=4, monthly=12), NOW)
    days = [time.strftime("%m-%d", time.gmtime(created_at(name))) for name in kept(decisions)]
    assert days == [
        "11-21", "11-20", "11-19", "11-18", "11-17", "11-16", "11-15", "11-08", "11-01", "10-31", "09-30", "08-31",
        "07-31", "06-30", "05-31", "04-30", "03-31", "02-28", "01-31", "12-31",
    ]  # fmt: skip


def test_every_reason_is_given() -> None:
    backups = [backup(NOW), backup(NOW - DAY_S), replace(backup(NOW - 40 * DAY_S), pinned="before the move")]
    backups += [backup(NOW - 50 * DAY_S), backup(NOW - 60 * DAY_S), backup(NOW - 70.5 * DAY_S)]
    decisions = decide(
        backups, Policy(1, 2, daily=1), NOW, verified={backups[3].name}, drilled={backups[4].name, backups[5].name}
    )
    assert [each.reason for each in decisions] == [
        "one of the newest 1; younger than 2 days; daily: the newest of 2026-11-21",
        "younger than 2 days",
        "pinned: before the move",
        "the newest that verified",
        "the newest that a drill restored",
        "not one of the newest 1, 70.5 days before the newest",
    ]
    assert [each.keep for each in decisions] == [True] * 5 + [False]


def test_only_what_the_last_restore_replaced_stays_for_that() -> None:
    """The others are backups like any: restores must not fill the disk for good."""
    old, older = (replace(backup(NOW - days * DAY_S), pinned=f"{REPLACED} x was restored") for days in (50, 60))
    mine = replace(backup(NOW - 70 * DAY_S), pinned="before the move")
    decisions = decide([backup(NOW), old, older, mine], Policy(**OFF | {"keep": 1}), NOW)
    assert kept(decisions) == [backup(NOW).name, old.name, mine.name]


def test_one_with_a_problem_is_kept_and_does_not_count() -> None:
    backups = [replace(each, problem="its sidecar is missing") for each in every(24, 5)] + every(24, 5, NOW - 5 * DAY_S)
    decisions = decide(backups, Policy(keep=2, days=0), NOW)
    assert kept(decisions) == [each.name for each in backups[:7]]
    assert decisions[0].reason == "has a problem: its sidecar is missing; see to it"


def test_one_of_the_future_pushes_nobody_out() -> None:
    """A clock that was wrong for a day must not make all others old."""
    backups = [backup(NOW + 3000 * DAY_S), *every(24, 20)]
    decisions = decide(backups, Policy(keep=1, days=10), NOW)
    assert kept(decisions) == [each.name for each in backups[:11]]
    assert decisions[0].reason.startswith("dated in the future")


def test_an_empty_policy_is_refused() -> None:
    with pytest.raises(Refused) as error:
        decide(every(1, 3), Policy(**OFF), NOW)
    assert error.value.exit_code == 5 and "backup_keep" in error.value.hint
    with pytest.raises(ConfigurationError):
        Policy(keep=-1)


COUNTS = st.integers(0, 6)
POLICIES = st.builds(Policy, keep=COUNTS, days=st.integers(0, 40), daily=COUNTS, weekly=COUNTS, monthly=COUNTS)
TIMES = st.lists(st.integers(0, 500 * DAY_S), unique=True, max_size=60)


@st.composite
def shelves(draw: st.DrawFn) -> list[Backup]:
    """Backups of a year and a half, some pinned, some with a problem, some dated in the future."""
    words = st.sampled_from(["", "", "", "x"])
    times = draw(TIMES)
    return [replace(backup(NOW + 3 * DAY_S - at), problem=draw(words), pinned=draw(words)) for at in times]


@settings(deadline=None)
@given(shelves(), POLICIES, st.randoms(use_true_random=False))
def test_properties(backups: list[Backup], policy: Policy, rng: random.Random) -> None:
    assume(not policy.is_empty)
    verified, drilled = ({each.name for each in backups if rng.random() < 0.2} for _ in range(2))
    decisions = decide(backups, policy, NOW, verified=verified, drilled=drilled)
    keep = set(kept(decisions))
    sound = [each for each in sorted(backups, key=lambda each: each.name, reverse=True) if not each.problem]
    sound = [each for each in sound if each.created <= NOW + DAY_S]

    assert [each.name for each in decisions] == sorted((each.name for each in backups), reverse=True)
    assert all(each.reason for each in decisions)
    assert keep >= {each.name for each in backups if each.problem or each.pinned or each.created > NOW + DAY_S}
    assert keep >= {each.name for each in sound[: max(1, policy.keep)]}  # whatever the policy, the newest stays
    for names in (verified, drilled):
        assert keep >= {each.name for each in [each for each in sound if each.name in names][:1]}

    shuffled = rng.sample(backups, len(backups))
    assert decide(shuffled, policy, NOW, verified=verified, drilled=drilled) == decisions
    left = [each for each in backups if each.name in keep]
    assert all(each.keep for each in decide(left, policy, NOW, verified=verified, drilled=drilled))  # done is done


@settings(deadline=None)
@given(shelves(), POLICIES, st.sampled_from(["keep", "days", "daily", "weekly", "monthly"]))
def test_more_of_a_rule_never_deletes_more(backups: list[Backup], policy: Policy, rule: str) -> None:
    assume(not policy.is_empty)
    more = replace(policy, **{rule: getattr(policy, rule) + 1})
    assert set(kept(decide(backups, policy, NOW))) <= set(kept(decide(backups, more, NOW)))


@settings(deadline=None, max_examples=40)
@given(POLICIES, st.integers(2, 40))
def test_pruned_every_day_or_once_is_the_same(policy: Policy, hours: int) -> None:
    """A schedule that prunes after every backup ends where one prune at the end does, but for what that kept longer."""
    assume(not policy.is_empty)
    backups, shelf = every(hours, 50), list[Backup]()
    for each in reversed(backups):
        shelf.append(each)
        names = kept(decide(shelf, policy, each.created))
        shelf = [known for known in shelf if known.name in names]
    assert {each.name for each in shelf} == set(kept(decide(backups, policy, NOW)))
