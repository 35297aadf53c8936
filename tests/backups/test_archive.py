"""An archive gives back what was put in, and no changed bit of it goes unseen."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pyrage import x25519

from tests.backups.archives import FACTS, make_archive, snapshot, write_files
from vectorstore.backups.archive import ArchiveWriter, check_archive, check_digest, read_manifest
from vectorstore.backups.extract import extract
from vectorstore.backups.manifest import Sidecar
from vectorstore.errors import BadBackup, VectorkeepError

Archive = tuple[Path, Sidecar]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Archive:
    return make_archive(tmp_path_factory.mktemp("archive"), source)


def test_what_comes_out_is_what_went_in(tmp_path: Path, source: Path, archive: Archive) -> None:
    """Bit for bit, with modes and times to the nanosecond."""
    path, sidecar = archive
    done: list[int] = []
    manifest = extract(path, sidecar, tmp_path, on_bytes=done.append)
    assert snapshot(tmp_path) == snapshot(source)
    assert manifest == sidecar.manifest == check_archive(path, sidecar) == read_manifest(path)
    assert sum(done) == manifest.size
    assert [one.name for one in manifest.members] == sorted(snapshot(source))


def test_the_sidecar_tells_the_digests_that_everybody_computes(archive: Archive) -> None:
    path, sidecar = archive
    data = path.read_bytes()
    assert (sidecar.size, sidecar.md5, sidecar.sha256) == (
        (len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
    )
    check_digest(path, sidecar)
    assert Sidecar.from_bytes(sidecar.to_text().encode()) == sidecar


def test_the_same_files_make_the_same_archive(tmp_path: Path, source: Path, archive: Archive) -> None:
    again, _ = make_archive(tmp_path, source)
    assert again.read_bytes() == archive[0].read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("tool", ["tar", "python"])
def test_other_tools_unpack_it(tmp_path: Path, source: Path, archive: Archive, tool: str) -> None:
    """On the worst day there may be nothing but tar; it keeps modes and times as well."""
    if tool == "tar":
        subprocess.run(["tar", "-xzpf", archive[0], "-C", tmp_path], check=True)
    else:
        with tarfile.open(archive[0]) as tar:
            tar.extractall(tmp_path, filter="tar")
    (tmp_path / "manifest.json").unlink()
    found = snapshot(tmp_path)
    expected = snapshot(source)
    assert {name: each[0] for name, each in found.items()} == {name: each[0] for name, each in expected.items()}
    assert tool != "tar" or found == expected


def test_only_some_members(tmp_path: Path, source: Path, archive: Archive) -> None:
    path, sidecar = archive
    extract(path, sidecar, tmp_path, only=lambda name: name.startswith("part1/"))
    assert snapshot(tmp_path) == {name: each for name, each in snapshot(source).items() if name.startswith("part1/")}
    assert [each.name for each in tmp_path.iterdir()] == ["part1"]


def test_without_its_sidecar(tmp_path: Path, source: Path, archive: Archive) -> None:
    extract(archive[0], None, tmp_path)
    assert snapshot(tmp_path) == snapshot(source)


def test_members_of_bytes_and_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with ArchiveWriter(path) as writer:
        writer.add_bytes("z", b"last letter first", 0o640, 17)
        writer.add_bytes("collections/0.parquet", b"\0" * 100)
        writer.add_bytes("collections.json", b"")
        sidecar = writer.close(FACTS)
    (tmp_path / "into").mkdir()
    extract(path, sidecar, tmp_path / "into")
    assert (tmp_path / "into/z").read_bytes() == b"last letter first"
    assert (tmp_path / "into/z").stat().st_mtime_ns == 17 and (tmp_path / "into/z").stat().st_mode & 0o777 == 0o640


def test_an_archive_of_nothing(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        sidecar = writer.close(FACTS)
    assert check_archive(tmp_path / "a", sidecar).members == ()


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "/".join(["ü" * 127] * 4)
    with ArchiveWriter(tmp_path / "a") as writer:
        writer.add_bytes(name, b"x")
        sidecar = writer.close(FACTS)
    (tmp_path / "into").mkdir()
    extract(tmp_path / "a", sidecar, tmp_path / "into")
    assert (tmp_path / "into" / name).read_bytes() == b"x"


@pytest.mark.slow
def test_one_changed_bit_at_each_of_500_places(tmp_path: Path, archive: Archive) -> None:
    """Found by the deep check and by digest; and what is unpacked on the way is never taken for good."""
    path, sidecar = archive
    good = path.read_bytes()
    rng = random.Random(11)
    places = {*rng.sample(range(len(good) * 8), 500), *range(10 * 8), *range(len(good) * 8 - 64, len(good) * 8)}
    for number, place in enumerate(sorted(places)):
        bad = tmp_path / "bad"
        bad.write_bytes(flipped(good, place))
        with pytest.raises(BadBackup):
            check_archive(bad, sidecar)
        with pytest.raises(BadBackup):
            check_digest(bad, sidecar)
        if number % 10 == 0:
            into = tmp_path / f"into{number}"
            into.mkdir()
            with pytest.raises(BadBackup):
                extract(bad, sidecar, into)


@pytest.mark.slow
def test_one_changed_bit_without_a_sidecar_never_gives_other_contents(
    tmp_path: Path, source: Path, archive: Archive
) -> None:
    """What only the sidecar's digest can show, as the time in gzip's header, changes no member."""
    good = archive[0].read_bytes()
    rng = random.Random(12)
    bad = tmp_path / "bad"
    unseen = 0
    for place in rng.sample(range(len(good) * 8), 300):
        bad.write_bytes(flipped(good, place))
        try:
            assert check_archive(bad, None) == archive[1].manifest
            unseen += 1
        except BadBackup:
            pass
    assert unseen <= 3


def test_each_of_500_changed_bits_of_the_sidecar(archive: Archive) -> None:
    good = archive[1].to_text().encode()
    for place in random.Random(13).sample(range(len(good) * 8), 500):
        with pytest.raises(BadBackup):
            Sidecar.from_bytes(flipped(good, place))


@pytest.mark.slow
def test_cut_off_at_each_of_100_places(tmp_path: Path, archive: Archive) -> None:
    path, sidecar = archive
    good = path.read_bytes()
    rng = random.Random(14)
    bad = tmp_path / "bad"
    for length in [0, 1, 9, 10, 18, len(good) - 1, len(good) - 8, len(good) - 9, *rng.sample(range(len(good)), 100)]:
        bad.write_bytes(good[:length])
        for known in (sidecar, replace(sidecar, size=length), None):
            with pytest.raises(BadBackup):
                check_archive(bad, known)


def flipped(data: bytes, place: int) -> bytes:
    bad = bytearray(data)
    bad[place // 8] ^= 1 << place % 8
    return bytes(bad)


def test_a_sidecar_of_another_archive(tmp_path: Path, source: Path, archive: Archive) -> None:
    other = replace(archive[1], sha256="0" * 64)
    with pytest.raises(BadBackup, match="SHA-256"):
        check_archive(archive[0], other)
    with pytest.raises(BadBackup, match="MD5"):
        check_digest(archive[0], replace(archive[1], md5="0" * 32))
    assert archive[1].manifest is not None
    with pytest.raises(BadBackup, match="not the one in its sidecar"):
        check_archive(archive[0], replace(archive[1], manifest=replace(archive[1].manifest, chunks=4)))


class TestSources:
    """A source that is not what it was when it was looked at."""

    @pytest.mark.parametrize("change", ["grows", "shrinks", "is written again"])
    def test_changes_while_it_is_read(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "source"
        path.write_bytes(b"a" * (1 << 20))
        os.utime(path, ns=(0, 0))
        changed = False

        def meddle(_: int) -> None:
            nonlocal changed
            if not changed:
                changed = True
                with open(path, "r+b") as file:
                    if change == "grows":
                        file.seek(0, os.SEEK_END)
                        file.write(b"b")
                    elif change == "shrinks":
                        file.truncate(1 << 19)
                    else:
                        file.write(b"c")

        with ArchiveWriter(tmp_path / "a") as writer:
            with pytest.raises(VectorkeepError, match="changed while it was read"):
                writer.add_file("x", path, meddle)
            with pytest.raises(ValueError, match="given up"):
                writer.close(FACTS)
            with pytest.raises(ValueError, match="given up"):
                writer.add_bytes("y", b"")
        with pytest.raises(BadBackup):
            read_manifest(tmp_path / "a")

    def test_no_regular_file(self, tmp_path: Path) -> None:
        """A pipe holds nobody up."""
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
            with ArchiveWriter(tmp_path / f"a{path.name}") as writer, pytest.raises(VectorkeepError, match="regular"):
                writer.add_file("x", path)

    def test_missing(self, tmp_path: Path) -> None:
        with ArchiveWriter(tmp_path / "a") as writer:
            with pytest.raises(FileNotFoundError):
                writer.add_file("x", tmp_path / "none")
            with pytest.raises(ValueError):
                writer.close(FACTS)

    def test_no_set_user_id_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"")
        path.chmod(0o4755)
        with ArchiveWriter(tmp_path / "a") as writer:
            assert writer.add_file("x", path).mode == 0o755


class TestWriter:
    @pytest.mark.parametrize("name", ["../x", "/x", "x/../y", "manifest.json", "a\\b", ""])
    def test_names_that_would_not_be_read(self, tmp_path: Path, name: str) -> None:
        with ArchiveWriter(tmp_path / "a") as writer, pytest.raises(ValueError):
            writer.add_bytes(name, b"")

    def test_twins(self, tmp_path: Path) -> None:
        with ArchiveWriter(tmp_path / "a") as writer:
            writer.add_bytes("x", b"")
            with pytest.raises(ValueError, match="twice"):
                writer.add_bytes("X", b"")

    def test_never_in_place_of_another(self, tmp_path: Path) -> None:
        """Nor through a link."""
        (tmp_path / "a").write_bytes(b"mine")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        for name in ("a", "link"):
            with pytest.raises(FileExistsError):
                ArchiveWriter(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == b"mine" and not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize("recipients", [(), "key"])
    def test_an_exception_leaves_nothing_that_verifies(self, tmp_path: Path, recipients: str) -> None:
        identity = x25519.Identity.generate()
        threads = threading.active_count()
        with (
            pytest.raises(KeyboardInterrupt),
            ArchiveWriter(tmp_path / "a", [str(identity.to_public())] if recipients else []) as writer,
        ):
            writer.add_bytes("x", os.urandom(1 << 20))
            raise KeyboardInterrupt
        with pytest.raises(BadBackup):
            check_archive(tmp_path / "a", None, identity=identity)
        assert threading.active_count() == threads

    def test_a_manifest_that_would_not_be_read_is_not_written(self, tmp_path: Path) -> None:
        with ArchiveWriter(tmp_path / "a") as writer, pytest.raises(BadBackup):
            writer.close(replace(FACTS, kind="whole"))

    def test_handles_are_given_back(self, tmp_path: Path, source: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            folder = tmp_path / str(number)
            (folder / "into").mkdir(parents=True)
            path, sidecar = make_archive(folder, source)
            extract(path, sidecar, folder / "into")
            with pytest.raises(BadBackup):
                extract(path, replace(sidecar, sha256="0" * 64), empty(folder / "again"))
        assert len(os.listdir("/proc/self/fd")) == before


def empty(path: Path) -> Path:
    path.mkdir()
    return path


class TestFullDisk:
    """A disk of a megabyte, a real one."""

    @pytest.mark.parametrize("encrypted", [False, True])
    def test_while_writing(self, small_disk: Path, tmp_path: Path, encrypted: bool) -> None:
        keys = [str(x25519.Identity.generate().to_public())] if encrypted else []
        (tmp_path / "noise").write_bytes(os.urandom(3 << 20))
        with pytest.raises(OSError, match="No space left"), ArchiveWriter(small_disk / "a", keys) as writer:
            writer.add_file("x", tmp_path / "noise")
            writer.close(FACTS)
        with pytest.raises((BadBackup, VectorkeepError)):
            read_manifest(small_disk / "a")

    @pytest.mark.parametrize("encrypted", [False, True])
    def test_while_unpacking(self, small_disk: Path, tmp_path: Path, encrypted: bool) -> None:
        identity = x25519.Identity.generate()
        source = empty(tmp_path / "source")
        (source / "noise").write_bytes(os.urandom(3 << 20))
        path, sidecar = make_archive(tmp_path, source, [str(identity.to_public())] if encrypted else [])
        with pytest.raises((VectorkeepError, OSError), match=r"No space left|disk of"):
            extract(path, sidecar, empty(small_disk / "into"), identity=identity)
        assert os.listdir(small_disk / "into") == [] and os.listdir(small_disk) == ["into"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """300 MB through write, check and extract: within 40 MB of what the imports take."""
    with open(tmp_path / "large", "wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20) + bytes(1 << 20) + b"words " * (1 << 17))
    script = """
import resource, sys
from pathlib import Path
from pyrage import x25519
from tests.backups.archives import FACTS
from vectorstore.backups.archive import ArchiveWriter, check_archive
from vectorstore.backups.extract import extract
import isal.isal_zlib, isal.igzip_lib, tempfile, hashlib
def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
folder, before = Path(sys.argv[1]), most()
identity = x25519.Identity.generate()
for keys in ([], [str(identity.to_public())]):
    path = folder / f"a{len(keys)}"
    with ArchiveWriter(path, keys) as writer:
        writer.add_file("x", folder / "large")
        sidecar = writer.close(FACTS)
    check_archive(path, sidecar, identity=identity)
    into = folder / f"into{len(keys)}"
    into.mkdir()
    extract(path, sidecar, into, identity=identity)
print(most() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40
