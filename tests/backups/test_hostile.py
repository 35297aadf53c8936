"""Archives made to do harm: none writes outside its folder, and none is taken for a backup.

The forger has every digest right: of the archive, in the sidecar, of each member. What he can do is choose the bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backups.archives import FACTS, entry, forge, forge_bytes, make_archive, member, snapshot
from vectorstore.backups.archive import check_archive, read_manifest
from vectorstore.backups.extract import extract
from vectorstore.backups.manifest import Manifest, Member, Sidecar
from vectorstore.backups.tar_header import END, header, padding
from vectorstore.backups.walk import manifest_member
from vectorstore.errors import BadBackup, VectorkeepError

Archive = tuple[Path, Sidecar]
GOOD = member("good", b"fine")
GOOD_ENTRY = entry(GOOD, b"fine")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder whose contents must be the same afterwards, with the target ``into`` in it."""
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "into").mkdir()
    (tmp_path / "made").mkdir()
    before = {name: each for name, each in snapshot(tmp_path).items() if not name.startswith("made/")}
    yield tmp_path
    after = snapshot(tmp_path)
    assert {name: each for name, each in after.items() if not name.startswith(("into/", "made/"))} == before
    assert sorted(os.listdir(tmp_path)) == ["into", "made", "precious"]
    assert not [
        path for path in (tmp_path / "into").rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())
    ]


def assert_refused(folder: Path, archive: Archive) -> None:
    """By every way in, with the sidecar and without it."""
    path, sidecar = archive
    for known in (sidecar, None):
        with pytest.raises(BadBackup):
            check_archive(path, known)
        into = folder / "into" / ("with" if known else "without")
        into.mkdir()
        with pytest.raises(BadBackup):
            extract(path, known, into)
    with pytest.raises(BadBackup):
        read_manifest(path)


def test_the_forger_can_forge(outside: Path) -> None:
    """His tools make an archive that is taken, when he puts nothing bad in: so it is the bad that is refused below."""
    path, sidecar = forge(outside / "made", GOOD_ENTRY, [GOOD])
    assert check_archive(path, sidecar) == extract(path, sidecar, outside / "into")
    assert (outside / "into/good").read_bytes() == b"fine"


