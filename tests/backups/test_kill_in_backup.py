"""SIGKILL at every step of a backup and of a drill, writers and readers beside them, and disks that run full: the store
stays as it is, no bad backup has a good name, and the next run carries on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.aftermath import aftermath
from tests.support.chroma_helpers import file_limit
from tests.support.disks import resize
from tests.support.kill_points import Point, at_each, kill, points_of, spread
from tests.support.looking import Call, named, rows_of
from tests.support.workbench import Workspace, digests, document, wait_until
from vectorstore.errors import Locked, VectorkeepError
from vectorstore.findings import HealthReport, Severity

BACKUP, RESTORE, DRILL = "vectorstore.backup:backup", "vectorstore.restore:restore", "vectorstore.drill:drill"
NEXT = ("update", "backup", "restore")


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Six documents in step, and a backup."""
    workspace = Workspace(tmp_path_factory.mktemp("base") / "w", probe_max_mb=0)
    workspace.fill(6, sections=2)
    workspace.update()
    Call(BACKUP, workspace, cache=True).result()
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "options", "most"),
    [(BACKUP, {"cache": True}, 40), (BACKUP, {"kind": "portable"}, 30), (DRILL, {}, 12)],
    ids=["full", "portable", "drill"],
)
def test_killed(base: Workspace, tmp_path: Path, verb: str, options: dict[str, Any], most: int) -> None:
    rows, number, made = rows_of(base), count(), set()
    points = spread(points_of(verb, base.copy(tmp_path / "first"), **options), most)

    def one(point: Point) -> None:
        workspace = base.copy(tmp_path / str(next(number)))
        assert kill(verb, workspace, point, **options)
        found = len(list((workspace.root / "backups").glob("backup_*.tar.gz")))
        made.add(found)
        after = aftermath(workspace, NEXT[point.step % 3])
        assert after.rows == rows == after.end
        assert after.plan and not after.kinds and not after.embedded
        assert not after.litter and not after.bad, (after.litter, after.bad)
        assert after.backups == found + (NEXT[point.step % 3] != "update")
        shutil.rmtree(workspace.root)

    at_each(points, one)
    assert made == ({1} if verb == DRILL else {1, 2})
    print(f"\n{len(points)} points")


def test_a_killed_drill_leaves_nothing_at_work(base: Workspace, tmp_path: Path) -> None:
    """The process that it started dies with it, and what it wrote goes with the next run."""
    workspace = base.copy(tmp_path / "w")
    call = Call(DRILL, workspace)
    assert wait_until(lambda: list((workspace.root / "backups").glob(".drill-*/.into-restored/chroma")), pause=0.001)
    call.kill()
    workspace.update()
    assert not list((workspace.root / "backups").glob(".drill-*"))
    time.sleep(0.5)
    assert not list((workspace.root / "backups").glob(".drill-*")), "its child is still at work"


def held(workspace: Workspace, function: str, **options: Any) -> Call:
    """A call that stands still while it holds the writer's lock."""
    call = Call("tests.backups.test_kill_in_backup:stand_still", workspace, verb=function, choice=options)
    assert wait_until(lambda: (workspace.root / "held").exists())
    return call


def stand_still(settings: Any, verb: str, choice: dict[str, Any]) -> Any:
    """In the process: once under way, wait until the file ``held`` is gone."""
    import importlib

    def on_step(_: object) -> None:
        (settings.workspace / "held").touch()
        while not (settings.workspace / "go").exists():
            time.sleep(0.01)

    module, _, name = verb.partition(":")
    return getattr(importlib.import_module(module), name)(settings, **choice, on_step=on_step)


@pytest.mark.parametrize(("first", "second"), [(RESTORE, RESTORE), (BACKUP, RESTORE), (RESTORE, BACKUP)])
def test_one_at_a_time(base: Workspace, tmp_path: Path, first: str, second: str) -> None:
    workspace = base.copy(tmp_path / "w")
    running = held(workspace, first)
    before = digests(workspace.store)
    with pytest.raises(Locked, match="another run is writing"):
        Call(second, workspace).result()
    assert workspace.update(code=4) and digests(workspace.store) == before
    (workspace.root / "go").touch()
    assert running.result().exit_code == 0
    assert workspace.update()["chunks_embedded"] == 0
    assert rows_of(workspace) == rows_of(base)


def test_a_backup_beside_an_update(base: Workspace, tmp_path: Path) -> None:
    workspace = base.copy(tmp_path / "w")
    workspace.fill(400, prefix="other")
    run = workspace.start("update")
    assert wait_until(lambda: (workspace.root / ".hashes/writer.lock").stat().st_size)
    with pytest.raises(Locked, match="vectorkeep update"):
        Call(BACKUP, workspace).result()
    assert run.wait().code == 0
    assert len(list((workspace.root / "backups").glob("backup_*.tar.gz"))) == 1


def foreign_writer(settings: Any) -> int:
    """In the process: Chroma's own client, which knows nothing of our lock, writes, edits and deletes until told."""
    from chromadb.errors import InternalError

    from tests.support.chroma_helpers import open_client, unit_vectors

    writes = refused = 0
    with open_client(settings.path(settings.chroma_path)) as client:
        theirs = client.get_or_create_collection(
            "theirs", configuration={"hnsw": {"sync_threshold": 20, "batch_size": 10}}
        )
        while not (settings.workspace / "stop").exists():
            ids = [f"row-{(writes * 7 + n) % 60}" for n in range(5)]
            try:
                theirs.upsert(ids=ids, embeddings=unit_vectors(5, 32, writes), documents=[f"{i} {writes}" for i in ids])
                if writes % 5 == 4:
                    theirs.delete(ids=ids[:2])
            except InternalError:  # SQLite's lock was held: its own affair, and it goes on
                refused += 1
            writes += 1
            time.sleep(0.005)
    return writes - refused


