"""Verify: one bad backup is found, the others are still looked at, and everybody who must know knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.kept import Kept

Backed = tuple[Kept, str, str]


def spoil(archive: Path) -> None:
    """One bit of another value, in the middle."""
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)


def test_one_bad_backup_of_three(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    newest = workspace.report("backup")["name"]
    spoil(workspace.archive(full))
    files = workspace.files()
    report = workspace.report("verify", "all", code=6)
    assert [(each["name"], each["ok"]) for each in report["backups"]] == [
        (newest, True), (portable, True), (full, False),
    ]  # fmt: skip
    assert (report["state"], report["exit_code"]) == ("bad", 6)
    assert workspace.files() == files
    looked = {event["name"]: event["ok"] for event in workspace.events() if event["event"] == "verify"}
    assert looked == {newest: True, portable: True, full: False}
    found = json.loads(workspace.run("health").out)["findings"]
    assert any(each["check"] == "backup" and full in each["message"] for each in found)
    listed = {each["name"]: each["ok"] for each in workspace.report("backups")["backups"]}
    assert listed == {newest: True, portable: True, full: False}


@pytest.mark.parametrize("level", ["digest", "deep", "drill"])
def test_levels(backed_up: Backed, level: str) -> None:
    workspace, full, _ = backed_up
    (found,) = workspace.report("verify", full, "--level", level)["backups"]
    assert (found["level"], found["ok"]) == (level, True)
    spoil(workspace.archive(full))
    (found,) = workspace.report("verify", full, "--level", level, code=6)["backups"]
    assert not found["ok"] and found["message"]
    last = workspace.events()[-1]
    assert (last["event"], last["ok"]) == ("drill" if level == "drill" else "verify", False)


@pytest.mark.parametrize("level", ["deep", "drill"])
@pytest.mark.parametrize("hurt", ["cut", "no archive", "no sidecar", "another's sidecar", "sidecar of noise"])
def test_what_can_be_seen_from_outside(backed_up: Backed, hurt: str, level: str) -> None:
    workspace, full, portable = backed_up
    archive, sidecar = workspace.archive(full), workspace.backups / f"{full}.manifest.json"
    if hurt == "cut":
        archive.write_bytes(archive.read_bytes()[:-100])
    elif hurt == "no archive":
        archive.unlink()
    elif hurt == "no sidecar":
        sidecar.unlink()
    elif hurt == "another's sidecar":
        sidecar.write_bytes((workspace.backups / f"{portable}.manifest.json").read_bytes())
    else:
        sidecar.write_bytes(b"{}")
    report = workspace.report("verify", "all", "--level", level, code=6)
    assert {each["name"]: each["ok"] for each in report["backups"]} == {full: False, portable: True}
    assert workspace.events()[-1]["ok"] is False
    assert workspace.report("verify")["backups"][0]["name"] == portable


def test_the_sidecar_alone_is_lost_and_the_backup_restores(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    (workspace.backups / f"{full}.manifest.json").unlink()
    workspace.report("restore", full)
    assert workspace.rows() == before


def test_nothing_to_verify_is_no_success(small: Kept) -> None:
    for which in ("all", "latest"):
        assert "next: run `vectorkeep backup`" in small.refused("verify", which, code=2)


# -- off-site


def test_the_way_off_site_and_back(small: Kept, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    small.set(offsite_url=str(tmp_path / "away"))
    before = small.rows()
    assert small.report("backup", "--offsite")["offsite"] is True
    (name,) = small.names()
    later = small.report("backup")["name"]
    small.say("backups", "--push", later)
    small.say("backups", "--push", later)
    listed = small.report("backups", "--offsite")
    assert [each["name"] for each in listed["backups"]] == [later, name]
    report = small.report("verify", "all", "--offsite")
    assert [(each["name"], each["level"], each["ok"]) for each in report["backups"]] == [
        (later, "digest", True), (name, "digest", True),
    ]  # fmt: skip
    for path in small.backups.glob("backup_*"):
        path.unlink()
    assert small.names() == []
    small.refused("restore", name, code=2)
    plan = small.report("restore", name, "--offsite", "--dry-run")
    assert (plan["state"], plan["name"], small.names()) == ("planned", name, [])
    small.report("restore", name, "--offsite", "--into", str(tmp_path / "new"))
    small.report("restore", "latest", "--offsite")
    assert small.rows() == before
    small.assert_settled()
    small.assert_tidy()


def test_a_bad_copy_off_site(small: Kept, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    small.set(offsite_url=str(tmp_path / "away"))
    name, other = (small.report("backup", "--offsite")["name"] for _ in range(2))
    spoil(tmp_path / "away" / f"{name}.tar.gz")
    report = small.report("verify", "all", "--offsite", code=6)
    assert {each["name"]: each["ok"] for each in report["backups"]} == {name: False, other: True}
    assert small.report("verify", "all")["state"] == "verified"
    for path in small.backups.glob(f"{name}*"):
        path.unlink()
    assert name in small.refused("restore", name, "--offsite", code=6)
    small.assert_tidy()


def test_a_copy_that_fails_leaves_the_backup(small: Kept, tmp_path: Path) -> None:
    (tmp_path / "away").write_text("a file")
    small.set(offsite_url=str(tmp_path / "away"))
    said = small.say("backup", "--offsite", code=2)
    (name,) = small.names()
    assert (
        f"{name} is made and verified, but not copied" in said
        and f", then run `vectorkeep backups --push {name}`" in said
    )
    assert small.report("verify")["state"] == "verified"
