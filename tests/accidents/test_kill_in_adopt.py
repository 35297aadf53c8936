"""SIGKILL anywhere in an adoption: the next one ends where a clean one does, and an update pays nothing."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.foreign_stores import langchain_rows, put
from tests.support.server_process import ServerProcess
from tests.support.workbench import Row, Workspace, document, expected, paid

POINTS = [
    "after vectorstore.adoption.importing:Importer.take", "after vectorstore.cache:VectorCache.put_many",
    "after vectorstore.ledger:Ledger.begin", "after vectorstore.ledger:Ledger.intend",
    "after vectorstore.chroma.store:Store.prepare", "before vectorstore.chroma.store:Store.upsert 2",
    "after vectorstore.chroma.store:Store.upsert", "before vectorstore.ledger:Ledger.commit 2",
    "after vectorstore.ledger:Ledger.commit", "before vectorstore.mending.store_files:StoreFiles.close",
    "after vectorstore.ledger:Ledger.store_closed", "before vectorstore.ledger:Ledger.record_run",
]  # fmt: skip


@pytest.fixture(scope="module")
def _clean(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> tuple[Workspace, dict[str, Row]]:
    """A workspace with somebody else's store, and what an adoption left alone makes of it."""
    folder = tmp_path_factory.mktemp("adopt")
    base = Workspace(folder / "base", _server, store_batch=40, trust_ctime=False)
    base.fill(60, sections=8)
    rows = langchain_rows(base.docs, lambda path: f"docs/{path.relative_to(base.docs)}")
    put(base.store, "theirs", rows, lambda texts: expected(texts, base.values), sync_threshold=100, batch_size=50)
    clean = base.copy(folder / "clean")
    report = clean.run("adopt", code=0).report
    assert (report["documents_adopted"], report["chunks_adopted"]) == (60, len(rows))
    assert clean.update()["kinds"] == {"unchanged": 60}
    assert len(clean.rows()) == 2 * len(rows) > 400
    return base, clean.rows()


def assert_taken_over(workspace: Workspace, rows: dict[str, Row]) -> None:
    """All of it, nothing else, and nothing left to do."""
    workspace.run("adopt", code=0)
    assert workspace.rows() == rows
    assert workspace.run("plan", code=0).report["nothing_to_do"]
    assert workspace.update()["kinds"] == {"unchanged": 60}
    assert workspace.rows() == rows


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, tmp_path: Path, _clean: tuple[Workspace, dict[str, Row]], server: ServerProcess) -> None:
    base, rows = _clean
    workspace = base.copy(tmp_path / "w")
    assert workspace.start("adopt", die=point).killed()
    assert_taken_over(workspace, rows)
    assert paid(server) == 0


@pytest.mark.parametrize("point", POINTS[4:10])
def test_killed_and_then_updated(
    point: str, tmp_path: Path, _clean: tuple[Workspace, dict[str, Row]], server: ServerProcess
) -> None:
    """Whoever does not adopt again gets the rest from an update: cut anew, and of the half-written nothing is left."""
    base, rows = _clean
    workspace = base.copy(tmp_path / "w")
    assert workspace.start("adopt", die=point).killed()
    report = workspace.update()
    assert report["exit_code"] == 0 and paid(server) == report["chunks_embedded"]
    held = workspace.rows()
    ours = {key: row for key, row in held.items() if key.startswith("docs/")}
    kept = {key.rpartition("#")[0] for key, row in ours.items() if rows.get(key) == row}
    for key in {key.rpartition("#")[0] for key in ours}:
        numbers = sorted(int(id_.rpartition("#")[2]) for id_ in ours if id_.startswith(f"{key}#"))
        assert numbers == list(range(len(numbers))), key
        if key in kept:
            assert len(numbers) == sum(id_.startswith(f"{key}#") for id_ in rows), key
    assert {key: row for key, row in held.items() if key not in ours} == {
        key: row for key, row in rows.items() if not key.startswith("docs/")
    }
    assert workspace.update()["kinds"] == {"unchanged": 60}


def test_killed_again_and_again(
    tmp_path: Path, _clean: tuple[Workspace, dict[str, Row]], server: ServerProcess
) -> None:
    """One adoption, killed twelve times: each goes on where the one before was."""
    base, rows = _clean
    workspace = base.copy(tmp_path / "w", store_batch=5)
    rng, kills = random.Random(12), 0
    for _ in range(12):
        point = " ".join([*rng.choice(POINTS[1:9]).split()[:2], str(rng.randint(1, 2))])
        run = workspace.start("adopt", die=point)
        kills += run.killed()
    assert kills > 5
    assert_taken_over(workspace, rows)
    assert paid(server) == 0


def test_killed_in_the_index_write(tmp_path: Path, server: ServerProcess) -> None:
    """More chunks than Chroma keeps in its queue: a kill while it writes their index is mended from the cache."""
    base = Workspace(tmp_path / "base", server, store_batch=200, trust_ctime=False)
    for n in range(30):
        base.write(f"page-{n:03d}.md", document(n, 90))
    rows = langchain_rows(base.docs)
    assert len(rows) > 1_100
    put(base.store, "theirs", rows, lambda texts: expected(texts, base.values))
    clean = base.copy(tmp_path / "clean")
    clean.run("adopt", code=0)
    due = clean.rows()
    for number in range(4):
        workspace = base.copy(tmp_path / f"w{number}")
        headers = set(workspace.store.glob("*/header.bin"))
        run = workspace.start("adopt")
        end = time.monotonic() + 60
        while set(workspace.store.glob("*/header.bin")) == headers:
            assert run.running and time.monotonic() < end, "the index was never written"
        time.sleep(0.004 * number)
        run.kill()
        workspace.run("adopt", code=0)
        assert workspace.rows() == due
        assert workspace.update()["kinds"] == {"unchanged": 30}
    assert paid(server) == 0
