"""SIGKILL inside Chroma's own index write, end to end: the next update finds the damage, mends it, and pays nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Row, Run, Workspace, document, paid
from vectorstore.chroma.audit import Remedy, audit

KILLS, NEEDED_HITS = 12, 5
BASE, MORE, SECTIONS = 75, 28, 40  # 3,000 chunks and 1,120 more: MORE takes
LARGEST_FILE = 16 << 20  # the largest is due 2 MB


def wait_for_persist(header: Path, run: Run) -> None:
    """Return as soon as the header, which an index write begins with, is touched."""
    before, end = header.stat().st_mtime_ns, time.monotonic() + 60
    while os.stat(header).st_mtime_ns == before:
        assert time.monotonic() < end and run.running, "the index was never written"
        time.sleep(0.000_2)  # the run needs both cores


def header_of(workspace: Workspace) -> Path:
    return next(workspace.store.glob("*/header.bin"))


def persist_seconds(workspace: Workspace) -> float:
    """From the first touch of the header to the last of the id map, in a run left alone."""
    header = header_of(workspace)
    run = workspace.start("update")
    wait_for_persist(header, run)
    start = time.time()
    run.wait()
    return (header.parent / "index_metadata.pickle").stat().st_mtime - start


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> tuple[Workspace, dict[str, Row]]:
    """A workspace with documents to add whose vectors are all paid, and what a clean run makes of it."""
    folder = tmp_path_factory.mktemp("index")
    clean = Workspace(
        folder / "clean", _server, dimensions=64, store_batch=250, batch_texts=64, trust_ctime=False, chunk_tokens=48
    )
    long_name = "a-long-name-makes-the-id-map-large-" * 3
    for n in range(BASE):
        clean.write(f"{n // 100:02d}/{long_name}{n}.md", document(n, SECTIONS))
    assert clean.update()["chunks_written"] >= 3_000
    base = clean.copy(folder / "base")
    for n in range(MORE):
        for workspace in (clean, base):
            workspace.write(f"more/{long_name}{n}.md", document(("more", n), SECTIONS))
    assert clean.update()["chunks_written"] >= 1_050
    shutil.copyfile(clean.cache, base.cache)
    return base, clean.assert_in_step()


def test_kills_inside_the_index_write_of_an_update(
    tmp_path: Path, base: tuple[Workspace, dict[str, Row]], server: ServerProcess
) -> None:
    """Wherever in the index write an update is killed, the next one mends the store by itself, pays nothing, lets no
    file grow, and ends where a clean run ends."""
    start, clean_rows = base
    duration = persist_seconds(start.copy(tmp_path / "timed"))
    seen: Counter[str] = Counter()
    hits = 0
    for kill in range(KILLS):
        workspace = start.copy(tmp_path / f"kill-{kill}")
        header = header_of(workspace)
        run = workspace.start("update")
        wait_for_persist(header, run)
        end = time.perf_counter() + 1.5 * duration * kill / KILLS
        while time.perf_counter() < end:
            pass
        run.kill()
        damages = [damage for damage in audit(workspace.store) if damage.remedy is not Remedy.OPEN]
        seen.update({damage.kind.value for damage in damages} or {"sound"})
        hits += bool(damages)
        report = workspace.update()
        assert report["state"] == "completed" and not report["failures"]
        assert bool(report["notes"]) == bool(damages)
        assert max(path.stat().st_blocks * 512 for path in workspace.store.rglob("*.bin")) < LARGEST_FILE
        assert max(path.stat().st_size for path in workspace.store.rglob("*.bin")) < LARGEST_FILE
        assert audit(workspace.store) == []
        assert workspace.rows() == clean_rows
        assert not list((workspace.root / ".hashes").glob("set-aside/*"))
        shutil.rmtree(workspace.root)
    assert paid(server) == 0
    print(f"\n{hits} of {KILLS} kills damaged the index, written in {duration:.3f} s: {dict(seen)}")
    assert hits >= NEEDED_HITS, f"the kills did not aim: {dict(seen)}"
