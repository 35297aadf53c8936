"""Encrypted archives: who has no key, a wrong one or a damaged file is refused before anything is touched."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyrage import decrypt, encrypt, passphrase, x25519

from tests.backups.archives import FACTS, entry, forge, make_archive, member, snapshot, write_files
from tests.support.light_key import guarded, make_light_key
from vectorstore.backups.age_stream import Encrypting, decrypting
from vectorstore.backups.archive import ArchiveWriter, check_archive, check_digest, read_manifest
from vectorstore.backups.encryption import make_key, open_key, public_key
from vectorstore.backups.extract import extract
from vectorstore.backups.manifest import Sidecar
from vectorstore.errors import BadBackup, ConfigurationError, KeyRefused

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

Archive = tuple[Path, Sidecar]
PASSWORD = "correct horse"
age = pytest.mark.skipif(not shutil.which("age") or not shutil.which("age-keygen"), reason="needs the age tool")


@pytest.fixture(scope="module")
def identity() -> Identity:
    return x25519.Identity.generate()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, source: Path, identity: Identity) -> Archive:
    return make_archive(tmp_path_factory.mktemp("archive"), source, [str(identity.to_public())])


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "stage" / "into"
    path.mkdir(parents=True)
    return path


def assert_untouched(into: Path) -> None:
    assert os.listdir(into) == [] and os.listdir(into.parent) == ["into"]


def test_with_its_key_all_comes_back(into: Path, source: Path, archive: Archive, identity: Identity) -> None:
    path, sidecar = archive
    manifest = extract(path, sidecar, into, identity=identity)
    assert snapshot(into) == snapshot(source)
    assert manifest == check_archive(path, sidecar, identity=identity) == read_manifest(path, identity)
    assert os.listdir(into.parent) == ["into"]
    check_digest(path, sidecar)


def test_without_its_sidecar(into: Path, source: Path, archive: Archive, identity: Identity) -> None:
    extract(archive[0], None, into, identity=identity)
    assert snapshot(into) == snapshot(source)


def test_nothing_is_told_in_clear(archive: Archive, source: Path, tmp_path: Path) -> None:
    """No secret is short: three bytes are found in so much noise once in thirty times."""
    path, sidecar = archive
    packed = make_archive(tmp_path, source)[0].read_bytes()[:10]
    assert path.name.endswith(".tar.gz.age") and sidecar.kind == "encrypted" and sidecar.manifest is None
    for clear in (path.read_bytes(), sidecar.to_text().encode()):
        assert not any(secret in clear for secret in ("größe".encode(), b"part0", b"some words", packed, b"SECRET"))
    assert "docs" not in sidecar.to_text()


@pytest.mark.parametrize("known", [True, False], ids=["sidecar", "no sidecar"])
@pytest.mark.parametrize("key", ["none", "another's"])
def test_without_its_key(into: Path, archive: Archive, key: str, known: bool) -> None:
    path, sidecar = archive
    wrong = None if key == "none" else x25519.Identity.generate()
    told = sidecar if known else None
    for refused in (
        lambda: extract(path, told, into, identity=wrong),
        lambda: check_archive(path, told, identity=wrong),
        lambda: read_manifest(path, wrong),
    ):
        with pytest.raises(KeyRefused):
            refused()
    assert_untouched(into)


def test_several_recipients(tmp_path: Path, into: Path, source: Path) -> None:
    """Each can open it; a recipient that is named twice counts once."""
    keys = [x25519.Identity.generate() for _ in range(3)]
    path, sidecar = make_archive(tmp_path, source, [str(key.to_public()) for key in [*keys, keys[0]]])
    assert len(sidecar.recipients) == 3
    assert Sidecar.from_bytes(sidecar.to_text().encode()) == sidecar
    for key in keys:
        check_archive(path, sidecar, identity=key)


@pytest.mark.parametrize("recipient", ["", "age1nonsense", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1ABC"])
def test_a_recipient_that_is_none(tmp_path: Path, recipient: str) -> None:
    with pytest.raises(KeyRefused):
        ArchiveWriter(tmp_path / "a", [recipient])


@pytest.mark.slow
def test_changed_bits(into: Path, tmp_path: Path, archive: Archive, identity: Identity) -> None:
    """500 places, and each of the header: refused before anything is at its place, and never as a wrong key."""
    path, sidecar = archive
    good = path.read_bytes()
    rng = random.Random(5)
    bad_path = tmp_path / "bad"
    for place in [*range(0, 400 * 8, 5), *rng.sample(range(len(good) * 8), 500)]:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        bad_path.write_bytes(bad)
        with pytest.raises(BadBackup):
            extract(bad_path, sidecar, into, identity=identity)
        with pytest.raises((BadBackup, KeyRefused)):
            extract(bad_path, None, into, identity=identity)
        with pytest.raises(BadBackup):
            check_archive(bad_path, sidecar, identity=identity)
        assert_untouched(into)


@pytest.mark.slow
def test_cut_off_and_longer(into: Path, tmp_path: Path, archive: Archive, identity: Identity) -> None:
    path, sidecar = archive
    good = path.read_bytes()
    header = good.index(b"\n--- ") + 49 + 16
    lengths = {
        0,
        1,
        21,
        22,
        100,
        header,
        header + 65552,
        len(good) - 1,
        *random.Random(6).sample(range(len(good)), 100),
    }
    for bad in (*(good[:length] for length in sorted(lengths)), good + b"x", good + good):
        (tmp_path / "bad").write_bytes(bad)
        for known in (sidecar, replace(sidecar, size=len(bad)), None):
            with pytest.raises((BadBackup, KeyRefused)):
                extract(tmp_path / "bad", known, into, identity=identity)
            assert_untouched(into)


def test_what_is_encrypted_but_no_backup(into: Path, tmp_path: Path, identity: Identity) -> None:
    """Anybody can encrypt to a public key: what comes out of it is not trusted for that."""
    bad = member("../precious", b"evil")
    (tmp_path / "made").mkdir()
    forged, _ = forge(tmp_path / "made", entry(bad, b"evil"), [bad])
    for number, clear in enumerate([b"", b"words" * 100_000, forged.read_bytes(), os.urandom(200_000)]):
        path = tmp_path / str(number)
        path.write_bytes(encrypt(clear, [identity.to_public()]))
        with pytest.raises(BadBackup):
            extract(path, None, into, identity=identity)
        with pytest.raises(BadBackup):
            check_archive(path, None, identity=identity)
        assert_untouched(into)
    assert not (into.parent / "precious").exists()


def test_a_sidecar_of_another_encrypted_archive(into: Path, tmp_path: Path, source: Path, identity: Identity) -> None:
    """Its digests forged to fit: the name inside tells."""
    path = tmp_path / "a"
    with ArchiveWriter(path, [str(identity.to_public())]) as writer:
        sidecar = writer.close(replace(FACTS, name="backup_20261122_000000"))
    other = replace(sidecar, name=FACTS.name, file=FACTS.name + ".tar.gz.age")
    for refused in (
        lambda: check_archive(path, other, identity=identity),
        lambda: extract(path, other, into, identity=identity),
    ):
        with pytest.raises(BadBackup, match="not what its sidecar is of"):
            refused()
    assert_untouched(into)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.age"
    make_key(path, PASSWORD)
    return path


@pytest.mark.slow
class TestKeys:
    def test_it_opens_with_its_password_only(self, key: Path, tmp_path: Path) -> None:
        assert str(open_key(key, PASSWORD).to_public()) == public_key(key)
        key = tmp_path / "key.age"
        assert make_light_key(key, PASSWORD) == str(open_key(key, PASSWORD).to_public()) == public_key(key)
        words = set()
        for wrong in ("", PASSWORD + " "):
            with pytest.raises(KeyRefused) as caught:
                open_key(key, wrong)
            words.add(caught.value.message)
        assert len(words) == 1

    def test_nothing_of_it_is_in_clear(self, key: Path) -> None:
        assert key.stat().st_mode & 0o777 == 0o600
        assert b"SECRET" not in key.read_bytes() and public_key(key).encode() not in key.read_bytes()
        assert sorted(os.listdir(key.parent)) == ["key.age", "key.pub"]

    def test_a_damaged_key(self, tmp_path: Path) -> None:
        good = guarded(str(x25519.Identity.generate()).encode(), PASSWORD)
        for number, bad in enumerate([b"", good[:-1], good[:40], b"words", flip(good, len(good) - 3)]):
            path = tmp_path / f"key{number}.age"
            path.write_bytes(bad)
            with pytest.raises(KeyRefused):
                open_key(path, PASSWORD)

    def test_a_file_that_the_password_opens_but_holds_no_key(self, tmp_path: Path) -> None:
        for number, clear in enumerate([b"no key", b"\xff\xfe", b"AGE-SECRET-KEY-1NONSENSE"]):
            path = tmp_path / f"key{number}.age"
            path.write_bytes(guarded(clear, PASSWORD))
            with pytest.raises(KeyRefused):
                open_key(path, PASSWORD)

    def test_a_missing_key(self, tmp_path: Path) -> None:
        with pytest.raises(KeyRefused, match="no key at"):
            open_key(tmp_path / "key.age", PASSWORD)
        with pytest.raises(KeyRefused, match="no public key at"):
            public_key(tmp_path / "key.age")

    @pytest.mark.parametrize("password", ["", "short", "1234567"])
    def test_a_short_password(self, tmp_path: Path, password: str) -> None:
        with pytest.raises(ConfigurationError, match="shorter"):
            make_key(tmp_path / "key.age", password)
        assert os.listdir(tmp_path) == []

    def test_never_in_place_of_another(self, key: Path) -> None:
        before = snapshot(key.parent)
        with pytest.raises(ConfigurationError, match="already"):
            make_key(key, "another one")
        assert snapshot(key.parent) == before

    def test_a_call_that_was_killed_is_ended_by_the_next(self, tmp_path: Path) -> None:
        """With the key there and its public key not: the same password ends it, another can't."""
        path = tmp_path / "key.age"
        public = make_light_key(path, PASSWORD)
        path.with_suffix(".pub").unlink()
        with pytest.raises(KeyRefused):
            make_key(path, "another one")
        assert make_key(path, PASSWORD) == public == public_key(path)

    def test_a_damaged_public_key(self, tmp_path: Path) -> None:
        """Nothing is encrypted to a key that nobody has: its checksum tells."""
        public = str(x25519.Identity.generate().to_public())
        (tmp_path / "key.pub").write_text(public[:-5] + ("q" if public[-5] != "q" else "p") + public[-4:])
        with pytest.raises(KeyRefused):
            public_key(tmp_path / "key.age")


