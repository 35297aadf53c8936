"""Files with wrong bytes: self-healing or a clear error with exit code 6; never a traceback, never paid twice."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Result, Workspace, document, paid


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("damage") / "w", _server, cache_keep_days=0)
    for n in range(60):
        workspace.write(f"page-{n}.md", document(n, 2))
    workspace.update()
    # These are paid already when the tests come to write them.
    for n in range(60):
        workspace.write(f"page-{n}.md", document((n, "new"), 2))
    workspace.update(cache_keep_days=9)
    for n in range(60):
        workspace.write(f"page-{n}.md", document(n, 2))
    workspace.update(cache_keep_days=9)
    workspace.values["cache_keep_days"] = 9
    return workspace


@pytest.fixture
def filled(_filled: Workspace, tmp_path: Path, server: ServerProcess) -> Workspace:
    """60 documents in step, and an empty bill."""
    return _filled.copy(tmp_path / "w")


def flip(path: Path, rng: random.Random, bits: int) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(bits):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def settle(workspace: Workspace, damaged: Path) -> Result:
    """Look, update; where the answer is exit code 6, do what its hint says; then all is in step, whatever was hit."""
    for looking in ("status", "plan"):
        assert workspace.run(looking).code in (0, 5, 6)
    first = workspace.run("update")
    assert first.code in (0, 5, 6), first
    if first.code:
        assert "next:" in first.err or first.report["hint"]
        if "run again" not in first.err + first.out and damaged.exists():
            damaged.rename(damaged.with_name("damaged-" + damaged.name))
        workspace.update()
    workspace.assert_in_step()
    for n in range(0, 60, 2):
        workspace.write(f"page-{n}.md", document((n, "new"), 2))
    second = workspace.run("update")
    if second.code:
        assert second.code in (5, 6), second
        damaged.rename(damaged.with_name("damaged-2-" + damaged.name))
        workspace.update()
    workspace.assert_in_step()
    return first


@pytest.mark.parametrize("bits", [1, 30, 1000])
def test_flipped_bits_in_the_ledger(filled: Workspace, tmp_path: Path, server: ServerProcess, bits: int) -> None:
    """A ledger with flipped bits never makes a run pay again, nor leaves the store wrong."""
    for seed in range(5):
        workspace = filled.copy(tmp_path / f"flip-{seed}")
        flip(workspace.ledger, random.Random(f"{bits} {seed}"), bits)
        settle(workspace, workspace.ledger)
    assert paid(server) == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_ledger(filled: Workspace, server: ServerProcess, share: float) -> None:
    """A ledger that is cut short is named, or made anew; nothing is paid."""
    cut(filled.ledger, share)
    settle(filled, filled.ledger)
    assert paid(server) == 0


@pytest.mark.parametrize("bits", [1, 300])
def test_flipped_bits_in_the_cache(filled: Workspace, tmp_path: Path, server: ServerProcess, bits: int) -> None:
    """A vector that was hit in the cache is paid again rather than served; the others are not."""
    for seed in range(4):
        workspace = filled.copy(tmp_path / f"flip-{seed}")
        flip(workspace.cache, random.Random(f"{bits} {seed}"), bits)
        before = paid(server)
        settle(workspace, workspace.cache)
        assert paid(server) - before <= 2 * bits + 6  # a page that is lost takes its neighbours along


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_cache(filled: Workspace, server: ServerProcess, share: float) -> None:
    """What a cache that was cut short still holds is saved; the run says so; no wrong vector is served."""
    cut(filled.cache, share)
    settle(filled, filled.cache)
    assert paid(server) <= 120 * (1 - share) + 20


@pytest.mark.parametrize("how", ["garbage", "cut", "zeros", "flip"])
def test_damaged_spend_ledger(filled: Workspace, server: ServerProcess, how: str) -> None:
    """A spend ledger that can't be read stops a run before it pays: a cap that counts zero guards nothing."""
    content = filled.spend.read_bytes()
    if how == "garbage":
        filled.spend.write_bytes(b"not a database, this" * 500)
    elif how == "cut":
        cut(filled.spend, 0.5)
    elif how == "zeros":
        filled.spend.write_bytes(bytes(len(content)))
    else:
        damaged = bytearray(content)
        for at in range(4096, len(damaged), 7):
            damaged[at] ^= 0x55
        filled.spend.write_bytes(damaged)
    filled.write("new.md", document("never paid before"))
    assert filled.run("status").code in (0, 6)
    result = filled.run("update")
    assert result.code == 6 and "spend" in result.err + result.out
    assert paid(server) == 0
    filled.spend.unlink()
    filled.update()
    filled.assert_in_step()
    assert paid(server) == 1


def test_damaged_sqlite_of_the_store(filled: Workspace, server: ServerProcess) -> None:
    """A store whose SQLite is torn is refused with the way out; moved away, it is filled anew, unpaid."""
    cut(filled.store / "chroma.sqlite3", 0.6)
    result = filled.run("update")
    assert result.code == 6 and "move chroma away" in result.err + result.out
    filled.store.rename(filled.root / "chroma-damaged")
    filled.update()
    filled.assert_in_step()
    assert paid(server) == 0


def test_one_wrong_vector_in_the_cache(filled: Workspace, server: ServerProcess) -> None:
    """A vector whose bytes rotted is not believed."""
    with closing(sqlite3.connect(filled.cache)) as db, db:
        changed = db.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE id % 10 = 0").rowcount
    for n in range(60):
        filled.write(f"page-{n}.md", document((n, "new"), 2))
    filled.update()
    filled.assert_in_step()
    assert 0 < paid(server) <= changed
