"""Each rule: an alert by its cause, none without it, none when it is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.run_records import HOUR, NOW, nights, record
from vectorstore.alerting.alert import NAMES, Alert, Facts
from vectorstore.alerting.rules import judge
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings

SETTINGS = Settings(Path("/workspace"))
FINE = Facts(
    now=NOW, first_run=NOW - 1000 * HOUR, updated=NOW - HOUR, backed_up=NOW - 2 * HOUR, drilled=NOW - 100 * HOUR,
    spent_today=0.5, store_bytes=500_000_000, memory_share=0.4,
)  # fmt: skip
GOOD = record(documents=100, work=4, failures=0, coverage=1.0)
BAD_NIGHT = record(state="failed", error="EmbeddingFailed", message="the provider keeps failing", hours_ago=2)

Case = tuple[list[RunRecord], dict[str, Any], str]
CAUSES: dict[str, Case] = {
    "error_rate": ([record(state="incomplete", work=50, failures=1)], {}, "1 of 50 documents failed"),
    "storage": ([GOOD], {"store_bytes": 2_100_000_000}, "takes 2.10 GB, more than 2 GB"),
    "cost": ([GOOD], {"spent_today": 5.01}, "$5.01 were spent today"),
    "memory": ([GOOD], {"memory_share": 0.81}, "81% of the memory"),
    "deviation": ([*nights(10), record(seconds=60.0)], {}, "had 60 s; 10 s are usual"),
    "capped": ([record(state="capped", message="the cap is reached")], {}, "was capped: the cap is reached"),
    "refused": ([record(state="refused")], {}, "the last update was refused"),
    "failed": ([BAD_NIGHT], {}, "the last update failed: the provider keeps failing"),
    "crashed": ([record(state="crashed", exit_code=-9)], {}, "went away without a word"),
    "late": ([GOOD], {"updated": NOW - 26.5 * HOUR}, "no update has ended in 26 hours"),
    "backup_age": ([GOOD], {"backed_up": NOW - 27 * HOUR}, "is 27 hours old"),
    "drill_age": ([GOOD], {"drilled": NOW - 36 * 24 * HOUR}, "36 days ago"),
    "coverage": ([record("health", coverage=0.9)], {}, "the last health found 90.00% of what should be stored"),
    "key_rejected": ([record(state="failed", error="KeyRejected")], {}, "the last update failed"),
    "health": ([record("health", "findings", fail=3, message="missing: 4")], {}, "found 3 at FAIL: missing: 4"),
}
OFF = {
    "error_rate": "alert_error_rate", "storage": "alert_storage_gb", "cost": "alert_cost_usd_per_day",
    "memory": "alert_memory_share", "deviation": "alert_sigma", "late": "alert_update_hours",
    "backup_age": "alert_backup_hours", "drill_age": "alert_drill_days", "coverage": "coverage_floor",
}  # fmt: skip


def alerts_of(runs: list[RunRecord], facts: dict[str, Any] | None = None, **settings: Any) -> list[Alert]:
    return judge(replace(SETTINGS, **settings), runs, replace(FINE, **(facts or {})))


def names_of(*given: Any, **settings: Any) -> list[str]:
    return [alert.name for alert in alerts_of(*given, **settings)]


def test_every_alert_has_its_cause_here() -> None:
    assert tuple(CAUSES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_cause_and_no_other_fires_it(name: str) -> None:
    runs, facts, words = CAUSES[name]
    (alert,) = alerts_of(runs, facts)
    assert alert.name == name
    assert words in alert.message
    assert alert.hint
    assert 0 < alert.since <= NOW


@pytest.mark.parametrize("name", NAMES)
def test_it_is_over_when_the_newest_state_is_good(name: str) -> None:
    runs, _, _ = CAUSES[name]
    verb = runs[-1].verb
    healed = replace(GOOD, verb=verb, started=NOW - 60, fail=0 if verb == "health" else None)
    assert names_of([*runs, healed]) == []


@pytest.mark.parametrize("name", OFF)
def test_zero_turns_the_rule_off(name: str) -> None:
    runs, facts, _ = CAUSES[name]
    assert names_of(runs, facts, **{OFF[name]: 0}) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"store_bytes": 2_000_000_000}, {"spent_today": 5.0}, {"memory_share": 0.8}, {"updated": NOW - 26 * HOUR},
        {"backed_up": NOW - 26 * HOUR}, {"drilled": NOW - 35 * 24 * HOUR}, {"store_bytes": None, "memory_share": None},
    ],
)  # fmt: skip
def test_the_limit_itself_is_allowed(facts: dict[str, Any]) -> None:
    assert names_of([GOOD], facts) == []


@pytest.mark.parametrize("state", ["refused", "capped", "failed", "crashed"])
def test_a_run_that_was_cut_short_says_nothing_of_the_error_rate(state: str) -> None:
    bad = record(state="incomplete", work=50, failures=1, hours_ago=2)
    assert "error_rate" in names_of([bad, record(state=state, work=50, failures=0)])
    assert "error_rate" not in names_of([record(state=state, work=50, failures=9)])


def test_one_percent_of_the_documents_may_fail() -> None:
    assert names_of([record(state="incomplete", work=100, failures=1)]) == []
    assert names_of([record(state="incomplete", work=99, failures=1)]) == ["error_rate"]


class TestAges:
    def test_a_fresh_workspace_is_quiet(self) -> None:
        fresh = {"first_run": NOW - HOUR, "updated": NOW - HOUR, "backed_up": None, "drilled": None}
        assert names_of([GOOD], fresh) == []

    def test_an_empty_workspace_is_quiet(self) -> None:
        assert judge(SETTINGS, [], Facts(now=NOW)) == []

    def test_what_never_happened_counts_from_the_first_run(self) -> None:
        never = {"first_run": NOW - 27 * HOUR, "backed_up": None, "drilled": None}
        assert names_of([GOOD], never) == ["backup_age"]
        assert names_of([GOOD], never | {"first_run": NOW - 36 * 24 * HOUR}) == ["backup_age", "drill_age"]
        (alert,) = alerts_of([GOOD], never)
        assert "there is none" in alert.message
        assert alert.since == NOW - HOUR

    def test_without_any_update_nothing_is_late(self) -> None:
        assert names_of([], {"updated": None}) == []


class TestEndedBadly:
    @pytest.mark.parametrize("state", ["locked", "interrupted"])
    def test_a_run_that_says_nothing_neither_fires_nor_resolves(self, state: str) -> None:
        assert names_of([GOOD, record(state=state, hours_ago=0.5)]) == []
        assert names_of([BAD_NIGHT, record(state=state)]) == ["failed"]

    def test_each_verb_has_its_own(self) -> None:
        found = alerts_of([BAD_NIGHT, record("backup", "failed", exit_code=6), record("drill")])
        assert [alert.key for alert in found] == ["failed:backup", "failed:update"]

    def test_it_holds_since_the_first_of_an_unbroken_row(self) -> None:
        bad = [record(state="failed", hours_ago=hours) for hours in (90, 50, 26, 2)]
        bad[0] = replace(bad[0], state="completed")
        (alert,) = alerts_of(bad)
        assert alert.since == NOW - 50 * HOUR

    def test_a_backup_that_left_rows_out_is_told_an_update_is_told_by_its_rate(self) -> None:
        (alert,) = alerts_of([record("backup", "incomplete")])
        assert (alert.key, alert.severity) == ("failed:backup", "WARN")
        assert names_of([record(state="incomplete", work=1000, failures=1)]) == []

    @pytest.mark.parametrize("verb", ["restore", "adopt", "fix"])
    def test_what_runs_by_hand_is_over_with_the_next_good_update_or_check(self, verb: str) -> None:
        failed = record(verb, "failed", hours_ago=3)
        assert names_of([failed]) == ["failed"]
        assert names_of([failed, record("backup", hours_ago=2)]) == ["failed"]
        assert names_of([failed, record("health", hours_ago=2, fail=0)]) == []

    def test_a_fix_that_helped_ends_the_alert_of_health(self) -> None:
        bad = record("health", "findings", hours_ago=3, fail=2)
        assert names_of([bad, record("fix", hours_ago=2, fail=0)]) == []
        assert names_of([bad, record("fix", "findings", hours_ago=2, fail=1)]) == ["health"]


class TestDeviation:
    @pytest.mark.parametrize(
        ("figure", "usual", "odd"),
        [
            ("seconds", 10.0, 14.1), ("cost_usd", 0.1, 0.14), ("documents", 1000, 1040), ("documents", 1000, 960),
            ("failures", 0, 4), ("memory_mb", 300.0, 400.0),
        ],
    )  # fmt: skip
    def test_a_figure_far_from_a_constant_history(self, figure: str, usual: float, odd: float) -> None:
        history = nights(10, **{figure: usual})
        near = usual + (odd - usual) / 2
        assert names_of([*history, record(**{figure: odd})]) == ["deviation"]
        assert names_of([*history, record(**{figure: near})]) == []
        (alert,) = alerts_of([*history, record(**{figure: odd})])
        assert (alert.key, alert.value) == (f"deviation:update/{figure}", odd)

    def test_less_is_news_of_the_documents_only(self) -> None:
        history = nights(12, seconds=100.0, memory_mb=900.0, cost_usd=3.0)
        assert names_of([*history, record(seconds=1.0, memory_mb=50.0, cost_usd=0.0)]) == []

    def test_the_own_spread_is_the_measure(self) -> None:
        history = [replace(run, seconds=100.0 + 30 * (-1) ** n) for n, run in enumerate(nights(20))]
        assert names_of([*history, record(seconds=185.0)]) == []  # mean 100, sigma 30.8
        assert names_of([*history, record(seconds=195.0)]) == ["deviation"]
        assert names_of([*history, record(seconds=195.0)], alert_sigma=4) == []

    def test_too_short_a_history_says_nothing(self) -> None:
        assert names_of([*nights(9), record(seconds=1e6)]) == []
        failed = [record(state="failed", hours_ago=300 + n) for n in range(20)]
        assert names_of([*failed, *nights(9), record(seconds=1e6)]) == []

    def test_a_failed_run_is_no_measure(self) -> None:
        assert names_of([*nights(12), record(state="crashed", seconds=1e6)]) == ["crashed"]

    def test_verbs_are_not_mixed(self) -> None:
        assert names_of([*nights(12), record("backup", seconds=1e6)]) == []

    def test_a_deep_check_is_compared_with_deep_ones(self) -> None:
        checks = [replace(run, verb="health", detail="standard", seconds=1.0) for run in nights(20)]
        assert names_of([*checks, record("health", detail="deep", seconds=900.0)]) == []
        deep = [replace(run, detail="deep", seconds=900.0) for run in checks]
        assert names_of([*deep, *checks, record("health", detail="deep", seconds=2000.0)]) == ["deviation"]

    def test_a_weekly_long_run_is_news_twice_at_most(self) -> None:
        week = [replace(run, seconds=1.0) for run in nights(28)]
        week[6] = week[13] = replace(week[6], seconds=60.0)
        assert names_of([*week, record(seconds=62.0)]) == []
        assert names_of([*week, record(seconds=90.0)]) == ["deviation"]