@age
class TestAgeTool:
    """The public tool and ours, both ways."""

    def test_it_opens_our_archive(self, tmp_path: Path, archive: Archive, identity: Identity) -> None:
        (tmp_path / "plain.key").write_text(str(identity))
        subprocess.run(["age", "-d", "-i", "plain.key", "-o", "a.tar.gz", archive[0]], cwd=tmp_path, check=True)
        assert check_archive(tmp_path / "a.tar.gz", None) == read_manifest(archive[0], identity)

    @pytest.mark.slow
    def test_we_open_its_archive(self, tmp_path: Path, into: Path, source: Path) -> None:
        """A key and a file of the tool's making."""
        subprocess.run(["age-keygen", "-o", "plain.key"], cwd=tmp_path, check=True, capture_output=True)
        text = (tmp_path / "plain.key").read_text()
        key = x25519.Identity.from_str(text.splitlines()[-1])
        path, sidecar = make_archive(tmp_path, source)
        subprocess.run(["age", "-r", str(key.to_public()), "-o", "a.age", path], cwd=tmp_path, check=True)
        assert extract(tmp_path / "a.age", None, into, identity=key) == sidecar.manifest
        assert snapshot(into) == snapshot(source)
        path = tmp_path / "key.age"
        path.write_bytes(passphrase.encrypt(text.encode(), PASSWORD))
        assert str(open_key(path, PASSWORD).to_public()) == str(key.to_public())

    @pytest.mark.slow
    def test_our_key_holds_what_the_tool_reads(self, tmp_path: Path, key: Path) -> None:
        clear = passphrase.decrypt(key.read_bytes(), PASSWORD)
        (tmp_path / "plain.key").write_bytes(clear)
        found = subprocess.run(
            ["age-keygen", "-y", "plain.key"], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert found.stdout.strip() == public_key(key)


class TestStreams:
    """Errors on either side surface, and nothing hangs."""

    def test_both_ways(self, identity: Identity) -> None:
        data = os.urandom(3_000_001)
        out = io.BytesIO()
        stream = Encrypting(out, [str(identity.to_public())])
        for start in range(0, len(data), 100_000):
            stream.write(data[start : start + 100_000])
        stream.close()
        assert decrypt(out.getvalue(), [identity]) == data
        with decrypting(io.BytesIO(out.getvalue()), identity) as reader:
            parts = list(iter(lambda: reader.read(70_000), b""))
        assert b"".join(parts) == data

    def test_a_writer_that_fails(self, identity: Identity) -> None:
        class Full(io.BytesIO):
            def write(self, data: object) -> int:
                raise OSError(28, "No space left on device")

        stream = Encrypting(Full(), [str(identity.to_public())])
        with pytest.raises(OSError, match="No space left"):
            for _ in range(100):
                stream.write(bytes(1 << 20))
        small = Encrypting(Full(), [str(identity.to_public())])
        small.write(b"x")
        with pytest.raises(OSError, match="No space left"):
            small.close()

    def test_a_stream_that_is_given_up_is_no_whole_file(self, identity: Identity) -> None:
        out = io.BytesIO()
        stream = Encrypting(out, [str(identity.to_public())])
        stream.write(os.urandom(200_000))
        stream.abort()
        with pytest.raises(Exception, match=r"truncated|decryption"):
            decrypt(out.getvalue(), [identity])

    def test_a_reader_that_fails(self, identity: Identity) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError(5, "Input/output error")

        with pytest.raises(OSError, match="Input/output"), decrypting(Broken(), identity) as reader:
            reader.read(1)

    def test_whoever_stops_early_leaves_no_thread(self, archive: Archive, identity: Identity) -> None:
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with open(archive[0], "rb") as file, decrypting(file, identity) as reader:
                assert reader.read(2) == b"\x1f\x8b"
            stream = Encrypting(io.BytesIO(), [str(identity.to_public())])
            stream.write(b"x" * 100_000)
            stream.abort()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
