"""Accidents of the source: gone, unreadable, moved, touched; nothing is deleted by surprise and nothing paid twice."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Row, Run, Workspace, digests, document, paid


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> tuple[Workspace, dict[str, Row]]:
    workspace = Workspace(tmp_path_factory.mktemp("sources") / "w", _server, trust_ctime=True)
    for n in range(40):
        workspace.write(f"{'abcd'[n % 4]}/page-{n}.md", document(n, 3))
    for path in workspace.docs.rglob("*.md"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    workspace.update()
    return workspace, workspace.assert_in_step()


@pytest.fixture
def filled(_filled: tuple[Workspace, dict[str, Row]], tmp_path: Path, server: ServerProcess) -> Workspace:
    """40 documents in four folders, in step, and an empty bill."""
    workspace = _filled[0].copy(tmp_path / "w")
    workspace.update()  # the copy's inode times are new
    return workspace


@pytest.mark.parametrize("how", ["empty", "missing", "a file", "dangling link"])
def test_source_gone(filled: Workspace, server: ServerProcess, how: str) -> None:
    """A source that is empty, missing or not mounted is refused, and nothing is deleted."""
    before = filled.rows()
    shutil.rmtree(filled.docs)
    if how == "empty":
        filled.docs.mkdir()
    elif how == "a file":
        filled.docs.write_text("# a file\n")
    elif how == "dangling link":
        filled.docs.symlink_to(filled.root / "unmounted")
    result = filled.run("update", code=5)
    assert "source" in result.err + result.out
    assert filled.run("plan").code == 5
    assert filled.rows() == before


def test_small_source_gone(tmp_path: Path) -> None:
    """A source of few documents is guarded as well, though so few deletes need no permission."""
    workspace = Workspace(tmp_path / "w")
    workspace.fill(4)
    workspace.update()
    before = workspace.rows()
    shutil.rmtree(workspace.docs)
    workspace.docs.mkdir()
    result = workspace.run("update", code=5)
    assert "--max-deletes 4" in result.err + result.out
    assert workspace.rows() == before
    workspace.update("--max-deletes", "4")
    assert workspace.rows() == {}


def test_source_unreadable(filled: Workspace) -> None:
    """A source that may not be listed is refused, and nothing is deleted."""
    before = filled.rows()
    filled.docs.chmod(0)
    done = filled.cli("update", "--json", powerless=True)
    assert done.code == 5 and "ermission denied" in done.err
    filled.docs.chmod(0o755)
    assert filled.rows() == before


def test_folder_unreadable(filled: Workspace, server: ServerProcess) -> None:
    """The documents of a folder or file that may not be read stay in the store; the others go on; exit code 1."""
    before = filled.rows()
    (filled.docs / "b").chmod(0)
    (filled.docs / "c/page-2.md").chmod(0)
    filled.write("a/new.md", document("new"))
    done = filled.cli("update", "--json", powerless=True)
    assert done.code == 1 and done.report["failures"].keys() == {"b/", "c/page-2.md"}
    assert all("ermission denied" in reason for reason in done.report["failures"].values())
    (filled.docs / "b").chmod(0o755)
    after = filled.rows()
    assert before.items() <= after.items() and len(after) == len(before) + 1
    assert paid(server) == 1


def test_edit_that_keeps_size_and_times(filled: Workspace) -> None:
    """An edit that keeps size and mtime is found through the inode's time, or by reading everything."""

    def edit(old: str, new: str) -> None:
        path = filled.docs / "a/page-0.md"
        stat = path.stat()
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size == stat.st_size

    edit("Title 0", "Title X")
    assert filled.update()["kinds"]["changed"] == 1
    filled.assert_in_step()
    time.sleep(2.1)  # from now on the files' times can be trusted
    assert filled.update()["kinds"] == {"unchanged": 40}
    edit("Title X", "Title Y")
    assert filled.update(trust_ctime=False)["kinds"] == {"unchanged": 40}
    assert filled.update("--verify-content", trust_ctime=False)["kinds"] == {"unchanged": 39, "changed": 1}
    filled.assert_in_step()


def test_edit_within_the_clock_tick(filled: Workspace) -> None:
    """A file read right after it was written is read again: its times could not show another edit."""
    path = filled.write("young.md", document("young"))
    filled.update(trust_ctime=False)
    stat = path.stat()
    path.write_text(path.read_text().replace("Title", "Tilte"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert filled.update(trust_ctime=False)["kinds"] == {"unchanged": 40, "changed": 1}
    filled.assert_in_step()


def test_moved_folder_is_free(filled: Workspace, server: ServerProcess) -> None:
    """A folder that moved costs nothing, and leaves nothing at its old place."""
    (filled.docs / "b").rename(filled.docs / "z")
    report = filled.update()
    assert report["kinds"] == {"unchanged": 30, "moved": 10}
    filled.assert_in_step()
    assert paid(server) == 0


def test_paragraph_at_the_top(filled: Workspace, server: ServerProcess) -> None:
    """A paragraph put in at the top costs the chunk it falls into, not the document."""
    filled.write("long.md", document("long", 60))
    filled.update()
    before = paid(server)
    filled.write("long.md", "A new beginning, with a sentence of its own to say.\n\n" + document("long", 60))
    filled.update()
    filled.assert_in_step()
    assert 1 <= paid(server) - before <= 2


def test_other_spellings_of_the_same_place(filled: Workspace, tmp_path: Path, server: ServerProcess) -> None:
    """From another working directory, through a symbolic link, with a relative workspace: nothing to do."""
    link = tmp_path / "link"
    link.symlink_to(filled.root)
    (filled.root / "vectorkeep.toml").write_text("")
    before = digests(filled.docs)
    spellings = [
        (["--workspace", str(filled.root)], Path("/")), (["--workspace", "w"], tmp_path), ([], filled.root),
        ([], filled.docs / "a"), (["--workspace", str(link)], tmp_path), (["--workspace", "./docs/.."], filled.root),
    ]  # fmt: skip
    for argv, cwd in spellings:
        result = Run(filled, ["update", *argv, "--json"], cwd, filled.env(), "").wait()
        assert result.report["kinds"] == {"unchanged": 40}, (argv, cwd)
    docs = tmp_path / "docs-elsewhere"
    filled.docs.rename(docs)
    filled.docs.symlink_to(docs)
    assert filled.update(trust_ctime=False)["kinds"] == {"unchanged": 40}
    assert filled.update(trust_ctime=False, source=str(docs))["kinds"] == {"unchanged": 40}
    assert list(digests(docs).values()) == list(before.values())
    assert paid(server) == 0
