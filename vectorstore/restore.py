"""Restore: a backup takes the place of store and ledger, or of single collections, or goes into another folder.

What is there is backed up first; the backup is unpacked beside it, verified and looked at there, and exchanged with it
at the end. A kill at any step leaves what was there or what was restored, and the next writer ends what was begun.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.backup import catalog_folder, make_backup
from vectorstore.backups import catalog, history
from vectorstore.backups.arriving import arriving, check_empty
from vectorstore.backups.catalog import Backup
from vectorstore.backups.exchange import (
    RESTORED,
    STAGE,
    Exchange,
    check_exchangeable,
    read_journal,
    store_folder,
    swap_in,
    writing,
)  # fmt: skip
from vectorstore.backups.manifest import Manifest
from vectorstore.backups.merging import merge, take_over
from vectorstore.backups.moving import settle_settings
from vectorstore.backups.placing import disk_errors
from vectorstore.backups.retention import REPLACED
from vectorstore.backups.staging import (
    Stage,
    check_choice,
    drop_rows,
    faults_of,
    identity_of,
    lacking_notes,
    naming,
    sync,
    unpack,
    usable,
)  # fmt: skip
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.errors import BadBackup, ConfigurationError, NoBackup, Refused, VectorkeepError
from vectorstore.ledger import Ledger
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from pyrage.x25519 import Identity


@dataclass(frozen=True)
class RestoreReport:
    """What was restored, or would be.

    Attributes:
        state: ``planned`` (dry run: verified, nothing changed), ``restored``.
        name: of the backup.
        created: Unix time of the backup.
        kind: ``full`` or ``portable``.
        into: the folder; empty: the workspace itself.
        collections: rows by collection, as the backup has them.
        documents, chunks: that its ledger knows; 0 where only single collections are restored.
        safety: the backup of what was there before; empty: nothing was there, or it was not wanted.
        replaces: rows by collection that have to make room for it, or had to.
        adapted: what in the settings of a folder of its own is not as it was backed up.
        notes: what else a person should know.
    """

    state: str
    exit_code: int
    seconds: float
    name: str
    created: float
    kind: str
    into: str
    collections: dict[str, int]
    documents: int
    chunks: int
    safety: str = ""
    replaces: dict[str, int] = field(default_factory=dict)
    adapted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def restore(
    settings: Settings,
    which: str = "latest",
    *,
    into: Path | None = None,
    collections: Sequence[str] = (),
    undo: bool = False,
    dry_run: bool = False,
    offsite: bool = False,
    safety: bool = True,
    accept_findings: bool = False,
    include_sensitive: bool = False,
    password: str | None = None,
    on_step: OnStep = lambda step: None,
    clock: Callable[[], float] = time.time,
) -> RestoreReport:
    """Bring a backup back.

    Args:
        which: ``latest``, a backup's name, or its file's.
        into: an empty folder that becomes a workspace, or does not exist yet; the workspace itself is not touched.
        collections: only these, of a portable backup; ``()``: all.
        undo: bring back what the last restore replaced; ``which`` is left aside.
        dry_run: verify the backup and say what would be replaced; nothing is changed.
        offsite: fetch the backup from ``offsite_url`` if it is not here.
        safety: back up what is there first.
        accept_findings: restore even what a health check finds at FAIL: better than nothing.
        include_sensitive: the confirmation that the backup of what is there may hold rows that ``sensitive`` names.
        password: of the key of an encrypted backup.
        on_step: told how far it has got.

    Raises:
        NoBackup: there is none of that name.
        BadBackup: it does not verify, or what it holds is not healthy. Nothing was changed.
        KeyRefused: it is encrypted, and key or password are missing or wrong. Nothing was changed.
        Locked: another run writes.
        Refused: ``into`` is not empty; the workspace is paused or protected; sensitive rows are not confirmed.
        VectorkeepError: the disk refused. What was there is there.
    """
    work = _Restore(settings, into, list(collections), safety, on_step, clock)
    work.accept_findings = accept_findings or undo
    if undo:
        which = _replaced(settings)
    elif not offsite:
        which = _wanted(settings, which)
    if dry_run:
        with _shown(settings, which, offsite, on_step) as backup:
            return work.plan(backup, password)
    if into is not None:
        return work.elsewhere(_here(settings, which, offsite, on_step), password)
    _check_allowed(settings, safety, include_sensitive)
    with writing(settings, "vectorkeep restore"):
        catalog_folder(settings)
        return work.in_place(_here(settings, which, offsite, on_step), password)


def _here(settings: Settings, which: str, offsite: bool, on_step: OnStep) -> Backup:
    """The backup in the backups folder, fetched from off-site if need be."""
    if not offsite:
        return catalog.find(settings.backups, which)
    from vectorstore.backups.offsite import fetch, list_remote, url_of

    url = url_of(settings)
    name = catalog.choose(list_remote(url), which, url).name
    with contextlib.suppress(NoBackup):
        return usable(catalog.find(settings.backups, name))
    settings.backups.mkdir(parents=True, exist_ok=True)
    return fetch(url, name, settings.backups, on_bytes=Steps("fetching", 0, on_step).add)


@contextlib.contextmanager
def _shown(settings: Settings, which: str, offsite: bool, on_step: OnStep) -> Iterator[Backup]:
    """The backup for a dry run: one that is off-site only is fetched for as long as it is looked at."""
    if not offsite:
        yield catalog.find(settings.backups, which)
        return
    with tempfile.TemporaryDirectory(prefix="vectorkeep-") as folder:
        yield _here(replace(settings, backups_path=Path(folder)), which, offsite, on_step)


def _wanted(settings: Settings, which: str) -> str:
    """``latest`` is the newest that was asked for: after one restore, another must not bring back what was replaced."""
    if which != catalog.LATEST:
        return which
    sound = (each for each in catalog.list_backups(settings.backups) if not each.problem)
    return next((each.name for each in sound if not each.pinned.startswith(REPLACED)), which)


def _replaced(settings: Settings) -> str:
    journal = read_journal(settings)
    if not journal or not journal.get("safety"):
        raise NoBackup("there is no restore to undo", "see `vectorkeep backups`")
    return str(journal["safety"])


def _check_allowed(settings: Settings, safety: bool, include_sensitive: bool) -> None:
    if settings.paused:
        raise Refused("Vectorkeep is paused by its settings", "set paused = false to go on")
    if settings.protected:
        raise Refused("the store is protected, and a restore replaces it", "set protected = false")
    if settings.sensitive and safety and not include_sensitive:
        raise Refused(
            "what is there is backed up first, and the setting `sensitive` names rows of it",
            "confirm with --include-sensitive, or go without with --no-safety-backup",
        )


class _Restore:
    """One restore."""

    accept_findings = False

    def __init__(
        self, settings: Settings, into: Path | None, collections: list[str], safety: bool, on_step: OnStep,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings, self._into, self._collections = settings, into, collections
        self._wants_safety, self._on_step, self._clock = safety, on_step, clock
        self._started = clock()
        self._notes: list[str] = []
        self._adapted: list[str] = []

    def plan(self, backup: Backup, password: str | None) -> RestoreReport:
        """Verify it, and say what it would replace."""
        from vectorstore.backups.archive import check_archive

        identity = identity_of(self._settings, usable(backup), password)
        total = backup.sidecar.manifest.size if backup.sidecar and backup.sidecar.manifest else 0
        steps = Steps("verifying", total, self._on_step)
        with naming(backup):
            manifest = check_archive(backup.archive, backup.sidecar, identity=identity, on_bytes=steps.add)
        check_choice(manifest, self._collections)
        self._check_place(manifest)
        if self._into is not None:
            check_empty(self._into)
        stage = Stage(Path(), manifest, self._settings)
        return self._report("planned", stage, "", {} if self._into else self._present())

    def elsewhere(self, backup: Backup, password: str | None) -> RestoreReport:
        """Into a folder of its own."""
        assert self._into is not None
        identity = identity_of(self._settings, usable(backup), password)
        with arriving(self._into) as root:
            stage = self._unpacked(backup, root, identity)
            if stage.ledger.is_file():
                _believe(stage)
            self._adapted = settle_settings(root, self._settings.path(self._settings.source))
            self._judge(stage)
        return self._report("restored", stage, "", {})

    def in_place(self, backup: Backup, password: str | None) -> RestoreReport:
        """In the place of what is there; the caller holds the lock."""
        settings, present = self._settings, self._present()
        identity = identity_of(settings, usable(backup), password)
        if backup.sidecar and backup.sidecar.manifest:
            self._check_place(backup.sidecar.manifest)
        root = self._root(backup)
        try:
            with disk_errors("restoring"):
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir(parents=True)
                stage = self._unpacked(backup, root, identity)
                if self._collections and not settings.chroma_url:
                    self._notes += merge(settings, stage, self._collections, self._on_step)
            if stage.store.is_dir():
                self._judge(stage)
            safety = self._back_up(backup.name, present)
            if settings.chroma_url:
                self._load(stage)
                exchanges = self._ledger(stage)
            else:
                exchanges = self._exchanges(stage)
            stages = [root, *(settings.hashes / name for name in RESTORED)]
            swap_in(settings, exchanges, stages, backup=backup.name, safety=safety)
        except BaseException as error:
            journal = read_journal(settings)
            if not journal or journal["state"] != "swapping":  # else the next run carries it to its end
                shutil.rmtree(root, ignore_errors=True)
            self._record(backup.name, False, getattr(error, "message", "") or type(error).__name__)
            raise
        self._record(backup.name, True, f"what was there is {safety}" if safety else "")
        return self._report("restored", stage, safety, present)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _root(self, backup: Backup) -> Path:
        """Where it is unpacked: beside the store, so that the exchange is a rename."""
        settings = self._settings
        beside = settings.hashes if settings.chroma_url else store_folder(settings).parent
        return beside / f"{STAGE}{backup.name}"

    def _unpacked(self, backup: Backup, root: Path, identity: Identity | None) -> Stage:
        fill = self._into is not None or not (self._settings.chroma_url or self._collections)
        stage = unpack(
            self._settings, backup, root, identity=identity, fill=fill, only=self._collections or None,
            on_step=self._on_step,
        )  # fmt: skip
        self._check_place(stage.manifest)
        self._notes += stage.notes
        return stage

    def _check_place(self, manifest: Manifest) -> None:
        """See that what the backup holds can go where it is to go."""
        settings = self._settings
        if self._into is not None:
            return
        if settings.chroma_url and manifest.kind == "full":
            raise ConfigurationError(
                f"{manifest.name} holds the files of an embedded store, and the settings name a server",
                "restore it into a folder with --into, or choose a portable backup",
            )
        if not settings.chroma_url:
            check_exchangeable(settings)

    def _judge(self, stage: Stage) -> None:
        """A backup that verifies can still hold a store that was not well."""
        Steps("looking at it", 0, self._on_step)
        faults = faults_of(stage)
        if self._collections and self._into is None:  # the others are what is there, and stay
            faults = [each for each in faults if each.collection in self._collections]
        said = "; ".join(f"{each.check}: {each.message}" for each in faults[:3])
        if faults and not self.accept_findings:
            raise BadBackup(
                f"{stage.manifest.name} verifies, but its store is not healthy: {said}",
                "choose another; or take it as it is with --accept-findings, then run `vectorkeep health --fix`",
            )
        self._notes += [f"not healthy: {said}"] if faults else []

    def _back_up(self, name: str, present: dict[str, int]) -> str:
        """What is there, as far as it can be read."""
        settings = self._settings
        if not self._wants_safety or not (present or self._files_there()):
            return ""
        kind = "portable" if settings.chroma_url else "full"
        made = make_backup(
            settings, kind, sound=False, pin=f"{REPLACED} {name} was restored", on_step=self._on_step,
            clock=self._clock,
        )  # fmt: skip
        self._notes += made.notes
        return made.name

    def _files_there(self) -> bool:
        store = store_folder(self._settings)
        return not self._settings.chroma_url and store.is_dir() and any(store.iterdir())

    def _exchanges(self, stage: Stage) -> list[Exchange]:
        """Store, ledger, and the cache where there is none."""
        settings = self._settings
        found = [Exchange.of(stage.store, store_folder(settings)), *self._ledger(stage)]
        cache, kept = stage.root / ".hashes" / "cache.sqlite3", settings.hashes / "cache.sqlite3"
        if cache.is_file() and not kept.exists():
            found.append(Exchange.of(_moved(cache, settings.hashes / RESTORED[1]), kept))
        elif cache.is_file():
            self._notes.append("the vector cache is kept as it is: it holds what was paid since")
        return found

    def _ledger(self, stage: Stage) -> list[Exchange]:
        """The staged ledger; an empty one where there is none; on a server what it says of single collections."""
        live = self._settings.hashes / "ledger.sqlite3"
        if self._collections and self._settings.chroma_url:
            with contextlib.closing(Ledger(live)) as ledger:
                self._notes += take_over(ledger, stage.ledger, self._collections)
            return []
        if not stage.ledger.is_file():
            self._notes.append("the backup holds no ledger: `vectorkeep update` makes a new one")
            stage.ledger.parent.mkdir(exist_ok=True)
            Ledger(stage.ledger).close()
        return [Exchange.of(_moved(stage.ledger, self._settings.hashes / RESTORED[0]), live)]

    def _load(self, stage: Stage) -> None:
        """The rows of a portable backup into a server."""
        from vectorstore.backups.portable import load
        from vectorstore.chroma.store import Store

        settings = self._settings
        with contextlib.closing(Ledger(settings.hashes / "ledger.sqlite3")) as ledger:
            ledger.store_opened()
        steps = Steps("filling the store", sum(stage.manifest.collections.values()), self._on_step)
        with contextlib.closing(Store(settings)) as store:
            only = self._collections or None
            loaded = load(stage.rows, store, only=only, replace=True, on_rows=steps.add)
        self._notes += lacking_notes(loaded)
        drop_rows(stage)

    def _present(self) -> dict[str, int]:
        """Rows by collection, as far as they can be counted."""
        settings = self._settings
        if settings.chroma_url:
            from vectorstore.chroma.store import Store

            with contextlib.closing(Store(settings)) as store:
                return store.counts()
        from vectorstore.chroma import files

        path = settings.path(settings.chroma_path)
        with contextlib.suppress(Exception), files.open_snapshot(path) as db:  # damaged: that is why it is restored
            return {each.name: files.count_ids(db, each) for each in files.list_collections(db, path)}
        return {}

    def _record(self, name: str, ok: bool, message: str) -> None:
        seconds = self._clock() - self._started
        with contextlib.suppress(VectorkeepError):
            history.append(
                self._settings.backups, history.Event("restore", name, self._clock(), "", ok, seconds, message)
            )

    def _report(self, state: str, stage: Stage, safety: str, present: dict[str, int]) -> RestoreReport:
        about = stage.manifest
        if about.pipeline and (now := _pipeline(self._settings)) != about.pipeline:
            self._notes.append(f"it was made by {about.pipeline}, and the settings say {now}: see `vectorkeep plan`")
        others = {} if self._settings.chroma_url else present  # on a server they stay
        chosen = self._collections or [*about.collections, *others]
        documents, chunks = (0, 0) if self._collections else (about.documents, about.chunks)
        return RestoreReport(
            state=state, exit_code=0, seconds=self._clock() - self._started, name=about.name, created=about.created,
            kind=about.kind, into=str(self._into.absolute()) if self._into else "",
            collections={name: rows for name, rows in about.collections.items() if name in chosen},
            documents=documents, chunks=chunks, safety=safety,
            replaces={name: rows for name, rows in present.items() if name in chosen}, adapted=self._adapted,
            notes=self._notes,
        )  # fmt: skip


def _pipeline(settings: Settings) -> str:
    from vectorstore.pipeline import Pipeline

    return Pipeline.of(settings).id


def _believe(stage: Stage) -> None:
    from vectorstore.chroma.fingerprint import fingerprint

    with contextlib.closing(Ledger(stage.ledger)) as ledger:
        ledger.store_closed(fingerprint(stage.store))


def _moved(path: Path, to: Path) -> Path:
    """To where a rename puts it in place: maybe from another disk."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.replace(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(path, to)
        sync(to)
    return to
