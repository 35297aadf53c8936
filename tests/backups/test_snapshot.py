"""The store held still while it is read, beside programs that know nothing of our lock."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.backups.archives import FACTS
from tests.support.looking import Call
from tests.support.workbench import Workspace
from vectorstore.backups.archive import ArchiveWriter
from vectorstore.backups.snapshot import hold_store


def try_to_write(settings: Any) -> str:
    """In another process: what SQLite says to a writer."""
    store = settings.path(settings.chroma_path) / "chroma.sqlite3"
    with contextlib.closing(sqlite3.connect(store, timeout=0.1, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return str(error)
    return "taken"


@pytest.mark.parametrize("way", ["archive", "copy"])
def test_the_lock_outlasts_the_reading(small: Workspace, tmp_path: Path, way: str) -> None:
    """Opening and closing SQLite's file by itself would end it, and with it what says that the index is of the rows."""
    (scratch := tmp_path / "scratch").mkdir()
    with ArchiveWriter(tmp_path / "a") as archive, hold_store(small.settings(), scratch) as sources:
        for source in sources:
            if way == "archive":
                archive.add_file(source.name, source.path, opened=source.handle)
            else:
                source.copy(scratch / source.path.name)
        assert Call(f"{__name__}:try_to_write", small).result() == "database is locked"
        archive.close(FACTS)
    assert Call(f"{__name__}:try_to_write", small).result() == "taken"
    if way == "copy":
        name = "chroma.sqlite3"
        assert (scratch / name).read_bytes() == (small.store / name).read_bytes()
        assert (scratch / name).stat().st_mtime_ns == (small.store / name).stat().st_mtime_ns
