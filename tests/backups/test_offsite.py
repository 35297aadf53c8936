"""Copies off-site, in a folder, in memory, over SFTP and on an S3 server: none is bad, none is overwritten."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

from tests.support.backup_files import data_of, make_backup, name_at, sidecar_of
from tests.support.disks import resize
from tests.support.places import Wire, known_hosts, s3_server, sftp_server
from vectorstore.backups import places
from vectorstore.backups.catalog import Backup, list_backups, partial_path
from vectorstore.backups.offsite import fetch, list_remote, push, url_of, verify_remote
from vectorstore.backups.places import open_place
from vectorstore.errors import BadBackup, ConfigurationError, NoBackup, VectorkeepError
from vectorstore.settings import load_settings

OLD, NEW = name_at("2026-11-20 03:00:00"), name_at("2026-11-21 03:00:00")
ROOT = Path(__file__).parents[2]
SIZE = 10_000


class There(NamedTuple):
    """A place, and a wire to it that can break."""

    url: str
    wire: Wire | None = None


@pytest.fixture(params=["folder", "memory", "sftp", "s3"])
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """An empty place; secrets come from the environment, as for everybody."""
    (tmp_path / "far").mkdir()
    with contextlib.ExitStack() as stack:
        match request.param:
            case "folder":
                yield There(str(tmp_path / "far"))
            case "memory":
                yield There(f"memory://{tmp_path}/far")
            case "sftp":
                (tmp_path / "ssh").mkdir()
                wire = Wire(stack.enter_context(sftp_server(tmp_path / "ssh")))
                stack.callback(wire.close)
                known_hosts(tmp_path / "ssh", [wire.port], tmp_path / "person")
                monkeypatch.setenv("HOME", str(tmp_path / "person"))
                monkeypatch.setenv("FSSPEC_SFTP_KEY_FILENAME", str(tmp_path / "ssh" / "user_key"))
                stack.enter_context(options_from_environment())
                yield There(f"sftp://root@127.0.0.1:{wire.port}{tmp_path}/far", wire)
            case "s3":
                wire = Wire(stack.enter_context(s3_server()))
                stack.callback(wire.close)
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    monkeypatch.setenv(name, "testing")
                monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
                fsspec.filesystem("s3", skip_instance_cache=True).mkdir(
                    f"bucket-{tmp_path.name}".replace("_", "-").lower()
                )
                yield There(f"s3://bucket-{tmp_path.name}/some/folder".replace("_", "-").lower(), wire)


@contextlib.contextmanager
def options_from_environment() -> Iterator[None]:
    """fsspec reads them when it is imported."""
    before = dict(fsspec.config.conf)
    fsspec.config.set_conf_env(fsspec.config.conf)
    yield
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def content(url: str) -> dict[str, bytes]:
    """All that lies there."""
    with contextlib.closing(open_place(url)) as place:
        return {name: b"".join(place.read(name)) for name in place.sizes()}


def put(url: str, name: str, data: bytes) -> None:
    with contextlib.closing(open_place(url)) as place:
        place.write(name, [data])


def files_of(*backups: Backup) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for backup in backups
        for path in (backup.archive, backup.archive.with_name(f"{backup.name}.manifest.json"))
    }


def assert_no_bad_copy(url: str, *backups: Backup) -> None:
    """Each that is listed is whole, down to its bytes."""
    there, known = content(url), files_of(*backups)
    for each in list_remote(url):
        assert not each.problem, each
        assert there[each.archive.name] == known[each.archive.name]


def test_a_copy_is_pushed_listed_verified_and_fetched(there: There, home: Path, tmp_path: Path) -> None:
    backups = [make_backup(home, OLD, SIZE), make_backup(home, NEW, 4_500_000, encrypted=True)]
    assert list_remote(there.url) == []
    moved: list[int] = []
    for backup in backups:
        moved.clear()
        assert push(backup, there.url, on_bytes=moved.append)
        assert sum(moved) == 2 * backup.size
    assert content(there.url) == files_of(*backups)
    found = list_remote(there.url)
    assert [each.name for each in found] == [NEW, OLD]
    assert [(each.sidecar, each.size, each.problem) for each in found[::-1]] == [
        (each.sidecar, each.size, "") for each in backups
    ]  # fmt: skip
    assert verify_remote(there.url, "latest").name == NEW
    (tmp_path / "back").mkdir()
    for which in (OLD, "latest"):
        fetch(there.url, which, tmp_path / "back")
    back = list_backups(tmp_path / "back")
    assert files_of(*back) == files_of(*backups) == {
        path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()
    }  # fmt: skip
    assert fetch(there.url, NEW, tmp_path / "back") == back[0]  # it is there already
    assert not push(backups[0], there.url)
    assert content(there.url) == files_of(*backups)


def test_another_of_that_name_is_never_overwritten(there: There, home: Path, tmp_path: Path) -> None:
    push(make_backup(home, OLD), there.url)
    before = content(there.url)
    (tmp_path / "other").mkdir()
    data = b"another machine's"
    partial_path(tmp_path / "other", OLD).write_bytes(data)
    other = publish_other(tmp_path / "other", data)
    with pytest.raises(BadBackup, match=f"another {OLD} is in"):
        push(other, there.url)
    with pytest.raises(BadBackup, match=f"another {OLD} is in"):
        fetch(there.url, OLD, tmp_path / "other")
    assert content(there.url) == before
    assert other.archive.read_bytes() == data


def publish_other(folder: Path, data: bytes) -> Backup:
    from vectorstore.backups.catalog import publish

    return publish(partial_path(folder, OLD), sidecar_of(OLD, data), folder)


def test_a_place_gives_no_name_twice(there: There) -> None:
    put(there.url, "a", b"first")
    put(there.url, "b", b"second")
    with contextlib.closing(open_place(there.url)) as place:
        with pytest.raises(OSError):
            place.move("b", "a")
        place.move("b", "c")
        place.remove("never there")
    assert content(there.url) == {"a": b"first", "c": b"second"}


@pytest.mark.parametrize("change", ["flipped", "cut", "longer", "no sidecar", "a bad sidecar"])
def test_a_bad_copy_is_found_and_not_fetched(there: There, home: Path, tmp_path: Path, change: str) -> None:
    backup = make_backup(home, OLD)
    push(backup, there.url)
    data = bytearray(data_of(OLD))
    match change:
        case "flipped":
            data[5_000] ^= 4
        case "cut":
            del data[-1:]
        case "longer":
            data += b"\0" * 5_000_000
        case "no sidecar":
            with contextlib.closing(open_place(there.url)) as place:
                place.remove(f"{OLD}.manifest.json")
        case "a bad sidecar":
            put(there.url, f"{OLD}.manifest.json", b'{"name": "x"}')
    put(there.url, f"{OLD}.tar.gz", bytes(data))
    for action in (lambda: verify_remote(there.url, OLD), lambda: fetch(there.url, OLD, tmp_path / "back")):
        (tmp_path / "back").mkdir(exist_ok=True)
        with pytest.raises(BadBackup) as error:
            action()
        assert error.value.exit_code == 6
    assert list((tmp_path / "back").iterdir()) == []
    (listed,) = list_remote(there.url)
    assert bool(listed.problem) == (change != "flipped")
    if change in ("cut", "longer", "a bad sidecar"):
        with pytest.raises(BadBackup):
            push(backup, there.url)
    if change == "no sidecar":  # the archive is right: only what is lacking is sent
        assert not push(backup, there.url)
        assert_no_bad_copy(there.url, backup)


def test_a_backup_that_is_bad_at_home_is_not_pushed(there: There, home: Path) -> None:
    backup = make_backup(home, OLD)
    data = bytearray(data_of(OLD))
    data[77] ^= 1
    backup.archive.write_bytes(data)
    with pytest.raises(BadBackup, match="not what its sidecar says"):
        push(backup, there.url)
    assert list_remote(there.url) == []
    backup.archive.write_bytes(data_of(OLD))
    assert push(backup, there.url)
    assert content(there.url) == files_of(backup)
    backup.archive.unlink()
    (listed,) = list_backups(home)
    with pytest.raises(BadBackup, match="its archive is missing"):
        push(listed, there.url)


class Died(BaseException):
    """What a kill is to a place: nothing more comes."""


@pytest.mark.slow
def test_killed_at_every_step_there(there: There, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each call of the place; nothing bad has a name, and the next push, of the same or of another
    backup, ends clean."""
    older, newer = make_backup(home, OLD), make_backup(home, NEW)
    kind = type(open_place(there.url))
    points = 0
    for step in count(1):
        for when in ("before", "after"):
            calls = count(1)
            with monkeypatch.context() as patch:
                for name in ("write", "move", "remove", "sizes"):
                    patch.setattr(kind, name, _deadly(getattr(kind, name), calls, step, when))
                try:
                    push(older, there.url)
                except Died:
                    points += 1
                else:
                    assert points >= 12
                    return
            assert_no_bad_copy(there.url, older)
            first, second = (older, newer) if when == "before" else (newer, older)
            push(first, there.url)
            assert_no_bad_copy(there.url, older, newer)
            push(second, there.url)
            assert content(there.url) == files_of(older, newer)
            with contextlib.closing(open_place(there.url)) as place:
                for name in place.sizes():
                    place.remove(name)


