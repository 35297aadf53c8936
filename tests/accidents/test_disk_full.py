"""A full disk, a real one: a clear error, nothing lost, and with more room the next run ends the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.disks import resize
from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, paid


@pytest.mark.parametrize("kilobytes", [420, 900, 1900, 2600, 3200])
def test_full_disk(small_disk: Path, server: ServerProcess, kilobytes: int) -> None:
    """Wherever the disk runs full, the run says so; with more room the next one pays the rest and ends in step."""
    resize(small_disk, 64_000)
    workspace = Workspace(small_disk / "w", server, batch_texts=4, dimensions=256)
    workspace.fill(300)
    used = sum(path.stat().st_blocks * 512 for path in workspace.docs.rglob("*")) // 1024
    resize(small_disk, used + kilobytes)
    first = workspace.run("update", timeout=60)
    assert first.code == 1 and ("full" in first.err + first.out or "space" in first.err + first.out)
    assert "next:" in first.err + first.out or '"hint"' in first.out
    workspace.run("update", timeout=60)  # still full: no way out, and no ruin
    workspace.run("status")
    resize(small_disk, 64_000)
    workspace.update()
    workspace.assert_in_step()
    in_flight = workspace.values["concurrency"] * workspace.values["batch_texts"]
    assert paid(server) <= 300 + 2 * in_flight


@pytest.mark.parametrize("kilobytes", [10, 700, 2200])
def test_full_disk_of_the_store(tmp_path: Path, small_disk: Path, server: ServerProcess, kilobytes: int) -> None:
    """Where only the store's disk runs full, all that was paid is in the cache: the next run pays nothing twice."""
    resize(small_disk, kilobytes)
    workspace = Workspace(
        tmp_path / "w", server, batch_texts=32, dimensions=256, chroma_path=str(small_disk / "chroma")
    )
    workspace.fill(300, sections=8)  # above Chroma's sync threshold: its index is written too
    texts = workspace.texts()
    first = workspace.run("update", timeout=60)
    assert first.code in (1, 6)
    assert "full" in first.err + first.out or "space" in first.err + first.out
    workspace.run("update", timeout=60)
    resize(small_disk, 64_000)
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == len(texts)
