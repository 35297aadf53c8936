"""The facts of a real workspace: its backups, its ledger, its money; what can't be read is a note."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.chroma_helpers import file_limit
from tests.support.run_records import NOW, record
from tests.support.workspaces import make_settings, write_corpus
from vectorstore.alerting.alert import Facts
from vectorstore.alerting.facts import gather
from vectorstore.backup import backup
from vectorstore.backups import catalog, history
from vectorstore.budget import Budget
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings
from vectorstore.update import update


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A workspace after an update and a backup."""
    settings = make_settings(tmp_path)
    write_corpus(settings.path(settings.source), 1)
    with file_limit():
        assert update(settings).exit_code == 0
        assert backup(settings).exit_code == 0
    return settings


def facts_of(settings: Settings, runs: Sequence[RunRecord] = (), now: float = NOW) -> Facts:
    notes: list[str] = []
    found = gather(settings, runs, now, notes)
    assert notes == []
    return found


def test_without_a_history_the_ledger_and_the_backups_tell(settings: Settings) -> None:
    found = facts_of(settings)
    now = time.time()
    assert found.first_run == pytest.approx(now, abs=60)
    assert found.updated == pytest.approx(now, abs=60)
    assert found.backed_up == pytest.approx(now, abs=60)
    assert found.drilled is None
    assert (found.store_bytes or 0) > 100_000
    assert 0 < (found.memory_share or 0) <= 1


def test_ages_count_from_the_first_run_and_the_newest_update_that_no_lock_turned_away(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    first, last = record("backup", hours_ago=50), record(hours_ago=5, state="failed")
    runs = [first, last, record(hours_ago=3, state="locked"), record("health", hours_ago=1)]
    (settings.hashes).mkdir()
    found = facts_of(settings, runs)
    assert (found.first_run, found.updated) == (first.started, last.started + last.seconds)
    assert facts_of(settings, runs[-1:]).updated is None


def test_a_backup_counts_that_is_there_and_that_its_last_look_found_sound(settings: Settings) -> None:
    (made,) = catalog.list_backups(settings.backups)
    history.append(settings.backups, history.Event("verify", made.name, NOW, level="deep", ok=False))
    assert facts_of(settings).backed_up is None
    history.append(settings.backups, history.Event("drill", made.name, NOW, ok=True))
    assert (facts_of(settings).backed_up, facts_of(settings).drilled) == (made.created, NOW)
    made.archive.rename(made.archive.with_name("elsewhere"))
    assert facts_of(settings).backed_up is None
    made.archive.with_name("elsewhere").rename(made.archive)
    (settings.backups / history.FILE).unlink()
    assert facts_of(settings).backed_up is None  # nobody ever looked at it


def test_money_is_that_of_this_utc_day(settings: Settings) -> None:
    for at, dollars in ((NOW - 86_400, 3), (NOW, 2)):
        budget = Budget(settings.path(settings.spend_ledger), "r", "m", 10**12, clock=lambda at=at: at)  # type: ignore[misc]
        budget.reserve(1, 1).settle(dollars)
        budget.close()
    assert facts_of(settings).spent_today == 2


def test_what_cannot_be_read_is_a_note_and_the_rest_is_there(settings: Settings) -> None:
    (settings.hashes / "ledger.sqlite3").write_bytes(b"no database " * 1000)
    settings.path(settings.spend_ledger).write_bytes(b"no database " * 1000)
    notes: list[str] = []
    found = gather(settings, [], NOW, notes)
    assert len(notes) == 2
    assert found.backed_up
