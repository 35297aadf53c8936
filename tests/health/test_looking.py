"""Looking changes nothing: not the store, not what Vectorkeep keeps, not the documents, whoever else is reading."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.health.conftest import copied
from tests.support.damage import DAMAGES, GUIDE, Scene
from tests.support.looking import look, named, traces
from tests.support.server_process import ServerProcess
from vectorstore.findings import Depth

# Some that Chroma itself, the ledger, or SQLite would write to if they were opened as usual.
DAMAGED = (
    "header_removed", "data_level0_cut_to_50%", "link_list_size_flipped", "index_metadata_removed", "segment_removed",
    "page_of_embeddings_zeroed", "sqlite_cut_to_0%", "sqlite_removed", "store_emptied", "queue_emptied",
    "writer_killed_in_a_transaction", "migrations_of_another_version", "ledger_removed", "ledger_emptied",
    "ledger_cut_to_50%", "cache_removed", "cache_cut_to_60%", "spend_ledger_cut", "source_unmounted", "run_killed",
    "swap_killed",
)  # fmt: skip

_READER = """
import sys, chromadb
client = chromadb.PersistentClient(sys.argv[1], settings=chromadb.config.Settings(anonymized_telemetry=False))
collection = client.get_collection(sys.argv[2])
print(collection.count(), len(collection.query(query_embeddings=[[1.0] * 16], n_results=5)["ids"][0]), flush=True)
for line in sys.stdin:
    print(collection.count(), len(collection.query(query_embeddings=[[1.0] * 16], n_results=5)["ids"][0]), flush=True)
"""


@pytest.fixture
def scene(small: Scene, server: ServerProcess, tmp_path: Path) -> Iterator[Scene]:
    yield from copied(small, server, tmp_path)


@contextmanager
def reader(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open and has searched in it."""
    command = [sys.executable, "-c", _READER, str(scene.store), GUIDE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        first = process.stdout.readline()
        yield process
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.readline() == first  # and it goes on


@pytest.mark.parametrize("depth", Depth, ids=lambda depth: depth.name.lower())
def test_looking_changes_nothing(depth: Depth, scene: Scene) -> None:
    """A healthy store with a reader at it, which goes on reading."""
    with reader(scene):
        before = traces(scene.workspace)
        for way in ("", "files", "api"):
            assert not named(look(scene.workspace, depth, way=way))
            assert traces(scene.workspace) == before, way


@pytest.mark.parametrize("name", DAMAGED)
def test_looking_at_damage_changes_nothing(name: str, scene: Scene) -> None:
    """Nor is a damaged store touched, at any depth."""
    DAMAGES[name].apply(scene)
    before = traces(scene.workspace)
    for depth in Depth:
        look(scene.workspace, depth)
        assert traces(scene.workspace) == before, depth.name


def test_nothing_is_left_behind(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a check copies it takes away again, also after a crash of what it probed."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    for name in ("header_slot_size_flipped", "writer_killed_in_a_transaction"):
        DAMAGES[name].apply(scene)
        look(scene.workspace)
    assert list(scratch.iterdir()) == []


def test_from_another_folder(scene: Scene, tmp_path: Path) -> None:
    """The working directory has no say: relative settings stand for paths in the workspace."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "docs").mkdir(parents=True)
    for depth in Depth:
        assert not named(look(scene.workspace, depth, cwd=elsewhere))
    assert [path.name for path in elsewhere.iterdir()] == ["docs"]


def test_a_folder_that_cannot_be_written_to(scene: Scene) -> None:
    """A store on a disk that is mounted read-only is looked at all the same."""
    for folder in (scene.store, scene.workspace.ledger.parent, scene.workspace.root):
        folder.chmod(0o555)
    try:
        for depth in Depth:
            assert not named(look(scene.workspace, depth))
    finally:
        for folder in (scene.store, scene.workspace.ledger.parent, scene.workspace.root):
            folder.chmod(0o755)


@pytest.mark.parametrize("name", ["source_unmounted", "source_empty", "source_is_a_file", "source_is_a_broken_link"])
def test_a_source_that_is_not_there(name: str, scene: Scene, tmp_path: Path) -> None:
    """No chunk is called an orphan for it, from whichever folder."""
    DAMAGES[name].apply(scene)
    for depth in (Depth.STANDARD, Depth.DEEP):
        report = look(scene.workspace, depth, cwd=tmp_path)
        assert named(report).keys() == {"source"}, named(report)
        assert not {"orphans", "gone", "coverage"} & {each.check for each in report.findings if each.severity}
    assert not named(look(scene.workspace, Depth.QUICK, cwd=tmp_path))


def test_a_workspace_that_is_not_there(scene: Scene) -> None:
    """A ledger, a store and a cache that vanish make no new ones."""
    for path in (scene.store, scene.workspace.ledger.parent):
        shutil.rmtree(path)
    for depth in Depth:
        look(scene.workspace, depth)
        assert not scene.store.exists() and not scene.workspace.ledger.exists()
