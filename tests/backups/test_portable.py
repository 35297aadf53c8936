"""Portable backups: what is loaded is what was stored, of whatever kind, from and into whatever holds it."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pyarrow.parquet as pq
import pytest
from chromadb.config import Settings as ChromaSettings

from tests.support.chroma_helpers import create, digests, file_limit, open_client
from tests.support.chroma_server import chroma_server
from tests.support.portable import (
    DIMENSION,
    api_reader,
    assert_same,
    build,
    definitions,
    everything,
    export_store,
    file_reader,
    fill_kinds,
    opened,
    vectors,
    write_portable,
)
from vectorstore.backups import portable_write
from vectorstore.backups.portable import load, read_facts, read_pages
from vectorstore.chroma import files, hnsw
from vectorstore.errors import BadBackup, ConfigurationError, Damaged, Refused

# Under cosine Chroma keeps a vector's direction and its length apart, and gives the product.
EXACT = {"indexed", "queued", "euclid", "marked", "empty", "old_one"}


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "chroma"))


@pytest.fixture(scope="module")
def exported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "portable"
    export_store(pristine, folder)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    with chroma_server(tmp_path / "served") as url:
        yield url


def client_of(url: str) -> Any:
    options = ChromaSettings(anonymized_telemetry=False)
    return chromadb.HttpClient(port=int(url.rsplit(":", 1)[1]), settings=options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- there and back ---


def test_what_is_loaded_is_what_was_stored(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out")
    with opened(tmp_path / "new") as target:
        counts = {each.name: (each.rows, each.without_vector) for each in load(tmp_path / "out", target)}
    with open_client(store) as client:
        due, settings = everything(client), definitions(client)
    with open_client(tmp_path / "new" / "chroma") as client:
        found = everything(client)
        assert definitions(client) == settings
    assert counts == {name: (len(rows), 0) for name, rows in due.items()}
    for name in EXACT:
        assert_same(found[name], due[name])
    assert_same(found["angles"], due["angles"], within=1e-6)
    assert found.keys() == due.keys() == EXACT | {"angles"}


def test_the_same_through_a_server(store: Path, server: str, tmp_path: Path) -> None:
    """Into a server, out of it, and back into a folder."""
    first = export_store(store, tmp_path / "first")
    with opened(tmp_path / "ws", chroma_url=server) as target:
        load(tmp_path / "first", target)
    with open_client(store) as client:
        due, settings = everything(client), definitions(client)
    assert definitions(client_of(server)) == settings
    with api_reader(tmp_path, chroma_url=server) as reader:
        second = write_portable(reader, tmp_path / "second")
    assert second.collections == first.collections
    with opened(tmp_path / "new") as target:
        load(tmp_path / "second", target)
    with open_client(tmp_path / "new" / "chroma") as client:
        found = everything(client)
    for name in EXACT:
        assert_same(found[name], due[name])
    assert_same(found["angles"], due["angles"], within=1e-6)


def test_files_chroma_and_a_server_give_the_same_bytes(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "files")
    with api_reader(tmp_path) as reader:
        write_portable(reader, tmp_path / "chroma_itself")
    with chroma_server(store) as url, api_reader(tmp_path, chroma_url=url) as reader:
        write_portable(reader, tmp_path / "server")
    due = contents(tmp_path / "files")
    assert len(due) == 8
    angles = read_facts(tmp_path / "files")[0]
    vectors_due = vectors_of(tmp_path / "files", "angles")
    for other_way in (tmp_path / "chroma_itself", tmp_path / "server"):
        found = contents(other_way)
        assert {key for key in due if found[key] != due[key]} <= {angles.file}
        near = vectors_of(other_way, "angles")
        assert near.keys() == vectors_due.keys()
        differ = [key for key, vector in near.items() if vector.tobytes() != vectors_due[key].tobytes()]
        assert len(differ) < 30, "only of rows in the queue, which the files have as they were sent"
        for key in differ:
            length = np.linalg.norm(vectors_due[key])
            np.testing.assert_allclose(near[key] / length, vectors_due[key] / length, rtol=0, atol=1e-6)


def vectors_of(folder: Path, name: str) -> dict[str, Any]:
    part = next(each for each in read_facts(folder) if each.name == name)
    return {id_: row for page in read_pages(folder, part) for id_, row in zip(page.ids, page.vectors, strict=True)}


def test_an_export_changes_nothing_and_is_the_same_each_time(store: Path, exported: Path, tmp_path: Path) -> None:
    before = digests(store)
    export_store(store, tmp_path / "again")
    assert digests(store) == before
    assert contents(tmp_path / "again") == contents(exported)


def test_rows_lie_in_pages_by_id(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable_write, "PAGE", 64)
    told: list[int] = []
    (tmp_path / "out").mkdir()
    with file_reader(pristine) as reader:
        indexed = next(each for each in reader.collections() if each.name == "indexed")
        done = portable_write.export(reader, [indexed], tmp_path / "out", on_rows=told.append)
    facts = pq.ParquetFile(tmp_path / "out" / done.collections[0].file).metadata
    assert [facts.row_group(n).num_rows for n in range(facts.num_row_groups)] == told == [64, 64, 64, 5]
    ids = [id_ for page in read_pages(tmp_path / "out", done.collections[0]) for id_ in page.ids]
    assert ids == sorted(ids) and len(set(ids)) == 197


def test_any_reader_of_parquet_reads_it(exported: Path) -> None:
    part = next(each for each in read_facts(exported) if each.name == "indexed")
    table = pq.read_table(exported / part.file)
    assert table.column_names == ["id", "document", "metadata", "vector"]
    metadata = [json.loads(text) for text in table["metadata"].to_pylist() if text]
    assert {
        "numbers": [3, 1, 2],
        "floats": [1.0, 2.5],
        "texts": ["b", "", "a", "b"],
        "truths": [True, False, True],
    } in metadata
    assert len(table["vector"][0].as_py()) == part.dimension == DIMENSION


def test_the_facts_say_what_made_it(exported: Path) -> None:
    by_name = {each.name: each for each in read_facts(exported)}
    assert by_name["marked"].pipeline == "hash/blake2b/16/c" and by_name["indexed"].pipeline is None
    assert (by_name["angles"].space, by_name["euclid"].space, by_name["indexed"].space) == ("cosine", "l2", "ip")
    assert by_name["empty"].dimension is None


@pytest.mark.filterwarnings("ignore:Could not reconstruct embedding function")
@pytest.mark.parametrize("name", ["openai", "somebody's own"])
def test_the_embedding_function_is_kept_and_nobody_elses_is_changed(exported: Path, tmp_path: Path, name: str) -> None:
    from chromadb.utils.embedding_functions import known_embedding_functions

    before = dict(known_embedding_functions)
    facts = json.loads((exported / "collections.json").read_text())
    function = {"name": name, "config": {"model_name": "m", "api_key_env_var": "OPENAI_API_KEY"}}
    facts["collections"] = [each | {"embedding_function": function} for each in facts["collections"]]
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "collections.json").write_text(json.dumps(facts))
    with opened(tmp_path / "new") as target:
        load(copy, target, only=["marked"])
        assert target.definition("marked").embedding_function == read_facts(copy)[0].definition.embedding_function
    assert known_embedding_functions == before


# --- what is not there ---


def test_lost_vectors_are_reported_and_not_invented(tmp_path: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        fill_kinds(create(client, "pages", 1000), 60)
    db = sqlite3.connect(tmp_path / "chroma" / "chroma.sqlite3")
    gone = {id_ for (id_,) in db.execute("SELECT id FROM embeddings_queue WHERE seq_id BETWEEN 21 AND 25")}
    db.execute("DELETE FROM embeddings_queue WHERE seq_id BETWEEN 21 AND 25")
    db.commit()
    db.close()
    done = export_store(tmp_path / "chroma", tmp_path / "out")
    assert (done.collections[0].rows, done.collections[0].without_vector, done.unread) == (57, 5, 0)
    assert set(done.lacking) == {f"pages/{id_}" for id_ in gone}
    pages = list(read_pages(tmp_path / "out", done.collections[0]))
    assert {page.ids[row] for page in pages for row in np.flatnonzero(~page.has_vector)} == gone
    with opened(tmp_path / "new") as target:
        loaded = load(tmp_path / "out", target)[0]
        assert (loaded.rows, loaded.without_vector, set(loaded.lacking)) == (52, 5, gone)
        assert not target.present("pages", sorted(gone)) and target.counts() == {"pages": 52}


def test_an_index_that_cannot_be_read_gives_rows_without_vectors(store: Path, tmp_path: Path) -> None:
    with file_reader(store, unreadable=["indexed"]) as reader:
        done = write_portable(reader, tmp_path / "out", only="indexed")
    assert done.collections[0].without_vector == done.collections[0].rows == 197
    with opened(tmp_path / "new") as target:
        assert load(tmp_path / "out", target)[0].rows == 0


def test_a_torn_index_is_said(store: Path, tmp_path: Path) -> None:
    with files.open_snapshot(store) as db:
        segment = next(each.vector_segment for each in files.list_collections(db, store) if each.name == "indexed")
    (store / segment / "header.bin").write_bytes(b"torn")
    with pytest.raises(Damaged, match="indexed"):
        export_store(store, tmp_path / "out")


def test_vectors_that_are_no_numbers_do_not_stop_a_load(tmp_path: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        create(client, "pages", 50).upsert(ids=[f"{n:03d}" for n in range(100)], embeddings=vectors(100))
    with files.open_snapshot(tmp_path / "chroma") as db:
        folder = tmp_path / "chroma" / files.list_collections(db, tmp_path / "chroma")[0].vector_segment
    slots = np.memmap(folder / "data_level0.bin", hnsw.slot_dtype(hnsw.read_header(folder, DIMENSION)), mode="r+")
    slots["vector"][7, 3], slots["vector"][9, 0] = np.nan, np.inf
    slots.flush()
    done = export_store(tmp_path / "chroma", tmp_path / "out")
    assert done.collections[0].without_vector == 0, "they are kept as they are"
    with opened(tmp_path / "new") as target:
        loaded = load(tmp_path / "out", target)[0]
    assert (loaded.rows, loaded.without_vector) == (98, 2)


def test_text_that_is_no_text_leaves_its_row_out(store: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(store / "chroma.sqlite3")
    row = "(SELECT id FROM embeddings WHERE embedding_id = 'with uri' ORDER BY id DESC LIMIT 1)"
    db.execute(f"UPDATE embedding_metadata SET string_value = CAST(x'fffe41' AS TEXT) WHERE id = {row}")
    db.commit()
    db.close()
    done = export_store(store, tmp_path / "out")
    assert done.unread == 1 and len(done.lacking) == 1 and done.lacking[0].endswith("/with uri")
    with opened(tmp_path / "new") as target:
        load(tmp_path / "out", target)


# --- loading ---


def test_a_collection_that_is_there_is_not_replaced_unasked(exported: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "new") as target:
        load(exported, target, only=["queued"])
        target.delete("queued", ["with uri"])
        with pytest.raises(Refused, match="'queued'"):
            load(exported, target)
        assert target.counts() == {"queued": 56}, "nothing was touched, of the others neither"
        load(exported, target, only=["queued"], replace=True)
        assert target.counts() == {"queued": 57}


def test_a_collection_that_the_backup_lacks_is_said(exported: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "new") as target:
        with pytest.raises(ConfigurationError, match="'nowhere'"):
            load(exported, target, only=["queued", "nowhere"])
        assert target.counts() == {}


def test_a_load_that_fails_leaves_what_was_there(exported: Path, tmp_path: Path) -> None:
    def stop(_rows: int) -> None:
        raise KeyboardInterrupt

    with opened(tmp_path / "new") as target:
        load(exported, target, only=["queued"])
        for replace, name in ((True, "queued"), (False, "indexed")):
            with pytest.raises(KeyboardInterrupt):
                load(exported, target, only=[name], replace=replace, on_rows=stop)
            assert target.counts() == {"queued": 57}


# --- damage ---


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_found(exported: Path, tmp_path: Path, share: float) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    path = copy / next(each.file for each in read_facts(copy) if each.name == "indexed")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with opened(tmp_path / "new") as target:
        with pytest.raises(BadBackup, match="'indexed'"):
            load(copy, target)
        assert target.counts() == {}


def test_a_flipped_bit_is_found_or_changes_nothing(exported: Path, tmp_path: Path) -> None:
    """Each page has a checksum; the rest of a file are facts that must agree. The archive's digest sees all of it."""
    part = next(each for each in read_facts(exported) if each.name == "indexed")
    due = [row for page in read_pages(exported, part) for row in spelled(page)]
    data = (exported / part.file).read_bytes()
    (tmp_path / "collections").mkdir()
    found, rng = 0, random.Random(4)
    for _ in range(400):
        place = rng.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        (tmp_path / part.file).write_bytes(flipped)
        try:
            assert [row for page in read_pages(tmp_path, part) for row in spelled(page)] == due, place
        except BadBackup:
            found += 1
    assert found > 320


