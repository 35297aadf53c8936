"""What a health check says of backups and drills: their ages, by the history that lies beside them."""

from __future__ import annotations

from pathlib import Path

from tests.support.backup_files import make_backup, name_at, unix
from vectorstore.backups import history
from vectorstore.backups.history import Event
from vectorstore.checks.workspace import check_backups
from vectorstore.findings import Findings
from vectorstore.settings import load_settings

NOW = unix("2026-11-21 17:00:00")
HOUR, DAY = 3600.0, 86_400.0
OLD, NEW = name_at("2026-11-20 03:00:00"), name_at("2026-11-21 03:00:00")


def said(root: Path, *events: Event, now: float = NOW) -> dict[str, list[str]]:
    """By check, ``SEVERITY message``; after these events."""
    for event in events:
        history.append(root / "backups", event)
    found = Findings()
    check_backups(load_settings(root), found, lambda: now)
    by_check: dict[str, list[str]] = {"backup": [], "drill": []}
    for finding in found.result():
        by_check[finding.check].append(f"{finding.severity.name} {finding.message}")
    return by_check


def test_nothing_on_record(tmp_path: Path) -> None:
    assert said(tmp_path) == {"backup": ["INFO no backup is on record"], "drill": ["INFO no drill is on record"]}
    assert list(tmp_path.iterdir()) == []


def test_ages(tmp_path: Path) -> None:
    make_backup(tmp_path / "backups", NEW)
    made, drill = Event("backup", NEW, NOW - 14 * HOUR), Event("drill", NEW, NOW - 20 * DAY)
    assert said(tmp_path, made, drill) == {
        "backup": [f"PASS the last backup, {NEW}, is 14 h old"],
        "drill": [f"PASS the last drill, {NEW}, is 20 days old"],
    }  # fmt: skip
    assert said(tmp_path, now=NOW + 13 * HOUR)["backup"] == ["WARN the last backup is 27 h old"]
    later = said(tmp_path, now=NOW + 16 * DAY)
    assert later == {"backup": ["WARN the last backup is 17 days old"], "drill": ["WARN the last drill is 36 days old"]}


def test_looking_at_an_old_backup_makes_it_no_newer(tmp_path: Path) -> None:
    make_backup(tmp_path / "backups", OLD)
    events = Event("backup", OLD, NOW - 30 * HOUR), Event("verify", OLD, NOW), Event("drill", OLD, NOW)
    assert said(tmp_path, *events)["backup"] == ["WARN the last backup is 30 h old"]


def test_one_that_is_gone_or_bad_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    make_backup(folder, OLD)
    new = make_backup(folder, NEW)
    events = Event("backup", OLD, NOW - 20 * HOUR), Event("backup", NEW, NOW - HOUR)
    assert said(tmp_path, *events)["backup"] == [f"PASS the last backup, {NEW}, is 1 h old"]
    assert said(tmp_path, Event("verify", NEW, NOW, "deep", ok=False))["backup"] == [
        f"WARN 1 backups did not verify, {NEW} among them"
    ]
    assert said(tmp_path, now=NOW + 7 * HOUR)["backup"] == [
        f"WARN 1 backups did not verify, {NEW} among them", "WARN the last backup is 27 h old",
    ]  # fmt: skip
    new.archive.unlink()
    assert said(tmp_path)["backup"] == [f"PASS the last backup, {OLD}, is 20 h old"]
    (folder / f"{OLD}.tar.gz").unlink()
    assert said(tmp_path)["backup"] == ["WARN no backup that is good is left"]


def test_a_failure_is_said(tmp_path: Path) -> None:
    make_backup(tmp_path / "backups", NEW)
    events = Event("backup", NEW, NOW - HOUR), Event("backup", "", NOW, ok=False, message="the disk is full")
    assert said(tmp_path, *events)["backup"] == ["WARN the last backup failed: the disk is full"]
    failed = Event("drill", NEW, NOW, ok=False, message="3 rows are lost")
    assert said(tmp_path, failed)["drill"] == [
        "WARN the last drill failed: 3 rows are lost",
        "WARN no drill ever went well",
    ]


def test_a_clock_that_was_wrong_does_not_silence_it(tmp_path: Path) -> None:
    make_backup(tmp_path / "backups", NEW)
    events = Event("backup", NEW, NOW + 999 * DAY), Event("drill", NEW, NOW + 999 * DAY)
    assert said(tmp_path, *events) == {
        "backup": ["WARN the last backup is dated in the future: see the clock"],
        "drill": ["WARN the last drill is dated in the future: see the clock"],
    }


def test_a_history_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "backups" / history.FILE).mkdir(parents=True)
    (finding,) = said(tmp_path)["backup"]
    assert finding.startswith("WARN reading ") and finding.endswith("failed: Is a directory")
