"""The commands about backups as a person meets them: words, next steps, exit codes."""

from __future__ import annotations

import re

import pytest

from tests.support.kept import OPEN, PRIVATE, Kept

Backed = tuple[Kept, str, str]
ROWS = 2 * (OPEN + PRIVATE)
HELD = f"{ROWS} rows in 3 collections (docs_a, docs_b, docs_private), {OPEN + PRIVATE} documents"


def plain(text: str) -> str:
    """Numbers that differ from run to run are ``N``, names of backups are ``NAME``."""
    text = re.sub(r"backup_\d{8}_\d{6}", "NAME", text)
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\dZ)?", "DATE", text)
    return re.sub(r"(?<= ) *\d+(\.\d+)? (s|kB|B)\b|\d+%|\b[0-9a-f]{32}\b", "N", text)


def test_the_words_of_a_backup(small: Kept) -> None:
    assert plain(small.say("backup")) == (
        "done: NAME, full, N, N smaller than what is in it\n"
        f"  file      {small.root}/backups/NAME.tar.gz\n"
        "  verified  every byte read back, N\n"
        f"  holds     {HELD}\n"
        "  md5       N\n"
    )
    small.set(sensitive=["private/**"])
    said = small.say("backup", "--selective")
    assert f"  holds     {2 * OPEN} rows in 2 collections (docs_a, docs_b)\n" in said
    assert f"  left out  {2 * PRIVATE} sensitive rows\n" in said


def test_the_words_of_a_list(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    workspace.say("backups", "--pin", full, "--reason", "before the move")
    assert plain(workspace.say("backups")) == (
        "NAME  portable N  deep good, DATE\nNAME  full N  deep good, DATE; pinned: before the move\n"
    )
    workspace.say("backups", "--unpin", full)
    assert "pinned" not in workspace.say("backups")
    workspace.archive(full).unlink()
    assert "its archive is missing" in workspace.say("backups", code=6)


def test_the_words_of_a_restore(backed_up: Backed, tmp_path: object) -> None:
    workspace, full, _ = backed_up
    head = f"NAME of DATE\n  holds     {HELD}\n"
    replaces = f"  replaces  {HELD.rpartition(',')[0]}\n"
    assert plain(workspace.say("restore", full, "--dry-run")) == (
        f"planned: {head}{replaces}next: the same without --dry-run\n"
    )
    assert plain(workspace.say("restore", full)) == (
        f"restored: {head}{replaces}"
        "  before    what was there is NAME; `vectorkeep restore --undo` brings it back\n"
        "next: `vectorkeep plan` says what changed in the documents since\n"
    )
    said = plain(workspace.say("restore", full, "--into", f"{tmp_path}/a new one"))
    assert said.startswith("restored: NAME of DATE into ") and "replaces" not in said
    assert said.endswith(f"next: `vectorkeep plan --workspace '{tmp_path}/a new one'`\n")


def test_the_words_of_verify_and_drill(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    assert plain(workspace.say("verify", "all")) == "PASS  NAME  deep N\nPASS  NAME  deep N\n"
    assert plain(workspace.say("drill", full)) == (
        f"passed: drill of NAME, N\n  restored  {HELD}; every row was looked at\n"
    )
    archive = workspace.archive(full)
    archive.write_bytes(archive.read_bytes()[:-1])
    said = workspace.say("verify", full, code=6)
    assert said.startswith(f"FAIL  {full}  deep") and "its sidecar says" in said
    assert said.endswith("next: make a new backup, and find out what happened to the disk\n")
    said = workspace.say("drill", full, code=6)
    assert said.startswith(f"failed: drill of {full}") and said.endswith(
        "next: run `vectorkeep backup`, then drill that one\n"
    )


def test_the_words_of_prune(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    assert workspace.say("prune").endswith("nothing to delete: retention keeps them all\n")
    workspace.set(backup_keep=1, backup_days=0)
    said = workspace.say("prune", "--dry-run")
    assert f"delete   {full}  " in said and "planned: 1 backup would be deleted, " in said
    assert workspace.names() == [portable, full]
    said = workspace.say("prune")
    assert f"deleted  {full}  " in said and "pruned: 1 backup deleted, " in said
    assert workspace.names() == [portable]


def test_where_there_is_no_backup_the_next_step_is_said(small: Kept) -> None:
    for argv, code in (
        (["backups"], 0), (["verify"], 2), (["verify", "all"], 2), (["restore"], 2), (["drill"], 2), (["prune"], 0),
    ):  # fmt: skip
        assert "next: run `vectorkeep backup`" in small.say(*argv, code=code), argv
    assert small.report("backups") == {"folder": str(small.root / "backups"), "backups": []}


@pytest.mark.parametrize("command", ["backup", "verify", "restore", "drill", "prune", "backups"])
def test_json_is_one_object_and_nothing_else(backed_up: Backed, command: str) -> None:
    workspace = backed_up[0]
    result = workspace.run(command, code=0)
    assert result.report and result.err == ""
    assert result.report.get("exit_code", 0) == 0


def test_a_level_and_a_name_that_are_not_there(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    assert "choose one of digest, deep, drill" in workspace.refused("verify", "--level", "deeper", code=2)
    for command in ("verify", "restore", "drill"):
        assert f"there are {portable}, {full}" in workspace.refused(command, "backup_20010101_000000", code=2)
