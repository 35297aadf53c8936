"""An update brings the store in step, and only as far as needed: the same tests embedded and behind a server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.support.workspaces import contents, digests, make_settings, write, write_corpus
from vectorstore.chroma.store import Rows, Store
from vectorstore.errors import ConfigurationError, Locked, StoreUnreachable
from vectorstore.ledger import Ledger
from vectorstore.lock import WriterLock, lock_files
from vectorstore.preview import preview
from vectorstore.search import search
from vectorstore.settings import Settings
from vectorstore.update import UpdateReport, update


@pytest.fixture(params=["embedded", "server"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    name = f"t{uuid.uuid4().hex[:8]}"
    url = request.getfixturevalue("chroma_url") if request.param == "server" else ""
    return make_settings(tmp_path, trust_ctime=False, chroma_url=url, collection=f"{name}_{{folder}}")


def documents(settings: Settings) -> Path:
    return settings.path(settings.source)


def kinds(report: UpdateReport) -> dict[str, int]:
    return {kind: count for kind, count in report.kinds.items() if count}


def test_everything_then_nothing(settings: Settings) -> None:
    write_corpus(documents(settings), 12, sections=3)
    first = update(settings)
    assert (first.state, first.exit_code, kinds(first)) == ("completed", 0, {"added": 12})
    rows = contents(settings)
    assert len(rows) == first.chunks_written == first.chunks_embedded + first.chunks_from_cache > 12
    assert len({text for text, _, _ in rows.values()}) == first.chunks_embedded
    assert {metadata["doc_key"] for _, metadata, _ in rows.values()} == {f"f{n % 3}/d{n:04d}.md" for n in range(12)}
    second = update(settings)
    assert (second.state, kinds(second), second.chunks_written) == ("completed", {"unchanged": 12}, 0)
    assert contents(settings) == rows


def test_a_store_is_what_a_clean_run_over_the_same_documents_makes(settings: Settings, tmp_path: Path) -> None:
    """After edits, additions, deletes and shrinking documents nothing old is left."""
    root = documents(settings)
    write_corpus(root, 30, sections=4)
    update(settings)
    write(root, "f0/d0000.md", "# Document 0\n\nshort now")
    write(root, "f1/d0001.md", "# Another\n\n" + "new words here. " * 200)
    write(root, "f3/new.md", "# New\n\nfresh")
    for key in ("f2/d0002.md", "f2/d0005.md"):
        (root / key).unlink()
    write(root, "f2/d0008.md", "")
    report = update(settings)
    expected = {"added": 1, "changed": 3, "deleted": 2, "unchanged": 25}
    assert (report.state, kinds(report)) == ("completed", expected)
    other = tmp_path / "clean"
    other.mkdir()
    clean = make_settings(other, source=root)
    update(clean)
    assert contents(settings) == contents(clean)


def test_a_lost_ledger_leaves_nothing_of_longer_documents(settings: Settings, tmp_path: Path) -> None:
    root = documents(settings)
    write_corpus(root, 6, sections=5)
    update(settings)
    (settings.hashes / "ledger.sqlite3").unlink()
    write(root, "f0/d0000.md", "# Document 0\n\nshort now")
    report = update(settings)
    assert (kinds(report), report.chunks_embedded) == ({"added": 6}, 1)
    other = tmp_path / "clean"
    other.mkdir()
    clean = make_settings(other, source=root)
    update(clean)
    assert contents(settings) == contents(clean)


def test_modes(settings: Settings) -> None:
    root = documents(settings)
    write_corpus(root, 6)
    update(settings)
    rows = contents(settings)
    write(root, "f0/d0000.md", "# Changed\n\nwords")
    write(root, "f0/new.md", "# New\n\nwords")
    assert kinds(update(settings, mode="stale")) == {"unchanged": 6}
    assert contents(settings) == rows
    assert kinds(update(settings, mode="missing")) == {"added": 1, "unchanged": 6}
    assert contents(settings).keys() - rows.keys() == {"f0/new.md#00000"}
    everything = update(settings, mode="all")
    assert (kinds(everything), everything.chunks_written) == ({"all": 7}, len(contents(settings)))
    assert everything.chunks_embedded == 1  # the edited document's


def test_scope(settings: Settings) -> None:
    write_corpus(documents(settings), 6)
    name = settings.collection.replace("{folder}", "f1")
    assert kinds(update(settings, collections=[name])) == {"added": 2}
    assert kinds(update(settings, doc_keys=["f0/d0000.md"])) == {"added": 1}
    with pytest.raises(ConfigurationError, match="nowhere"):
        update(settings, collections=["nowhere"])
    with pytest.raises(ConfigurationError, match="neither"):
        update(settings, doc_keys=["f0/nowhere.md"])


def test_a_moved_document_and_an_inserted_paragraph_cost_little(settings: Settings) -> None:
    root = documents(settings)
    write_corpus(root, 6, sections=6)
    update(settings)
    (root / "f0/d0000.md").rename(root / "f1/moved.md")
    path = root / "f1/d0001.md"
    write(root, "f1/d0001.md", "A new paragraph.\n\n" + path.read_text())
    report = update(settings)
    assert kinds(report) == {"moved": 1, "changed": 1, "unchanged": 4}
    assert report.chunks_embedded <= 2


def test_chunks_that_vanish_from_the_store_come_back_unpaid(settings: Settings) -> None:
    write_corpus(documents(settings), 9, sections=3)
    update(settings)
    rows = contents(settings)
    store = Store(settings)
    store.delete(settings.collection.replace("{folder}", "f1"), [id_ for id_ in rows if id_.startswith("f1/d0001.md")])
    store._client.delete_collection(settings.collection.replace("{folder}", "f2"))
    store.close()
    assert preview(settings).kinds == {"missing": 4, "unchanged": 5}
    report = update(settings)
    assert (kinds(report), report.chunks_embedded) == ({"missing": 4, "unchanged": 5}, 0)
    assert contents(settings) == rows


def test_another_pipeline_is_refused_then_built_beside_and_swapped(settings: Settings) -> None:
    write_corpus(documents(settings), 9)
    update(settings)
    other = Settings(**{**vars(settings), "dimensions": 16})
    refused = update(other)
    assert (refused.state, refused.exit_code) == ("refused", 5)
    assert "hash/blake2b/32" in refused.message
    assert "hash/blake2b/16" in refused.message
    assert "--mode stale" in refused.hint
    swapped = update(other, mode="stale")
    assert (swapped.state, kinds(swapped)) == ("completed", {"stale": 9})
    assert {len(vector) for _, _, vector in contents(other).values()} == {4 * 16}
    assert kinds(update(other)) == {"unchanged": 9}
    store = Store(other)
    counts = store.counts()
    store.close()
    mine = [name for name in counts if name.startswith(settings.collection.replace("{folder}", ""))]
    assert sorted("--old-" in name for name in mine) == [False] * 3 + [True] * 3
    back = update(settings, mode="stale")
    assert (back.state, back.chunks_embedded) == ("completed", 0)


def test_a_server_that_does_not_answer_is_an_error_before_anything_is_embedded(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, chroma_url="http://127.0.0.1:9")
    write_corpus(settings.path(settings.source), 1)
    for look in (preview, update):
        with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:9"):
            look(settings)
    assert not (settings.hashes / "cache.sqlite3").exists()


def test_a_collection_of_somebody_else_is_left_alone(settings: Settings) -> None:
    write_corpus(documents(settings), 3)
    store = Store(settings)
    name = settings.collection.replace("{folder}", "f1")
    theirs = store._client.create_collection(name, embedding_function=None)
    theirs.add(ids=["x"], embeddings=[[0.5] * 32])
    store.close()
    report = update(settings)
    assert report.exit_code == 5
    assert name in report.message
    store = Store(settings)
    assert list(store.ids(name)) == ["x"]
    store.close()


def test_search_finds_by_text_and_knows_its_collections(settings: Settings) -> None:
    write_corpus(documents(settings), 9)
    update(settings)
    text = next(text for text, metadata, _ in contents(settings).values() if metadata["doc_key"] == "f1/d0004.md")
    hits = search(settings, text, limit=3)
    assert [len(hits), hits[0].metadata["doc_key"]] == [3, "f1/d0004.md"]
    assert hits[0].distance == pytest.approx(0, abs=1e-5)
    with pytest.raises(ConfigurationError, match="no collection"):
        search(settings, text, collections=["nowhere"])


def test_the_second_writer_is_told_who_holds_the_lock(settings: Settings) -> None:
    with WriterLock(lock_files(settings), "vectorkeep restore"), pytest.raises(Locked, match="vectorkeep restore"):
        update(settings)


def test_what_reads_changes_nothing(settings: Settings) -> None:
    write_corpus(documents(settings), 6)
    update(settings)
    write(documents(settings), "f0/d0000.md", "# Edited\n\nwords")
    before = digests(settings.workspace, documents(settings))
    preview(settings)
    preview(settings, exact=False)
    assert digests(settings.workspace, documents(settings)) == before


def test_no_batch_passes_the_limit_of_the_store(settings: Settings) -> None:
    store = Store(settings)
    try:
        assert store.batch <= store._client.get_max_batch_size()
        import numpy as np

        count = store.batch * 2 + 1
        vectors = np.eye(1, 32, dtype=np.float32).repeat(count, axis=0)
        ids = [f"n{number}" for number in range(count)]
        name = settings.collection.replace("{folder}", "many")
        store.prepare(name, "p")
        store.upsert(name, Rows(ids, vectors, ids, [{"n": number} for number in range(count)]))
        assert sorted(store.ids(name)) == sorted(ids)
        store.delete(name, [*ids[:-1], "unknown"])
        assert list(store.ids(name)) == ids[-1:]
    finally:
        store.close()


def test_failures_are_remembered_until_they_end(settings: Settings) -> None:
    root = documents(settings)
    write_corpus(root, 3)
    (root / "f0/bad.md").write_bytes(b"caf\xe9")
    report = update(settings)
    assert (report.state, report.exit_code, list(report.failures)) == ("completed", 1, ["f0/bad.md"])
    assert update(settings).exit_code == 1
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    generation = ledger.generation(settings.collection)
    assert generation is not None
    assert [(key, runs) for key, _, runs in ledger.failures(generation.id)] == [("f0/bad.md", 2)]
    ledger.close()
    write(root, "f0/bad.md", "good now")
    assert (update(settings).exit_code, update(settings).exit_code) == (0, 0)
