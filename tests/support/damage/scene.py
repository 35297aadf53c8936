"""A workspace to be damaged, with the same one of another day beside it, and hands to reach into its files."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.chroma_helpers import open_client
from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, document
from vectorstore.chroma import files, hnsw

DIMENSION = 16
GUIDE, NOTES, API = "docs_guide", "docs_notes", "docs_api"
OLD = 120  # seconds: times that far back prove that nothing changed since


class Scene:
    """What a damage is done to.

    Three collections: ``docs_guide`` (1,700 chunks, most of them in an index that was written twice, some deleted,
    the last ones in the queue), ``docs_notes`` (1,100, a few in the queue), ``docs_api`` (250, all in the queue).

    Attributes:
        workspace: in step.
        older: a folder with the workspace as it was before the last writes of the index of ``docs_guide``.
    """

    def __init__(self, workspace: Workspace, older: Path) -> None:
        self.workspace, self.older = workspace, older

    @property
    def store(self) -> Path:
        return self.workspace.store

    @property
    def docs(self) -> Path:
        return self.workspace.docs

    @property
    def sqlite(self) -> Path:
        return files.sqlite_path(self.store)

    def collection(self, name: str = GUIDE) -> files.StoredCollection:
        with files.open_snapshot(self.store) as db:
            return next(each for each in files.list_collections(db, self.store) if each.name == name)

    def segment(self, name: str = GUIDE) -> Path:
        """The folder of a collection's index."""
        return self.store / self.collection(name).vector_segment

    def file(self, name: str, collection: str = GUIDE) -> Path:
        return self.segment(collection) / name

    def sql(self, statement: str, collection: str = GUIDE, **values: Any) -> int:
        """A statement on the store's SQLite file; ``:c``, ``:v`` and ``:m`` are the collection and its segments.

        Returns how many rows it changed, which must be some.
        """
        found = self.collection(collection)
        named = {"c": found.id, "v": found.vector_segment, "m": found.metadata_segment, **values}
        return execute(self.sqlite, statement, named)

    def in_ledger(self, statement: str, **values: Any) -> int:
        """A statement on the ledger."""
        return execute(self.workspace.ledger, statement, values)

    @contextmanager
    def slots(self, collection: str = GUIDE) -> Iterator[np.memmap]:  # type: ignore[type-arg]
        """The slots of an index, to be changed in place; the file's times stay, as they do when a disk rots."""
        folder = self.segment(collection)
        header = hnsw.read_header(folder, DIMENSION)
        path = folder / "data_level0.bin"
        with same_times(path):
            slots = np.memmap(path, dtype=hnsw.slot_dtype(header), mode="r+", shape=(header.slots,))
            yield slots
            slots.flush()

    def live(self, count: int, collection: str = GUIDE) -> list[int]:
        """Numbers of slots, spread over the index, that serve an id whose newest vector is in them."""
        stored = self.collection(collection)
        folder = self.store / stored.vector_segment
        id_map = hnsw.read_id_map(folder)
        assert id_map
        with files.open_snapshot(self.store) as db:
            queued = {write.id for write in files.iter_queue(db, stored)}
        labels = {label for key, label in id_map.labels.items() if key not in queued}
        header = hnsw.read_header(folder, DIMENSION)
        good = [
            first + n
            for first, block in hnsw.iter_slots(folder, header)
            for n, slot in enumerate(block)
            if int(slot["label"]) in labels and not slot["mark"] & 1
        ]
        assert len(good) >= count
        return good[:: len(good) // count][:count]

    @contextmanager
    def chroma(self, collection: str = GUIDE) -> Iterator[Any]:
        """The collection as another program would open it, while the store is still whole."""
        with open_client(self.store) as client:
            yield client.get_collection(collection)

    def document(self, folder: str, at: int) -> Path:
        """One of the documents of a folder."""
        return sorted((self.docs / folder).iterdir())[at]

    def edit(self, key: str, text: str | bytes) -> None:
        """Write a document whose times are a while back, so that they can be trusted."""
        age(self.workspace.write(key, text))


def execute(path: Path, statement: str, values: Mapping[str, Any]) -> int:
    """Run a statement on an SQLite file, without its foreign keys; it must change rows, or the schema."""
    with closing(sqlite3.connect(path)) as db, db:
        before = db.execute("PRAGMA schema_version").fetchone()
        used = {key: value for key, value in values.items() if f":{key}" in statement}
        changed = db.execute(statement, used).rowcount
        assert changed > 0 or before != db.execute("PRAGMA schema_version").fetchone(), statement
        return changed


@contextmanager
def same_times(path: Path) -> Iterator[None]:
    """What changes in the file leaves its times as they were."""
    before = path.stat()
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def age(path: Path, seconds: float = OLD) -> None:
    stamp = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(stamp, stamp))