def spelled(page: Any) -> list[tuple[Any, ...]]:
    columns = (page.ids, page.documents, map(repr, page.metadatas), page.has_vector.tolist(), page.vectors)
    return [(*rest, vector.tobytes()) for *rest, vector in zip(*columns, strict=True)]


def other(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts["collections"][3].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(schema_version=2), lambda facts: facts.update(more=1),
        lambda facts: facts.pop("collections"), lambda facts: facts["collections"].append(facts["collections"][0]),
        lambda facts: facts["collections"][3].pop("rows"), other("rows", 196), other("rows", -1), other("rows", "197"),
        other("without_vector", 1), other("without_vector", 198), other("dimension", 15), other("dimension", None),
        other("dimension", True), other("file", "../../../etc/passwd"), other("file", "/etc/passwd"),
        other("file", "collections/00000.parquet"), other("metadata", {"a": [1]}), other("metadata", None),
        other("index", {"space": "other"}), other("index", {"space": "ip", "more": 1}),
        other("index", {"space": "ip", "ef_search": "10"}), other("embedding_function", {"name": "openai"}),
    ],
)  # fmt: skip
def test_facts_that_are_wrong_are_refused(exported: Path, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    facts = json.loads((copy / "collections.json").read_text())
    assert facts["collections"][3]["name"] == "indexed"
    change(facts)
    (copy / "collections.json").write_text(json.dumps(facts))
    with opened(tmp_path / "new") as target:
        with pytest.raises(BadBackup):
            load(copy, target)
        assert target.counts() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1, "schema_version": 1}', "\xff"])
def test_facts_that_are_no_facts_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "collections.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadBackup):
        read_facts(tmp_path)


def test_missing_files_are_said(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(BadBackup, match="collections"):
        read_facts(tmp_path)
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / read_facts(copy)[0].file).unlink()
    with opened(tmp_path / "new") as target, pytest.raises(BadBackup, match="'angles'"):
        load(copy, target)
