"""Both ways of reading a store give what Chroma answers for, whatever was done to it before."""

from __future__ import annotations

import os
import random
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.chroma_helpers import create, digests, file_limit, fill, make_ids, open_client, unit_vectors
from tests.support.chroma_server import chroma_server
from vectorstore.adoption.foreign import ForeignRows, open_rows
from vectorstore.chroma.api_rows import ApiRows
from vectorstore.chroma.rows import PAGE
from vectorstore.chroma.store import Store
from vectorstore.errors import ConfigurationError, Damaged, StoreUnreachable
from vectorstore.settings import Settings

DIMENSION = 8
LISTS: tuple[list[Any], ...] = ([True, False], [3, 1, 3], ["b", "a"], [0.5, 2.0])


def churn(collection: Any, steps: int, seed: int) -> None:
    """Rows written, rewritten in part or whole, deleted and written again."""
    rng = random.Random(seed)
    for step in range(steps):
        ids = [f"row-{rng.randrange(60)}" for _ in range(rng.randint(1, 9))]
        ids = list(dict.fromkeys(ids))
        vectors = 2 * unit_vectors(len(ids), DIMENSION, seed=seed + step)
        texts = [f"text {step} of {id_}" for id_ in ids]
        metadatas = [
            {"step": step, "share": step / 7, "even": step % 2 == 0, "name": id_, "marks": LISTS[step % 4]}
            for id_ in ids
        ]
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


def row_as_text(vector: Any, text: str | None, metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Tells True from 1 and from 1.0, which are equal."""
    return np.float32(vector).tobytes().hex(), repr(text), repr(sorted((metadata or {}).items()))


def answers(store: Path, name: str) -> dict[str, Any]:
    with open_client(store) as client:
        found = client.get_collection(name).get(include=["embeddings", "documents", "metadatas"])
    columns = zip(found["ids"], found["embeddings"], found["documents"], found["metadatas"], strict=True)
    return {id_: row_as_text(vector, text, metadata) for id_, vector, text, metadata in columns}


def through_chroma(settings: Settings) -> ForeignRows:
    return ForeignRows(ApiRows(Store(settings)))


def through_files(settings: Settings) -> ForeignRows:
    return open_rows(settings, None)


WAYS = pytest.mark.parametrize("open_way", [through_files, through_chroma])
Way = Callable[[Settings], ForeignRows]


@WAYS
def test_every_row_as_chroma_has_it(settings: Settings, open_way: Way) -> None:
    store = settings.workspace / "chroma"
    due = {f"churned-{number}": answers(store, f"churned-{number}") for number in range(4)}
    rows = open_way(settings)
    found = {each.name: each for each in rows.collections()}
    assert list(found) == [*due, "nothing-in-it", "ours-one"]
    assert [found[name].pipeline for name in ("churned-0", "ours-one")] == [None, "p/1/2/c"]
    for name, expected in due.items():
        assert (found[name].count, found[name].dimension) == (len(expected), DIMENSION)
        read = [row for page in rows.pages(found[name]) for row in page]
        assert len({row.id for row in read}) == len(read) > 20
        assert {row.id: row_as_text(row.vector, row.document, row.metadata) for row in read} == expected
        some = [row.id for page in rows.pages(found[name], every=5) for row in page]
        assert 0 < len(some) < len(expected) / 2 and set(some) <= expected.keys()
    empty = found["nothing-in-it"]
    assert (empty.count, empty.dimension, empty.pipeline) == (0, None, None) and list(rows.pages(empty)) == []
    rows.close()


@WAYS
def test_rows_come_in_the_order_they_were_written(tmp_path: Path, open_way: Way) -> None:
    """Ids that tell nothing, some vectors in the index and some in the queue, some of them newer ones of old rows."""
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION)
    ids = [f"row-{digest:08x}" for digest in map(zlib.crc32, map(str.encode, map(str, range(90))))]
    vectors = unit_vectors(90, DIMENSION)
    with open_client(tmp_path / "chroma") as client:
        collection = create(client, "written", sync_threshold=50)
        for start in range(0, 90, 10):
            collection.add(ids=ids[start : start + 10], embeddings=vectors[start : start + 10])
        collection.update(ids=[ids[70], ids[7]], embeddings=vectors[[7, 70]])
        collection.delete(ids=ids[20:30])
    rows = open_way(settings)
    (found,) = rows.collections()
    read = [row for page in rows.pages(found) for row in page]
    assert [row.id for row in read] == ids[:20] + ids[30:] != sorted(row.id for row in read)
    newest = {row.id: row.vector.tobytes() for row in read}
    assert (newest[ids[7]], newest[ids[70]]) == (vectors[70].tobytes(), vectors[7].tobytes())
    rows.close()


@WAYS
def test_rows_without_a_vector_are_left_out(tmp_path: Path, open_way: Way) -> None:
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION)
    with open_client(tmp_path / "chroma") as client:
        fill(create(client, "written", sync_threshold=50), unit_vectors(65, DIMENSION), batch=10)
    lost = make_ids(65)[55:58]
    with closing(sqlite3.connect(tmp_path / "chroma/chroma.sqlite3")) as db, db:
        assert db.execute("DELETE FROM embeddings_queue WHERE id IN (?, ?, ?)", lost).rowcount == 3
    with file_limit():
        rows = open_way(settings)
        (found,) = rows.collections()
        rows.check(["written"])
        read = {row.id for page in rows.pages(found) for row in page}
        rows.close()
    assert found.count == 65 and read == set(make_ids(65)) - set(lost)


def test_reading_files_changes_none(settings: Settings) -> None:
    before = digests(settings.workspace)
    rows = open_rows(settings, None)
    rows.check(each.name for each in rows.collections())
    assert sum(len(page) for each in rows.collections() for page in rows.pages(each)) > 80
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


def test_an_index_that_shrinks_while_it_is_read_is_damage(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path, dimensions=DIMENSION)
    with open_client(tmp_path / "chroma") as client:
        fill(create(client, "written"), unit_vectors(PAGE + 300, DIMENSION))
    rows = open_rows(settings, None)
    pages = rows.pages(*rows.collections())
    assert len(next(pages)) == PAGE
    slots = next(tmp_path.glob("chroma/*/data_level0.bin"))
    os.truncate(slots, slots.stat().st_size // 3)
    with pytest.raises(Damaged, match="became shorter"):
        next(pages)
    rows.close()


def test_a_server_that_ends_while_it_is_read_is_said(tmp_path: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        fill(create(client, "written"), unit_vectors(20, DIMENSION))
    with chroma_server(tmp_path / "chroma") as url:
        rows = open_rows(Settings(workspace=tmp_path, dimensions=DIMENSION, chroma_url=url), None)
        (found,) = rows.collections()
        assert len(next(rows.pages(found))) == 20
        ids = list(rows._reader.ids_as_written(found))
    with pytest.raises(StoreUnreachable, match=url):
        rows._reader.read(found, ids)


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
    assert sum(len(page) for page in rows.pages(*rows.collections())) > 10
    rows.close()
