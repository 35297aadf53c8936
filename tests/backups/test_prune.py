"""Prune on real folders: what it deletes is what it said, and it deletes nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.backup_files import assert_sound, make_backup, name_at, unix
from vectorstore.backups import catalog, history
from vectorstore.backups.history import Event
from vectorstore.errors import Locked, Refused, VectorkeepError
from vectorstore.lock import WriterLock, lock_files
from vectorstore.prune import prune
from vectorstore.settings import Settings, load_settings

NOW = unix("2026-11-21 17:12:00")
NAMES = [name_at(f"2026-11-{day:02d} 03:00:00") for day in range(21, 9, -1)]  # twelve, the newest first


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A workspace with twelve backups, of which the newest three are to be kept."""
    for name in NAMES:
        make_backup(tmp_path / "backups", name, size=1_000)
    return load_settings(tmp_path, backup_keep=3, backup_days=0)


def clock() -> float:
    return NOW


def left(settings: Settings) -> list[str]:
    return [each.name for each in catalog.list_backups(settings.backups)]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_it_deletes_what_the_dry_run_said(settings: Settings) -> None:
    before = snapshot(settings.workspace)
    planned = prune(settings, dry_run=True, clock=clock)
    assert snapshot(settings.workspace) == before
    assert (planned.state, planned.freed, planned.deleted) == ("planned", 9_000, NAMES[:2:-1])
    done = prune(settings, clock=clock)
    assert (done.state, done.decisions, done.deleted, done.freed) == (
        "pruned", planned.decisions, planned.deleted, planned.freed,
    )  # fmt: skip
    assert left(settings) == NAMES[:3]
    assert_sound(settings.backups, catalog.list_backups(settings.backups))
    assert {path.name for path in settings.backups.iterdir()} == {
        *(f"{name}{suffix}" for name in NAMES[:3] for suffix in (".tar.gz", ".manifest.json")), history.FILE,
    }  # fmt: skip
    event = history.last(settings.backups, "prune")
    assert event and "9 deleted" in event.message
    assert prune(settings, clock=clock).state == "nothing_to_do"
    assert done.to_dict()["decisions"][0] == {"name": NAMES[0], "keep": True, "reason": "one of the newest 3"}


def test_pins_and_the_newest_proven_ones_stay(settings: Settings) -> None:
    folder = settings.backups
    catalog.pin(folder, NAMES[8], "before a restore")
    history.append(folder, Event("verify", NAMES[9], 1.0))
    history.append(folder, Event("verify", NAMES[10], 2.0))
    history.append(folder, Event("drill", NAMES[11], 3.0))
    history.append(folder, Event("drill", NAMES[7], 4.0, ok=False))
    prune(settings, clock=clock)
    # NAMES[7] failed its drill: that is for a person to see to
    assert left(settings) == [*NAMES[:3], NAMES[7], NAMES[8], NAMES[9], NAMES[11]]


def test_those_that_failed_to_verify_do_not_count_as_kept(settings: Settings) -> None:
    for name in NAMES[:4]:
        history.append(settings.backups, Event("verify", name, NOW, "deep", ok=False, message="member 3 differs"))
    report = prune(settings, clock=clock)
    assert left(settings) == NAMES[:7]
    assert report.decisions[0].reason == "has a problem: it did not verify: member 3 differs; see to it"


def test_one_with_a_problem_is_not_touched(settings: Settings) -> None:
    (settings.backups / f"{NAMES[11]}.manifest.json").unlink()
    os.truncate(settings.backups / f"{NAMES[10]}.tar.gz", 5)
    (settings.backups / f"{NAMES[9]}.tar.gz.age").write_bytes(b"of the same name")
    report = prune(settings, clock=clock)
    assert [each.archive.name for each in catalog.list_backups(settings.backups)] == [
        *(f"{name}.tar.gz" for name in NAMES[:3]), f"{NAMES[9]}.tar.gz.age", f"{NAMES[10]}.tar.gz",
        f"{NAMES[11]}.tar.gz",
    ]  # fmt: skip
    assert len(report.deleted) == 7


def test_an_empty_policy_deletes_nothing(settings: Settings) -> None:
    none = load_settings(settings.workspace, backup_keep=0, backup_days=0)
    for dry_run in (True, False):
        with pytest.raises(Refused, match="keeps nothing"):
            prune(none, dry_run=dry_run, clock=clock)
    assert left(settings) == NAMES


def test_nobody_prunes_while_another_writes_or_all_is_paused(settings: Settings) -> None:
    with WriterLock(lock_files(settings), "vectorkeep backup"):
        with pytest.raises(Locked, match="vectorkeep backup"):
            prune(settings, clock=clock)
        assert prune(settings, dry_run=True, clock=clock).deleted
    with pytest.raises(Refused, match="paused"):
        prune(load_settings(settings.workspace, backup_keep=3, backup_days=0, paused=True), clock=clock)
    assert left(settings) == NAMES


def test_without_backups_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert prune(load_settings(tmp_path), dry_run=True).to_dict()["decisions"] == []
    assert prune(load_settings(tmp_path)).state == "nothing_to_do"
    assert not (tmp_path / "backups").exists()


def test_a_history_that_cannot_be_read_stops_it(settings: Settings) -> None:
    """It would not know what was verified."""
    (settings.backups / history.FILE).mkdir()
    with pytest.raises(VectorkeepError):
        prune(settings, clock=clock)
    assert left(settings) == NAMES


def test_what_it_could_not_delete_is_on_record(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refusing(old: Path, new: Path) -> None:
        if NAMES[5] in str(old):
            raise OSError(1, "Operation not permitted")  # as for a file that is made immutable
        rename(old, new)

    monkeypatch.setattr(os, "rename", refusing)
    with pytest.raises(VectorkeepError, match=f"removing {NAMES[5]} failed: Operation not permitted"):
        prune(settings, clock=clock)
    assert left(settings) == NAMES[:6]
    event = history.last(settings.backups, "prune", ok=False)
    assert event and NAMES[5] in event.message
