"""Drills: each backup has its turn, one that does not restore fails, and the workspace notices nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.kept import OPEN, PRIVATE, Kept
from vectorstore.settings import load_settings

Backed = tuple[Kept, str, str]


def test_each_has_its_turn(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    newest = workspace.report("backup")["name"]
    turns = [workspace.report("drill")["name"] for _ in range(4)]
    assert turns == [newest, full, portable, newest]
    drills = [event for event in workspace.events() if event["event"] == "drill"]
    assert [(event["name"], event["ok"]) for event in drills] == [(name, True) for name in turns]
    findings = json.loads(workspace.run("health", "--verbose").out)["findings"]
    assert not [each for each in findings if each["check"] == "drill" and each["severity"] != "PASS"]


@pytest.mark.parametrize("kind", [1, 2], ids=["full", "portable"])
def test_a_drill_restores_everything_and_touches_nothing(backed_up: Backed, kind: int, tmp_path: Path) -> None:
    workspace, name = backed_up[0], str(backed_up[kind])
    workspace.set(probe_max_mb=16)
    files = workspace.files()
    report = workspace.report("drill", name, "--scratch", str(tmp_path))
    assert workspace.files() == files and not list(tmp_path.glob(".drill-*"))
    assert (report["state"], report["documents"]) == ("passed", OPEN + PRIVATE)
    assert report["chunks"] == sum(report["collections"].values()) == 2 * (OPEN + PRIVATE)


def test_a_backup_whose_store_was_not_well(small: Kept) -> None:
    """Every byte of it is what was backed up, and it is of no use."""
    with sqlite3.connect(small.store / "chroma.sqlite3") as db:
        db.execute("UPDATE embedding_metadata SET string_value = 'another text' WHERE key = 'chroma:document'")
    db.close()
    name = small.report("backup")["name"]
    assert small.report("verify")["state"] == "verified"
    report = small.report("drill", code=6)
    assert (report["state"], report["name"]) == ("failed", name) and "not healthy" in report["message"]
    last = small.events()[-1]
    assert (last["event"], last["ok"], last["message"]) == ("drill", False, report["message"])
    found = json.loads(small.run("health").out)["findings"]
    assert any(each["check"] == "drill" and "the last drill failed" in each["message"] for each in found)
    said = small.refused("restore", code=6)
    assert "verifies, but its store is not healthy" in said and "--accept-findings" in said
    small.assert_tidy()
    accepted = small.report("restore", "--accept-findings")
    assert any("not healthy" in note for note in accepted["notes"])


def test_a_selective_backup_passes(small: Kept) -> None:
    small.set(sensitive=["private/**"])
    small.report("backup", "--selective")
    assert small.report("drill")["collections"] == {"docs_a": OPEN, "docs_b": OPEN}


def test_settings_of_the_environment_hold_for_the_drill(small: Kept, tmp_path: Path) -> None:
    elsewhere = {"VECTORKEEP_BACKUPS_PATH": str(tmp_path / "elsewhere")}
    name = small.report("backup", **elsewhere)["name"]
    assert small.report("drill", **elsewhere)["name"] == name
    assert load_settings(small.root).backups_path == Path("backups")


def test_nothing_to_drill(small: Kept) -> None:
    assert "next: run `vectorkeep backup`" in small.refused("drill", code=2)


def test_what_a_killed_drill_left_is_taken_away(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    left = workspace.backups / ".drill-4194999"
    left.mkdir()
    (left / "part").write_text("of a restore")
    workspace.report("drill", full)
    assert not left.exists()
