"""SIGKILL anywhere in an update: what was paid is not paid again, and the next run ends where a clean one does."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.support.bill import sha_of
from tests.support.server_process import ServerProcess
from tests.support.workbench import (
    Run,
    Workspace,
    document,
    paid,
    stored_ids,
    uncached,
    wait_until,
)  # fmt: skip

LATENCY_S = 0.03


def kill_when_billed(workspace: Workspace, run: Run, texts: int, delay: float = 0.0) -> float | None:
    """Kill when the provider has billed so many texts; ``None`` if the run was over before."""
    assert workspace.server
    bill = workspace.server.bill_file
    size = -1

    def reached() -> bool:
        nonlocal size
        if not run.running:
            return True
        if (now := bill.stat().st_size) == size:
            return False
        size = now
        return paid(workspace.server) >= texts

    assert wait_until(reached)
    time.sleep(delay)
    return run.kill() if run.running else None


def lost_to(workspace: Workspace, texts: set[str], killed_at: float) -> set[str]:
    """What a kill cost: billed and not cached. All of it was in flight at that moment, or this fails."""
    assert workspace.server
    lost = uncached(workspace, texts)
    in_flight = workspace.values["concurrency"] * workspace.values["batch_texts"]
    assert len(lost) <= in_flight
    late = {sha for request in workspace.server.bill.requests if request.time > killed_at - 1.5 for sha in request.sha}
    assert lost <= late, "a vector was lost that had been answered long before the kill"
    return lost


def test_kill_at_half_pays_only_what_was_in_flight(tmp_path: Path, server: ServerProcess) -> None:
    """Killed half-way through a cold run, the next run pays the rest and, again, only what was in flight."""
    server.control(latency_s=LATENCY_S)
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(150, sections=2)
    texts = workspace.texts()
    killed_at = kill_when_billed(workspace, workspace.start("update"), len(texts) // 2)
    assert killed_at
    lost = lost_to(workspace, texts, killed_at)
    assert paid(server) < 0.8 * len(texts), "the kill came late"
    workspace.update()
    assert paid(server) == len(texts) + len(lost)
    assert {sha for sha, times in server.bill.by_text.items() if times > 1} == lost
    workspace.assert_in_step()
    assert workspace.update()["kinds"] == {"unchanged": 150}
    assert paid(server) == len(texts) + len(lost)


def test_forty_kills_in_one_cold_run(tmp_path: Path, server: ServerProcess) -> None:
    """One cold run of 2,000 documents, killed 40 times: paid twice is only what was in flight at a kill, and the
    store ends equal to a clean run's, vector for vector."""
    server.control(latency_s=LATENCY_S)
    workspace = Workspace(tmp_path / "w", server, batch_texts=4)
    workspace.fill(2000)
    texts = workspace.texts()
    rng = random.Random(40)
    points = sorted(rng.uniform(0.01, 0.98) * len(texts) for _ in range(30))
    lost: list[set[str]] = []
    spent_before, kills = 0, 0
    for number in range(40):
        run = workspace.start("update")
        if number % 4 == 3:  # by the clock: in the start, the repair, the look at the store
            time.sleep(rng.uniform(0, 0.8))
            killed_at = run.kill() if run.running else None
        else:
            killed_at = kill_when_billed(workspace, run, int(points.pop(0)), rng.uniform(0, 2 * LATENCY_S))
        assert killed_at, run.wait()
        kills += 1
        lost.append(lost_to(workspace, texts, killed_at))
        assert paid(server) >= spent_before
        spent_before = paid(server)
    report = workspace.update()
    assert report["state"] == "completed" and kills == 40
    assert paid(server) <= len(texts) + sum(map(len, lost))
    assert {sha for sha, times in server.bill.by_text.items() if times > 1} <= set().union(*lost)
    print(f"\n{paid(server) - len(texts)} of {len(texts)} texts paid twice after 40 kills")
    clean = Workspace(tmp_path / "clean", server)
    shutil.copytree(workspace.docs, clean.docs, dirs_exist_ok=True)
    clean.update()
    assert workspace.assert_in_step() == clean.rows()


def test_kills_while_documents_change(tmp_path: Path, server: ServerProcess) -> None:
    """Killed anywhere in an update of 60 edited files, no document is ever gone from the store, and no old chunk is
    left beside new ones."""
    workspace = Workspace(tmp_path / "w", server, store_batch=10, batch_texts=4, concurrency=2)
    keys = [f"{n:03d}.md" for n in range(80)]
    for key in keys:
        workspace.write(key, document(key, 4))
    workspace.update()
    server.control(latency_s=0.01)
    rng = random.Random(60)
    for edition in range(10):
        for n, key in enumerate(keys[:60]):  # longer, shorter, other
            workspace.write(key, document((key, edition), 1 + (n + edition) % 6))
        run = workspace.start("update")
        time.sleep(rng.uniform(0.1, 0.9))
        run.kill()
        there = {id_.rpartition("#")[0] for id_ in stored_ids(workspace.store)}
        assert there == set(keys)
        if edition % 3 == 2:
            workspace.update()
            workspace.assert_in_step()
    workspace.update()
    workspace.assert_in_step()
    assert max(server.bill.by_text[sha_of(text)] for text in workspace.texts()) <= 2


