"""The one way through an archive: each member as the manifest says, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from vectorstore.backups.manifest import LARGEST, Manifest, Member
from vectorstore.backups.naming import MANIFEST_FILE, Names
from vectorstore.backups.stream import Inflated
from vectorstore.backups.tar_header import END, padding, read_header
from vectorstore.errors import BadBackup

MOST_MEMBERS = 200_000
Write = Callable[[memoryview], object]
Receive = Callable[[Member], AbstractContextManager[Write]]


def walk(
    stream: Inflated,
    expected: Manifest | None,
    receive: Receive | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Manifest:
    """Read an archive to its end and compare all of it with its manifest.

    Args:
        expected: the sidecar's manifest: what differs from it is refused before ``receive`` hears of it. ``None``: only
            the archive's own manifest is there to compare with, at the end.
        receive: gives what a member's bytes are written to; they are as many as the member says.
        on_bytes: told how many bytes were unpacked since the last call.

    Returns:
        The archive's own manifest.

    Raises:
        BadBackup: what differs.
    """
    allowed = None if expected is None else {member.name: member for member in expected.members}
    found: list[Member] = []
    names = Names()
    while (member := _next(stream)).name != MANIFEST_FILE:
        _take(names, member)
        if allowed is not None:
            _compare(member, allowed.get(member.name))
        if len(found) == MOST_MEMBERS:
            raise BadBackup("the archive holds more members than any backup")
        found.append(replace(member, sha256=_pass(stream, member, receive, on_bytes)))
        _skip_padding(stream, member)
    manifest = _read_manifest(stream, member)
    if expected is not None and manifest != expected:
        raise BadBackup("the manifest in the archive is not the one in its sidecar")
    _compare_all(found, manifest)
    return manifest


def _next(stream: Inflated) -> Member:
    member = read_header(stream.read)
    if member is None:
        raise BadBackup("the archive holds no manifest")
    return member


def _take(names: Names, member: Member) -> None:
    try:
        names.take(member.name)
    except ValueError as error:
        raise BadBackup(f"the archive can't be trusted: {error}") from error


def _compare(member: Member, listed: Member | None) -> None:
    """Refuse a member that the manifest does not list, or lists otherwise."""
    if listed is None:
        raise BadBackup(f"the archive holds {member.name!r}, which its manifest does not list")
    if member != replace(listed, sha256=""):
        raise BadBackup(f"{member.name!r} in the archive has another size, mode or time than its manifest says")


def _pass(stream: Inflated, member: Member, receive: Receive | None, on_bytes: Callable[[int], None] | None) -> str:
    """Read a member's bytes on; their SHA-256."""
    digest = hashlib.sha256()
    if receive is None:
        for piece in stream.pieces(member.size):
            digest.update(piece)
            if on_bytes:
                on_bytes(len(piece))
        return digest.hexdigest()
    with receive(member) as write:
        for piece in stream.pieces(member.size):
            digest.update(piece)
            write(piece)
            if on_bytes:
                on_bytes(len(piece))
    return digest.hexdigest()


def _skip_padding(stream: Inflated, member: Member) -> None:
    if any(stream.read(padding(member.size))):
        raise BadBackup(f"bytes after {member.name!r} in the archive that belong to nothing")


def _read_manifest(stream: Inflated, member: Member) -> Manifest:
    """The last member, and that nothing comes after it."""
    if member.size > LARGEST:
        raise BadBackup("the manifest in the archive is larger than any")
    data = stream.read(member.size)
    _skip_padding(stream, member)
    if stream.read(len(END)) != END:
        raise BadBackup("the archive holds more after its manifest")
    stream.finish()
    manifest = Manifest.from_bytes(data)
    if member != manifest_member(manifest, member.size):
        raise BadBackup("the manifest in the archive has another mode or time than Vectorkeep gives it")
    return manifest


def manifest_member(manifest: Manifest, size: int) -> Member:
    """The manifest as a member, without a digest."""
    return Member(MANIFEST_FILE, size, "", 0o600, int(manifest.created) * 10**9)


def _compare_all(found: list[Member], manifest: Manifest) -> None:
    if sorted(found, key=lambda member: member.name) == list(manifest.members):
        return
    listed = {member.name: member for member in manifest.members}
    for member in found:
        if listed.get(member.name) is None:
            raise BadBackup(f"the archive holds {member.name!r}, which its manifest does not list")
        if listed[member.name] != member:
            raise BadBackup(f"{member.name!r} is damaged: it is not what the manifest says")
    there = {member.name for member in found}
    raise BadBackup(f"the archive lacks {next(name for name in listed if name not in there)!r}")
