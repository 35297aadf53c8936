"""SIGKILL before, within and after every change that publish, prune, push and fetch ask of the operating system.

Afterwards no bad archive has a good name, a backup that was there is as it was, and the next run carries on: nothing is
to be cleaned by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.backup_files import assert_sound, data_of, make_backup, name_at, unix, written
from tests.support.killing import kill_everywhere, recorded
from vectorstore.backups import catalog, history
from vectorstore.backups.catalog import list_backups
from vectorstore.backups.offsite import fetch, list_remote, push, verify_remote
from vectorstore.prune import prune
from vectorstore.settings import load_settings

NOW = unix("2026-11-21 17:12:00")
OLD, NEW, NEXT = (name_at(f"2026-11-{day} 03:00:00") for day in (19, 20, 21))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def of(*names: str) -> set[str]:
    return {f"{name}{suffix}" for name in names for suffix in (".tar.gz", ".manifest.json")}


def scene(folder: Path, make: Callable[[Path], object]) -> Callable[[], None]:
    """Sets the scene anew."""
    make(folder / "made")

    def again() -> None:
        shutil.rmtree(folder / "now", ignore_errors=True)
        shutil.copytree(folder / "made", folder / "now")

    again()
    return again


@pytest.mark.parametrize("encrypted", [False, True])
def test_publish(tmp_path: Path, encrypted: bool) -> None:
    def make(folder: Path) -> None:
        make_backup(folder, OLD)
        written(folder, NEW, encrypted=encrypted)

    again, folder = scene(tmp_path, make), tmp_path / "now"
    sidecar = written(tmp_path / "other", NEW, encrypted=encrypted)[1]
    points = published = 0
    for _where in kill_everywhere(lambda: catalog.publish(catalog.partial_path(folder, NEW), sidecar, folder)):
        points += 1
        found = list_backups(folder)
        assert_sound(folder, found)
        assert [each.name for each in found] in ([OLD], [NEW, OLD])
        published += len(found) == 2
        catalog.sweep(folder)
        assert_sound(folder, list_backups(folder))
        assert files(folder) == {file for each in found for file in (each.archive.name, f"{each.name}.manifest.json")}
        make_backup(folder, NEXT if len(found) == 2 else catalog.new_name(folder, NOW))
        assert_sound(folder, list_backups(folder))
        again()
    assert points >= 20 and 0 < published < points


def test_a_power_cut(tmp_path: Path) -> None:
    """What must not come before another on the disk waits for it there: kills can't show that, the order does."""
    (tmp_path / "far").mkdir()
    partial, sidecar = written(tmp_path / "home", NEW)
    archive, beside = f"{NEW}.tar.gz", f"{NEW}.manifest.json"
    with recorded() as calls:
        backup = catalog.publish(partial, sidecar, tmp_path / "home")
    assert calls == [
        "fsync", f"unlink .partial-{beside}", f"open .partial-{beside}", "write", "fsync", f"link .partial-{beside}",
        f"unlink .partial-{beside}", "fsync", f"link .partial-{archive}", "fsync", f"unlink .partial-{archive}",
    ]  # fmt: skip
    with recorded() as calls:
        push(backup, str(tmp_path / "far"))
    assert calls == [
        call for file, call_of in ((archive, "put"), (beside, "put"), (beside, "move"), (archive, "move"))
        for call in {
            "put": (f"unlink {file}.part", f"open {file}.part", "write", "fsync"),
            "move": (f"link {file}.part", "fsync", f"unlink {file}.part", "fsync"),
        }[call_of]
    ]  # fmt: skip
    with recorded() as calls:
        catalog.remove(backup)
    assert calls == [f"rename {archive}", "fsync", f"unlink {beside}", "fsync", f"unlink .gone-{archive}"]


def test_sweep(tmp_path: Path) -> None:
    """Killed while it takes away what a killed publish and a killed prune left."""

    def make(folder: Path) -> None:
        make_backup(folder, NEXT)
        gone = make_backup(folder, OLD)
        gone.archive.rename(folder / f".gone-{gone.archive.name}")
        _, sidecar = written(folder, NEW)
        (folder / f"{NEW}.manifest.json").write_text(sidecar.to_text())
        (folder / f".partial-{NEW}.manifest.json").write_text(sidecar.to_text()[:100])

    again, folder = scene(tmp_path, make), tmp_path / "now"
    points = 0
    for _where in kill_everywhere(lambda: catalog.sweep(folder)):
        points += 1
        assert_sound(folder, list_backups(folder))
        catalog.sweep(folder)
        assert files(folder) == of(NEXT)
        again()
    assert points >= 10