NAMES = [
    "../precious", "a/../../precious", "/tmp/vectorkeep-was-here", "//x", "./x", "a//b", "..", ".", "a/..", "", "a/",
    "..\\precious", "C:\\x", "C:x", "a\0b", "a\nb", "e\u0301", "x" * 256, "a/" * 700 + "b", "\x1b[2J",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_names_that_lead_elsewhere(outside: Path, name: str, listed: bool) -> None:
    bad = member(name, b"evil")
    assert_refused(
        outside, forge(outside / "made", GOOD_ENTRY + entry(bad, b"evil"), [GOOD, bad] if listed else [GOOD])
    )
    assert not Path("/tmp/vectorkeep-was-here").exists()


def test_a_name_that_is_no_text(outside: Path) -> None:
    """Bytes that are no UTF-8."""
    raw = bytearray(entry(member("xxxx", b"evil"), b"evil"))
    place = raw.index(b"path=xxxx")
    raw[place + 5] = 0xFF
    assert_refused(outside, forge(outside / "made", bytes(raw), [member("xxxx", b"evil")]))


KINDS = {
    "symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE,
    "contiguous": tarfile.CONTTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE, "long name": tarfile.GNUTYPE_LONGNAME, "long link": tarfile.GNUTYPE_LONGLINK,
    "global header": tarfile.XGLTYPE, "old file": tarfile.AREGTYPE, "unknown": b"Z", "PAX": tarfile.XHDTYPE,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("target", ["../precious", "/etc/passwd", "good"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_is_no_file(outside: Path, kind: bytes, target: str, form: int) -> None:
    """As tarfile writes it, in each format, with a file that would go through it behind."""
    info = tarfile.TarInfo("link")
    info.type, info.linkname, info.mtime, info.mode = kind, target, 5, 0o600
    blocks = info.tobuf(form) + entry(member("link/x", b"evil"), b"evil")
    assert_refused(outside, forge(outside / "made", blocks, [member("link/x", b"evil")]))
    assert_refused_again(outside, forge(outside / "made", GOOD_ENTRY + info.tobuf(form), [GOOD, member("link", b"")]))


def assert_refused_again(folder: Path, archive: Archive) -> None:
    for path in (folder / "into").iterdir():
        for file in path.rglob("*"):
            assert not file.is_symlink()
        path.rename(folder / "into" / f"first {path.name}")
    assert_refused(folder, archive)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_hidden_behind_our_own_header(outside: Path, kind: bytes) -> None:
    """Our header in all, but for the type in its last block."""
    assert_refused(outside, forge(outside / "made", retyped(GOOD_ENTRY, kind), [GOOD]))


def retyped(raw: bytes, kind: bytes, at: int = 1024) -> bytes:
    """With another type, and a checksum that is right."""
    block = raw[at : at + 148] + b" " * 8 + kind + raw[at + 157 : at + 512]
    block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return raw[:at] + block + raw[at + 512 :]


def changed(raw: bytes, place: int, data: bytes, at: int = 1024) -> bytes:
    """With other bytes in a header's block, and a checksum that is right."""
    block = raw[at : at + place] + data + raw[at + place + len(data) : at + 512]
    block = block[:148] + b" " * 8 + block[156:]
    block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return raw[:at] + block + raw[at + 512 :]


FIELDS = {
    "name": (0, b"../x"), "mode": (100, b"0004755\0"), "user": (108, b"0000001\0"), "group": (116, b"0000001\0"),
    "size": (124, b"00000000003\0"), "larger": (124, b"00000000005\0"),
    "binary size": (124, b"\x80" + bytes(10) + b"\x04"),
    "negative size": (124, b"\xff" * 12), "time": (136, b"00000000006\0"), "link": (157, b"../x"),
    "magic": (257, b"gnutar\0"),
    "user's name": (265, b"root"), "device": (329, b"0000001\0"), "prefix": (345, b".."), "rest": (500, b"x"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "data"), FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("at", [0, 1024], ids=["PAX header", "header"])
def test_each_field_of_a_header(outside: Path, place: int, data: bytes, at: int) -> None:
    assert_refused(outside, forge(outside / "made", changed(GOOD_ENTRY, place, data, at), [GOOD]))


def pax(records: dict[str, str], last: bytes) -> bytes:
    body = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + 2
        body += str(length if len(str(length)) == 2 else length + 1).encode() + line
    first = changed(GOOD_ENTRY[:512], 124, b"%011o\0" % len(body), at=0)
    return first + body + bytes(padding(len(body))) + last


OVERRIDES = [
    {"path": "../precious"}, {"path": "good", "size": "3"}, {"size": "4"}, {"size": "99999999999"},
    {"linkpath": "/etc"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "good", "GNU.sparse.realsize": "1000000"},
    {"GNU.sparse.map": "0,4"}, {"hdrcharset": "BINARY"}, {"uid": "0"}, {"comment": "x"}, {"path": ""},
    {"mtime": "-0.000000000"},
    {"mtime": "0.5"}, {"mtime": "1e9"}, {"mtime": "nan"}, {"mtime": "0.00000000५"},
    {"mtime": "9999999999.000000005"}, {"mtime": "99999999999.000000005"}, {"SCHILY.xattr.security.capability": "x"},
]  # fmt: skip


@pytest.mark.parametrize("more", OVERRIDES, ids=str)
def test_overrides(outside: Path, more: dict[str, str]) -> None:
    """Of the size, the path and all else that PAX can say."""
    good = {"mtime": "0.000000005", "path": "good"}
    assert pax(good, GOOD_ENTRY[1024:]) == GOOD_ENTRY, "the forger's own tool"
    forged = pax({**good, **more}, GOOD_ENTRY[1024:])
    assert_refused(outside, forge(outside / "made", forged, [GOOD]))


def test_a_pax_header_twice_and_one_without_end(outside: Path) -> None:
    assert_refused(outside, forge(outside / "made", GOOD_ENTRY[:1024] + GOOD_ENTRY, [GOOD]))
    huge = changed(GOOD_ENTRY, 124, b"77777777777\0", at=0)
    assert_refused_again(outside, forge(outside / "made", huge, [GOOD]))


TWINS = [
    ("good", "good"),
    ("good", "GOOD"),
    ("good", "ｇood"),
    ("good", "good/x"),
    ("straße", "STRASSE"),
    ("d/a", "D/b"),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
@pytest.mark.parametrize("listed", ["both", "one"])
def test_two_names_for_one_file(outside: Path, one: str, other: str, listed: str) -> None:
    first, second = member(one, b"fine"), member(other, b"evil")
    blocks = entry(first, b"fine") + entry(second, b"evil")
    names = sorted([first, second], key=lambda each: each.name) if listed == "both" else [first]
    assert_refused(outside, forge(outside / "made", blocks, names))


def test_a_member_twice_with_the_same_contents(outside: Path) -> None:
    assert_refused(outside, forge(outside / "made", GOOD_ENTRY * 2, [GOOD]))


def test_members_and_manifest_that_differ(outside: Path) -> None:
    """More, fewer, others, and other contents than the manifest lists."""
    more = entry(member("more", b"evil"), b"evil")
    archives = [
        (GOOD_ENTRY + more, [GOOD]),
        (more, [GOOD]),
        (b"", [GOOD]),
        (GOOD_ENTRY, []),
        (entry(GOOD, b"evil"), [GOOD]),
        (GOOD_ENTRY, [replace(GOOD, size=5)]),
        (GOOD_ENTRY, [replace(GOOD, mode=0o644)]),
        (GOOD_ENTRY, [replace(GOOD, mtime_ns=6)]),
    ]
    for number, (blocks, members) in enumerate(archives):
        folder = outside / "into" / str(number)
        (folder / "into").mkdir(parents=True)
        assert_refused(folder, forge(outside / "made", blocks, members))


def test_a_manifest_that_differs_from_the_sidecars(outside: Path) -> None:
    """Inside it is right; the sidecar is forged: of another archive, or with members of its own."""
    path, sidecar = forge(outside / "made", GOOD_ENTRY, [GOOD])
    assert sidecar.manifest is not None
    for number, members in enumerate([(), (replace(GOOD, name="../x"),), (GOOD, member("more")), (member("other"),)]):
        into = outside / "into" / str(number)
        into.mkdir()
        with pytest.raises(BadBackup):
            extract(path, replace(sidecar, manifest=replace(sidecar.manifest, members=members)), into)
        assert not list(into.rglob("more"))


def body(*members: Member) -> bytes:
    """The manifest and the end, for members that are written some other way."""
    manifest = replace(FACTS, members=members)
    text = manifest.to_text().encode()
    return entry(manifest_member(manifest, len(text)), text) + END


def sealed(folder: Path, data: bytes, *members: Member) -> Archive:
    return forge_bytes(folder, data, replace(FACTS, members=members))


WHOLE = gzip.compress(GOOD_ENTRY + body(GOOD))
ENDS = {
    "a byte": WHOLE + b"x",
    "zeros": WHOLE + bytes(512),
    "another gzip member": WHOLE + gzip.compress(GOOD_ENTRY),
    "an empty gzip member": WHOLE + gzip.compress(b""),
    "two gzip members": gzip.compress(GOOD_ENTRY) + gzip.compress(body(GOOD)),
    "an empty one before": gzip.compress(b"") + WHOLE,
    "a member after the end": gzip.compress(GOOD_ENTRY + body(GOOD) + entry(member("more"), b"x")),
    "a member before the end": gzip.compress(GOOD_ENTRY + body(GOOD)[:-1024] + entry(member("more"), b"x") + END),
    "more zeros": gzip.compress(GOOD_ENTRY + body(GOOD) + bytes(9 * 512)),
    "fewer zeros": gzip.compress((GOOD_ENTRY + body(GOOD))[:-512]),
    "no end": gzip.compress((GOOD_ENTRY + body(GOOD))[:-1024]),
    "no manifest": gzip.compress(GOOD_ENTRY + END),
    "an early end": gzip.compress(END + GOOD_ENTRY + body(GOOD)),
    "padding that is not empty": gzip.compress(GOOD_ENTRY[:-1] + b"x" + body(GOOD)),
    "a wrong CRC": WHOLE[:-8] + bytes(4) + WHOLE[-4:],
    "a wrong length": WHOLE[:-4] + struct.pack("<I", 7),
    "no gzip": GOOD_ENTRY + body(GOOD),
    "nothing": b"",
    "no file at all": gzip.compress(b""),
    "age in name only": b"age-encryption.org/v1\n",
}


@pytest.mark.parametrize("data", ENDS.values(), ids=ENDS)
def test_ends(outside: Path, data: bytes) -> None:
    archive = sealed(outside / "made", data, GOOD)
    if data.startswith(b"age"):
        with pytest.raises(VectorkeepError):
            extract(*archive, outside / "into")
        return
    assert_refused(outside, archive)


class TestBombs:
    """Gzip packs a thousand bytes of zeros into one."""

    def test_more_bytes_than_the_manifest_says(self, outside: Path) -> None:
        """A gigabyte behind a header that says 4 bytes; and one whose header says so, where the manifest does not."""
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
            file.write(GOOD_ENTRY[:1536])
            for _ in range(64):
                file.write(bytes(1 << 24))
        assert_refused(outside, sealed(outside / "made", packed.getvalue(), GOOD))
        assert sum(path.stat().st_size for path in (outside / "into").rglob("good")) <= 8

    def test_a_header_larger_than_the_manifest(self, outside: Path) -> None:
        bomb = member("good", bytes(1 << 26))
        path, sidecar = sealed(outside / "made", gzip.compress(entry(bomb, bytes(1 << 26)) + body(GOOD)), GOOD)
        with pytest.raises(BadBackup, match="another size"):
            extract(path, sidecar, outside / "into")
        assert os.listdir(outside / "into") == []

    def test_one_that_its_manifest_vouches_for(self, outside: Path) -> None:
        """Sizes that no disk can hold are seen before the first byte is written."""
        bomb = Member("good", 2**62, "0" * 64, 0o600, 5)
        path, sidecar = sealed(outside / "made", gzip.compress(header(bomb) + bytes(1 << 20) + body(bomb)), bomb)
        with pytest.raises(VectorkeepError, match=r"has .* left"):
            extract(path, sidecar, outside / "into")
        assert os.listdir(outside / "into") == []
        with pytest.raises(BadBackup):
            check_archive(path, sidecar)

    def test_a_manifest_without_end(self, outside: Path) -> None:
        """Its size is looked at before it is read."""
        manifest = replace(manifest_member(FACTS, 0), size=2**40)
        assert_refused(outside, sealed(outside / "made", gzip.compress(header(manifest) + bytes(1 << 22))))

    def test_members_without_end(self, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vectorstore.backups.walk.MOST_MEMBERS", 10)
        members = [member(f"m{number:03}", b"") for number in range(11)]
        path, _ = forge(outside / "made", b"".join(header(each) for each in members), members)
        with pytest.raises(BadBackup, match="more members"):
            check_archive(path, None)

    def test_a_pax_bomb(self, outside: Path) -> None:
        long = "x" * 10_000
        raw = pax({"mtime": "0.000000005", "comment": long}, GOOD_ENTRY[1024:])
        assert_refused(outside, forge(outside / "made", raw, [GOOD]))


class TestTarget:
    """The folder that is written to."""

    def test_must_be_empty(self, outside: Path) -> None:
        archive = forge(outside / "made", GOOD_ENTRY, [GOOD])
        (outside / "into/other").write_bytes(b"")
        with pytest.raises(FileExistsError):
            extract(*archive, outside / "into")
        assert os.listdir(outside / "into") == ["other"]

    def test_is_no_link(self, outside: Path) -> None:
        archive = forge(outside / "made", GOOD_ENTRY, [GOOD])
        (outside / "made/elsewhere").mkdir()
        (outside / "made/link").symlink_to(outside / "made/elsewhere")
        with pytest.raises(OSError):
            extract(*archive, outside / "made/link")
        assert os.listdir(outside / "made/elsewhere") == []

    @pytest.mark.parametrize("planted", ["file", "link", "folder link"])
    def test_what_somebody_plants_meanwhile_is_not_followed(self, outside: Path, planted: str) -> None:
        """Between two members, by whoever may write there."""
        first, second = member("d/a", b"fine"), member("d/b" if planted != "folder link" else "e/b", b"more")
        archive = forge(outside / "made", entry(first, b"fine") + entry(second, b"more"), [first, second])
        into = outside / "into"

        def plant(_: int) -> None:
            if planted == "folder link" and not (into / "e").is_symlink():
                (into / "e").symlink_to(outside)
            elif planted == "link" and not (into / "d/b").is_symlink():
                (into / "d/b").symlink_to(outside / "precious")
            elif planted == "file":
                (into / "d/b").write_bytes(b"theirs")

        with pytest.raises(FileExistsError):
            extract(*archive, into, on_bytes=plant)
        for path in (into / "e", into / "d/b"):
            path.unlink(missing_ok=True)

    def test_a_folder_swapped_for_a_link_is_not_followed(self, outside: Path) -> None:
        first, second = member("d/a", b"fine"), member("d/b", b"more")
        archive = forge(outside / "made", entry(first, b"fine") + entry(second, b"more"), [first, second])
        (outside / "made/elsewhere").mkdir()

        def swap(_: int) -> None:
            if not (outside / "into/d").is_symlink():
                (outside / "into/d").rename(outside / "made/was")
                (outside / "into/d").symlink_to(outside / "made/elsewhere")

        with pytest.raises(OSError):
            extract(*archive, outside / "into", on_bytes=swap)
        assert os.listdir(outside / "made/elsewhere") == []
        (outside / "into/d").unlink()


@pytest.mark.slow
def test_noise(outside: Path) -> None:
    """Random bytes over headers, with all digests right: refused, never an accident of another kind."""
    rng = random.Random(3)
    source = outside / "made/source"
    source.mkdir()
    (source / "a").write_bytes(b"one" * 300)
    (source / "b").write_bytes(b"two" * 300)
    path, sidecar = make_archive(outside / "made", source)
    plain, manifest = gzip.decompress(path.read_bytes()), sidecar.manifest
    assert isinstance(manifest, Manifest)
    for number in range(1500):
        raw = bytearray(plain)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.choice([0, 0x30, 0x37, 0x80, 0xFF, rng.randrange(256)])
        if raw == plain:
            continue
        archive = forge_bytes(outside / "made", gzip.compress(bytes(raw), 1), manifest)
        with pytest.raises(BadBackup):
            check_archive(*archive)
        with suppress(BadBackup):  # without a sidecar the manifest's counts are its own word; the members never are
            assert check_archive(archive[0], None).members == manifest.members
        if number % 10 == 0:
            into = outside / "into" / str(number)
            into.mkdir()
            with pytest.raises(BadBackup):
                extract(*archive, into)