# After one step is before the next.
STEPS = [
    "before vectorstore.budget:Budget.reserve 5",
    "after vectorstore.budget:Budget.reserve 5",
    "after vectorstore.budget:Reservation.settle 5",
    "after vectorstore.cache:VectorCache.put_many 3",
    "after vectorstore.ledger:Ledger.store_opened",
    "after vectorstore.ledger:Ledger.intend 2",
    "before vectorstore.chroma.store:Store.upsert 2",
    "after vectorstore.chroma.store:Store.upsert 2",
    "after vectorstore.chroma.store:Store.delete 2",
    "after vectorstore.ledger:Ledger.commit 2",
    "after vectorstore.cache:VectorCache.released 2",
    "before vectorstore.ledger:Ledger.forget",
    "after vectorstore.ledger:Ledger.forget",
    "after vectorstore.chroma.store:Store.close",
    "after vectorstore.ledger:Ledger.store_closed",
    "after vectorstore.ledger:Ledger.record_run",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> Workspace:
    """40 documents in step."""
    workspace = Workspace(
        tmp_path_factory.mktemp("filled") / "w", _server, store_batch=10, batch_texts=2, concurrency=2
    )
    workspace.fill(40, sections=2)
    workspace.update()
    return workspace


@pytest.mark.parametrize("step", STEPS)
def test_kill_beside_every_step(tmp_path: Path, filled: Workspace, server: ServerProcess, step: str) -> None:
    """Whatever step a run is killed beside, the next one pays at most what was in flight, and ends in step."""
    workspace = filled.copy(tmp_path / "w")
    for n in range(30):  # longer, shorter, gone
        workspace.write(f"00/page-{n:05d}.md", document(("new", n), 1 + n % 4))
    (workspace.docs / "00/page-00039.md").unlink()
    texts = workspace.texts()
    assert workspace.start("update", die=step).killed(), "the step was never reached"
    lost = uncached(workspace, texts)
    assert len(lost) <= 4
    workspace.update()
    workspace.assert_in_step()
    assert dict.fromkeys(lost, 2) == {sha: times for sha, times in server.bill.by_text.items() if times > 1}
    assert set(server.bill.by_text) <= {sha_of(text) for text in texts}


def test_documents_gone_again_after_a_kill(tmp_path: Path, filled: Workspace, server: ServerProcess) -> None:
    """What a killed run wrote of documents that are gone, or shorter, by the next run does not stay in the store."""
    workspace = filled.copy(tmp_path / "w")
    for n in range(8):
        workspace.write(f"new/{n}.md", document(("gone", n), 4))
    assert workspace.start("update", die="after vectorstore.chroma.store:Store.upsert").killed()
    assert any("new/" in id_ for id_ in stored_ids(workspace.store))
    for n in range(8):
        if n % 2:
            workspace.write(f"new/{n}.md", document(("gone", n), 1))
        else:
            (workspace.docs / f"new/{n}.md").unlink()
    workspace.update()
    workspace.assert_in_step()


@pytest.mark.parametrize(
    "step",
    [
        "before vectorstore.swap:begin_swap", "after vectorstore.swap:begin_swap",
        "after vectorstore.chroma.store:Store.rename 1", "after vectorstore.chroma.store:Store.rename 2",
        "after vectorstore.ledger:Ledger.swap", "after vectorstore.swap:finish_swap",
    ],
)  # fmt: skip
def test_kill_beside_every_step_of_a_swap(tmp_path: Path, filled: Workspace, server: ServerProcess, step: str) -> None:
    """Killed while new vectors take the place of old ones, the next run ends with the new ones, paid once."""
    workspace = filled.copy(tmp_path / "w", dimensions=32)
    assert workspace.start("update", "--mode", "stale", die=step).killed(), "the step was never reached"
    workspace.update("--mode", "stale")
    assert workspace.update()["kinds"] == {"unchanged": 40}
    assert paid(server) == len(workspace.texts())
    assert workspace.run("status", code=0).report["collections"] == {"docs": {"documents": 40, "chunks": 80}}
    workspace.write("00/page-00000.md", document("edited", 3))
    workspace.update()
    collections = {key.partition("/")[0] for key in workspace.rows()}
    assert len(collections) == 2 and all(name == "docs" or name.count("--old-") == 1 for name in collections)
    workspace.assert_in_step(collection="docs")
