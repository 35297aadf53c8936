"""What a backup holds, as its archive and the file beside it say: the manifest and the sidecar.

The sidecar ``<name>.manifest.json`` guards itself: it holds the SHA-256 of all else in it, and its text must be the one
spelling of its values, so that no changed bit goes unseen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vectorstore.backups.fields import Fields, parse, to_json
from vectorstore.backups.naming import BACKUP_NAME, Names
from vectorstore.errors import BadBackup

SCHEMA_VERSION = 1
KINDS = ("full", "portable")
INCLUDES = ("store", "ledger", "cache", "settings")
SIDECAR_SUFFIX = ".manifest.json"
LARGEST = 64 << 20  # bytes of a manifest: room for 200,000 members
_RECIPIENT = re.compile(r"age1[0-9a-z]{58}", re.ASCII)
_TIMES = 2**63


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: a relative POSIX path; see ``naming.safe_name``.
        size: bytes.
        sha256: of its contents, hex.
        mode: permission bits, at most 0o777.
        mtime_ns: when it was last changed, Unix ns.
    """

    name: str
    size: int
    sha256: str
    mode: int
    mtime_ns: int

    @classmethod
    def from_fields(cls, fields: Fields) -> Member:
        """Read one strictly; ``BadBackup`` if it is not one."""
        found = cls(
            name=fields.text("name"),
            size=fields.whole("size"),
            sha256=fields.hex("sha256", 64),
            mode=fields.whole("mode", high=0o777),
            mtime_ns=fields.whole("mtime_ns", low=-_TIMES),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is of, and its members.

    Attributes:
        name: ``backup_YYYYMMDD_HHMMSS``, UTC.
        kind: ``full`` (the store's files) or ``portable`` (Parquet).
        created: Unix s.
        versions: of vectorkeep, chromadb, python.
        pipeline: id of the pipeline that the ledger names; empty if there is none.
        collections: rows by collection.
        documents, chunks: counts of the ledger.
        includes: of ``INCLUDES``.
        selection: in words what was left out; empty: nothing.
        members: all but the manifest itself, sorted by name.
    """

    name: str
    kind: str
    created: float
    versions: Mapping[str, str]
    pipeline: str
    collections: Mapping[str, int]
    documents: int
    chunks: int
    includes: tuple[str, ...]
    selection: str = ""
    members: tuple[Member, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes of all members unpacked."""
        return sum(member.size for member in self.members)

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads."""
        members = [asdict(member) for member in self.members]
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {"includes": list(self.includes), "members": members}
        maps = {"versions": dict(self.versions), "collections": dict(self.collections)}
        return {"schema_version": SCHEMA_VERSION, **values, **lists, **maps, "created": float(self.created)}

    def to_text(self) -> str:
        """The archive's last member."""
        return to_json(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: object) -> Manifest:
        """Read it strictly.

        Raises:
            BadBackup: a field is missing, unknown or of another type; a member's name is not safe, or is there twice.
        """
        fields = Fields(values, "the manifest")
        fields.whole("schema_version", SCHEMA_VERSION, SCHEMA_VERSION)
        found = cls(
            name=_backup_name(fields),
            kind=fields.choice("kind", KINDS),
            created=fields.seconds("created"),
            versions=_texts_by_name(fields.object("versions")),
            pipeline=fields.text("pipeline"),
            collections=_counts_by_name(fields.object("collections")),
            documents=fields.whole("documents"),
            chunks=fields.whole("chunks"),
            includes=fields.texts("includes"),
            selection=fields.text("selection"),
            members=tuple(Member.from_fields(Fields(each, "a member")) for each in fields.list("members")),
        )
        fields.done()
        if not set(found.includes) <= set(INCLUDES):
            fields.refuse(f"'includes' is {found.includes}")
        _check_members(found.members, fields)
        return found

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read the text of ``to_text``; ``BadBackup`` where it is another."""
        found = cls.from_dict(parse(data))
        if found.to_text().encode() != data:
            raise BadBackup("the manifest is not spelled as Vectorkeep spells it")
        return found


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What lies beside an archive.

    Attributes:
        name: the backup's.
        file: name of the archive beside it: ``<name>.tar.gz``, or ``<name>.tar.gz.age``.
        kind: the manifest's, or ``encrypted``.
        created: Unix s.
        size: bytes of the archive.
        md5, sha256: of the archive as it lies there, hex.
        versions: of vectorkeep, chromadb, python.
        recipients: public age keys that it is encrypted to; empty: not encrypted.
        manifest: the same as in the archive; ``None`` if that is encrypted: nothing in it is then in clear.
    """

    name: str
    file: str
    kind: str
    created: float
    size: int
    md5: str
    sha256: str
    versions: Mapping[str, str]
    recipients: tuple[str, ...] = ()
    manifest: Manifest | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of all else."""
        return _digest(self._rest())

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads."""
        rest = self._rest()
        return {**rest, "digest": _digest(rest)}

    def to_text(self) -> str:
        """The text of the file."""
        return to_json(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: object) -> Sidecar:
        """Read it strictly.

        Raises:
            BadBackup: a field is missing, unknown, of another type, or does not go with the others; the digest differs.
        """
        fields = Fields(values, "the sidecar")
        fields.whole("schema_version", SCHEMA_VERSION, SCHEMA_VERSION)
        manifest = fields.take("manifest")
        found = cls(
            name=_backup_name(fields),
            file=fields.text("file"),
            kind=fields.choice("kind", (*KINDS, "encrypted")),
            created=fields.seconds("created"),
            size=fields.whole("size"),
            md5=fields.hex("md5", 32),
            sha256=fields.hex("sha256", 64),
            versions=_texts_by_name(fields.object("versions")),
            recipients=fields.texts("recipients"),
            manifest=None if manifest is None else Manifest.from_dict(manifest),
        )
        digest = fields.hex("digest", 64)
        fields.done()
        if digest != found.digest:
            fields.refuse("its digest is not that of its contents: it was changed")
        found._check(fields)
        return found

    @classmethod
    def from_bytes(cls, data: bytes) -> Sidecar:
        """Read the text of ``to_text``; ``BadBackup`` where it is another."""
        found = cls.from_dict(parse(data))
        if found.to_text().encode() != data:
            raise BadBackup("the sidecar was changed: it is not spelled as Vectorkeep spells it")
        return found

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read the file.

        Raises:
            BadBackup: it does not verify.
            OSError: it can't be read.
        """
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise BadBackup(f"{path.name} is larger than any sidecar")
        try:
            return cls.from_bytes(data)
        except BadBackup as error:
            raise BadBackup(f"{path.name}: {error.message}") from error

    def _rest(self) -> dict[str, Any]:
        manifest = None if self.manifest is None else self.manifest.to_dict()
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "manifest"}
        recipients, created, versions = list(self.recipients), float(self.created), dict(self.versions)
        changed = {"created": created, "versions": versions, "recipients": recipients, "manifest": manifest}
        return {"schema_version": SCHEMA_VERSION, **values, **changed}

    def _check(self, fields: Fields) -> None:
        """That the fields go together."""
        encrypted = bool(self.recipients)
        if self.file != archive_file(self.name, encrypted):
            fields.refuse(f"'file' is {self.file!r}")
        if encrypted != (self.kind == "encrypted") or encrypted != (self.manifest is None):
            fields.refuse("it does not say whether the archive is encrypted")
        if not all(_RECIPIENT.fullmatch(recipient) for recipient in self.recipients):
            fields.refuse("'recipients' are no public keys")
        inner = self.manifest
        if inner and (inner.name, inner.kind, inner.created, inner.versions) != (
            (self.name, self.kind, self.created, self.versions)
        ):
            fields.refuse("its manifest is of another backup")


def archive_file(name: str, encrypted: bool) -> str:
    """The file name of a backup's archive."""
    return f"{name}.tar.gz.age" if encrypted else f"{name}.tar.gz"


def sidecar_file(name: str) -> str:
    """The file name of a backup's sidecar."""
    return name + SIDECAR_SUFFIX


def _backup_name(fields: Fields) -> str:
    name = fields.text("name")
    if not BACKUP_NAME.fullmatch(name):
        fields.refuse(f"'name' is {name!r}")
    return name


def _texts_by_name(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.names()}


def _counts_by_name(fields: Fields) -> dict[str, int]:
    return {name: fields.whole(name) for name in fields.names()}


def _check_members(members: tuple[Member, ...], fields: Fields) -> None:
    names = Names()
    for member in members:
        try:
            names.take(member.name)
        except ValueError as error:
            fields.refuse(str(error))
    if [member.name for member in members] != sorted(member.name for member in members):
        fields.refuse("its members are not sorted by name")


def _digest(rest: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(rest).encode()).hexdigest()
