"""The budget: no cap is overrun, by threads, processes, kills or days."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vectorstore.budget import Budget, spending
from vectorstore.errors import Capped, ConfigurationError, Damaged
from vectorstore.prices import PICO, price_per_token, usd

PRICE = 20_000  # picodollars a token
DAY = 86_400.0


def make(path: Path, run: str = "r", **caps: float) -> Budget:
    return Budget(path / "spend.sqlite3", run, "m", PRICE, clock=lambda: 5 * DAY, **caps)


def test_a_reservation_counts_until_it_is_settled_released_or_forfeited(tmp_path: Path) -> None:
    budget = make(tmp_path)
    first, second, third = (budget.reserve(1000, 10) for _ in range(3))
    assert budget.spent() == (3 * 1110 * PRICE, 3 * 1110)
    first.settle(1000)
    second.release()
    third.forfeit()
    for reservation in (first, second, third):  # once is once
        reservation.settle(5)
    assert budget.spent() == ((1000 + 1110) * PRICE, 1000 + 1110)
    assert spending(tmp_path / "spend.sqlite3") == {"1970-01-06": usd((1000 + 1110) * PRICE)}


@pytest.mark.parametrize("cap", ["cap_run_usd", "cap_day_usd"])
def test_the_request_that_could_pass_a_cap_is_not_sent(tmp_path: Path, cap: str) -> None:
    budget = make(tmp_path, **{cap: 1110 * PRICE / PICO})
    budget.reserve(1000, 10).settle(1050)
    with pytest.raises(Capped, match=cap.split("_")[1]):
        budget.reserve(60, 1)
    budget.reserve(50, 1)


def test_a_cap_of_zero_buys_nothing(tmp_path: Path) -> None:
    with pytest.raises(Capped):
        make(tmp_path, cap_run_usd=0.0).reserve(1, 1)


def test_a_run_has_a_cap_of_its_own_and_a_day_too(tmp_path: Path) -> None:
    caps = {"cap_run_usd": 1110 * PRICE / PICO, "cap_day_usd": 2220 * PRICE / PICO}
    for run in ("a", "b"):
        make(tmp_path, run, **caps).reserve(1000, 10)
    with pytest.raises(Capped, match="day"):
        make(tmp_path, "c", **caps).reserve(1, 1)
    tomorrow = Budget(tmp_path / "spend.sqlite3", "c", "m", PRICE, clock=lambda: 6 * DAY, **caps)
    tomorrow.reserve(1000, 10)


def test_sixteen_threads_do_not_pass_the_cap(tmp_path: Path) -> None:
    cap = 50 * 111 * PRICE / PICO
    budget, taken = make(tmp_path, cap_run_usd=cap), []

    def spend() -> None:
        try:
            while True:
                taken.append(budget.reserve(100, 1))
        except Capped:
            pass

    threads = [threading.Thread(target=spend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 50


def test_a_reservation_of_a_process_that_died_stays_spent(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from vectorstore.budget import Budget;"
        f"Budget(pathlib.Path(sys.argv[1]), 'dead', 'm', {PRICE}, clock=lambda: {5 * DAY}).reserve(1000, 10);"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "spend.sqlite3")], check=False)
    with pytest.raises(Capped):
        make(tmp_path, "alive", cap_day_usd=1200 * PRICE / PICO).reserve(100, 1)


def test_an_unknown_price_is_refused_and_a_setting_wins() -> None:
    assert price_per_token("text-embedding-3-small", {}) == 20_000
    assert price_per_token("text-embedding-3-small", {"text-embedding-3-small": 1.0}) == 1_000_000
    assert price_per_token("anything", {}, billable=False) == 0
    with pytest.raises(ConfigurationError, match="price"):
        price_per_token("somebody-elses", {})


def test_a_damaged_spend_ledger_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "spend.sqlite3").write_bytes(b"garbage" * 1000)
    with pytest.raises(Damaged, match="spend ledger"):
        make(tmp_path)
