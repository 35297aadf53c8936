"""Restore, in place: what comes back is what was backed up, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_helpers import file_limit
from tests.support.disks import resize
from tests.support.kept import OPEN, PRIVATE, Kept, facts
from tests.support.workbench import Row, read_store
from vectorstore.lock import WriterLock

Backed = tuple[Kept, str, str]


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


def change(workspace: Kept) -> dict[str, Row]:
    """Go on for a day: one document changed, one new, one gone; what the store holds now."""
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    workspace.write("c/new.md", "# New\n\nIn a collection of its own.\n")
    (workspace.docs / "b" / "page-1.md").unlink()
    workspace.update()
    return workspace.rows()


def undo_change(workspace: Kept, template: Path) -> None:
    """The documents as they were."""
    (workspace.docs / "c" / "new.md").unlink()
    for key in ("a/page-0.md", "b/page-1.md"):
        workspace.write(key, (template / "docs" / key).read_bytes())


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("kind", [1, 2], ids=["full", "portable"])
def test_all_comes_back_and_an_update_pays_nothing(backed_up: Backed, tmp_path: Path, kind: int, cached: bool) -> None:
    workspace, name = backed_up[0], str(backed_up[kind])
    due, files = workspace.rows(), workspace.store_files()
    saved = workspace.copy(tmp_path / "saved")
    now = change(workspace)
    assert now != due
    report = workspace.report("restore", name)
    assert workspace.rows() == due
    assert kind == 2 or workspace.store_files() == files
    assert report["documents"] == OPEN + PRIVATE
    assert sum(report["collections"].values()) == len(due) and sum(report["replaces"].values()) == len(now)
    assert workspace.report("verify", report["safety"])["state"] == "verified"
    workspace.assert_tidy()
    undo_change(workspace, saved.root)
    if not cached:
        workspace.cache.unlink()
    workspace.assert_settled()
    assert workspace.run("health", "--depth", "deep").code == 0


def test_files_of_the_index_come_back_with_modes_and_times(indexed: tuple[Kept, str]) -> None:
    workspace, name = indexed
    for number, path in enumerate(sorted(workspace.store.rglob("*.*"))):
        path.chmod((0o600, 0o640, 0o644)[number % 3])
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number))
    name = workspace.report("backup")["name"]
    files, rows = workspace.store_files(), workspace.rows()
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    workspace.update()
    assert workspace.store_files() != files
    workspace.report("restore", name)
    assert workspace.store_files() == files and workspace.rows() == rows


def test_under_cosine_a_portable_one_is_as_near_as_distances_see(tmp_path: Path) -> None:
    workspace = Kept(tmp_path / "ws", space="cosine")
    workspace.fill_small()
    workspace.update()
    due = workspace.rows()
    workspace.report("backup", "--kind", "portable")
    (workspace.docs / "a" / "page-0.md").write_text("# Other\n\nOther words.\n")
    workspace.update()
    workspace.report("restore")
    found = workspace.rows()
    assert {id_: row[1:] for id_, row in found.items()} == {id_: row[1:] for id_, row in due.items()}
    vectors, others = ([np.frombuffer(rows[id_][0], np.float32) for id_ in due] for rows in (due, found))
    np.testing.assert_allclose(vectors, others, rtol=0, atol=1e-6)


def test_the_ways_to_name_one(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    for which, name in {
        "latest": portable, full: full, f"{full}.tar.gz": full, f"{full}.manifest.json": full,
    }.items():  # fmt: skip
        assert workspace.report("restore", which, "--dry-run")["name"] == name
    said = workspace.refused("restore", "backup_20200101_000000", code=2)
    assert f"next: there are {portable}, {full}" in said


def test_latest_is_never_what_a_restore_replaced(backed_up: Backed) -> None:
    """Whoever restores twice must not get the broken state back."""
    workspace, _, portable = backed_up
    due = workspace.rows()
    change(workspace)
    first = workspace.report("restore")
    assert workspace.report("restore", "--dry-run")["name"] == portable
    again = workspace.report("restore", "latest")
    assert first["name"] == again["name"] == portable and workspace.rows() == due
    assert workspace.report("restore", first["safety"])["name"] == first["safety"]


def test_undo_goes_back_and_forth(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    assert "there is no restore to undo" in workspace.refused("restore", "--undo", code=2)
    before = workspace.rows()
    after = change(workspace)
    safety = workspace.report("restore", full)["safety"]
    assert workspace.rows() == before
    assert workspace.report("restore", "--undo")["name"] == safety
    assert workspace.rows() == after
    workspace.assert_settled(OPEN + PRIVATE)
    workspace.report("restore", "--undo")
    assert workspace.rows() == before


def test_without_a_safety_backup_there_is_nothing_to_undo(backed_up: Backed) -> None:
    workspace, full, portable = backed_up
    report = workspace.report("restore", full, "--no-safety-backup")
    assert report["safety"] == "" and workspace.names() == [portable, full]
    workspace.refused("restore", "--undo", code=2)


@pytest.mark.parametrize("argv", [[], ["--into", "else"], ["--collection", "docs_a"]], ids=" ".join)
def test_a_dry_run_changes_no_byte(backed_up: Backed, argv: list[str]) -> None:
    workspace, _, name = backed_up
    now = change(workspace)
    before = facts(workspace.root)
    report = workspace.report("restore", "--dry-run", *argv)
    assert facts(workspace.root) == before
    assert (report["state"], report["name"], report["safety"]) == ("planned", name, "")
    replaced = [id_ for id_ in now if not argv or argv[1] == id_.split("/")[0]]
    assert sum(report["replaces"].values()) == len(replaced)


def test_a_dry_run_is_as_strict_as_the_deed(backed_up: Backed, tmp_path: Path) -> None:
    workspace, full, portable = backed_up
    (tmp_path / "full" / "x").mkdir(parents=True)
    archive = workspace.archive(portable)
    for argv, code in {
        (full, "--collection", "docs_a"): 2, ("--collection", "other"): 2, ("--into", str(tmp_path / "full")): 5,
    }.items():  # fmt: skip
        assert workspace.refused("restore", *argv, "--dry-run", code=code) == workspace.refused(
            "restore", *argv, code=code
        )
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert workspace.refused("restore", portable, "--dry-run", code=6)
    assert workspace.refused("restore", portable, code=6)


# -- single collections


def test_single_collections_with_the_ledger_in_step(backed_up: Backed, tmp_path: Path) -> None:
    workspace, _, portable = backed_up
    saved, before = workspace.copy(tmp_path / "saved"), workspace.rows()
    after = change(workspace)
    report = workspace.report("restore", portable, "--collection", "docs_a")
    assert (report["collections"], report["replaces"]) == ({"docs_a": OPEN}, {"docs_a": OPEN - 1})
    due = {id_: row for id_, row in after.items() if not id_.startswith("docs_a/")}
    due |= {id_: row for id_, row in before.items() if id_.startswith("docs_a/")}
    assert workspace.rows() == due
    workspace.write("a/page-0.md", (saved.docs / "a" / "page-0.md").read_bytes())
    workspace.cache.unlink()
    workspace.assert_settled(OPEN + PRIVATE)
    workspace.report("restore", "--undo")
    assert workspace.rows() == after


def test_single_collections_while_somebody_reads_the_ledger(backed_up: Backed, tmp_path: Path) -> None:
    """What was committed lies beside the ledger for as long as it is read."""
    import sqlite3

    workspace, _, portable = backed_up
    saved = workspace.copy(tmp_path / "saved")
    change(workspace)
    with sqlite3.connect(workspace.ledger, isolation_level=None) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM documents").fetchone()
        workspace.report("restore", portable, "--collection", "docs_a")
        workspace.write("a/page-0.md", (saved.docs / "a" / "page-0.md").read_bytes())
        workspace.assert_settled(OPEN + PRIVATE)
    reader.close()


def test_a_collection_that_was_lost(backed_up: Backed) -> None:
    workspace, _, portable = backed_up
    before = workspace.rows()
    for path in (workspace.docs / "private").iterdir():
        path.rename(path.with_suffix(".away"))
    workspace.update()
    assert len(workspace.rows()) < len(before)
    workspace.report("restore", portable, "--collection", "docs_private")
    assert workspace.rows() == before
    for path in (workspace.docs / "private").iterdir():
        path.rename(path.with_suffix(".md"))
    workspace.assert_settled()


# -- the worst day


def test_the_store_is_gone(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    workspace.store.rename(workspace.root.parent / "gone")
    report = workspace.report("restore", full)
    assert (report["safety"], report["replaces"]) == ("", {})
    assert workspace.rows() == before
    workspace.assert_settled()


def test_all_is_gone_but_documents_and_backups(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    workspace.store.rename(workspace.root.parent / "gone")
    (workspace.root / ".hashes").rename(workspace.root.parent / "gone too")
    workspace.report("restore", full)
    assert workspace.rows() == before
    workspace.assert_settled()


@pytest.mark.parametrize("hurt", ["sqlite cut", "sqlite is noise", "sqlite gone", "index cut", "index gone", "empty"])
def test_a_damaged_store_is_kept_and_mended(indexed: tuple[Kept, str], hurt: str) -> None:
    """The backup of what was there holds the damaged files as they were; who wants them back gets them."""
    workspace, name = indexed
    before = workspace.rows()
    sqlite = workspace.store / "chroma.sqlite3"
    (segment,) = (path for path in workspace.store.iterdir() if path.is_dir())
    if hurt == "sqlite cut":
        os.truncate(sqlite, sqlite.stat().st_size // 2)
    elif hurt == "sqlite is noise":
        sqlite.write_bytes(b"something else" * 10_000)
    elif hurt in ("sqlite gone", "empty"):
        sqlite.unlink()
    elif hurt == "index cut":
        os.truncate(segment / "data_level0.bin", 1000)
    if hurt in ("index gone", "empty"):
        for path in segment.iterdir():
            path.unlink()
        segment.rmdir()
    damaged = workspace.store_files()
    report = workspace.report("restore")
    assert report["name"] == name and workspace.rows() == before
    workspace.assert_settled(24)
    assert bool(report["safety"]) == bool(damaged)
    if damaged:
        workspace.report("restore", "--undo", "--no-safety-backup")
        assert workspace.store_files() == damaged


@pytest.mark.parametrize("hurt", ["gone", "noise", "cut"])
def test_a_ledger_that_is_gone_or_damaged(backed_up: Backed, hurt: str) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    if hurt == "gone":
        workspace.ledger.unlink()
    elif hurt == "noise":
        workspace.ledger.write_bytes(b"something else" * 1000)
    else:
        os.truncate(workspace.ledger, workspace.ledger.stat().st_size // 2)
    report = workspace.report("restore", full)
    assert report["safety"] and workspace.rows() == before
    assert hurt == "gone" or any("the ledger could not be read" in note for note in report["notes"])
    workspace.assert_settled()


def test_single_collections_beside_a_ledger_that_is_gone(backed_up: Backed) -> None:
    workspace, _, portable = backed_up
    before = workspace.rows()
    workspace.ledger.unlink()
    report = workspace.report("restore", portable, "--collection", "docs_a")
    assert any("docs_a" in note for note in report["notes"])
    workspace.update()
    assert workspace.rows() == before


def test_a_backup_without_a_ledger(small: Kept) -> None:
    small.ledger.unlink()
    name = small.report("backup")["name"]
    before = small.rows()
    small.update()
    report = small.report("restore", name)
    assert any("the backup holds no ledger" in note for note in report["notes"])
    assert small.update()["chunks_embedded"] == 0
    assert small.rows() == before


def test_a_lost_cache_comes_back_and_one_that_is_there_stays(small: Kept) -> None:
    name = small.report("backup", "--cache")["name"]
    cache = small.cache.read_bytes()
    small.write("a/new.md", "# New\n\nPaid since.\n")
    small.update()
    later = small.cache.read_bytes()
    report = small.report("restore", name)
    assert small.cache.read_bytes() == later != cache
    assert any("the vector cache is kept" in note for note in report["notes"])
    small.cache.unlink()
    small.report("restore", name)
    assert small.cache.read_bytes() == cache


def test_a_bad_backup_changes_nothing(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    archive = workspace.archive(full)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    said = workspace.refused("restore", full, code=6)
    assert full in said and "next: choose another: `vectorkeep backups`" in said
    assert [event["ok"] for event in workspace.events() if event["event"] == "restore"] == [False]
    workspace.assert_tidy()


def test_the_pipeline_has_changed_since(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    workspace.set(dimensions=32)
    workspace.update("--mode", "stale")
    assert workspace.rows() != before
    report = workspace.report("restore", full)
    assert any("it was made by hash/blake2b/64" in note and "/32/" in note for note in report["notes"])
    assert workspace.rows() == before
    workspace.update(code=5)
    workspace.set(dimensions=64)
    workspace.assert_settled()


# -- other places


@pytest.mark.parametrize("place", ["data/store", "../elsewhere/store"])
def test_a_store_in_another_place(tmp_path: Path, place: str) -> None:
    workspace = Kept(tmp_path / "ws", chroma_path=place)
    workspace.fill_small()
    workspace.update()
    due, files = workspace.rows(), workspace.store_files()
    name = workspace.report("backup")["name"]
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    workspace.update()
    workspace.report("restore", name)
    assert workspace.rows() == due and workspace.store_files() == files
    assert sorted(path.name for path in workspace.store.parent.iterdir()) == ["store", "store.lock"]
    assert not (workspace.root / "chroma").exists()


def test_a_store_behind_a_link(backed_up: Backed, tmp_path: Path) -> None:
    """The link stays, and the disk that it leads to is the one that is used."""
    workspace, full, _ = backed_up
    before = workspace.rows()
    (tmp_path / "disk").mkdir()
    (workspace.root / "chroma").rename(tmp_path / "disk" / "store")
    (workspace.root / "chroma").symlink_to(tmp_path / "disk" / "store")
    change(workspace)
    workspace.report("restore", full)
    assert (workspace.root / "chroma").is_symlink() and workspace.rows() == before
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["store", "store.lock"]


def test_a_store_on_another_disk_than_the_ledger(backed_up: Backed, small_disk: Path) -> None:
    workspace, full, _ = backed_up
    before = workspace.rows()
    resize(small_disk, 16384)
    workspace.set(chroma_path=str(small_disk / "store"))
    workspace.report("restore", full)
    assert workspace.rows() == before
    workspace.assert_settled()
    workspace.assert_tidy()


def test_a_store_that_is_a_mount_point_is_refused_at_once(backed_up: Backed, small_disk: Path) -> None:
    """A mount point can't be renamed; a restore that finds that out in the middle would bar the way of every update."""
    workspace, full, _ = backed_up
    resize(small_disk, 16384)
    workspace.set(chroma_path=str(small_disk))
    workspace.update()
    for argv in ([], ["--dry-run"]):
        assert "is a mount point" in workspace.refused("restore", full, *argv, code=2)
    workspace.assert_settled()
    bound = workspace.root / "bound store"
    bound.mkdir()
    subprocess.run(["mount", "--bind", str(workspace.root / "chroma"), str(bound)], check=True)
    try:
        workspace.set(chroma_path="bound store")
        assert "is a mount point" in workspace.refused("restore", full, code=2)
    finally:
        subprocess.run(["umount", str(bound)], check=True)


