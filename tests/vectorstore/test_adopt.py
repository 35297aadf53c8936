"""A store that others made is taken over as it is, and nothing that it holds is paid again."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.chroma_helpers import file_limit, open_client
from tests.support.embeddings_api import expected_vectors
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.foreign_stores import (
    Row,
    hash_embed,
    langchain_rows,
    llamaindex_rows,
    put,
    script_rows,
)
from tests.support.workspaces import contents, digests, make_settings, write, write_corpus
from vectorstore.adopt import AdoptReport, adopt
from vectorstore.chroma.store import Store
from vectorstore.cli import main
from vectorstore.errors import (
    ConfigurationError,
    Damaged,
    EmptySource,
    Interrupted,
    Locked,
    PipelineMismatch,
    Refused,
)
from vectorstore.ledger import Ledger
from vectorstore.lock import WriterLock, lock_files
from vectorstore.preview import preview
from vectorstore.progress import Progress
from vectorstore.search import search
from vectorstore.settings import Settings
from vectorstore.update import update

DOCUMENTS = 9


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Documents of several chunks, and no store yet."""
    made = make_settings(tmp_path, trust_ctime=False, collection="kept")
    for number in range(DOCUMENTS - 1):
        write_document(made, f"f{number % 3}/d{number}.md", number)
    write_document(made, "f2/with a space.md", DOCUMENTS)
    return made


def write_document(settings: Settings, key: str, number: int, parts: int = 4) -> None:
    sections = [f"## Part {part}\n\n" + f"Words of {number} and {part}. " * 8 for part in range(parts)]
    write(settings.path(settings.source), key, f"# Document {number}\n\nHow it begins.\n\n" + "\n\n".join(sections))


def root(settings: Settings) -> Path:
    return settings.path(settings.source)


def store(settings: Settings) -> Path:
    return settings.path(settings.chroma_path)


def foreign(settings: Settings, rows: list[Row], name: str = "theirs", dimension: int = 32, **hnsw: Any) -> list[Row]:
    put(store(settings), name, rows, hash_embed(dimension), **hnsw)
    return rows


def all_rows(path: Path, name: str) -> list[Any]:
    """What Chroma answers for a collection, vectors bit for bit."""
    with open_client(path) as client:
        found = client.get_collection(name).get(include=["embeddings", "documents", "metadatas"])
    vectors = [np.asarray(vector, np.float32).tobytes() for vector in found["embeddings"]]
    metadatas = [json.dumps(metadata, sort_keys=True) for metadata in found["metadatas"]]
    return sorted(zip(found["ids"], vectors, found["documents"], metadatas, strict=True))


def assert_all_adopted(settings: Settings, report: AdoptReport, rows: list[Row]) -> None:
    """Every document is ours now, chunk for chunk with its vector, and there is nothing left to do."""
    assert (report.documents_adopted, report.documents_left) == (DOCUMENTS, {})
    assert report.chunks_adopted == report.chunks_written == len(rows)
    held = contents(settings)
    assert sorted(text for text, _, _ in held.values()) == sorted(row.text or "" for row in rows)
    for id_, (text, metadata, vector) in held.items():
        assert id_ == f"{metadata['doc_key']}#{metadata['chunk']:05d}"
        assert metadata.keys() == {"doc_key", "chunk", "heading", "tokens"}
        assert np.frombuffer(vector, np.float32) == pytest.approx(hash_embed(32)([text])[0], abs=1e-6)
    for key in sorted(path.relative_to(root(settings)).as_posix() for path in root(settings).rglob("*.md")):
        document, at = (root(settings) / key).read_text(), 0
        for id_ in sorted(id_ for id_ in held if id_.startswith(f"{key}#")):
            at = document.index(held[id_][0], at)  # each begins where the one before does, or behind
    assert report.next_update["nothing_to_do"] and preview(settings).nothing_to_do
    after = update(settings)
    assert (after.kinds, after.chunks_written) == ({"unchanged": DOCUMENTS}, 0)
    assert contents(settings) == held


