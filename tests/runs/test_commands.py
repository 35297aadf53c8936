"""Every command that does something is on record, and nothing that only looks ahead."""

from __future__ import annotations

import time

import pytest

from tests.support.workbench import Workspace, document
from vectorstore.runs.history import read


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("runs") / "w")
    for n in range(3):
        workspace.write(f"page-{n}.md", document(n, 3))
    return workspace


def states(workspace: Workspace) -> list[tuple[str, str]]:
    found = read(workspace.root / ".hashes")
    assert found.notes == []
    assert all(each.by == "cli" for each in found.records)
    return [(each.verb, each.state) for each in found.records]


def test_commands_are_on_record_and_dry_runs_are_not(workspace: Workspace) -> None:
    for command in (
        ["plan"], ["update"], ["status"], ["health", "--depth", "quick"], ["health", "--fix", "--dry-run"],
        ["health", "--fix"], ["adopt", "--dry-run"], ["adopt"], ["backup"], ["backups"], ["verify"], ["drill"],
        ["prune", "--dry-run"], ["prune"], ["restore", "--dry-run"],
    ):  # fmt: skip
        assert workspace.run(*command).code in (0, 1, 2), command
    known = states(workspace)
    assert [verb for verb, _ in known] == [
        "update", "health", "fix", "adopt", "backup", "verify", "drill", "prune",
    ]  # fmt: skip
    assert dict(known)["backup"] == dict(known)["drill"] == dict(known)["verify"] == "completed"


def test_a_restore_does_not_set_the_history_back(workspace: Workspace) -> None:
    workspace.update()
    assert workspace.run("backup").code == 0
    time.sleep(1.1)  # the safety backup gets a name of its own
    assert workspace.run("health", "--depth", "quick").code == 0
    assert workspace.run("restore").code == 0
    assert [verb for verb, _ in states(workspace)][-3:] == ["backup", "health", "restore"]
    assert workspace.run("restore", "--undo").code == 0
    assert [verb for verb, _ in states(workspace)][-4:] == ["backup", "health", "restore", "restore"]
    assert read(workspace.root / ".hashes").records[-1].name.startswith("backup_")


def test_a_run_that_is_locked_out_is_on_record(workspace: Workspace) -> None:
    import fcntl

    workspace.update()
    with open(workspace.root / ".hashes" / "writer.lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert workspace.run("update").code == 4
    assert states(workspace)[-1] == ("update", "locked")