def test_into_a_folder_that_is_a_workspace_at_once(backed_up: Backed, tmp_path: Path) -> None:
    workspace, full, _ = backed_up
    before, files = workspace.rows(), workspace.files()
    report = workspace.report("restore", full, "--into", str(tmp_path / "new"))
    assert workspace.files() == files
    new = Kept.__new__(Kept)
    new.root, new.values = tmp_path / "new", workspace.values
    assert report["into"] == str(new.root) and new.rows() == before
    new.assert_settled()
    assert new.run("health").code == 0
    hits = json.loads(new.run("search", "Title open 0", code=0).out)["hits"]
    assert hits
    assert "backup_" in new.say("backup") and new.report("restore")["safety"]
    assert workspace.files() == files


@pytest.mark.parametrize("kind", [1, 2], ids=["full", "portable"])
def test_a_folder_of_its_own_never_writes_to_the_old_store(backed_up: Backed, tmp_path: Path, kind: int) -> None:
    """The settings that come back name the old store by its absolute path."""
    workspace = backed_up[0]
    store = tmp_path / "elsewhere" / "store"
    store.parent.mkdir()
    workspace.store.rename(store)
    workspace.set(chroma_path=str(store))
    name = workspace.report("backup", "--kind", ("full", "portable")[kind - 1])["name"]
    before, files = workspace.rows(), workspace.store_files()
    report = workspace.report("restore", name, "--into", str(tmp_path / "new"))
    assert any("chroma_path is now 'chroma'" in note for note in report["adapted"])
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    done = workspace.cli("update", "--json", "--workspace", str(tmp_path / "new"))
    assert done.report["kinds"] == {"changed": 1, "unchanged": OPEN + PRIVATE - 1}
    assert workspace.store_files() == files
    assert len(read_store(tmp_path / "new" / "chroma")) == len(before) - 1