SHAPES: dict[str, tuple[Callable[[Settings], list[Row]], tuple[str, str]]] = {
    "langchain, absolute": (lambda s: langchain_rows(root(s)), ("source", "")),
    "langchain, relative": (
        lambda s: langchain_rows(root(s), lambda path: f"docs/{path.relative_to(root(s))}"), ("source", ""),
    ),
    "langchain, another machine": (
        lambda s: langchain_rows(root(s), lambda path: rf"C:\Users\me\{path.relative_to(root(s))}".replace("/", "\\")),
        ("source", ""),
    ),
    "langchain, in order": (lambda s: langchain_rows(root(s), start_index=True), ("source", "start_index")),
    "langchain, file address": (lambda s: langchain_rows(root(s), lambda path: path.as_uri()), ("source", "")),
    "llamaindex, text only": (lambda s: llamaindex_rows(root(s), hide_path=True), ("file_path", "start_char_idx")),
    "script": (lambda s: script_rows(root(s)), ("path", "chunk_index")),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_store_is_taken_over_as_it_is(settings: Settings, shape: str) -> None:
    make_rows, expected = SHAPES[shape]
    rows = foreign(settings, make_rows(settings))
    before = all_rows(store(settings), "theirs")
    report = adopt(settings)
    about = report.collections["theirs"]
    assert (about["kind"], about["document_key"], about["order_key"]) == ("foreign", *expected)
    assert (about["named"], about["unnamed"], report.rows) == (len(rows), 0, len(rows))
    assert report.texts_cached == len({row.text for row in rows})
    assert_all_adopted(settings, report, rows)
    assert all_rows(store(settings), "theirs") == before
    again = adopt(settings)
    assert (again.texts_cached, again.documents_adopted, again.chunks_written) == (0, 0, 0)


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("threshold", [3, 1000], ids=["in the index", "in the queue"])
def test_vectors_of_any_length_come_from_index_and_queue(settings: Settings, space: str, threshold: int) -> None:
    """Half of the rows are written anew, with three times the length: what is in the queue is newer than the index."""
    rows = langchain_rows(root(settings))
    index = {"space": space, "sync_threshold": threshold, "batch_size": min(threshold, 3)}
    put(store(settings), "theirs", rows, lambda texts: -hash_embed(32)(texts), batch=4, **index)
    put(store(settings), "theirs", rows, lambda texts: 3 * hash_embed(32)(texts), batch=7, **index)
    assert_all_adopted(settings, adopt(settings), rows)


def test_a_server_gives_what_the_files_give(settings: Settings, chroma_url: str, tmp_path: Path) -> None:
    rows = langchain_rows(root(settings))
    behind = Settings(**{**vars(settings), "chroma_url": chroma_url, "workspace": tmp_path / "behind"})
    behind.workspace.mkdir()
    for place in (store(settings), chroma_url):
        put(place, "adopt-theirs", rows, hash_embed(32))
    report, by_files = adopt(behind, collections=["adopt-theirs"]), adopt(settings)
    assert report.collections == by_files.collections
    assert_all_adopted(behind, report, rows)
    assert contents(behind) == contents(settings)


def test_headings_and_tokens_are_those_of_our_own_chunks(settings: Settings) -> None:
    """A store cut as we cut is taken over to what an update makes, metadata and all."""
    update(settings)
    ours = contents(settings)
    rows = [Row(f"x{n}", text, {"path": meta["doc_key"]}, text) for n, (text, meta, _) in enumerate(ours.values())]
    shutil.rmtree(settings.workspace)
    settings.workspace.mkdir()
    foreign(settings, rows)
    assert adopt(settings).documents_adopted == DOCUMENTS
    assert contents(settings) == ours


def test_vectors_of_metadata_and_text_are_taken_on_request_only(settings: Settings) -> None:
    rows = foreign(settings, llamaindex_rows(root(settings)))
    report = adopt(settings)
    assert (report.documents_adopted, report.texts_cached) == (0, 0)
    assert report.rows_unused == {"the vector is of metadata and text": len(rows)}
    assert any("--accept-prefixed" in note for note in report.notes)
    report = adopt(settings, accept_prefixed=True)
    assert (report.documents_adopted, report.documents_left) == (DOCUMENTS, {})
    vectors = {row.text: hash_embed(32)([row.embedded])[0].tobytes() for row in rows}
    assert {text: vector for text, _, vector in contents(settings).values()} == vectors
    assert update(settings).chunks_written == 0


def test_what_changed_since_is_left_and_only_that_is_embedded(settings: Settings) -> None:
    foreign(settings, langchain_rows(root(settings)))
    write_document(settings, "f0/d0.md", 100)
    for key, old, new in (("f1/d1.md", "How it begins.", "How it began."), ("f2/d2.md", r"\Z", "\n\nAn end.")):
        write(root(settings), key, re.sub(old, new, (root(settings) / key).read_text()))
    (root(settings) / "f0/d3.md").unlink()
    write_document(settings, "new.md", 101)
    (root(settings) / "f1/d4.md").rename(root(settings) / "moved.md")
    report = adopt(settings)
    assert report.documents_adopted == 4
    assert report.documents_left == {
        "its chunks are not in it: it changed since, or was converted": 2, "its chunks do not cover it": 1,
        "no row names it": 2,
    }  # fmt: skip
    assert report.examples["f2/d2.md"] == "its chunks do not cover it"
    due = report.next_update
    after = update(settings)
    assert (after.kinds, after.exit_code) == ({"added": 5, "unchanged": 4}, 0)
    assert (due["chunks"], due["chunks"] - due["chunks_cached"]) == (after.chunks_written, after.chunks_embedded)
    assert preview(settings).nothing_to_do


@pytest.mark.parametrize("times", [1, 2])
def test_rows_that_are_there_twice_are_taken_once(settings: Settings, times: int) -> None:
    """As after two runs of a script that makes new ids."""
    rows = langchain_rows(root(settings), start_index=times == 2)
    foreign(settings, rows)
    foreign(settings, [row._replace(id=f"again-{row.id}") for row in rows])
    assert_all_adopted(settings, adopt(settings), rows)


def test_a_document_that_repeats_itself(settings: Settings) -> None:
    """Equal chunks in two places are two chunks, also when nothing tells their order."""
    write(root(settings), "f0/d0.md", "\n\n".join(["Once more with feeling. " * 9, "Between. " * 20] * 3))
    rows = foreign(settings, langchain_rows(root(settings)))
    assert_all_adopted(settings, adopt(settings), rows)


@pytest.mark.parametrize("told", [True, False])
def test_a_place_that_only_metadata_tell(settings: Settings, told: bool) -> None:
    """A chunk whose text also stands within another one is put where it belongs, if something tells where."""
    chunks = ["Is it so? Yes, said one. " * 5, "No, said the other. " * 5, "Yes, said one."]
    write(root(settings), "talk.md", "\n\n".join(chunks))
    metadatas = [{"source": "talk.md"} | ({"seq": number} if told else {}) for number in range(3)]
    rows = [Row(str(n), chunks[n], metadatas[n], chunks[n]) for n in (2, 0, 1)]
    foreign(settings, rows)
    report = adopt(settings)
    assert report.documents_adopted == told
    assert report.examples.get("talk.md") == (None if told else "its chunks do not cover it")
    held = contents(settings) if told else {}
    assert [held[id_][0] for id_ in sorted(held)] == (chunks if told else [])


def test_metadata_that_name_nothing_leave_the_texts_only(settings: Settings) -> None:
    """Without names no document is adopted; a text that we cut equally is not embedded all the same."""
    write(root(settings), "short.md", "# Short\n\nOne chunk, however it is cut.")
    rows = [row._replace(metadata={"topic": "x", "source": "web"}) for row in langchain_rows(root(settings))]
    foreign(settings, [*rows[:-1], rows[-1]._replace(metadata=None)])
    report = adopt(settings)
    assert (report.documents_adopted, report.documents_left) == (0, {"no row names it": DOCUMENTS + 1})
    assert "document_key" not in report.collections["theirs"]
    after = update(settings)
    assert 1 <= after.chunks_from_cache < after.chunks_written
    assert report.next_update["chunks_cached"] == after.chunks_from_cache


def test_keys_may_be_given(settings: Settings) -> None:
    rows = [
        row._replace(metadata={"about": row.metadata["path"], "path": "f0/d0.md", "nr": row.metadata["chunk_index"]})
        for row in script_rows(root(settings))
        if row.metadata
    ]
    foreign(settings, rows)
    for wrong in ({"document_key": "abuot"}, {"order_key": "number"}):
        with pytest.raises(ConfigurationError, match=r"abuot|number") as caught:
            adopt(settings, **wrong)  # type: ignore[arg-type]
        assert "about, nr, path" in caught.value.hint
    report = adopt(settings, document_key="about", order_key="nr")
    assert report.collections["theirs"]["order_key"] == "nr"
    assert_all_adopted(settings, report, rows)


def test_rows_without_a_sound_vector_or_text_are_left_out(settings: Settings) -> None:
    rows = langchain_rows(root(settings))
    spoilt = next(row for row in rows if row.metadata and row.metadata["source"].endswith("d5.md"))
    put(
        store(settings), "theirs", rows,
        lambda texts: np.stack([hash_embed(32)([t])[0] * (t != spoilt.embedded) for t in texts]),
    )  # fmt: skip
    foreign(settings, [Row("empty", None, {"source": "f0/d0.md"}, "x"), Row("blank", " \n", None, "y")])
    report = adopt(settings)
    assert report.rows_unused == {"the vector is zero or not finite": 1, "without text": 2}
    assert report.documents_left == {"the vector is zero or not finite": 1}
    assert report.documents_adopted == DOCUMENTS - 1
    assert update(settings).kinds == {"added": 1, "unchanged": DOCUMENTS - 1}
    assert preview(settings).nothing_to_do


def segment(settings: Settings) -> Path:
    return next(path.parent for path in store(settings).glob("*/header.bin"))


def test_a_vector_that_is_not_a_number_stays_behind(settings: Settings) -> None:
    """Chroma takes no NaN, but a disk may make one."""
    rows = foreign(settings, langchain_rows(root(settings)), sync_threshold=3, batch_size=2)
    slots = segment(settings) / "data_level0.bin"
    raw, vector = slots.read_bytes(), hash_embed(32)([rows[0].embedded])[0].tobytes()
    assert vector in raw
    slots.write_bytes(raw.replace(vector, np.full(32, np.nan, np.float32).tobytes(), 1))  # behind the slots is garbage
    with file_limit():
        report = adopt(settings)
        assert report.rows_unused == {"the vector is zero or not finite": 1}
        assert report.documents_adopted == DOCUMENTS - 1
        assert update(settings).chunks_embedded > 0


@pytest.mark.parametrize("file", ["index_metadata.pickle", "data_level0.bin"])
def test_a_torn_index_is_refused(settings: Settings, file: str) -> None:
    """Its vectors could be another row's."""
    foreign(settings, langchain_rows(root(settings)), sync_threshold=3, batch_size=2)
    torn = segment(settings) / file
    torn.write_bytes(torn.read_bytes()[:500])
    before = digests(store(settings))
    with file_limit(), pytest.raises(Damaged, match="theirs"):
        adopt(settings)
    assert digests(store(settings)) == before


def test_vectors_of_another_model_are_refused(settings: Settings) -> None:
    """The free embedders are asked; what the cache has paid for tells as well; a dimension always does."""
    rows = langchain_rows(root(settings))
    put(store(settings), "theirs", rows, lambda texts: hash_embed(32)([text.upper() for text in texts]))
    with pytest.raises(PipelineMismatch, match="hash/blake2b/32"):
        adopt(settings)
    put(store(settings), "larger", rows, hash_embed(48))
    with pytest.raises(PipelineMismatch, match="48 dimensions"):
        adopt(settings, collections=["larger"])
    foreign(settings, rows, name="right")
    report = adopt(settings, collections=["right"])
    assert_all_adopted(settings, report, rows)


def test_a_collection_of_another_dimension_is_left_out_among_others(settings: Settings) -> None:
    put(store(settings), "larger", langchain_rows(root(settings)), hash_embed(48))
    rows = foreign(settings, langchain_rows(root(settings)))
    report = adopt(settings)
    assert any("larger" in note and "48 dimensions" in note for note in report.notes)
    assert_all_adopted(settings, report, rows)


def test_what_can_not_be_adopted_is_refused_before_anything_is_written(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no store"):
        adopt(settings)
    assert not store(settings).exists()
    foreign(settings, langchain_rows(root(settings)), name="kept")
    before = digests(store(settings))
    with pytest.raises(Refused, match="did not make it") as caught:
        adopt(settings)
    assert "another name" in caught.value.hint
    other = Settings(**{**vars(settings), "collection": "other"})
    with pytest.raises(ConfigurationError, match="nowhere"):
        adopt(other, collections=["nowhere"])
    with pytest.raises(Refused, match="paused"):
        adopt(Settings(**{**vars(other), "paused": True}))
    with WriterLock(lock_files(settings), "vectorkeep update"), pytest.raises(Locked, match="vectorkeep update"):
        adopt(other)
    assert digests(store(settings)) == before
    assert adopt(other).documents_adopted == DOCUMENTS


def test_a_source_that_is_not_mounted_is_refused(settings: Settings) -> None:
    """Missing, or an empty mount point: nothing is taken for nobody's."""
    foreign(settings, langchain_rows(root(settings)))
    before = digests(store(settings))
    root(settings).rename(root(settings).with_name("elsewhere"))
    with pytest.raises(EmptySource):
        adopt(settings)
    root(settings).mkdir()
    with pytest.raises(EmptySource, match="no document"):
        adopt(settings)
    assert digests(store(settings)) == before


def test_a_dry_run_says_what_a_run_does_and_changes_nothing(settings: Settings) -> None:
    foreign(settings, langchain_rows(root(settings)))
    write_document(settings, "f0/d0.md", 100)
    write(root(settings), "short.md", "# Short\n\nOne chunk, however it is cut.")
    foreign(
        settings,
        [
            Row(
                "s",
                "# Short\n\nOne chunk, however it is cut.",
                {"source": "?"},
                "# Short\n\nOne chunk, however it is cut.",
            )
        ],
    )
    before = digests(settings.workspace, root(settings))
    looked = adopt(settings, dry_run=True)
    assert digests(settings.workspace, root(settings)) == before
    done = adopt(settings)
    assert looked.dry_run and not done.dry_run
    for name in ("collections", "rows", "texts_cached", "documents_adopted", "chunks_written", "documents_left"):
        assert getattr(looked, name) == getattr(done, name), name
    assert looked.next_update == done.next_update and done.next_update["chunks_cached"] == 1
    foreign(settings, [Row("another", "Another text", None, "Another text")])
    before = digests(settings.workspace, root(settings))
    again = adopt(settings, dry_run=True)
    assert (again.documents_adopted, again.texts_cached) == (0, 1)
    assert digests(settings.workspace, root(settings)) == before


def lose(settings: Settings, *names: str) -> None:
    for name in names:
        (settings.hashes / name).unlink()


@pytest.mark.parametrize("template", ["kept", "kept_{folder}"])
def test_our_own_store_without_ledger_and_cache(settings: Settings, template: str) -> None:
    """The vectors are in the store alone, and nothing in it has to be written again."""
    settings = Settings(**{**vars(settings), "collection": template})
    update(settings)
    held = contents(settings)
    lose(settings, "ledger.sqlite3", "cache.sqlite3")
    report = adopt(settings)
    assert {about["kind"] for about in report.collections.values()} == {"own"}
    assert (report.documents_adopted, report.chunks_adopted, report.chunks_written) == (DOCUMENTS, len(held), 0)
    after = update(settings)
    assert (after.kinds, after.chunks_written) == ({"unchanged": DOCUMENTS}, 0)
    assert contents(settings) == held
    shutil.rmtree(store(settings))
    assert update(settings).chunks_embedded == 0


@pytest.mark.parametrize("template", ["kept", "kept_{folder}"])
def test_our_own_store_whose_documents_went_on(settings: Settings, tmp_path: Path, template: str) -> None:
    """Of documents that shrank since nothing is left, though the ledger that knew them is lost."""
    settings = Settings(**{**vars(settings), "collection": template})
    update(settings)
    lose(settings, "ledger.sqlite3", "cache.sqlite3")
    for number in (0, 3, 6):  # all of f0
        write_document(settings, f"f0/d{number}.md", number, parts=1)
    report = adopt(settings)
    assert report.documents_adopted == DOCUMENTS - 3
    assert update(settings).kinds == {"added": 3, "unchanged": DOCUMENTS - 3}
    assert preview(settings).nothing_to_do
    (tmp_path / "clean").mkdir()
    clean = make_settings(tmp_path / "clean", source=root(settings), collection=template)
    update(clean)
    assert contents(settings) == contents(clean)


def test_a_lost_cache_comes_back_from_the_store_but_no_altered_vector(settings: Settings) -> None:
    """The ledger knows the checksums: a row that holds something else does not get into the cache."""
    update(settings)
    held = contents(settings)
    lose(settings, "cache.sqlite3")
    opened = Store(settings)
    altered = next(iter(held))
    opened.upsert_vectors("kept", [altered], hash_embed(32)(["something else"]))
    opened.close()
    report = adopt(settings)
    assert (report.documents_adopted, report.texts_cached) == (0, len({text for text, _, _ in held.values()}) - 1)
    assert report.rows_unused == {"the vector is not the one that was written": 1}
    shutil.rmtree(store(settings))
    assert update(settings).chunks_embedded == 1
    assert contents(settings) == held


def test_adopted_documents_survive_the_loss_of_ledger_and_cache(settings: Settings) -> None:
    """They are in our collection as they were cut, which an update alone could not make again."""
    rows = foreign(settings, langchain_rows(root(settings)))
    adopt(settings)
    held = contents(settings)
    with open_client(store(settings)) as client:
        client.delete_collection("theirs")
    lose(settings, "ledger.sqlite3", "cache.sqlite3")
    report = adopt(settings)
    assert (report.documents_adopted, report.chunks_adopted, report.chunks_written) == (DOCUMENTS, len(rows), 0)
    assert update(settings).chunks_written == 0
    assert contents(settings) == held


def test_another_template_takes_over_from_the_old_ones_collection(settings: Settings) -> None:
    rows = foreign(settings, langchain_rows(root(settings)))
    adopt(settings)
    with open_client(store(settings)) as client:
        client.delete_collection("theirs")
    by_folder = Settings(**{**vars(settings), "collection": "by_{folder}"})
    assert_all_adopted(by_folder, adopt(by_folder), rows)


def test_chunks_that_vanish_from_our_collection_come_back_from_theirs(settings: Settings) -> None:
    foreign(settings, langchain_rows(root(settings)))
    adopt(settings)
    held = contents(settings)
    opened = Store(settings)
    opened.delete("kept", [id_ for id_ in held if id_.startswith("f1/")])
    opened.close()
    assert adopt(settings).documents_adopted == 3
    assert contents(settings) == held


def test_another_chunkers_collections_give_vectors_only(settings: Settings) -> None:
    """Ours, retired by a swap to longer chunks."""
    write(root(settings), "short.md", "# Short\n\nOne chunk, however it is cut.")
    update(settings)
    longer = Settings(**{**vars(settings), "chunk_tokens": 240})
    update(longer, mode="stale")
    lose(settings, "cache.sqlite3")
    report = adopt(longer)
    kinds = {name.partition("--")[0] + name[4:8]: about["kind"] for name, about in report.collections.items()}
    assert kinds == {"kept": "own", "kept--ol": "vectors only"}
    assert report.documents_adopted == 0
    assert update(settings, mode="stale").chunks_embedded == 0


def test_only_what_is_new_is_paid(tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
    """Counted by the provider: a store of paid vectors, taken over without a key, then kept in step."""
    settings = make_settings(
        tmp_path, trust_ctime=False, embedder="openai", dimensions=64, openai_base_url=embeddings_server.url,
        collection="kept",
    )  # fmt: skip
    write_corpus(root(settings), 12, sections=3)
    rows = langchain_rows(root(settings))
    put(store(settings), "theirs", rows, lambda texts: expected_vectors(texts, "text-embedding-3-small", 64))
    report = adopt(settings)
    assert (report.documents_adopted, report.documents_left) == (12, {})
    assert any("your word" in note for note in report.notes)
    assert update(settings).kinds == {"unchanged": 12}
    assert not embeddings_server.requests
    write(root(settings), "f0/d0000.md", "# Changed\n\nthese words are new")
    write(root(settings), "new.md", "# New\n\nso are these")
    after = update(settings)
    assert after.kinds == {"changed": 1, "added": 1, "unchanged": 11}
    assert sum(embeddings_server.bill.by_text.values()) == after.chunks_embedded == 2
    assert preview(settings).nothing_to_do


def test_paid_vectors_in_the_cache_unmask_another_model(tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
    settings = make_settings(tmp_path, embedder="openai", dimensions=64, openai_base_url=embeddings_server.url)
    write(root(settings), "a.md", "# One\n\nchunk")
    update(settings)
    rows = [Row("x", "# One\n\nchunk", {"source": "a.md"}, "# One\n\nchunk")]
    put(store(settings), "theirs", rows, lambda texts: expected_vectors(texts, "text-embedding-3-large", 64))
    with pytest.raises(PipelineMismatch, match="text-embedding-3-small"):
        adopt(settings)
    put(store(settings), "theirs", rows, lambda texts: expected_vectors(texts, "text-embedding-3-small", 64))
    assert not any("your word" in note for note in adopt(settings).notes)


def test_a_search_finds_what_was_adopted(settings: Settings) -> None:
    rows = foreign(settings, langchain_rows(root(settings)))
    adopt(settings)
    hit = search(settings, rows[3].text or "", limit=1)[0]
    assert hit.document == rows[3].text and hit.metadata["heading"].startswith("Document")


def test_stopped_at_the_end_of_a_batch_it_goes_on_next_time(settings: Settings) -> None:
    rows = foreign(settings, langchain_rows(root(settings)))
    small = Settings(**{**vars(settings), "store_batch": 4})
    stop = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.command == "adopt" and progress.documents_done:
            stop.set()

    with pytest.raises(Interrupted):
        adopt(small, on_progress=on_progress, stop=stop)
    assert 0 < len(contents(settings)) < len(rows)
    report = adopt(small)
    assert 0 < report.documents_adopted < DOCUMENTS and report.texts_cached == 0
    assert sorted(text for text, _, _ in contents(settings).values()) == sorted(row.text or "" for row in rows)
    assert update(settings).kinds == {"unchanged": DOCUMENTS}


def test_the_run_is_in_the_ledger_and_the_checkpoint_says_how_it_ended(settings: Settings) -> None:
    foreign(settings, langchain_rows(root(settings)))
    report = adopt(settings)
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    last = ledger.last_run("adopt")
    ledger.close()
    assert last and (last["run"], last["documents_adopted"]) == (report.run, DOCUMENTS)
    assert '"state": "completed"' in (settings.hashes / "embedding_checkpoint.json").read_text()


def test_the_command(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(settings, langchain_rows(root(settings)))
    for name in ("source", "embedder", "dimensions", "chunk_tokens", "collection"):
        monkeypatch.setenv(f"VECTORKEEP_{name.upper()}", str(getattr(settings, name)))
    assert main(["adopt", "--workspace", str(settings.workspace), "--dry-run"]) == 0
    assert f"would adopt: {DOCUMENTS} documents" in capsys.readouterr().out
    assert main(["adopt", "--workspace", str(settings.workspace)]) == 0
    said = capsys.readouterr().out
    for part in (f"adopted: {DOCUMENTS} documents", "'source' names the document", "delete", "nothing to do"):
        assert part in said
    assert main(["adopt", "--workspace", str(settings.workspace), "--collection", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