def test_prune(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        folder.mkdir()
        for day in range(10, 16):
            make_backup(folder / "backups", name_at(f"2026-11-{day} 03:00:00"), encrypted=day % 2 == 0)

    again, folder = scene(tmp_path, make), tmp_path / "now" / "backups"
    keep = [each.name for each in list_backups(folder)][:3]
    settings = load_settings(tmp_path / "now", backup_keep=3, backup_days=0)
    points, lost = 0, set()
    for _where in kill_everywhere(lambda: prune(settings, clock=lambda: NOW)):
        points += 1
        found = list_backups(folder)
        assert_sound(folder, found)
        assert [each.name for each in found][:3] == keep
        lost.add(6 - len(found))
        prune(settings, clock=lambda: NOW)
        assert [each.name for each in list_backups(folder)] == keep
        assert_sound(folder, list_backups(folder))
        assert {file for file in files(folder) if not file.startswith("backup_")} <= {history.FILE}
        assert len(files(folder) - {history.FILE}) == 6
        again()
    assert points >= 40 and lost == {0, 1, 2, 3}


def test_pin(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        make_backup(folder, OLD)
        catalog.pin(folder, OLD, "the first reason")

    again, folder = scene(tmp_path, make), tmp_path / "now"
    points, seen = 0, set()
    for _where in kill_everywhere(lambda: catalog.pin(folder, OLD, "the second reason")):
        points += 1
        (found,) = list_backups(folder)
        seen.add(found.pinned)
        assert not found.problem
        assert catalog.pin(folder, OLD, "third").pinned == "third"
        again()
    assert points >= 7 and seen == {"the first reason", "the second reason"}


def test_an_event(tmp_path: Path) -> None:
    first, second, third = (history.Event("verify", OLD, float(at)) for at in range(3))
    points = 0
    history.append(tmp_path, first)
    before = (tmp_path / history.FILE).read_bytes()
    for _where in kill_everywhere(lambda: history.append(tmp_path, second)):
        points += 1
        history.append(tmp_path, third)
        assert history.read(tmp_path) in ([first, third], [first, second, third])
        (tmp_path / history.FILE).write_bytes(before)
    assert points == 7


@pytest.mark.parametrize("next_one", [False, True])
def test_push(tmp_path: Path, next_one: bool) -> None:
    """To a folder that holds an older backup; then the same is pushed again, ``next_one``: after another."""
    again, place = scene(tmp_path, lambda folder: make_backup(folder, OLD)), tmp_path / "now"
    backup, later = (make_backup(tmp_path / "home", name) for name in (NEW, NEXT))
    points = pushed = 0
    for _where in kill_everywhere(lambda: push(backup, str(place))):
        points += 1
        found = list_remote(str(place))
        assert_sound(place, found)
        assert [each.name for each in found] in ([OLD], [NEW, OLD])
        pushed += len(found) == 2
        if next_one:
            assert push(later, str(place))
            assert files(place) == of(*(each.name for each in found), NEXT)
        push(backup, str(place))
        assert verify_remote(str(place), NEW).size == 10_000
        assert_sound(place, list_remote(str(place)))
        assert files(place) == of(OLD, NEW, *([NEXT] if next_one else []))
        again()
    assert points >= 30 and 0 < pushed < points


def test_fetch(tmp_path: Path) -> None:
    again, home = scene(tmp_path, lambda folder: make_backup(folder, OLD)), tmp_path / "now"
    place = tmp_path / "place"
    make_backup(place, NEW)
    points = fetched = 0
    for _where in kill_everywhere(lambda: fetch(str(place), "latest", home)):
        points += 1
        found = list_backups(home)
        assert_sound(home, found)
        assert [each.name for each in found] in ([OLD], [NEW, OLD])
        fetched += len(found) == 2
        assert fetch(str(place), NEW, home).archive.read_bytes() == data_of(NEW)
        catalog.sweep(home)
        assert files(home) == of(OLD, NEW)
        again()
    assert points >= 25 and 0 < fetched < points