def test_into_a_folder_that_is_not_empty(backed_up: Backed, tmp_path: Path) -> None:
    workspace, full, _ = backed_up
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine")
    assert "is not an empty folder" in workspace.refused("restore", full, "--into", str(tmp_path / "new"), code=5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_what_fails_leaves_the_folder_as_it_was(backed_up: Backed, tmp_path: Path) -> None:
    workspace, full, _ = backed_up
    archive = workspace.archive(full)
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        workspace.refused("restore", full, "--into", str(tmp_path / name), code=6)
    assert list((tmp_path / "there").iterdir()) == [] and not (tmp_path / "new").exists()


# -- guards


def test_guards(backed_up: Backed) -> None:
    workspace, full, _ = backed_up
    for setting, word in (("paused", "set paused = false"), ("protected", "set protected = false")):
        workspace.set(**{setting: True})
        assert word in workspace.refused("restore", full, code=5)
        assert workspace.report("restore", full, "--dry-run")["state"] == "planned"
        workspace.set(**{setting: None})
    workspace.set(sensitive=["private/**"])
    said = workspace.refused("restore", full, code=5)
    assert "confirm with --include-sensitive, or go without with --no-safety-backup" in said
    assert workspace.report("restore", full, "--include-sensitive")["safety"]
    workspace.set(sensitive=None)
    with WriterLock([workspace.root / ".hashes" / "writer.lock"], "vectorkeep update"):
        assert "another run is writing" in workspace.refused("restore", full, code=4)


def test_a_selective_backup_comes_back(backed_up: Backed, tmp_path: Path) -> None:
    workspace = backed_up[0]
    before = workspace.rows()
    workspace.set(sensitive=["private/**"])
    name = workspace.report("backup", "--selective")["name"]
    due = {id_: row for id_, row in before.items() if not id_.startswith("docs_private/")}
    report = workspace.report("restore", name, "--into", str(tmp_path / "new"))
    assert read_store(tmp_path / "new" / "chroma") == due
    assert any("holds no settings" in note for note in report["adapted"])
    workspace.report("restore", name, "--include-sensitive")
    assert workspace.rows() == due
    assert workspace.update()["chunks_embedded"] == 0
    assert workspace.rows() == before
