"""SIGKILL at every step of a restore: the store is wholly the old one or wholly the new one, the ledger is in step with
it, and whatever is run next carries on; nothing is to be cleaned by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.aftermath import After, Rows, aftermath, files_below
from tests.support.chroma_helpers import file_limit
from tests.support.disks import resize
from tests.support.kill_points import Point, at_each, kill, points_of, spread
from tests.support.looking import Call, rows_of, traces
from tests.support.workbench import Workspace, document

RESTORE = "vectorstore.restore:restore"
NEXT = ("update", "backup", "restore")


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


class Scene:
    """A workspace that went on since its two backups.

    Attributes:
        then: rows when the backups were made.
        now: rows that are there, and that an update brings back.
        full, portable: the backups' names.
    """

    def __init__(self, folder: Path, store_disk: Path | None = None) -> None:
        elsewhere = {"chroma_path": str(store_disk / "base" / "chroma")} if store_disk else {}
        self.base = Workspace(folder / "base", probe_max_mb=0, **elsewhere)
        self.base.fill(6, sections=2)
        self.base.update()
        self.then = rows_of(self.base)
        self.full, self.portable = (
            Call("vectorstore.backup:backup", self.base, kind=kind).result().name for kind in ("full", "portable")
        )
        self.base.write("00/page-00000.md", document("edited", 2))  # the same ids, another text
        self.base.write("00/page-00001.md", document("longer", 3))
        self.base.write("new.md", document("new", 1))
        (self.base.docs / "00/page-00005.md").unlink()
        self.base.update()
        self.now = rows_of(self.base)
        assert self.then != self.now
        self.folder, self._store_disk, self._number = folder, store_disk, count()

    def copy(self, base: Workspace | None = None) -> Workspace:
        """The same anew."""
        base, name = base or self.base, f"copy-{next(self._number)}"
        if not self._store_disk:
            return base.copy(self.folder / name)
        shutil.copytree(base.store.parent, self._store_disk / name)
        return base.copy(self.folder / name, chroma_path=str(self._store_disk / name / "chroma"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


KINDS = {"added": 1, "changed": 2, "deleted": 1}


def kill_in_place(
    scene: Scene, most: int, *, base: Workspace | None = None, before: Rows, after: Rows, last: int = 10_000,
    whole: bool = True, **options: Any,
) -> None:  # fmt: skip
    """At ``most`` points; the store is as ``before`` or as ``after``, and both happen.

    Args:
        last: only so many of its points.
        whole: whether one of them is in place at every moment, not only once the next run has begun.
    """
    steps = spread(points_of(RESTORE, scene.copy(base), **options)[-last:], most)
    seen: list[bool] = []

    def one(point: Point) -> None:
        workspace = scene.copy(base)
        assert kill(RESTORE, workspace, point, **options)
        verb = NEXT[point.step % 3]
        again = {} if verb != "restore" else {k: v for k, v in options.items() if k != "exchange" and k != "undo"}
        if verb == "restore" and options.get("undo"):
            again = {"which": scene.full}
        found = aftermath(workspace, verb, **again)
        seen.append(check(scene, found, verb, before, after, whole))
        for path in (workspace.root, workspace.store.parent):
            shutil.rmtree(path, ignore_errors=True)

    at_each(steps, one)
    assert set(seen) == {False, True}, "old and new"
    print(f"\n{len(steps)} points, {sum(seen)} of them new")


def check(scene: Scene, found: After, verb: str, before: Rows, after: Rows, whole: bool) -> bool:
    """Whether it is the new one."""
    if found.rows is not None:
        assert found.rows in (before, after), "neither old nor new"
    assert found.rows is not None or not whole, "nothing in place"
    if verb == "backup":
        assert found.settled in (before, after), "neither old nor new after a backup"
    if verb == "restore":
        assert found.settled == scene.then
    assert not found.litter, found.litter
    assert found.kinds in ({}, KINDS), found.kinds
    if verb == "backup":
        assert found.kinds == ({} if found.settled == scene.now else KINDS), found.kinds
    assert found.embedded == 0, f"{found.embedded} chunks are paid again"
    assert found.end == scene.now, "an update does not bring it in step"
    assert found.plan and not found.bad and found.backups >= 2, (found.plan, found.bad)
    return (found.settled or found.rows) == after


@pytest.mark.slow
def test_full(scene: Scene) -> None:
    kill_in_place(scene, 60, which=scene.full, before=scene.now, after=scene.then)


@pytest.mark.slow
def test_without_an_exchange(scene: Scene) -> None:
    """Where the system can't exchange folders at once, the store may lack for a moment: the next run brings it."""
    options = {"which": scene.full, "exchange": False}
    kill_in_place(scene, 25, last=50, whole=False, before=scene.now, after=scene.then, **options)


@pytest.mark.slow
def test_portable(scene: Scene) -> None:
    kill_in_place(scene, 25, which=scene.portable, before=scene.now, after=scene.then)


@pytest.mark.slow
def test_one_collection(scene: Scene) -> None:
    options = {"which": scene.portable, "collections": ("docs",)}
    kill_in_place(scene, 25, before=scene.now, after=scene.then, **options)


@pytest.mark.slow
def test_undo(scene: Scene) -> None:
    restored = scene.copy()
    Call(RESTORE, restored, which=scene.full).result()
    kill_in_place(scene, 20, base=restored, undo=True, before=scene.then, after=scene.now)


@pytest.mark.slow
def test_store_on_another_disk(tmp_path: Path, small_disk: Path) -> None:
    """The ledger can't be renamed from where it was staged."""
    resize(small_disk, 64_000)
    scene = Scene(tmp_path, small_disk)
    kill_in_place(scene, 12, last=70, which=scene.full, before=scene.now, after=scene.then)


@pytest.mark.slow
def test_into_a_folder(scene: Scene) -> None:
    """What was killed there does not look like a store, and the same command again carries on."""
    base = scene.copy()
    folder = scene.folder / "into"
    folder.mkdir()
    steps = points_of(RESTORE, base, which=scene.full, into=folder / "first")
    whole = files_below(folder / "first")

    def one(point: Point) -> None:
        parent = folder / f"{point.step}-{point.when}"
        into = parent / "x"
        if point.step % 2:
            into.mkdir(parents=True)  # an empty folder will do as well
        assert kill(RESTORE, base, point, which=scene.full, into=into)
        there = files_below(into) if into.is_dir() else []
        assert there in ([], whole), f"{len(there)} of {len(whole)} files"
        if not there:
            Call(RESTORE, base, which=scene.full, into=into).result()
        assert Call("tests.support.aftermath:rows_at", base, store=into / "chroma").result() == scene.then
        assert files_below(into) == whole and [path.name for path in parent.iterdir()] == ["x"]
        shutil.rmtree(parent)

    before = traces(base)
    at_each(steps, one)
    assert traces(base) == before, "the workspace itself is not touched"