def reader(settings: Any) -> int:
    """In the process: asks the store again and again, as a program that serves it would."""
    from tests.support.chroma_helpers import open_client, unit_vectors

    reads = 0
    with open_client(settings.path(settings.chroma_path)) as client:
        docs = client.get_collection("docs")
        while not (settings.workspace / "stop").exists():
            assert len(docs.get(limit=5, include=["embeddings"])["ids"]) == 5
            assert docs.query(query_embeddings=unit_vectors(1, 64, reads), n_results=3)["ids"][0]
            reads += 1
            time.sleep(0.01)
    return reads


def backups_in_a_row(settings: Any, number: int) -> list[str]:
    """In the process: so many, one after the other."""
    from vectorstore.backup import backup

    return [backup(settings, kind="full" if n % 5 else "portable").name for n in range(number)]


def restored_and_judged(settings: Any, names: list[str]) -> dict[str, tuple[dict[str, int], HealthReport]]:
    """In the process: each restored into a folder of its own, the rows counted, a deep health check."""
    from dataclasses import replace

    from vectorstore.findings import Depth
    from vectorstore.health import health
    from vectorstore.restore import restore

    found = {}
    for name in names:
        into = settings.workspace.parent / f"into-{name}"
        report = restore(settings, name, into=into, accept_findings=True)
        staged = replace(settings, workspace=into, source=settings.path(settings.source), backups_path=settings.backups)
        found[name] = report.collections, health(staged, depth=Depth.DEEP)
        shutil.rmtree(into)
    return found


@pytest.mark.slow
def test_fifty_backups_beside_readers_and_a_writer(base: Workspace, tmp_path: Path) -> None:
    """All of them restore and pass deep health, though somebody else's program wrote to the store all the time."""
    workspace = base.copy(tmp_path / "w")
    shutil.rmtree(workspace.root / "backups")
    writer, readers = Call(f"{__name__}:foreign_writer", workspace), Call(f"{__name__}:reader", workspace)
    time.sleep(1)
    try:
        names = Call(f"{__name__}:backups_in_a_row", workspace, number=50).result()
    finally:
        (workspace.root / "stop").touch()
    writes, reads = writer.result(), readers.result()
    assert len(set(names)) == 50 and writes > 50 and reads > 20
    judged: dict[str, tuple[dict[str, int], HealthReport]] = {}
    for half in [Call(f"{__name__}:restored_and_judged", workspace, names=names[n::2]) for n in range(2)]:
        judged |= half.result()
    theirs, bad = set(), {}
    for name, (collections, report) in judged.items():
        assert collections["docs"] == 12
        theirs.add(collections["theirs"])
        if found := named(report, Severity.FAIL):
            bad[name] = found
    assert not bad, f"{len(bad)} of {len(judged)}: {bad}"
    assert len(judged) == 50 and len(theirs) > 1, "the writer wrote meanwhile"
    print(f"\n{writes} foreign writes, {reads} reads; {len(theirs)} states of the foreign collection")


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [0, 8, 40, 150, 300, 600])
@pytest.mark.parametrize("verb", [BACKUP, RESTORE])
def test_full_disk(small_disk: Path, verb: str, kilobytes: int) -> None:
    """Wherever it runs full: a clear error, nothing lost, and with more room the same again goes through."""
    resize(small_disk, 64_000)
    workspace = Workspace(small_disk / "w", probe_max_mb=0, dimensions=128)
    workspace.fill(30)
    workspace.update()
    name = Call(BACKUP, workspace).result().name
    then = rows_of(workspace)
    workspace.write("00/page-00000.md", document("edited"))
    workspace.update()
    now, before = rows_of(workspace), digests(workspace.store)
    used = sum(path.lstat().st_blocks * 512 for path in small_disk.rglob("*")) // 1024
    resize(small_disk, used + kilobytes)
    options = {"which": name} if verb == RESTORE else {"cache": True}
    try:
        Call(verb, workspace, **options).result()
        assert kilobytes >= 150, "there was no room for it"
    except VectorkeepError as error:
        said = f"{error.message} {error.hint}"
        assert "room" in said and ("space" in said or "full" in said or "needs" in said), said
        assert digests(workspace.store) == before
        assert [path.name for path in (workspace.root / "backups").glob("backup_*.tar.gz")] == [f"{name}.tar.gz"]
    resize(small_disk, 64_000)
    if verb == RESTORE:
        after = aftermath(workspace, "restore", which=name)
        assert after.settled == then
    else:
        after = aftermath(workspace, "backup", cache=True)
    assert after.end == now and not after.bad and not after.litter and not after.embedded


def test_a_store_that_is_a_mount_point(small_disk: Path, tmp_path: Path) -> None:
    """It can't be exchanged: refused before anything is done, not in the middle."""
    resize(small_disk, 64_000)
    workspace = Workspace(tmp_path / "w", probe_max_mb=0, chroma_path=str(small_disk))
    workspace.fill(3)
    workspace.update()
    Call(BACKUP, workspace).result()
    before = digests(small_disk)
    with pytest.raises(VectorkeepError, match="mount point"):
        Call(RESTORE, workspace).result()
    assert digests(small_disk) == before and workspace.update()["kinds"] == {"unchanged": 3}
