"""Backups as they are made: what is in them, what is not, and what is not backed up at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.support.disks import resize
from tests.support.kept import OPEN, PRIVATE, Kept, facts, members
from tests.support.portable import unpacked
from vectorstore.backups.extract import extract
from vectorstore.lock import WriterLock
from vectorstore.settings import load_settings

LEDGER, CACHE, SETTINGS = ".hashes/ledger.sqlite3", ".hashes/cache.sqlite3", "vectorkeep.toml"
ROWS = 2 * (OPEN + PRIVATE)


def store_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix("chroma/"): data for name, data in files.items() if name.startswith("chroma/")}


def test_a_full_backup_is_the_files_as_they_are(indexed: tuple[Kept, str]) -> None:
    workspace, _ = indexed
    before = workspace.store_files()
    report = workspace.report("backup")
    held = dict(members(workspace.archive(report["name"])))
    assert store_of(held) == {name: data for name, (_, _, data) in before.items()}
    assert set(held) - {f"chroma/{name}" for name in before} == {LEDGER, SETTINGS, "manifest.json"}
    assert workspace.store_files() == before
    assert (report["state"], report["kind"], report["verified"]) == ("done", "full", "deep")
    workspace.assert_tidy()


@pytest.mark.parametrize("kind", ["full", "portable"])
def test_the_report_says_what_is_there(small: Kept, kind: str) -> None:
    report = small.report("backup", "--kind", kind)
    archive = small.archive(report["name"])
    data = archive.read_bytes()
    assert (report["file"], report["size"]) == (str(archive), len(data))
    assert (report["md5"], report["sha256"]) == (hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
    assert sum(report["collections"].values()) == report["chunks"] == ROWS
    assert report["documents"] == OPEN + PRIVATE
    assert [event["event"] for event in small.events()] == ["backup"]


def test_the_cache_is_in_it_only_if_asked(small: Kept) -> None:
    assert CACHE not in members(small.archive(small.report("backup")["name"]))
    assert members(small.archive(small.report("backup", "--cache")["name"]))[CACHE] == small.cache.read_bytes()


def test_two_of_one_second_have_two_names(small: Kept) -> None:
    names = [small.report("backup")["name"] for _ in range(3)]
    assert len(set(names)) == 3 and small.names() == names[::-1]


def test_modes_and_times_of_all_files_are_in_it(small: Kept, tmp_path: Path) -> None:
    """Also where a copy is what is archived."""
    (small.store / "chroma.sqlite3").chmod(0o640)
    os.utime(small.ledger, ns=(0, 1_600_000_000_123_456_789))
    before = facts(small.root)
    (tmp_path / "out").mkdir()
    extract(small.archive(small.report("backup", "--cache")["name"]), None, tmp_path / "out")
    found = facts(tmp_path / "out")
    assert found.pop(SETTINGS)[0] & 0o777 == 0o600
    assert {name: each[:2] for name, each in found.items()} == {name: before[name][:2] for name in found}


# -- what is refused


def test_no_store(small: Kept) -> None:
    small.store.rename(small.root / "away")
    said = small.refused("backup", code=2)
    assert f"there is no store at {small.store}" in said and "next: run `vectorkeep update`" in said
    assert "there is no store at" in small.refused("backup", "--kind", "portable", code=2)


def test_a_damaged_store_is_not_backed_up(indexed: tuple[Kept, str]) -> None:
    workspace, name = indexed
    (part,) = workspace.store.glob("*/index_metadata.pickle")
    part.write_bytes(part.read_bytes()[:-40])
    for kind in ("full", "portable"):
        said = workspace.refused("backup", "--kind", kind, code=6)
        assert "is damaged, so it is not backed up" in said
        assert "next: mend it with `vectorkeep health --fix`, or go back with `vectorkeep restore latest`" in said
    assert workspace.names() == [name]
    workspace.assert_tidy()


def test_a_damaged_sqlite_file_is_not_backed_up(small: Kept) -> None:
    (small.store / "chroma.sqlite3").write_bytes(b"something else" * 1000)
    for kind in ("full", "portable"):
        said = small.refused("backup", "--kind", kind, code=6)
        assert "next: " in said
    assert small.names() == []


def test_a_damaged_ledger_is_not_backed_up(small: Kept) -> None:
    small.ledger.write_bytes(b"something else" * 1000)
    said = small.refused("backup", code=6)
    assert "the ledger can't be read" in said and "next: run `vectorkeep health`" in said


def test_a_missing_ledger_keeps_nobody_from_a_backup(small: Kept) -> None:
    small.ledger.unlink()
    name = small.report("backup")["name"]
    assert LEDGER not in members(small.archive(name))


def test_while_another_run_writes(small: Kept) -> None:
    with WriterLock([small.root / ".hashes" / "writer.lock"], "vectorkeep update"):
        for command in (["backup"], ["prune"]):
            assert "another run is writing: `vectorkeep update`" in small.refused(*command, code=4)


def test_a_choice_that_makes_no_sense(small: Kept) -> None:
    for argv, why in {
        ("--kind", "half"): "choose one of full, portable",
        ("--selective",): "set `sensitive` in vectorkeep.toml",
        ("--kind", "portable", "--cache"): "a portable backup holds no cache",
        ("--offsite",): "set offsite_url",
    }.items():
        assert why in small.refused("backup", *argv, code=2)
    assert small.names() == []


@pytest.mark.parametrize("place", ["docs/backups", "chroma/backups", "chroma"])
def test_not_among_the_documents_or_in_the_store(small: Kept, place: str) -> None:
    small.set(backups_path=place)
    assert "choose a folder of its own" in small.refused("backup", code=2)


def test_a_workspace_that_is_paused_or_protected_is_backed_up(small: Kept) -> None:
    small.set(paused=True, protected=True)
    small.report("backup")


# -- other places


def test_backups_on_another_disk(small: Kept, small_disk: Path) -> None:
    resize(small_disk, 8192)
    small.set(backups_path=str(small_disk / "a" / "b"))
    before = small.rows()
    report = small.report("backup")
    assert Path(report["file"]).parent == small_disk / "a" / "b"
    small.write("a/page-0.md", "# Other\n\nOther words.\n")
    small.update()
    safety = small.report("restore")["safety"]
    assert small.rows() == before
    assert small.names() == [safety, report["name"]]
    small.assert_tidy()


def test_a_full_disk_of_backups_leaves_nothing(small: Kept, small_disk: Path) -> None:
    resize(small_disk, 64)
    small.set(backups_path=str(small_disk))
    small.cache.write_bytes(os.urandom(200_000))
    said = small.say("backup", "--cache", code=1)
    assert "No space left" in said and "next: " in said
    assert [path.name for path in small_disk.iterdir()] == []


# -- privacy


def scanned(workspace: Kept, name: str, folder: Path) -> list[bytes]:
    """All that a backup says: the archive and its sidecar as they lie there, and everything in it, unpacked."""
    folder.mkdir()
    extract(workspace.archive(name), None, folder)
    return [path.read_bytes() for path in workspace.backups.glob(f"{name}*")] + unpacked(folder)


def found_in(texts: list[bytes], needles: list[bytes]) -> list[bytes]:
    return [needle for needle in needles if any(needle in text for text in texts)]


def private_marks(workspace: Kept) -> list[bytes]:
    """Words, ids and vectors of the private rows: the vector as it lies there, and as Parquet splits it."""
    rows = [row for key, row in workspace.rows().items() if key.startswith("docs_private/")]
    vectors = [vector for vector, _, _ in rows]
    parts = [part for vector in vectors for part in (vector[:12], vector[-12:], *(vector[k::4] for k in range(3)))]
    texts = [text.splitlines()[-1].encode()[:30] for _, text, _ in rows]
    return [b"private", *parts, *texts]


def test_sensitive_rows_need_a_word(small: Kept) -> None:
    small.set(sensitive=["private/**"])
    said = small.refused("backup", code=5)
    assert "leave them out with --selective, or confirm with --include-sensitive" in said
    assert small.report("backup", "--include-sensitive")["chunks"] == ROWS


def test_a_selective_backup_holds_nothing_sensitive(small: Kept, tmp_path: Path) -> None:
    marks = private_marks(small)
    assert len(marks) > 4 * 2 * PRIVATE
    whole = [small.report("backup", "--kind", kind)["name"] for kind in ("full", "portable")]
    assert found_in([text for name in whole for text in scanned(small, name, tmp_path / name)], marks) == marks
    small.set(sensitive=["private/**"])
    report = small.report("backup", "--selective")
    assert (report["left_out"], report["documents"]) == (2 * PRIVATE, 0)
    assert report["collections"] == {"docs_a": OPEN, "docs_b": OPEN}
    assert found_in(scanned(small, report["name"], tmp_path / "part"), marks) == []
    assert not {LEDGER, SETTINGS, CACHE} & members(small.archive(report["name"])).keys()


def test_secrets_are_in_no_archive(small: Kept, tmp_path: Path) -> None:
    key, word = "sk-planted-in-the-environment", "wordWithoutEqual"
    small.set(
        offsite_url=f"sftp://me:{word}@host/folder", openai_base_url=f"https://u:p@x/{word}@proxy.example/v1",
    )  # fmt: skip
    for kind in ("full", "portable"):
        name = small.report("backup", "--kind", kind, OPENAI_API_KEY=key, AWS_SECRET_ACCESS_KEY=key)["name"]
        folder = tmp_path / kind
        texts = scanned(small, name, folder)
        assert not found_in(texts, [key.encode(), word.encode()])
        restored = load_settings(folder)
        assert (restored.offsite_url, restored.openai_base_url) == ("sftp://host/folder", "https://proxy.example/v1")


def test_json_of_a_refusal(small: Kept) -> None:
    answer = json.loads(small.run("backup", "--kind", "half", code=2).out)
    assert answer == {
        "error": "ConfigurationError", "message": "there is no backup of kind 'half'",
        "hint": "choose one of full, portable",
    }  # fmt: skip