def flip(path: Path, first: int, count: int = 1, step: int = 1) -> None:
    """Change ``count`` bytes, ``step`` apart, each to another value; the file's times stay."""
    with same_times(path), path.open("r+b") as file:
        for offset in range(first, first + count * step, step):
            file.seek(offset)
            old = file.read(1)
            assert old, (path, offset)
            file.seek(offset)
            file.write(bytes([old[0] ^ 0x55]))


def cut(path: Path, share: float) -> None:
    """Keep a share of a file."""
    os.truncate(path, int(path.stat().st_size * share))


def build(root: Path, server: ServerProcess, small: bool = False) -> Scene:
    """The workspace that every damage starts from a copy of, and the one of the day before.

    Args:
        small: three chunks for every ten, and indexes that are written as much earlier: the same, sooner rebuilt.
    """
    workspace = Workspace(
        root / "base", server, dimensions=DIMENSION, collection="docs_{folder}", trust_ctime=False, batch_texts=256,
        store_batch=60 if small else 200, probe_max_mb=0,
    )  # fmt: skip
    many, some = (6, 3) if small else (20, 10)
    if small:
        _write(workspace, {f"{name.removeprefix('docs_')}/page-000.md": document(0) for name in (GUIDE, NOTES, API)})
        workspace.update()
        with open_client(workspace.store) as client:
            for collection in client.list_collections():
                collection.modify(configuration={"hnsw": {"sync_threshold": 300}})
    _write(workspace, {f"guide/page-{n:03d}.md": document(n, many) for n in range(70)})
    _write(workspace, {f"notes/page-{n:03d}.md": document(("note", n), many) for n in range(70)})
    _write(workspace, {f"api/page-{n:03d}.md": document(("api", n), some) for n in range(25)})
    workspace.update()
    older = Scene(workspace.copy(root / "older"), root)
    _write(workspace, {f"guide/page-{n:03d}.md": document((n, "edited"), many) for n in range(10)})
    _write(workspace, {f"guide/page-{n:03d}.md": document(n, many) for n in range(70, 110)})
    for n in range(10, 14):
        (workspace.docs / f"guide/page-{n:03d}.md").unlink()
    workspace.update()
    _write(workspace, {f"guide/page-{n:03d}.md": document((n, "again"), many) for n in range(20, 23)})
    _write(workspace, {f"guide/page-{n:03d}.md": document(n, many) for n in range(110, 114)})
    time.sleep(2.1)  # from now on the documents' times prove that they have not changed since they were read
    workspace.update()
    scene = Scene(workspace, older.workspace.root)
    for name in (GUIDE, NOTES):
        assert older.collection(name).vector_seq, name
        assert 0 < scene.collection(name).vector_seq < scene.collection(name).metadata_seq, name
    assert older.collection().vector_seq < scene.collection().vector_seq and not scene.collection(API).vector_seq
    return scene


def _write(workspace: Workspace, documents: Mapping[str, str]) -> None:
    for key, text in documents.items():
        age(workspace.write(key, text))


def copy(scene: Scene, root: Path) -> Scene:
    """A copy to be damaged."""
    return Scene(scene.workspace.copy(root), scene.older)
