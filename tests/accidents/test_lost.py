"""Parts of a workspace get lost or changed behind our back: noticed, refilled from what is kept, never paid twice."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Row, Workspace, document, paid


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, _server: ServerProcess) -> tuple[Workspace, dict[str, Row]]:
    workspace = Workspace(tmp_path_factory.mktemp("lost") / "w", _server, store_batch=500, batch_texts=64)
    workspace.fill(40, sections=34)  # above Chroma's sync threshold of 1,000 chunks: an index on the disk
    workspace.update()
    return workspace, workspace.assert_in_step()


@pytest.fixture
def filled(_filled: tuple[Workspace, dict[str, Row]], tmp_path: Path, server: ServerProcess) -> Workspace:
    """40 documents in step, and an empty bill."""
    return _filled[0].copy(tmp_path / "w")


def with_chroma(store: Path, action: str) -> None:
    """Somebody else's work on the store."""
    import chromadb

    client = chromadb.PersistentClient(str(store), settings=chromadb.config.Settings(anonymized_telemetry=False))
    try:
        if action == "drop":
            client.delete_collection("docs")
        else:
            collection = client.get_collection("docs", embedding_function=None)
            collection.delete(ids=collection.get(limit=77, include=[])["ids"])
    finally:
        client.close()


def lose(workspace: Workspace, what: str) -> None:
    if what == "store":
        shutil.rmtree(workspace.store)
    elif what == "segment":
        segments = [path for path in workspace.store.iterdir() if path.is_dir()]
        assert segments
        for path in segments:
            shutil.rmtree(path)
    elif what == "sqlite":
        (workspace.store / "chroma.sqlite3").unlink()
    else:
        with_chroma(workspace.store, what)


@pytest.mark.parametrize("what", ["store", "drop", "rows", "segment"])
def test_lost_from_the_store(filled: Workspace, server: ServerProcess, what: str) -> None:
    """What the store lost is noticed by a plan and refilled from the cache, unpaid, to the same vectors."""
    before = filled.rows()
    lose(filled, what)
    seen = filled.run("plan", code=0).report
    assert not seen["nothing_to_do"] and seen["tokens"] == 0
    filled.update()
    assert filled.rows() == before
    assert filled.update()["kinds"] == {"unchanged": 40}
    assert paid(server) == 0


def test_store_without_its_sqlite(filled: Workspace, server: ServerProcess) -> None:
    """Chroma would open an empty store over old segments; the update fills it again, unpaid."""
    before = filled.rows()
    lose(filled, "sqlite")
    assert not filled.run("plan", code=0).report["nothing_to_do"]
    filled.update()
    assert filled.rows() == before and paid(server) == 0


def test_lost_ledger(filled: Workspace, server: ServerProcess) -> None:
    """Without its ledger an update writes it anew from store and cache, unpaid, and removes leftovers of documents
    that were longer once."""
    filled.ledger.unlink()
    filled.write("00/page-00003.md", document("3", 2))
    filled.write("00/page-00004.md", "")
    filled.update()
    filled.assert_in_step()
    assert filled.update()["kinds"] == {"unchanged": 40}
    assert paid(server) <= 1  # the shortened document's last chunk may be cut differently


def test_lost_ledger_and_a_document_gone(filled: Workspace, server: ServerProcess) -> None:
    """Chunks of a document that neither source nor ledger knows may be somebody's: they are told of, not deleted."""
    filled.ledger.unlink()
    (filled.docs / "00/page-00007.md").unlink()
    report = filled.update()
    assert any("00/page-00007.md" in note and "left alone" in note for note in report["notes"])
    assert paid(server) == 0


def test_lost_cache(filled: Workspace, server: ServerProcess) -> None:
    """Without its cache nothing is paid as long as the store is whole; only what is new is."""
    filled.cache.unlink()
    assert filled.update()["kinds"] == {"unchanged": 40}
    filled.write("new.md", document("new"))
    filled.update()
    filled.assert_in_step()
    assert paid(server) == 1


def test_lost_cache_and_torn_index(filled: Workspace, server: ServerProcess) -> None:
    """Without its cache a torn index is mended from what its own files still hold; what nobody has is paid, once."""
    filled.cache.unlink()
    data = next(filled.store.glob("*/header.bin"))
    data.write_bytes(data.read_bytes()[:20])
    for _ in range(3):
        filled.update(code=None)
    filled.assert_in_step()
    assert paid(server) == 0


@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00\xff garbage", b"[]", b'{"state": 7}'])
def test_checkpoint_is_only_a_picture(filled: Workspace, server: ServerProcess, content: bytes | None) -> None:
    """A checkpoint that is gone or garbage loses nothing and stops nothing."""
    checkpoint = filled.root / ".hashes" / "embedding_checkpoint.json"
    checkpoint.unlink()
    if content is not None:
        checkpoint.write_bytes(content)
    filled.run("status", code=0)
    filled.write("new.md", document("new"))
    assert filled.update()["kinds"] == {"unchanged": 40, "added": 1}
    assert paid(server) == 1


def test_rows_deleted_in_sqlite_only(filled: Workspace, server: ServerProcess) -> None:
    """Rows that vanish below Chroma are noticed too, and come back unpaid."""
    before = filled.rows()
    with closing(sqlite3.connect(filled.store / "chroma.sqlite3")) as db, db:
        db.execute("DELETE FROM embedding_metadata WHERE id IN (SELECT id FROM embeddings LIMIT 50)")
        db.execute("DELETE FROM embeddings WHERE id IN (SELECT id FROM embeddings LIMIT 50)")
    filled.update()
    assert {key: row[0] for key, row in filled.rows().items()} == {key: row[0] for key, row in before.items()}
    assert paid(server) == 0
