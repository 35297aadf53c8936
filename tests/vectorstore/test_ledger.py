"""The ledger: rows, counts, intents, migrations, and a reader that leaves no trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.support.workspaces import digests
from vectorstore import ledger as module
from vectorstore.errors import Damaged
from vectorstore.ledger import ChunkRecord, DocumentRow, Intent, Ledger

CHUNKS = tuple(ChunkRecord(bytes([n]) * 16, n, n + 1) for n in range(3))


def row(key: str, collection: str = "c", chunks: tuple[ChunkRecord, ...] = CHUNKS) -> DocumentRow:
    return DocumentRow(key, collection, 10, 20, 30, False, 5, b"h" * 16, chunks)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3", clock=lambda: 1000.0)


@pytest.fixture
def generation(ledger: Ledger) -> int:
    return ledger.start_generation("docs", "p/1", "serving").id


def test_a_document_comes_back_as_committed(ledger: Ledger, generation: int) -> None:
    ledger.commit(generation, [row("a/ü\n.md"), row("b", chunks=())])
    assert ledger.document(generation, "a/ü\n.md") == row("a/ü\n.md")
    assert ledger.document(generation, "b") == row("b", chunks=())
    assert ledger.document(generation, "nothing") is None
    assert [stat.doc_key for stat in ledger.stats(generation)] == ["a/ü\n.md", "b"]
    assert set(ledger.needed_hashes()) == {chunk.hash for chunk in CHUNKS}
    assert ledger.keys_of_content(generation, b"h" * 16) == ["a/ü\n.md", "b"]


def test_keys_are_in_the_order_of_the_scan(ledger: Ledger, generation: int) -> None:
    keys = ["a b/c", "a!", "a-/x", "a/b", "a0", "é", "\U0001f600", "z"]
    ledger.commit(generation, [row(key) for key in keys])
    assert [stat.doc_key for stat in ledger.stats(generation)] == sorted(keys)


def test_counts_follow_commits_and_forgetting(ledger: Ledger, generation: int) -> None:
    ledger.commit(generation, [row("a"), row("b"), row("x", "d")])
    ledger.commit(generation, [row("a", chunks=CHUNKS[:1])])
    assert ledger.collections(generation) == {"c": (2, 4), "d": (1, 3)}
    ledger.forget(generation, ["b", "x"])
    assert ledger.collections(generation) == {"c": (1, 1), "d": (0, 0)}


def test_an_intent_lives_until_its_document_is_committed(ledger: Ledger, generation: int) -> None:
    ledger.intend(generation, [Intent("a", "c", 5), Intent("b", "c", 2)])
    ledger.intend(generation, [Intent("a", "c", 3)])
    assert ledger.intents(generation) == [Intent("a", "c", 5), Intent("b", "c", 2)]
    ledger.commit(generation, [row("a")])
    assert ledger.intents(generation) == [Intent("b", "c", 2)]
    ledger.resolve(generation, [Intent("b", "c", 2)])
    assert ledger.intents(generation) == []


def test_a_failed_transaction_leaves_nothing(ledger: Ledger, generation: int) -> None:
    broken = row("b")._replace(size=None)  # type: ignore[arg-type]
    with pytest.raises(Damaged):
        ledger.commit(generation, [row("a"), broken])
    assert list(ledger.stats(generation)) == []
    assert ledger.collections(generation) == {}


def test_a_reader_leaves_no_trace(ledger: Ledger, generation: int, tmp_path: Path) -> None:
    ledger.commit(generation, [row("a")])
    ledger.close()
    before = digests(tmp_path)
    reader = Ledger(tmp_path / "ledger.sqlite3", readonly=True)
    assert reader.document(generation, "a") == row("a")
    with pytest.raises(sqlite3.OperationalError):
        reader.forget(generation, ["a"])
    reader.close()
    assert digests(tmp_path) == before
    missing = Ledger(tmp_path / "none.sqlite3", readonly=True)
    assert missing.generation("docs") is None
    missing.close()
    assert not (tmp_path / "none.sqlite3").exists()


def test_a_reader_reads_while_a_writer_writes(ledger: Ledger, generation: int, tmp_path: Path) -> None:
    ledger.commit(generation, [row("a")])
    reader = Ledger(tmp_path / "ledger.sqlite3", readonly=True)
    ledger.commit(generation, [row("b")])
    assert [stat.doc_key for stat in reader.stats(generation)] == ["a", "b"]
    reader.close()


def test_an_older_schema_is_migrated_and_a_reader_migrates_a_copy(
    ledger: Ledger, generation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.commit(generation, [row("a")])
    ledger.close()
    path = tmp_path / "ledger.sqlite3"
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "CREATE TABLE later (x);"))
    before = digests(tmp_path)
    Ledger(path, readonly=True).close()
    assert digests(tmp_path) == before
    Ledger(path).close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM later").fetchone() == (0,)
    assert db.execute("PRAGMA user_version").fetchone() == (len(module.MIGRATIONS),)
    db.close()
    monkeypatch.undo()
    with pytest.raises(Damaged, match="schema"):
        Ledger(path)


def test_a_file_that_is_no_ledger_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"not a database, not at all" * 100)
    for readonly in (False, True):
        with pytest.raises(Damaged, match="ledger"):
            Ledger(path, readonly=readonly).generation("docs")
