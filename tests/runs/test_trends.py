"""What is chance and what is not: trends, leaks, regressions."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.runs.test_history import record
from vectorstore.runs.history import frame_of
from vectorstore.runs.judging import warnings
from vectorstore.runs.record import RunRecord
from vectorstore.runs.trends import DAY, slower_by, trend, two_sided

DAYS = [day * DAY + 5 for day in range(30)]


@pytest.mark.parametrize(
    ("t", "free", "chance"), [(2.228, 10, 0.05), (12.706, 1, 0.05), (3.169, 10, 0.01), (1.96, 10**4, 0.05), (0, 5, 1)]
)
def test_students_t_is_as_in_the_tables(t: float, free: int, chance: float) -> None:
    assert two_sided(t, free) == pytest.approx(chance, rel=2e-3)


def test_noise_is_a_trend_once_in_a_hundred_times() -> None:
    chance = random.Random(1)
    lines = [trend(DAYS, [chance.gauss(100, 10) for _ in DAYS]) for _ in range(400)]
    assert 0 <= sum(line is not None and line.believed for line in lines) <= 12


def test_a_rise_in_noise_is_seen() -> None:
    chance = random.Random(2)
    line = trend(DAYS, [100 + 2 * day + chance.gauss(0, 5) for day in range(30)])
    assert line and line.believed and line.per_day == pytest.approx(2, rel=0.2)
    assert line.growth == pytest.approx(0.58, abs=0.1)


def test_flat_figures_and_few_days_have_no_trend() -> None:
    line = trend(DAYS, [0.1] * 30)
    assert line and not line.believed
    assert trend(DAYS[:7], list(range(7))) is None
    assert trend([5.0] * 100, list(range(100))) is None
    assert trend([], []) is None


def test_one_outlier_is_no_trend() -> None:
    line = trend(DAYS, [100.0] * 29 + [5000.0])
    assert line and not line.believed


def test_slower_runs_are_found_and_larger_ones_are_not() -> None:
    chance = random.Random(3)
    work = [chance.choice([1, 2, 5, 100, 1000]) for _ in range(40)]
    took = [(1.5 + each * 0.1) * chance.uniform(0.8, 1.2) for each in work]
    assert slower_by(took, work, 7) is None
    larger = [*work[:-7], *[5000] * 7]
    assert slower_by([(1.5 + each * 0.1) * chance.uniform(0.8, 1.2) for each in larger], larger, 7) is None
    slow = slower_by([*took[:-7], *(2 * each for each in took[-7:])], work, 7)
    assert slow == pytest.approx(2, rel=0.25)


def test_a_blip_few_runs_and_milliseconds_are_no_regression() -> None:
    assert slower_by([1.0, 1.1] * 10 + [1.0, 9.0, 1.1, 1.0, 1.1], [5] * 25, 5) is None
    assert slower_by([1.0] * 9 + [9.0] * 5, [5] * 14, 5) is None
    assert slower_by([0.01, 0.011] * 10 + [0.1] * 5, [5] * 25, 5) is None


def test_uneven_runs_are_rarely_called_slower() -> None:
    chance = random.Random(4)
    histories = [[chance.lognormvariate(1, 0.5) for _ in range(30)] for _ in range(400)]
    assert sum(slower_by(each, [1] * 30, 5) is not None for each in histories) <= 8


def runs(days: int = 30, **figures: list[float]) -> list[RunRecord]:
    """An update a day."""
    return [
        record(day, **{"chunks": 1000, "work": 5, "chunks_written": 20} | {k: v[day] for k, v in figures.items()})
        for day in range(days)
    ]


def found(history: list[RunRecord]) -> list[str]:
    now = history[-1].started + 60
    return [mark.about for mark in warnings(frame_of(history), now, now - 30 * DAY)]


def test_storage_that_grows_without_documents_leaks() -> None:
    growing = [10**9 + day * 2 * 10**7 for day in range(30)]
    assert found(runs(store_bytes=growing)) == ["storage"]
    assert found(runs(store_bytes=growing, chunks=[1000 + 20 * day for day in range(30)])) == []
    assert found(runs(store_bytes=growing[::-1])) == []


def test_memory_that_grows_without_documents_leaks() -> None:
    growing = [200.0 + 5 * day for day in range(30)]
    assert found(runs(memory_mb=growing)) == ["memory"]
    assert found(runs(memory_mb=growing, chunks=[1000 + 30 * day for day in range(30)])) == []


def test_a_leak_shows_in_the_days_largest_run() -> None:
    small = [replace(each, run=f"s{n}-{each.run}", started=each.started + n, memory_mb=100.0)
             for each in runs() for n in (1, 2, 3)]  # fmt: skip
    large = runs(memory_mb=[200.0 + 5 * day for day in range(30)])
    assert found(sorted([*small, *large], key=lambda each: each.started)) == ["memory"]


def test_runs_that_got_slower_are_a_regression() -> None:
    assert found(runs(seconds=[4.0 + day % 3 / 10 for day in range(23)] + [9.0] * 7)) == ["duration"]
    more = [20] * 23 + [60] * 7
    assert found(runs(seconds=[each / 5 for each in more], chunks_written=more)) == []


def test_a_history_of_nothing_or_of_one_run_is_no_cause_for_anything() -> None:
    assert warnings(frame_of([]), 1e9, 0) == []
    assert found([record(0)]) == []
