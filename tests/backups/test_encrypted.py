"""Backups that are encrypted: made without a secret, opened by key and password, refused without before anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.kept import OPEN, PRIVATE, Kept
from tests.support.light_key import make_light_key

PASSWORD = "correct horse battery"
OURS = {"VECTORKEEP_BACKUP_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def made(_small: Kept, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, str]:
    """A workspace with a key and one encrypted backup, and its name."""
    workspace = _small.copy(tmp_path_factory.mktemp("encrypted") / "ws")
    recipient = make_light_key(workspace.root / "key.age", PASSWORD)
    workspace.set(backup_recipients=[recipient])
    return workspace, str(workspace.report("backup")["name"])


@pytest.fixture
def encrypted(made: tuple[Kept, str], tmp_path: Path) -> tuple[Kept, str]:
    return made[0].copy(tmp_path / "ws"), made[1]


def test_a_key_is_made_once(small: Kept) -> None:
    assert "set VECTORKEEP_BACKUP_PASSWORD" in small.refused("keygen", code=2)
    assert "shorter than 8" in small.refused("keygen", code=2, VECTORKEEP_BACKUP_PASSWORD="short")
    said = small.say("keygen", **OURS)
    public = (small.root / "key.pub").read_text().strip()
    assert f'backup_recipients = ["{public}"]' in said
    assert "AGE-SECRET" not in said and PASSWORD not in said
    assert (small.root / "key.age").stat().st_mode & 0o777 == 0o600
    assert "there is a key already" in small.refused("keygen", code=2, **OURS)
    small.set(backup_recipients=[public])
    assert small.report("verify", small.report("backup")["name"], **OURS)["backups"][0]["level"] == "deep"


def test_a_backup_needs_no_secret_and_shows_nothing(encrypted: tuple[Kept, str]) -> None:
    workspace, name = encrypted
    assert workspace.archive(name).name == f"{name}.tar.gz.age"
    rows = workspace.rows()
    needles = [text.splitlines()[-1].encode()[:20] for _, text, _ in rows.values()]
    needles += [vector[:12] for vector, _, _ in rows.values()]
    needles += [b"docs_a", b"page-0", b"doc_key", b"ledger", b"chroma.sqlite3", PASSWORD.encode(), b"AGE-SECRET"]
    for path in workspace.backups.glob(f"{name}*"):
        data = path.read_bytes()
        assert not [needle for needle in needles if needle in data], path
    said = workspace.say("backup")
    assert "verified  digests read back; it is encrypted" in said


@pytest.mark.slow
def test_the_right_password_brings_all_back(encrypted: tuple[Kept, str], tmp_path: Path) -> None:
    workspace, name = encrypted
    before, files = workspace.rows(), workspace.store_files()
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    workspace.update()
    safety = workspace.report("restore", **OURS)["safety"]
    assert workspace.rows() == before and workspace.store_files() == files
    assert workspace.archive(safety).suffix == ".age"
    assert workspace.report("restore", "--undo", **OURS)["name"] == safety
    report = workspace.report("restore", name, "--into", str(tmp_path / "new"), **OURS)
    assert report["documents"] == OPEN + PRIVATE


@pytest.mark.slow
def test_without_the_right_key_and_password_nothing_is_touched(encrypted: tuple[Kept, str], tmp_path: Path) -> None:
    workspace, name = encrypted
    into = ["--into", str(tmp_path / "new")]
    for argv in ([], ["--dry-run"], into):
        assert "set VECTORKEEP_BACKUP_PASSWORD" in workspace.refused("restore", name, *argv, code=2)
    wrong = {"VECTORKEEP_BACKUP_PASSWORD": "wrong horse battery"}
    assert "the password does not open key.age" in workspace.refused("restore", name, code=2, **wrong)
    assert "the password does not open key.age" in workspace.refused("drill", name, code=2, **wrong)
    key = workspace.root / "key.age"
    kept = key.rename(tmp_path / "key.age")
    for command in ("restore", "drill"):
        said = workspace.refused(command, name, code=2, **OURS)
        assert f"there is no key at {key}" in said and "next: copy it there from where you keep it safe" in said
    (tmp_path / "other").mkdir()
    make_light_key(tmp_path / "other" / "key.age", PASSWORD)
    shutil.copy(tmp_path / "other" / "key.age", key)
    for argv in (["restore", name], ["drill", name]):
        assert "this key does not open the archive" in workspace.refused(*argv, code=2, **OURS)
    shutil.copy(kept, key)
    assert not (tmp_path / "new").exists()
    workspace.assert_tidy()


@pytest.mark.slow
def test_a_flipped_bit_of_the_ciphertext(encrypted: tuple[Kept, str], tmp_path: Path) -> None:
    workspace, name = encrypted
    archive = workspace.archive(name)
    data = archive.read_bytes()
    for place, argv in ((0.001, ["--dry-run"]), (0.999, ["--into", str(tmp_path / "new")]), (0.5, [])):
        flipped = bytearray(data)
        flipped[int(place * len(data))] ^= 16
        archive.write_bytes(flipped)
        assert name in workspace.refused("restore", name, *argv, code=6, **OURS)
    assert not (tmp_path / "new").exists()
    assert workspace.report("verify", code=6)["backups"][0]["level"] == "digest"
    assert workspace.report("drill", name, code=6, **OURS)["state"] == "failed"
    workspace.assert_tidy()


def test_verify_says_how_far_it_could_look(encrypted: tuple[Kept, str]) -> None:
    workspace, name = encrypted
    (blind,) = workspace.report("verify")["backups"]
    assert (blind["level"], blind["ok"]) == ("digest", True) and "without the password" in blind["message"]
    (seeing,) = workspace.report("verify", name, **OURS)["backups"]
    assert (seeing["level"], seeing["ok"], seeing["message"]) == ("deep", True, "")


def test_a_drill_in_turn_passes_encrypted_ones_by_without_a_password(encrypted: tuple[Kept, str]) -> None:
    workspace, name = encrypted
    workspace.refused("drill", code=2)
    assert workspace.report("drill", **OURS)["name"] == name
    workspace.set(backup_recipients=[])
    plain = workspace.report("backup")["name"]
    assert [workspace.report("drill")["name"] for _ in range(2)] == [plain, plain]
