"""Guards: vectors are never mixed, one writer at a time, looking changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, digests, document, paid, wait_until
from vectorstore.runs.history import read


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("guards") / "w", _server)
    workspace.fill(40, sections=2)
    workspace.update()
    return workspace


@pytest.fixture
def filled(_filled: Workspace, tmp_path: Path, server: ServerProcess) -> Workspace:
    """40 documents in step, and an empty bill."""
    workspace = _filled.copy(tmp_path / "w")
    workspace.update()
    return workspace


@pytest.mark.parametrize(
    "change", [{"model": "text-embedding-3-large"}, {"dimensions": 32}, {"chunk_tokens": 48}], ids=str
)
def test_another_pipeline_is_refused(filled: Workspace, server: ServerProcess, change: dict[str, object]) -> None:
    """Another model, dimension or chunker is refused by both names, with the way on; not a vector changes."""
    filled.write("00/page-00001.md", document("edited"))
    rows, store = filled.rows(), digests(filled.store)
    with_runs = digests(filled.root / ".hashes")
    assert filled.run("plan", **change).code == 5
    assert digests(filled.root / ".hashes") == with_runs
    result = filled.run("update", **change)
    assert result.code == 5
    said = result.err + result.out
    for model in ("text-embedding-3-small/64/", str(change.get("model", "text-embedding-3-small"))):
        assert model in said
    assert str(change.get("dimensions", change.get("chunk_tokens", "3-large"))) in said
    assert "--mode stale" in said
    assert digests(filled.store) == store and filled.rows() == rows
    assert paid(server) == 0
    assert filled.update()["kinds"] == {"unchanged": 39, "changed": 1}


def test_two_runs_at_once(filled: Workspace, server: ServerProcess) -> None:
    """The second run is told at once who holds the lock; everything is paid once."""
    server.control(latency_s=0.1)
    filled.fill(60, sections=2, prefix="new")
    first = filled.start("update")
    assert wait_until(lambda: paid(server))
    started = time.monotonic()
    second = filled.run("update", code=4)
    assert time.monotonic() - started < 3
    assert str(first.process.pid) in second.err and "vectorkeep update" in second.err
    other = Workspace(filled.root.parent / "other", server, chroma_path=str(filled.store))
    other.fill(1)
    assert other.run("update").code == 4, "another workspace may not write to the same store"
    assert first.running, "the first was over too early to prove anything"
    assert first.wait().code == 0
    assert paid(server) == len(filled.texts())
    filled.assert_in_step()


def test_lock_of_a_killed_run_holds_nobody_up(filled: Workspace, server: ServerProcess) -> None:
    """The kernel frees the lock of a killed run; and the next run puts it on record."""
    server.control(latency_s=0.2)
    filled.write("new.md", document("new"))
    run = filled.start("update")
    assert wait_until(lambda: paid(server))
    run.kill()
    filled.update()
    filled.assert_in_step()
    assert [each.state for each in read(filled.root / ".hashes").records[-2:]] == ["crashed", "completed"]


@pytest.mark.parametrize("state", ["in step", "work to do", "killed", "killed in its index"])
def test_looking_changes_nothing(filled: Workspace, server: ServerProcess, state: str) -> None:
    """Plan and status leave every byte as it was and make no file, also beside what a killed run left."""
    if state != "in step":
        filled.write("00/page-00001.md", document("edited", 3))
        (filled.docs / "00/page-00002.md").unlink()
    if state == "killed":
        assert filled.start("update", die="after vectorstore.ledger:Ledger.intend").killed()
        assert list((filled.root / ".hashes").glob("*-wal"))
    if state == "killed in its index":
        assert filled.start("update", die="after vectorstore.chroma.store:Store.upsert").killed()
        for path in filled.store.glob("*/header.bin"):
            path.write_bytes(path.read_bytes()[:10])
    before = looks(filled.root)
    billed = paid(server)
    for verb in (["plan"], ["plan", "--estimate"], ["plan", "--verify-content"], ["status"]):
        result = filled.run(*verb)
        assert result.code in (0, 1), result
        assert looks(filled.root) == before, verb
    assert paid(server) == billed


def looks(root: Path) -> dict[str, str]:
    # SQLite's -shm is shared memory between processes, rebuilt from the log by whoever opens it.
    return {path: digest for path, digest in digests(root).items() if not path.endswith("-shm")}


def test_looking_makes_no_workspace(tmp_path: Path, server: ServerProcess) -> None:
    """Plan and status before the first update make no file and no folder."""
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(3)
    for verb in ("plan", "status"):
        workspace.run(verb, code=0)
    assert {path.name for path in workspace.root.iterdir()} == {"docs"}


def test_search_changes_only_what_chroma_writes(filled: Workspace, server: ServerProcess) -> None:
    """A search leaves ledger, cache, source and every row as they were; the next update has nothing to do.

    Chroma itself writes the files of an index that was never persisted anew whenever it opens them.
    """
    kept, rows = digests(filled.docs), filled.rows()
    hashes = {path: digest for path, digest in digests(filled.root / ".hashes").items() if "spend" not in path}
    hits = filled.run("search", "Title 7", code=0).report["hits"]
    assert hits
    assert digests(filled.docs) == kept and filled.rows() == rows
    after = {path: digest for path, digest in digests(filled.root / ".hashes").items() if "spend" not in path}
    assert after == hashes
    assert filled.update()["kinds"] == {"unchanged": 40}
    assert paid(server) == 1


def test_deletes_beyond_the_share(filled: Workspace, server: ServerProcess) -> None:
    """Half the documents gone is refused with the flag that allows it; the flag deletes exactly them."""
    for n in range(20):
        (filled.docs / f"00/page-{n:05d}.md").unlink()
    result = filled.run("update", code=5)
    assert "--max-deletes 20" in result.err + result.out
    assert len(filled.rows()) == 80
    filled.update("--max-deletes", "20")
    filled.assert_in_step()


def test_ten_thousand_chunks_at_once(tmp_path: Path) -> None:
    """11,000 chunks in one collection, written 10,000 at a time as far as the settings know, fit Chroma's limits."""
    workspace = Workspace(tmp_path / "w", dimensions=16, store_batch=10_000, chunk_tokens=32)
    for n in range(172):
        workspace.write(f"page-{n}.md", document(n, 64))
    report = workspace.run("update", code=0, timeout=240).report
    assert report["chunks_written"] >= 11_000
    workspace.assert_in_step()
