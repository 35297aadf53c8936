"""A backup unpacked into a folder that is a workspace of its own, and looked at there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.backups.catalog import Backup
from vectorstore.backups.extract import extract
from vectorstore.backups.manifest import Manifest
from vectorstore.backups.portable_facts import FACTS_FILE, FOLDER
from vectorstore.backups.snapshot import STORE
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import BadBackup, ConfigurationError
from vectorstore.findings import Depth, Finding, Severity, held
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

# What a backup answers for. The others are about documents, money or the machine, which went on since.
JUDGED = {
    "store", "layout", "sqlite", "relations", "fulltext", "queue", "segments", "index", "index_ids", "missing",
    "orphans", "text", "metadata", "vectors", "no_vector", "dimension", "not_finite", "zero", "norm",
    "duplicate_vectors", "two_places", "pipeline_mark", "self_query", "recall", "probe", "ledger", "ledger_counts",
}  # fmt: skip


@dataclass
class Stage:
    """An unpacked backup.

    Attributes:
        root: its workspace.
        manifest: of the backup.
        settings: for this workspace; documents, money and backups are those of the original.
        notes: what a person should know.
    """

    root: Path
    manifest: Manifest
    settings: Settings
    notes: list[str] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The folder of the store; not there if only rows for a server were staged."""
        return self.root / STORE

    @property
    def rows(self) -> Path:
        """The folder of portable rows."""
        return self.root

    @property
    def ledger(self) -> Path:
        """The ledger's file, if the backup holds one."""
        return self.root / ".hashes" / "ledger.sqlite3"


def identity_of(settings: Settings, backup: Backup, password: str | None) -> Identity | None:
    """The key for an encrypted backup; ``None`` for one that is not.

    Raises:
        KeyRefused: the key is missing, or the password is not its own.
    """
    if not backup.archive.name.endswith(".age"):
        return None
    from vectorstore.backups.encryption import PASSWORD, open_key
    from vectorstore.errors import KeyRefused

    if not password:
        raise KeyRefused(f"{backup.name} is encrypted, and there is no password", f"set {PASSWORD}")
    return open_key(settings.path(settings.backup_key), password)


def usable(backup: Backup) -> Backup:
    """The backup itself; ``BadBackup`` where something is wrong with it that can be seen from outside."""
    if backup.problem and backup.sidecar is not None:
        raise BadBackup(f"{backup.name}: {backup.problem}", "choose another: `vectorkeep backups`")
    if not backup.archive.is_file():
        raise BadBackup(f"{backup.name}: {backup.problem}", "choose another: `vectorkeep backups`")
    return backup


@contextlib.contextmanager
def naming(backup: Backup) -> Iterator[None]:
    """What is found to be bad in the block is said to be of this backup, with the next step."""
    try:
        yield
    except BadBackup as error:
        said = error.message if backup.name in error.message else f"{backup.name}: {error.message}"
        raise BadBackup(said, error.hint or "choose another: `vectorkeep backups`") from error


def unpack(
    settings: Settings, backup: Backup, root: Path, *, identity: Identity | None = None, fill: bool = True,
    only: Collection[str] | None = None, on_step: OnStep = lambda step: None,
) -> Stage:  # fmt: skip
    """Unpack a backup into ``root``, an empty folder, verifying every byte; a portable one becomes a store there.

    Args:
        fill: whether the rows of a portable one become an embedded store.
        only: collections of a portable one; ``None``: all.

    Raises:
        BadBackup: it does not verify.
        ConfigurationError: it has no such collection.
        KeyRefused: it is encrypted, and the key is missing or another's.
    """
    manifest = backup.sidecar.manifest if backup.sidecar else None
    steps = Steps("unpacking", manifest.size if manifest else 0, on_step)
    with naming(backup):
        manifest = extract(backup.archive, backup.sidecar, root, identity=identity, on_bytes=steps.add)
    staged = replace(
        settings, workspace=root, chroma_path=Path(STORE), chroma_url="", source=settings.path(settings.source),
        spend_ledger=settings.path(settings.spend_ledger), backups_path=settings.backups,
    )  # fmt: skip
    stage = Stage(root, manifest, staged)
    check_choice(manifest, only or ())
    if manifest.kind == "portable" and fill:
        _fill(stage, on_step)
    return stage


def check_choice(manifest: Manifest, only: Collection[str]) -> None:
    """See that a backup has these collections, and that they can be taken out of it; ``ConfigurationError`` if not."""
    if unknown := set(only) - set(manifest.collections):
        raise ConfigurationError(
            f"{manifest.name} has no collection {min(unknown)!r}", f"it has {', '.join(sorted(manifest.collections))}"
        )
    if only and manifest.kind != "portable":
        raise ConfigurationError(
            f"{manifest.name} is a full backup", "restore all of it; single collections come from a portable one"
        )


def _fill(stage: Stage, on_step: OnStep) -> None:
    from vectorstore.backups.portable import load
    from vectorstore.chroma.fingerprint import fingerprint
    from vectorstore.chroma.store import Store
    from vectorstore.ledger import Ledger

    stage.store.mkdir()
    steps = Steps("filling a store", sum(stage.manifest.collections.values()), on_step)
    with contextlib.closing(Store(stage.settings)) as store:
        loaded = load(stage.rows, store, on_rows=steps.add)
    drop_rows(stage)
    stage.notes += lacking_notes(loaded)
    if stage.ledger.is_file():
        with contextlib.closing(Ledger(stage.ledger)) as ledger:
            ledger.store_closed(fingerprint(stage.store))
    sync_tree(stage.store)


def lacking_notes(loaded: list) -> list[str]:  # type: ignore[type-arg]
    """What a load left out, for a person."""
    return [
        f"{each.without_vector:,} rows of {each.name} have no vector in the backup and were left out"
        for each in loaded if each.without_vector
    ]  # fmt: skip


def drop_rows(stage: Stage) -> None:
    """Remove the portable rows, once they are in a store."""
    shutil.rmtree(stage.root / FOLDER, ignore_errors=True)
    (stage.root / FACTS_FILE).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder to the disk, and their names."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def faults_of(stage: Stage, *, probe: bool | None = None) -> list[Finding]:
    """What a deep health check finds at FAIL in a staged store that the backup answers for."""
    from vectorstore.health import health

    judged = JUDGED if stage.ledger.is_file() else JUDGED - {"ledger"}  # one without a ledger does not promise one
    report = health(stage.settings, depth=Depth.DEEP, probe=probe)
    if holder := held(report.findings):
        return [holder]
    return [each for each in report.findings if each.severity is Severity.FAIL and each.check in judged]
