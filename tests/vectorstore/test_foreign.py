"""Both ways of reading a store give what Chroma answers for, whatever was done to it before."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.chroma_helpers import create, digests, file_limit, open_client, unit_vectors
from vectorstore.adoption.foreign import ApiReader, FileReader, RowReader, open_rows
from vectorstore.chroma.store import Store
from vectorstore.errors import ConfigurationError, Damaged
from vectorstore.settings import Settings

DIMENSION = 8


def churn(collection: Any, steps: int, seed: int) -> None:
    """Rows written, rewritten in part or whole, deleted and written again."""
    rng = random.Random(seed)
    for step in range(steps):
        ids = [f"row-{rng.randrange(60)}" for _ in range(rng.randint(1, 9))]
        ids = list(dict.fromkeys(ids))
        vectors = 2 * unit_vectors(len(ids), DIMENSION, seed=seed + step)
        texts = [f"text {step} of {id_}" for id_ in ids]
        metadatas = [{"step": step, "share": step / 7, "even": step % 2 == 0, "name": id_} for id_ in ids]
        match rng.randrange(6):
            case 0:
                collection.delete(ids=ids)
            case 1:
                collection.update(ids=ids, metadatas=metadatas)
            case 2:
                collection.update(ids=ids, embeddings=vectors)
            case 3:
                collection.upsert(ids=ids, embeddings=vectors)
            case _:
                collection.upsert(ids=ids, embeddings=vectors, documents=texts, metadatas=metadatas)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION, embedder="hash")
    with open_client(tmp_path / "chroma") as client:
        for number in range(4):
            churn(create(client, f"churned-{number}", sync_threshold=(2, 7, 50, 1000)[number]), 60, number)
        client.create_collection("nothing-in-it")
        client.create_collection("ours-one", metadata={"vectorkeep_pipeline": "p/1/2/c"})
    return settings


def answers(store: Path, name: str) -> dict[str, Any]:
    with open_client(store) as client:
        found = client.get_collection(name).get(include=["embeddings", "documents", "metadatas"])
    columns = zip(found["ids"], found["embeddings"], found["documents"], found["metadatas"], strict=True)
    return {id_: (np.float32(vector).tobytes(), text, metadata or {}) for id_, vector, text, metadata in columns}


@pytest.mark.parametrize("way", [FileReader, ApiReader])
def test_every_row_as_chroma_has_it(settings: Settings, way: type[FileReader | ApiReader]) -> None:
    store = settings.workspace / "chroma"
    due = {f"churned-{number}": answers(store, f"churned-{number}") for number in range(4)}
    rows: RowReader = FileReader(store) if way is FileReader else ApiReader(Store(settings))
    found = {each.name: each for each in rows.collections()}
    assert list(found) == [*due, "nothing-in-it", "ours-one"]
    assert [found[name].made_by for name in ("churned-0", "ours-one")] == [None, "p/1/2/c"]
    for name, expected in due.items():
        assert (found[name].rows, found[name].dimension) == (len(expected), DIMENSION)
        read = [row for page in rows.pages(name) for row in page]
        assert len({row.id for row in read}) == len(read) > 20
        assert {row.id: (np.float32(row.vector).tobytes(), row.document, row.metadata) for row in read} == expected
        some = [row.id for page in rows.pages(name, every=5) for row in page]
        assert 0 < len(some) < len(expected) / 2 and set(some) <= expected.keys()
    assert found["nothing-in-it"][1:] == (0, None, None) and list(rows.pages("nothing-in-it")) == []
    rows.close()


def test_reading_files_changes_none(settings: Settings) -> None:
    before = digests(settings.workspace)
    rows = open_rows(settings, None)
    rows.check(each.name for each in rows.collections())
    assert sum(len(page) for number in range(4) for page in rows.pages(f"churned-{number}")) > 80
    rows.close()
    assert digests(settings.workspace) == before


@pytest.mark.parametrize("damage", ["header.bin", "index_metadata.pickle", "data_level0.bin"])
def test_damage_that_mixes_rows_up_is_refused(tmp_path: Path, damage: str) -> None:
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION)
    with open_client(tmp_path / "chroma") as client:
        churn(create(client, "churned", sync_threshold=5), 40, 3)
    file = next(tmp_path.glob(f"chroma/*/{damage}"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with file_limit():
        rows = open_rows(settings, None)
        with pytest.raises(Damaged, match="churned"):
            rows.check(["churned"])
        rows.check(["another"])
        rows.close()


def test_an_older_chromas_store_is_opened_only_when_that_is_allowed(tmp_path: Path) -> None:
    """Chroma brings it up to date when it opens it."""
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION)
    with open_client(tmp_path / "chroma") as client:
        churn(create(client, "churned"), 20, 1)
    with closing(sqlite3.connect(tmp_path / "chroma/chroma.sqlite3")) as db, db:
        db.execute("DELETE FROM migrations WHERE dir = 'metadb' AND version = 6")
        db.execute("DROP TABLE embedding_metadata_array")
    with pytest.raises(ConfigurationError, match="another version of Chroma"):
        open_rows(settings, None)
    rows = open_rows(settings, lambda: Store(settings))
    assert sum(len(page) for page in rows.pages("churned")) > 10
    rows.close()
