"""A manifest and a sidecar are read only as they were written: what anybody changed in them is refused."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vectorstore.backups.fields import to_json
from vectorstore.backups.manifest import INCLUDES, Manifest, Member, Sidecar, archive_file, sidecar_file
from vectorstore.backups.naming import Names, safe_name
from vectorstore.errors import BadBackup

MEMBERS = (
    Member("chroma/ab/data_level0.bin", 2**40, "0f" * 32, 0o644, 1_763_744_000_123_456_789),
    Member("chroma/chroma.sqlite3", 0, "ab" * 32, 0o600, -1),
    Member("ledger.db", 7, "cd" * 32, 0, 0),
)
MANIFEST = Manifest(
    name="backup_20261121_171200",
    kind="full",
    created=1763744000.1234567,
    versions={"vectorkeep": "0.1.0", "chromadb": "1.5.9", "python": "3.11.7"},
    pipeline="abc",
    collections={"docs": 12, "größer": 0},
    documents=3,
    chunks=12,
    includes=("store", "ledger"),
    members=MEMBERS,
)
SIDECAR = Sidecar(
    name=MANIFEST.name,
    file=archive_file(MANIFEST.name, encrypted=False),
    kind="full",
    created=MANIFEST.created,
    size=99,
    md5="0a" * 16,
    sha256="1b" * 32,
    versions=MANIFEST.versions,
    manifest=MANIFEST,
)
RECIPIENT = "age1" + "q" * 58
SECRET = replace(
    SIDECAR, file=archive_file(MANIFEST.name, True), kind="encrypted", recipients=(RECIPIENT,), manifest=None
)


@pytest.mark.parametrize("sidecar", [SIDECAR, SECRET], ids=["plain", "encrypted"])
def test_what_is_written_is_read(tmp_path: Path, sidecar: Sidecar) -> None:
    path = tmp_path / sidecar_file(sidecar.name)
    path.write_text(sidecar.to_text(), encoding="utf-8")
    assert Sidecar.read(path) == sidecar
    assert Sidecar.from_dict(sidecar.to_dict()) == sidecar
    assert Manifest.from_bytes(MANIFEST.to_text().encode()) == MANIFEST


def test_the_sidecar_of_an_encrypted_archive_tells_nothing_of_what_is_in_it() -> None:
    assert set(SECRET.to_dict()) - {"schema_version", "digest"} == {
        "name", "file", "kind", "created", "size", "md5", "sha256", "versions", "recipients", "manifest",
    }  # fmt: skip
    assert SECRET.to_dict()["manifest"] is None


def test_each_changed_bit_of_a_sidecar_is_seen() -> None:
    """All of them, not a sample."""
    for sidecar in (SIDECAR, SECRET):
        good = sidecar.to_text().encode()
        for place in range(len(good) * 8):
            bad = bytearray(good)
            bad[place // 8] ^= 1 << place % 8
            with pytest.raises(BadBackup):
                Sidecar.from_bytes(bytes(bad))


def test_each_cut_and_each_doubled_byte_is_seen() -> None:
    good = SIDECAR.to_text().encode()
    for place in range(len(good)):
        for bad in (good[:place], good[:place] + good[place : place + 1] + good[place:]):
            with pytest.raises(BadBackup):
                Sidecar.from_bytes(bad)


WRONG = {
    "missing": ..., "null": None, "list": [1], "object": {"a": [1]}, "true": True, "number": -3.5, "text": "../x",
    "nan": float("nan"),
}  # fmt: skip
FIELDS = [
    *SIDECAR.to_dict(),
    *(f"manifest.{name}" for name in MANIFEST.to_dict()),
    *(f"manifest.members.0.{name}" for name in MEMBERS[0].__slots__),
]
FITTING = {("pipeline", "text"), ("selection", "text"), ("created", "number"), ("manifest", "null")}
MISFITS = [(name, wrong) for name in FIELDS for wrong in WRONG if (name.rpartition(".")[2], wrong) not in FITTING]


@pytest.mark.parametrize(("name", "wrong"), MISFITS)
def test_a_field_that_is_missing_or_of_another_type_is_refused(name: str, wrong: str) -> None:
    """Also by a forger who has the digest right."""
    values = SIDECAR.to_dict()
    *way, last = name.split(".")
    target: Any = values
    for step in way:
        target = target[int(step)] if isinstance(target, list) else target[step]
    if wrong == "missing":
        del target[last]
    else:
        target[last] = WRONG[wrong]
    with pytest.raises(BadBackup):
        Sidecar.from_dict(signed(values))


@pytest.mark.parametrize("where", ["", "manifest", "members"])
def test_an_unknown_field_is_refused(where: str) -> None:
    values = SIDECAR.to_dict()
    target = {"": values, "manifest": values["manifest"], "members": values["manifest"]["members"][1]}[where]
    target["more"] = 1
    with pytest.raises(BadBackup, match="not known"):
        Sidecar.from_dict(signed(values))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": 1e999}', "[" * 100_000, '"\\ud800"', "1" * 5000],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    for read in (Sidecar.from_bytes, Manifest.from_bytes):
        with pytest.raises(BadBackup):
            read(text.encode())


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\x00", b'\xef\xbb\xbf{"a":1}'])
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadBackup):
        Sidecar.read(tmp_path / "x")


def test_a_lone_surrogate_is_no_name_of_a_collection() -> None:
    values = {**MANIFEST.to_dict(), "collections": {"\ud800": 1}}
    with pytest.raises(BadBackup):
        Manifest.from_bytes(json.dumps(values).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "encrypted"},
        {"kind": "portable"},
        {"manifest": None},
        {"recipients": (RECIPIENT,)},
        {"file": "backup_20261121_171201.tar.gz"},
        {"file": "../" + SIDECAR.file},
        {"name": "backup_20261121_171201", "file": "backup_20261121_171201.tar.gz"},
        {"name": "backup_2026112१_171200"},
        {"created": 0.0},
        {"versions": {}},
        {"size": -1},
        {"size": 2**64},
        {"md5": "AB" * 16},
    ],
)
def test_fields_that_do_not_go_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadBackup):
        Sidecar.from_dict(replace(SIDECAR, **changes).to_dict())


@pytest.mark.parametrize("recipients", [("AGE-SECRET-KEY-1" + "Q" * 58,), ("ssh-ed25519 AAAA",), (RECIPIENT,) * 2])
def test_recipients_are_public_keys(recipients: tuple[str, ...]) -> None:
    with pytest.raises(BadBackup):
        Sidecar.from_dict(replace(SECRET, recipients=recipients).to_dict())


def test_includes_are_known_words() -> None:
    Manifest.from_dict(replace(MANIFEST, includes=INCLUDES).to_dict())
    for includes in (("keys",), ("store", "store")):
        with pytest.raises(BadBackup):
            Manifest.from_dict(replace(MANIFEST, includes=includes).to_dict())


def test_members_are_in_order() -> None:
    with pytest.raises(BadBackup, match="sorted"):
        Manifest.from_dict(replace(MANIFEST, members=MEMBERS[::-1]).to_dict())


@pytest.mark.parametrize("mode", [0o1000, 0o4755, -1])
def test_no_member_sets_a_user_id(mode: int) -> None:
    with pytest.raises(BadBackup):
        Manifest.from_dict(replace(MANIFEST, members=(replace(MEMBERS[0], mode=mode),)).to_dict())


UNSAFE = [
    "", ".", "..", "/", "/etc/passwd", "a/../b", "../a", "a/..", "./a", "a/.", "a//b", "a/", "\\a", "a\\b", "a\0b",
    "C:/a", "c:a", "a\nb", "a\x7fb", "a\x85b", "e\u0301", "a/" + "x" * 256, "é" * 128, "a/" * 600 + "a", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names(name: str) -> None:
    assert not safe_name(name)
    with pytest.raises(ValueError):
        Names().take(name)


@pytest.mark.parametrize("name", ["a", "a/b.c", "..a", "a..", "...", "é", "x" * 255, "a b", "größer/数.bin", "-rf"])
def test_safe_names(name: str) -> None:
    assert safe_name(name)
    Names().take(name)


TWINS = [
    ("a", "a"), ("a", "A"), ("dir/a", "DIR/b"), ("straße", "STRASSE"), ("ﬁle", "file"), ("a", "a/b"), ("a/b", "a"),
    ("a/b/c", "A/b"), ("x/a/b", "x/A"), ("K", "\u212a"), ("µ", "μ"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_names_that_some_disk_takes_for_one(one: str, other: str) -> None:
    """In both orders; and a manifest that has both is refused."""
    for first, second in ((one, other), (other, one)):
        names = Names()
        try:
            names.take(first)
        except ValueError:
            continue  # the letter itself is no NFC
        with pytest.raises(ValueError):
            names.take(second)
    members = sorted((replace(MEMBERS[0], name=name) for name in (one, other)), key=lambda member: member.name)
    with pytest.raises(BadBackup):
        Manifest.from_dict(replace(MANIFEST, members=tuple(members)).to_dict())


@pytest.mark.parametrize("name", ["manifest.json", "MANIFEST.json"])
def test_no_member_takes_the_place_of_the_manifest(name: str) -> None:
    with pytest.raises(BadBackup):
        Manifest.from_dict(replace(MANIFEST, members=(replace(MEMBERS[0], name=name),)).to_dict())


def test_a_sidecar_too_large_to_be_one_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadBackup, match="larger"):
        Sidecar.read(path)


def test_noise_is_refused_and_never_an_accident() -> None:
    rng = random.Random(5)
    good = SIDECAR.to_text().encode()
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        if bytes(bad) != good:
            with pytest.raises(BadBackup):
                Sidecar.from_bytes(bytes(bad))


def signed(values: dict[str, Any]) -> dict[str, Any]:
    """With the digest of what it holds now, as a forger would have it; as it was, where it was the digest's turn."""
    rest = {name: value for name, value in values.items() if name != "digest"}
    try:
        digest = hashlib.sha256(to_json(rest).encode()).hexdigest()
    except ValueError:
        return values
    return {**rest, "digest": digest} if values.get("digest") == SIDECAR.digest else values