def _deadly(original: Callable[..., Any], calls: Iterator[int], step: int, when: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        now = next(calls) == step
        if now and when == "before":
            raise Died
        result = original(*args)
        if now:
            raise Died
        return result

    return call


def test_a_wire_that_breaks_is_tried_again(there: There, home: Path, tmp_path: Path) -> None:
    if not there.wire:
        pytest.skip("no wire leads there")
    backup = make_backup(home, OLD, 3_000_000)
    there.wire.after, there.wire.cuts = 1_000_000, 2
    assert push(backup, there.url)
    assert there.wire.cuts <= 0
    assert content(there.url) == files_of(backup)
    (tmp_path / "back").mkdir()
    there.wire.after, there.wire.cuts = 3_000, 1
    assert fetch(there.url, OLD, tmp_path / "back").archive.read_bytes() == data_of(OLD, 3_000_000)


@pytest.mark.slow
def test_a_wire_that_stays_broken_is_told(there: There, home: Path) -> None:
    if not there.wire:
        pytest.skip("no wire leads there")
    backup = make_backup(home, OLD, 3_000_000)
    there.wire.after, there.wire.cuts = 1_000_000, 1_000
    with pytest.raises(VectorkeepError, match=f"copying {OLD} at .* failed") as error:
        push(backup, there.url)
    assert "run again" in error.value.hint
    there.wire.cuts = 0
    assert_no_bad_copy(there.url, backup)
    assert push(backup, there.url)
    assert content(there.url) == files_of(backup)


@pytest.mark.slow
def test_sigkill_while_it_is_pushed(there: There, home: Path) -> None:
    """A process of its own, killed at times all over the push; the next one carries on."""
    if there.url.startswith("memory"):
        pytest.skip("dies with its process")
    backup = make_backup(home, OLD, 20_000_000)
    script = (
        "import sys; from pathlib import Path; from vectorstore.backups.catalog import find;"
        " from vectorstore.backups.offsite import push; print('ready', flush=True);"
        " push(find(Path(sys.argv[1]), 'latest'), sys.argv[2])"
    )
    kills = 0
    for wait in (0.02, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(home), there.url], cwd=ROOT, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdout and child.stdout.readline() == b"ready\n"
        time.sleep(wait)
        child.kill()
        kills += child.wait() == -9
        child.stdout.close()
        assert_no_bad_copy(there.url, backup)
    push(backup, there.url)
    assert content(there.url) == files_of(backup) and kills >= 1


def test_a_full_disk_there(small_disk: Path, home: Path) -> None:
    older, newer = make_backup(home, OLD, 40_000), make_backup(home, NEW, 40_000)
    resize(small_disk, 64)
    push(older, str(small_disk))
    with pytest.raises(VectorkeepError, match="No space left on device") as error:
        push(newer, str(small_disk))
    assert "make room there" in error.value.hint
    assert_no_bad_copy(str(small_disk), older)
    resize(small_disk, 200)
    assert push(newer, str(small_disk))
    assert content(str(small_disk)) == files_of(older, newer)


def test_a_full_disk_at_home(small_disk: Path, home: Path, tmp_path: Path) -> None:
    backup = make_backup(home, OLD, 40_000)
    (tmp_path / "far").mkdir()
    push(backup, str(tmp_path / "far"))
    resize(small_disk, 20)
    with pytest.raises(VectorkeepError, match="No space left on device"):
        fetch(str(tmp_path / "far"), OLD, small_disk)
    assert list(small_disk.iterdir()) == []


def test_what_is_read_back_is_what_counts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not keep what it is given."""
    backup = make_backup(home, OLD)
    (tmp_path / "far").mkdir()
    write_all = places.write_all
    monkeypatch.setattr(places, "write_all", lambda handle, data: write_all(handle, bytes(len(data))))
    monkeypatch.setattr("vectorstore.backups.reaching.LONGEST_WAIT_S", 0.2)
    with pytest.raises(VectorkeepError, match="is not what was written"):
        push(backup, str(tmp_path / "far"))
    assert list_remote(str(tmp_path / "far")) == []
    monkeypatch.undo()
    assert push(backup, str(tmp_path / "far"))
    assert content(str(tmp_path / "far")) == files_of(backup)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://me:s3cret@host/x", "holds a password"), ("nowhere://x/y", "nowhere"), ("zip::file:///x", "through"),
        ("{tmp}/not mounted", "not a folder"), ("file://{tmp}/not mounted", "not a folder"),
        ("{home}", "the folder of the backups itself"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_meant(home: Path, tmp_path: Path, url: str, said: str) -> None:
    backup = make_backup(home, OLD)
    with pytest.raises(ConfigurationError, match=said) as error:
        push(backup, url.format(tmp=tmp_path, home=home))
    assert error.value.hint and "s3cret" not in str(error.value)
    assert not (tmp_path / "not mounted").exists()


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("sftp", "paramiko"), ("gs", "gcsfs")])
def test_a_package_that_is_not_there_is_named(protocol: str, package: str) -> None:
    """Asked of a Python that has none of them."""
    script = (
        f"import sys; sys.modules[{package!r}] = None; from vectorstore.backups.offsite import list_remote\n"
        f"try: list_remote('{protocol}://host/x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError") and package in done.stdout


def test_a_host_that_is_not_known_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").mkdir()
    with sftp_server(tmp_path / "ssh") as port, options_from_environment():
        monkeypatch.setenv("HOME", str(tmp_path))
        url = f"sftp://root@127.0.0.1:{port}{tmp_path}"
        fsspec.config.conf["sftp"] = {"key_filename": str(tmp_path / "ssh" / "user_key")}
        with pytest.raises(ConfigurationError, match="known_hosts"):
            list_remote(url)
        fsspec.config.conf["sftp"]["host_key_policy"] = "auto_add"
        assert list_remote(url) == []
        with pytest.raises(ConfigurationError, match="is not a folder"):
            list_remote(f"{url}/not there")
        del fsspec.config.conf["sftp"]["host_key_policy"]
        known_hosts(tmp_path / "ssh", [port], tmp_path)
        assert list_remote(url) == []


def test_foreign_files_there_are_left_alone(there: There, home: Path) -> None:
    for name in ("README.md", "backup_2026.tar.gz", "photos.zip.part", f"{OLD}.manifest.json.bak"):
        put(there.url, name, b"mine")
    with contextlib.suppress(NotImplementedError):
        put(there.url, f"{NEW}.tar.gz.part", b"of a killed push")
    backup = make_backup(home, OLD)
    push(backup, there.url)
    assert set(content(there.url)) == {
        "README.md", "backup_2026.tar.gz", "photos.zip.part", f"{OLD}.manifest.json.bak", *files_of(backup),
    }  # fmt: skip
    assert [each.name for each in list_remote(there.url)] == [OLD]
    with pytest.raises(NoBackup, match=r"there is no backup .* in"):
        verify_remote(there.url, NEW)


def test_the_settings_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no place"):
        url_of(load_settings(tmp_path))
    assert url_of(load_settings(tmp_path, offsite_url="../nas")) == str(tmp_path.parent / "nas")
    assert url_of(load_settings(tmp_path, offsite_url="s3://bucket/x")) == "s3://bucket/x"
