"""The catalogue: what counts as a backup, what is wrong with it, and that nothing is ever overwritten or mislaid."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.support.backup_files import assert_sound, data_of, make_backup, name_at, sidecar_of, unix, written
from tests.support.disks import resize
from vectorstore.backups import catalog, placing
from vectorstore.backups.manifest import sidecar_file
from vectorstore.errors import BadBackup, NoBackup, Refused, VectorkeepError

OLD, NEW = "backup_20260101_000000", "backup_20261121_171200"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_backup_is_published_with_its_sidecar(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, NEW)
    assert files(tmp_path) == {f"{NEW}.tar.gz", f"{NEW}.manifest.json"}
    assert catalog.list_backups(tmp_path) == [backup]
    assert (backup.problem, backup.size, backup.created) == ("", 10_000, unix("2026-11-21 17:12:00"))
    assert_sound(tmp_path, [backup])


def test_an_encrypted_one_gets_its_other_name(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, NEW, encrypted=True)
    assert backup.archive.name == f"{NEW}.tar.gz.age" and not backup.problem
    assert catalog.find(tmp_path, f"{NEW}.tar.gz.age") == catalog.find(tmp_path, NEW) == backup
    with pytest.raises(NoBackup):
        catalog.find(tmp_path, f"{NEW}.tar.gz")


def test_the_newest_is_listed_first_and_no_folder_is_no_backups(tmp_path: Path) -> None:
    for name in (OLD, NEW, "backup_20260630_120000"):
        make_backup(tmp_path, name)
    assert [each.name for each in catalog.list_backups(tmp_path)] == [NEW, "backup_20260630_120000", OLD]
    assert catalog.list_backups(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "backup.tar.gz", "backup_20261121_1712.tar.gz", f"{NEW}.zip", f"x{NEW}.tar.gz",
        f"{NEW}.tar.gz.bak", "backup_20261399_000000.tar.gz", "backup_20260231_000000.tar.gz",
        "backup_٢٠٢٦١١٢١_١٧١٢٠٠.tar.gz",
        f"{NEW}.tar.gz\n", f".{NEW}.tar.gz", f"{NEW.upper()}.tar.gz", "backup_20261399_000000.manifest.json",
    ],
)  # fmt: skip
def test_anything_else_is_no_backup_and_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    assert catalog.list_backups(tmp_path) == []
    assert catalog.sweep(tmp_path) == []
    assert files(tmp_path) == {name}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def problem(change: str) -> str:
        folder = tmp_path / change
        backup = make_backup(folder, NEW)
        archive, beside = backup.archive, folder / sidecar_file(NEW)
        match change:
            case "no sidecar":
                beside.unlink()
            case "no archive":
                archive.unlink()
            case "cut":
                os.truncate(archive, 9_999)
            case "flipped":
                data = bytearray(beside.read_bytes())
                data[len(data) // 2] ^= 1
                beside.write_bytes(data)
            case "another's sidecar":
                beside.write_text(sidecar_of(OLD, data_of(NEW)).to_text())
            case "the wrong form":
                archive.rename(f"{archive}.age")
            case "a link":
                archive.rename(folder / "elsewhere")
                archive.symlink_to("elsewhere")
            case "a folder":
                archive.unlink()
                archive.mkdir()
            case "a pipe":
                beside.unlink()
                os.mkfifo(beside)
        (found,) = catalog.list_backups(folder)
        assert found.name == NEW and not (found.sidecar and change in ("no sidecar", "flipped", "a pipe"))
        with pytest.raises(NoBackup, match=rf"no backup in .* is sound: {NEW}: "):
            catalog.find(folder, "latest")
        assert catalog.find(folder, NEW) == found
        assert catalog.sweep(folder) == []  # it may be worth something: nobody takes it away
        return found.problem

    assert problem("no sidecar") == "its sidecar is missing"
    assert problem("no archive") == "its archive is missing"
    assert problem("cut") == "its archive has 9,999 bytes, its sidecar says 10,000"
    assert "can't be read" in problem("flipped") or "was changed" in problem("flipped2")
    assert problem("another's sidecar") == f"its sidecar is of {OLD}.tar.gz"
    assert problem("the wrong form") == f"its sidecar is of {NEW}.tar.gz"
    assert problem("a link") == problem("a folder") == "its archive is no regular file"
    assert problem("a pipe") == "its sidecar is no regular file"


def test_the_latest_is_the_newest_that_is_sound(tmp_path: Path) -> None:
    make_backup(tmp_path, OLD)
    os.truncate(make_backup(tmp_path, NEW).archive, 5)
    assert catalog.find(tmp_path, "latest").name == OLD


def test_one_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NoBackup) as none:
        catalog.find(tmp_path, "latest")
    assert none.value.exit_code == 2 and "vectorkeep backup" in none.value.hint
    make_backup(tmp_path, OLD)
    for which in (NEW, f"{NEW}.tar.gz", "", "../x", "Latest"):
        with pytest.raises(NoBackup) as error:
            catalog.find(tmp_path, which)
        assert OLD in error.value.hint
    assert catalog.find(tmp_path, f"{OLD}.manifest.json").name == OLD


def test_a_name_is_utc_and_moves_on_where_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    now = unix("2026-12-31 23:59:58") + 0.9
    assert catalog.new_name(tmp_path / "none yet", now) == name_at("2026-12-31 23:59:58")
    for taken in (".tar.gz.age", ".manifest.json", ".pin", ".tar.gz"):
        (tmp_path / f"{catalog.new_name(tmp_path, now)}{taken}").touch()
    catalog.partial_path(tmp_path, catalog.new_name(tmp_path, now)).touch()
    assert catalog.new_name(tmp_path, now) == name_at("2027-01-01 00:00:03")
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("taken", [f"{NEW}.tar.gz", f"{NEW}.tar.gz.age", f"{NEW}.manifest.json", f"{NEW}.pin"])
def test_a_name_that_is_taken_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    partial, sidecar = written(tmp_path, NEW)
    (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(Refused):
        catalog.publish(partial, sidecar, tmp_path)
    assert (tmp_path / taken).read_bytes() == b"mine"
    assert files(tmp_path) == {taken, partial.name} and partial.read_bytes() == data_of(NEW)


def test_a_name_that_is_taken_in_the_last_moment_is_not_overwritten_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial, sidecar = written(tmp_path, NEW)

    def squat(folder: Path) -> None:
        (tmp_path / f"{NEW}.tar.gz").write_bytes(b"mine")

    monkeypatch.setattr(catalog, "sync_folder", squat)
    with pytest.raises(VectorkeepError, match="File exists"):
        catalog.publish(partial, sidecar, tmp_path)
    assert files(tmp_path) == {f"{NEW}.tar.gz", partial.name}
    assert (tmp_path / f"{NEW}.tar.gz").read_bytes() == b"mine"


def test_an_archive_that_is_not_as_long_as_its_sidecar_says_is_not_published(tmp_path: Path) -> None:
    partial, sidecar = written(tmp_path, NEW)
    os.truncate(partial, 9_999)
    with pytest.raises(BadBackup):
        catalog.publish(partial, sidecar, tmp_path)
    assert files(tmp_path) == {partial.name}


@pytest.mark.parametrize("renames", [True, False])
def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: bool) -> None:
    """As FAT and some shares are; ``renames``: it knows a rename that overwrites nothing."""

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    if not renames:
        monkeypatch.setattr(placing, "_NO_FLAGS", {errno.EBADF, errno.EINVAL})
        monkeypatch.setattr(placing, "_NOREPLACE", 1 << 30)  # the kernel: EINVAL
    assert_sound(tmp_path, [make_backup(tmp_path, NEW)])
    assert files(tmp_path) == {f"{NEW}.tar.gz", f"{NEW}.manifest.json"}
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(FileExistsError):
        placing.place(tmp_path / "a", tmp_path / f"{NEW}.tar.gz")
    assert_sound(tmp_path, catalog.list_backups(tmp_path))


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, OLD)
    lone = make_backup(tmp_path, "backup_20260202_000000")
    lone.archive.unlink()
    half, _ = written(tmp_path, NEW)
    (tmp_path / f"{NEW}.manifest.json").write_text("cut")
    gone = "backup_20250101_000000"
    (tmp_path / f".gone-{gone}.tar.gz.age").touch()
    (tmp_path / f"{gone}.manifest.json").touch()
    (tmp_path / ".partial-stage").mkdir()
    (tmp_path / ".partial-stage" / "file").touch()
    (tmp_path / "history.jsonl").touch()
    (tmp_path / f"{OLD}.pin").touch()
    assert [each.name for each in catalog.list_backups(tmp_path)] == [lone.name, OLD]  # half steps are not shown
    before = files(tmp_path)
    swept = catalog.sweep(tmp_path)
    assert set(swept) == {
        half.name, f"{NEW}.manifest.json", f".gone-{gone}.tar.gz.age", f"{gone}.manifest.json", ".partial-stage",
    }  # fmt: skip
    assert files(tmp_path) == before - set(swept)
    assert backup.name == catalog.find(tmp_path, "latest").name


def test_pins_are_set_changed_and_taken_away(tmp_path: Path) -> None:
    make_backup(tmp_path, OLD)
    assert catalog.pin(tmp_path, "latest", "before the\nmove").pinned == "before the move"
    assert catalog.pin(tmp_path, OLD, " ").pinned == "pinned"
    assert catalog.unpin(tmp_path, f"{OLD}.tar.gz").pinned == catalog.unpin(tmp_path, OLD).pinned == ""
    assert files(tmp_path) == {f"{OLD}.tar.gz", f"{OLD}.manifest.json"}
    with pytest.raises(NoBackup):
        catalog.pin(tmp_path, NEW, "never made")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 100_000])
def test_a_pin_pins_whatever_it_says(tmp_path: Path, content: bytes) -> None:
    make_backup(tmp_path, OLD)
    (tmp_path / f"{OLD}.pin").write_bytes(content)
    assert catalog.find(tmp_path, OLD).pinned


def test_a_full_disk_at_publishing(small_disk: Path) -> None:
    """The archive is written, its sidecar does not fit any more: a clear error, and all is as it was."""
    folder = small_disk / "backups"
    partial, sidecar = written(folder, NEW, size=8_192)
    resize(small_disk, 8)
    with pytest.raises(VectorkeepError, match="No space left") as error:
        catalog.publish(partial, sidecar, folder)
    assert "make room" in error.value.hint
    assert files(folder) == {partial.name} and partial.read_bytes() == data_of(NEW, 8_192)
    resize(small_disk, 12)
    assert_sound(folder, [catalog.publish(partial, sidecar, folder)])


def test_a_full_disk_keeps_the_old_pin_and_does_not_hinder_a_removal(small_disk: Path) -> None:
    folder = small_disk / "backups"
    backup = make_backup(folder, NEW, size=8_192)
    catalog.pin(folder, NEW, "first")
    resize(small_disk, 16)
    with pytest.raises(VectorkeepError, match="No space left"):
        catalog.pin(folder, NEW, "second")
    assert catalog.find(folder, NEW).pinned == "first"
    catalog.remove(backup)
    assert files(folder) == {f"{NEW}.pin"}
