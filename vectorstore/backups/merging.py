"""Single collections of a portable backup among the others: in a copy of the store, so that the exchange is at once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from vectorstore.backups.snapshot import copy_ledger, hold_store
from vectorstore.backups.staging import Stage, drop_rows, lacking_notes, sync_tree
from vectorstore.backups.steps import OnStep, Steps
from vectorstore.chroma.fingerprint import SQLITE_NAME, fingerprint
from vectorstore.errors import Damaged
from vectorstore.ledger import Ledger
from vectorstore.settings import Settings
from vectorstore.sqlite_errors import is_damage


def merge(settings: Settings, stage: Stage, collections: Sequence[str], on_step: OnStep) -> list[str]:
    """Stage what is there, with the backup's ``collections`` in the place of its own; returns notes for a person.

    Raises:
        Damaged: the ledger that is there can't be read, or Chroma did not take the rows.
        VectorkeepError: another program is writing to the store.
    """
    from vectorstore.backups.portable import load
    from vectorstore.chroma.store import Store

    theirs = stage.root / "theirs.sqlite3"
    if stage.ledger.is_file():
        stage.ledger.rename(theirs)
    _copy_present(settings, stage)
    steps = Steps("filling the collections", sum(stage.manifest.collections[name] for name in collections), on_step)
    with contextlib.closing(Store(stage.settings)) as store:
        loaded = load(stage.rows, store, only=collections, replace=True, on_rows=steps.add)
    drop_rows(stage)
    with contextlib.closing(Ledger(stage.ledger)) as ledger:
        notes = lacking_notes(loaded) + take_over(ledger, theirs, collections)
        ledger.store_closed(fingerprint(stage.store))
    sync_tree(stage.store)
    return notes


def take_over(ledger: Ledger, theirs: Path, collections: Sequence[str]) -> list[str]:
    """Put what the backup's ledger says of collections into another; returns notes for a person."""
    if not theirs.is_file():
        return ["the backup holds no ledger: run `vectorkeep update`, which compares"]
    missing = ", ".join(ledger.take_collections(theirs, collections))
    return [f"{missing}: made by another pipeline than the one that serves; see `vectorkeep plan`"] if missing else []


def _copy_present(settings: Settings, stage: Stage) -> None:
    stage.ledger.parent.mkdir(exist_ok=True)
    try:
        copy_ledger(settings, stage.ledger.parent)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise Damaged(f"the ledger can't be read: {error}", "run `vectorkeep health`") from error
    stage.store.mkdir()
    if not (settings.path(settings.chroma_path) / SQLITE_NAME).is_file():
        return
    with hold_store(settings, stage.root) as sources:
        for source in sources:
            target = stage.root / source.name
            target.parent.mkdir(exist_ok=True)
            source.copy(target)
