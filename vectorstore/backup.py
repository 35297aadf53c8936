"""Backup: an archive of the workspace that has been verified before it gets its name.

``full`` holds the store's files, the ledger and the settings, and the vector cache if asked; ``portable`` holds the
rows as Parquet, for any version of Chroma, for a server, and for a selection without sensitive rows.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.backups import catalog, history
from vectorstore.backups.archive import ArchiveWriter, check_archive, check_digest
from vectorstore.backups.exchange import writing
from vectorstore.backups.manifest import KINDS, Manifest, Sidecar
from vectorstore.backups.placing import disk_errors
from vectorstore.backups.snapshot import Source, copy_cache, copy_ledger, hold_store, settings_text, torn_files
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import ConfigurationError, Damaged, Refused, VectorkeepError
from vectorstore.ledger import Ledger
from vectorstore.settings import SETTINGS_FILE, Settings
from vectorstore.sqlite_errors import is_damage

if TYPE_CHECKING:
    from vectorstore.backups.portable import Exported

WORK = ".partial-work"  # scratch beside the archives; swept up like an archive that was not finished


@dataclass(frozen=True)
class BackupReport:
    """What was backed up.

    Attributes:
        state: ``done``; or ``incomplete``: rows of the store could not be read, or their vectors.
        name, file: of the backup.
        kind: ``full`` or ``portable``.
        size: bytes of the archive.
        unpacked: bytes of what is in it.
        documents, chunks: that the ledger knows; 0 in a selective backup.
        collections: rows by collection.
        left_out: rows that the setting ``sensitive`` kept out.
        md5, sha256: of the archive, hex.
        verified: how far: ``deep``, or ``digest`` of an encrypted one, which nobody can read without the key.
        offsite: whether a copy is off-site; ``None``: it was not asked for.
        notes: what a person should know.
    """

    state: str
    exit_code: int
    seconds: float
    name: str
    file: str
    kind: str
    size: int
    unpacked: int
    documents: int
    chunks: int
    collections: dict[str, int]
    left_out: int
    md5: str
    sha256: str
    verified: str
    encrypted: bool
    offsite: bool | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def backup(
    settings: Settings,
    *,
    kind: str = "",
    cache: bool = False,
    selective: bool = False,
    include_sensitive: bool = False,
    offsite: bool = False,
    on_step: OnStep = lambda step: None,
    clock: Callable[[], float] = time.time,
) -> BackupReport:
    """Make a backup, verify it, publish it.

    Args:
        kind: ``full`` or ``portable``; empty: ``full``, but ``portable`` of a server and of a selection.
        cache: with the vector cache (``full`` only): with it, nothing is ever paid again.
        selective: leave out the rows that the setting ``sensitive`` names; always ``portable``.
        include_sensitive: the confirmation that a backup may hold rows that ``sensitive`` names.
        offsite: copy it to ``offsite_url`` as well.
        on_step: told how far it has got, in bytes or rows.

    Raises:
        Locked: another run writes.
        Refused: rows are sensitive, and it is neither selective nor confirmed.
        ConfigurationError: the settings or the choice can't be right.
        Damaged: the store's index files are damaged: mend them first.
        VectorkeepError: the disk refused; nothing is left that has to be cleaned up.
    """
    kind = _chosen(settings, kind, selective, include_sensitive, cache)
    url = _offsite_url(settings) if offsite else ""
    with writing(settings, "vectorkeep backup"):
        catalog_folder(settings)
        report = make_backup(settings, kind, cache=cache, selective=selective, on_step=on_step, clock=clock)
    return _copy(settings, report, url, on_step, clock) if offsite else report


def _offsite_url(settings: Settings) -> str:
    from vectorstore.backups.offsite import url_of

    return url_of(settings)


def _copy(
    settings: Settings, report: BackupReport, url: str, on_step: OnStep, clock: Callable[[], float]
) -> BackupReport:  # fmt: skip
    """Copy a backup off-site; the error of a copy that failed says that the backup is there all the same."""
    from vectorstore.backups.offsite import push

    steps = Steps("copying off-site", 2 * report.size, on_step)
    try:
        push(catalog.find(settings.backups, report.name), url, on_bytes=steps.add)
    except VectorkeepError as error:
        history.append(
            settings.backups, history.Event("offsite", report.name, clock(), ok=False, message=error.message)
        )
        raise type(error)(
            f"{report.name} is made and verified, but not copied: {error.message}",
            f"{error.hint.removesuffix(', then run again: nothing is lost') or 'see to that'},"
            f" then run `vectorkeep backups --push {report.name}`",
        ) from error
    history.append(settings.backups, history.Event("offsite", report.name, clock()))
    return replace(report, offsite=True)


def make_backup(
    settings: Settings, kind: str, *, cache: bool = False, selective: bool = False, sound: bool = True, pin: str = "",
    on_step: OnStep = lambda step: None, clock: Callable[[], float] = time.time,
) -> BackupReport:  # fmt: skip
    """The backup itself; the caller holds the writer's lock.

    Args:
        sound: whether the store's SQLite file must be readable; ``False`` takes the files as they lie there.
        pin: why retention must keep it; empty: it need not.
    """
    return _Backup(settings, kind, cache, selective, sound, on_step, clock).run(pin)


def catalog_folder(settings: Settings) -> Path:
    """The folder of backups, made where it is not there; what killed runs left in it is taken away."""
    folder = settings.backups
    inside = [settings.path(settings.source)] + ([] if settings.chroma_url else [settings.path(settings.chroma_path)])
    for other in inside:
        if folder.resolve() == other.resolve() or other.resolve() in folder.resolve().parents:
            raise ConfigurationError(f"backups_path {folder} lies in {other}", "choose a folder of its own")
    with disk_errors(f"making {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    catalog.sweep(folder)
    return folder


def _chosen(settings: Settings, kind: str, selective: bool, include_sensitive: bool, cache: bool) -> str:
    kind = kind or ("portable" if settings.chroma_url or selective else "full")
    if kind not in KINDS:
        raise ConfigurationError(f"there is no backup of kind {kind!r}", f"choose one of {', '.join(KINDS)}")
    if kind == "full" and settings.chroma_url:
        raise ConfigurationError("a server's files can't be backed up from here", "choose kind portable")
    if kind == "full" and selective:
        raise ConfigurationError("a full backup holds everything", "a selective one is portable")
    if kind == "portable" and cache:
        raise ConfigurationError("a portable backup holds no cache", "choose kind full")
    if selective and not settings.sensitive:
        raise ConfigurationError("no rows are named as sensitive", "set `sensitive` in vectorkeep.toml")
    if settings.sensitive and not selective and not include_sensitive:
        raise Refused(
            "the setting `sensitive` names rows, and this backup would hold them",
            "leave them out with --selective, or confirm with --include-sensitive",
        )
    return kind


class _Backup:
    """One backup."""

    def __init__(
        self, settings: Settings, kind: str, cache: bool, selective: bool, sound: bool, on_step: OnStep,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings, self._kind, self._cache, self._selective = settings, kind, cache, selective
        self._sound, self._on_step, self._clock = sound, on_step, clock
        self._folder, self._started = settings.backups, clock()
        self._scratch = self._folder / WORK
        self._includes: list[str] = []
        self._exported: Exported | None = None
        self._rows: dict[str, int] = {}
        self._left_out = 0
        self._notes: list[str] = []

    def run(self, pin: str) -> BackupReport:
        name = catalog.new_name(self._folder, self._started)
        partial = catalog.partial_path(self._folder, name)
        try:
            with disk_errors("writing the backup"):
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch.mkdir()
                sidecar, manifest = self._write(partial, name)
            self._verify(partial, sidecar, manifest)
            catalog.publish(partial, sidecar, self._folder)
            if pin:
                catalog.pin(self._folder, name, pin)
        finally:
            with contextlib.suppress(OSError, VectorkeepError):
                shutil.rmtree(self._scratch, ignore_errors=True)
                catalog.sweep(self._folder, name)
        return self._conclude(sidecar, manifest)

    def _write(self, partial: Path, name: str) -> tuple[Sidecar, Manifest]:
        with ArchiveWriter(partial, self._settings.backup_recipients) as archive:
            with self._sources() as sources:
                steps = Steps("writing", sum(each.path.stat().st_size for each in sources), self._on_step)
                for source in sources:
                    archive.add_file(source.name, source.path, steps.add, opened=source.handle)
                self._rows = self._count_rows()
            text = None if self._selective else settings_text(self._settings)  # its rules may tell what they hide
            if text is not None:
                self._includes.append("settings")
                archive.add_bytes(SETTINGS_FILE, text, 0o600, int(self._started * 1e9))
            manifest = self._manifest(name)
            sidecar = archive.close(manifest)
        return sidecar, sidecar.manifest or manifest

    @contextlib.contextmanager
    def _sources(self) -> Iterator[list[Source]]:
        """What is to be archived but for the settings; it stays as it is until the end of the block."""
        with contextlib.ExitStack() as stack:
            files: list[Source] = []
            if not self._settings.chroma_url:
                try:
                    files = stack.enter_context(hold_store(self._settings, self._scratch, sound=self._sound))
                except VectorkeepError:
                    if self._sound:
                        raise
                    files = torn_files(self._settings)
            if self._kind == "portable":
                yield self._export() + ([] if self._selective else self._kept())
                return
            self._includes.append("store")
            yield files + self._kept()

    def _kept(self) -> list[Source]:
        """Ledger, and the cache if asked."""
        ledger: list[Source] = []
        try:
            ledger = copy_ledger(self._settings, self._scratch)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            if self._sound:
                raise Damaged(f"the ledger can't be read: {error}", "run `vectorkeep health`") from error
            self._notes.append(f"the ledger could not be read and is not in it: {error}")
        cache = copy_cache(self._settings, self._scratch) if self._cache else []
        self._includes += ["ledger"] * bool(ledger) + ["cache"] * bool(cache)
        return ledger + cache

    def _export(self) -> list[Source]:
        from vectorstore.backups.portable import export
        from vectorstore.backups.reading import open_reader
        from vectorstore.backups.selection import SensitiveRule

        allow = SensitiveRule(self._settings.sensitive).allows if self._selective else None
        folder = self._scratch / "portable"
        folder.mkdir()
        with open_reader(self._settings) as reader:
            found = reader.collections()
            steps = Steps("reading rows", sum(each.count for each in found), self._on_step)
            self._exported = export(reader, found, folder, allow=allow, on_rows=steps.add)
        self._left_out = self._exported.left_out
        self._includes.append("store")
        lost = self._exported.unread + sum(each.without_vector for each in self._exported.collections)
        if lost:
            some = ", ".join(self._exported.lacking[:3])
            self._notes.append(f"{lost:,} rows could not be read whole, such as {some}: run `vectorkeep health`")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return [Source(path.relative_to(folder).as_posix(), path) for path in paths]

    def _manifest(self, name: str) -> Manifest:
        documents, chunks, pipeline = (0, 0, "") if self._selective else self._counts()
        return Manifest(
            name=name, kind=self._kind, created=self._started, versions=_versions(), pipeline=pipeline,
            collections=self._rows, documents=documents, chunks=chunks, includes=tuple(self._includes),
            selection=f"{self._left_out} sensitive rows are left out" if self._selective else "",
        )  # fmt: skip

    def _count_rows(self) -> dict[str, int]:
        if self._exported:
            return {each.name: each.rows for each in self._exported.collections}
        from vectorstore.chroma import files

        if not files.sqlite_path(self._store).is_file():
            return {}
        with contextlib.suppress(sqlite3.DatabaseError), files.open_snapshot(self._store) as db:
            return {each.name: files.count_ids(db, each) for each in files.list_collections(db, self._store)}
        return {}

    def _counts(self) -> tuple[int, int, str]:
        path = self._scratch / "ledger.sqlite3"
        if not path.is_file():
            return 0, 0, ""
        with contextlib.closing(Ledger(path, readonly=True)) as ledger:
            serving = ledger.generation(self._settings.collection)
            counts = ledger.collections(serving.id).values() if serving else ()
            documents, chunks = sum(each[0] for each in counts), sum(each[1] for each in counts)
            return documents, chunks, serving.pipeline if serving else ""

    @property
    def _store(self) -> Path:
        return self._settings.path(self._settings.chroma_path)

    def _verify(self, partial: Path, sidecar: Sidecar, manifest: Manifest) -> None:
        """As it lies on the disk; an encrypted one can't be read without its key, which nobody needs for a backup."""
        if sidecar.recipients:
            check_digest(partial, sidecar, Steps("verifying", sidecar.size, self._on_step).add)
        else:
            check_archive(partial, sidecar, on_bytes=Steps("verifying", manifest.size, self._on_step).add)

    def _conclude(self, sidecar: Sidecar, manifest: Manifest) -> BackupReport:
        level = "digest" if sidecar.recipients else "deep"
        seconds = self._clock() - self._started
        event = history.Event("backup", sidecar.name, self._clock(), level, True, seconds, "; ".join(self._notes))
        history.append(self._folder, event)
        return BackupReport(
            state="incomplete" if self._notes else "done", exit_code=1 if self._notes else 0, seconds=seconds,
            name=sidecar.name, file=str(self._folder / sidecar.file), kind=self._kind, size=sidecar.size,
            unpacked=manifest.size, documents=manifest.documents, chunks=manifest.chunks,
            collections=dict(manifest.collections), left_out=self._left_out, md5=sidecar.md5, sha256=sidecar.sha256,
            verified=level, encrypted=bool(sidecar.recipients), notes=self._notes,
        )  # fmt: skip


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    return {"vectorkeep": version("vectorkeep"), "chromadb": version("chromadb"), "python": platform.python_version()}
