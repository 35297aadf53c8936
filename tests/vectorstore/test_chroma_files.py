"""Chroma's files as `chroma_files`, `audit`, `salvage` and `repair` see them, on real stores."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_helpers import (
    DIMENSION,
    assert_holds,
    create,
    digests,
    file_limit,
    fill,
    make_ids,
    open_client,
    open_writer,
    unit_vectors,
)
from vectorstore.chroma import files, hnsw
from vectorstore.chroma.audit import Damage, DamageKind, Remedy, audit
from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.chroma.repair import NotRepairableError, repair
from vectorstore.chroma.salvage import salvage

ROWS, DELETED, PENDING = 350, 10, 50
VECTORS = unit_vectors(ROWS)
EXPECTED = dict(list(zip(make_ids(ROWS), VECTORS, strict=True))[DELETED:])
SLOT = 4 * 33 + 4 * DIMENSION + 8


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 vectors persisted, 50 in the queue, 10 deleted; a second collection, persisted; a third, empty."""
    store = tmp_path_factory.mktemp("pristine") / "chroma"
    with open_client(store) as client:
        pages = create(client, "pages")
        fill(pages, VECTORS)
        pages.delete(ids=make_ids(DELETED))
        fill(create(client, "other"), unit_vectors(100, seed=2))
        create(client, "empty")
    return store


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "chroma"))


def pages(store: Path) -> files.StoredCollection:
    with files.open_snapshot(store) as db:
        return next(each for each in files.list_collections(db, store) if each.name == "pages")


def segment(store: Path) -> Path:
    return store / pages(store).vector_segment


def kinds(found: list[Damage]) -> set[DamageKind]:
    return {damage.kind for damage in found}


def test_reads_what_chroma_wrote(store: Path) -> None:
    """Collections, ids, settings and pending writes come out of the files as they went into Chroma."""
    with files.open_snapshot(store) as db:
        assert files.read_layout(db).known
        other, empty, found = sorted(files.list_collections(db, store), key=lambda c: (c.name != "other", c.name))
        assert (found.dimension, found.space, found.sync_threshold, found.ef_search) == (DIMENSION, "ip", 100, 100)
        assert found.has_folder and not empty.has_folder
        assert files.count_ids(db, found) == len(EXPECTED) and files.count_ids(db, other) == 100
        assert list(files.iter_ids(db, found, page=37)) == sorted(EXPECTED)
        queue = list(files.iter_queue(db, found, vectors=True))
        assert [write.operation for write in queue[-DELETED:]] == [files.Operation.DELETE] * DELETED
        assert queue[0].id == make_ids(ROWS)[300] and queue[0].vector == VECTORS[300].tobytes()
        assert len(files.read_pending(db)[found.id]) >= len(queue) == PENDING + DELETED


def test_missing_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(files.StoreMissingError):
        audit(tmp_path / "nowhere")


# --- healthy stores: never a finding ---


def below_threshold(client: Any) -> None:
    fill(create(client, "pages"), VECTORS[:60])


def one_vector(client: Any) -> None:
    collection = create(client, "pages", sync_threshold=2, batch_size=2)
    collection.upsert(ids=["a"], embeddings=VECTORS[:1])
    collection.upsert(ids=["a"], embeddings=VECTORS[1:2])
    collection.upsert(ids=["a"], embeddings=VECTORS[2:3])


def same_ids_again(client: Any) -> None:
    collection = create(client, "pages")
    for seed in range(4):
        fill(collection, unit_vectors(250, seed=seed))


def deletes_and_new_ids(client: Any) -> None:
    collection = create(client, "pages")
    for turn in range(4):
        fill(collection, unit_vectors(150, seed=turn), start=150 * turn)
        collection.delete(ids=make_ids(100, 150 * turn))


def deleted_ids_come_back(client: Any) -> None:
    collection = create(client, "pages")
    for _ in range(3):
        fill(collection, VECTORS[:130])
        collection.delete(ids=make_ids(130))
    fill(collection, VECTORS[:20])


def everything_deleted(client: Any) -> None:
    collection = create(client, "pages")
    fill(collection, VECTORS[:200])
    for first in range(0, 200, 100):
        collection.delete(ids=make_ids(100, first))


def adds_and_updates(client: Any) -> None:
    collection = create(client, "pages")
    fill(collection, VECTORS[:150])
    collection.add(ids=make_ids(60, 120), embeddings=VECTORS[:60])
    collection.update(ids=make_ids(5), metadatas=[{"k": 1}] * 5)
    collection.update(ids=make_ids(120), embeddings=VECTORS[:120])
    collection.update(ids=["not there"], embeddings=VECTORS[:1])
    collection.delete(ids=["not there either"])


def other_spaces(client: Any) -> None:
    for space in ("cosine", "l2"):
        fill(create(client, f"{space}-space", space=space), VECTORS[:130])
    older = client.create_collection("older", metadata={"hnsw:space": "ip", "hnsw:sync_threshold": 100})
    fill(older, VECTORS[:230])
    fill(create(client, "wide", max_neighbors=24), VECTORS[:130])


def collections_come_and_go(client: Any) -> None:
    for turn in range(3):
        fill(create(client, f"keep-{turn}"), VECTORS[:120])
        fill(create(client, f"drop-{turn}"), VECTORS[:120])
        client.delete_collection(f"drop-{turn}")


def two_threads(client: Any) -> None:
    collection = create(client, "pages")
    threads = [
        threading.Thread(target=fill, args=(collection, VECTORS[part]), kwargs={"start": 1000 * n, "batch": 30})
        for n, part in enumerate((slice(0, 170), slice(170, 350)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


HEALTHY: list[Callable[[Any], None]] = [
    lambda client: None,
    below_threshold,
    one_vector,
    same_ids_again,
    deletes_and_new_ids,
    deleted_ids_come_back,
    everything_deleted,
    adds_and_updates,
    other_spaces,
    collections_come_and_go,
    two_threads,
]


@pytest.mark.parametrize("build", HEALTHY, ids=lambda build: build.__name__.strip("<>"))
def test_no_false_alarm(build: Callable[[Any], None], tmp_path: Path) -> None:
    """No finding while Chroma has the store open, after it closed, and after one more opening."""
    store = tmp_path / "chroma"
    with open_client(store) as client:
        build(client)
        assert audit(store) == []
    before = digests(store)
    assert audit(store) == []
    assert digests(store) == before
    with open_client(store) as client:
        for collection in client.list_collections():
            collection.query(query_embeddings=VECTORS[:1], n_results=1)
    assert audit(store) == []


# --- every kind of damage: found, and nothing changed ---


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        path = segment(store) / name
        os.truncate(path, int(path.stat().st_size * share))

    return damage


def write_at(name: str, offset: int, value: bytes) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        with (segment(store) / name).open("r+b") as file:
            file.seek(offset)
            assert file.read(len(value)) != value
            file.seek(offset)
            file.write(value)

    return damage


def in_live_slot(offset: int, value: bytes) -> Callable[[Path], None]:
    """Damage within a slot that serves an id; which slots those are differs from store to store."""

    def damage(store: Path) -> None:
        queued = {write.id for write in pending(store)}
        live = {label for key, label in hnsw.read_id_map(segment(store)).labels.items() if key not in queued}
        header = hnsw.read_header(segment(store), DIMENSION)
        ((_, slots),) = hnsw.iter_slots(segment(store), header)
        slot = next(number for number, each in enumerate(slots) if int(each["label"]) in live and not each["mark"] & 1)
        write_at("data_level0.bin", slot * SLOT + offset, value)(store)

    return damage


def pending(store: Path) -> list[files.QueuedWrite]:
    with files.open_snapshot(store) as db:
        return list(files.iter_queue(db, pages(store)))


def remove(*names: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        for name in names:
            (segment(store) / name).unlink()

    return damage


def remove_folder(store: Path) -> None:
    shutil.rmtree(segment(store))


def execute(sql: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        db = sqlite3.connect(files.sqlite_path(store))
        collection = pages(store)
        db.execute(sql, {"v": collection.vector_segment, "m": collection.metadata_segment, "c": collection.id})
        db.commit()
        db.close()

    return damage


def change_map(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        path = segment(store) / "index_metadata.pickle"
        content = pickle.loads(path.read_bytes())
        change(content)
        path.write_bytes(pickle.dumps(content, protocol=3))

    return damage


def forget_ids(content: dict[str, Any]) -> None:
    for identifier in list(content["id_to_label"])[:20]:
        del content["label_to_id"][content["id_to_label"].pop(identifier)]


def swap_ids(content: dict[str, Any]) -> None:
    first, second = list(content["id_to_label"])[:2]
    labels = content["id_to_label"]
    labels[first], labels[second] = labels[second], labels[first]


def call_something(store: Path) -> None:
    (segment(store) / "index_metadata.pickle").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")


def cut_sqlite(store: Path) -> None:
    os.truncate(files.sqlite_path(store), files.sqlite_path(store).stat().st_size // 2)


def zero_sqlite_head(store: Path) -> None:
    with files.sqlite_path(store).open("r+b") as file:
        file.write(b"\0" * 4096)


DAMAGES: dict[str, tuple[Callable[[Path], None], DamageKind]] = {
    "header empty": (cut("header.bin", 0), DamageKind.HEADER_TORN),
    "header half": (cut("header.bin", 0.5), DamageKind.HEADER_TORN),
    "header zero": (write_at("header.bin", 0, bytes(100)), DamageKind.HEADER_TORN),
    "header slot size": (write_at("header.bin", 28, b"\x01\x02"), DamageKind.HEADER_TORN),
    "header entry point": (write_at("header.bin", 56, b"\xff\xff"), DamageKind.HEADER_TORN),
    "header ahead of the slots": (write_at("header.bin", 20, b"\x2d\x01"), DamageKind.SLOTS_TORN),
    "header version 2": (write_at("header.bin", 0, b"\x02"), DamageKind.UNKNOWN_LAYOUT),
    "header missing": (remove("header.bin"), DamageKind.HEADER_TORN),
    "slots half": (cut("data_level0.bin", 0.5), DamageKind.SLOTS_TORN),
    "slots missing": (remove("data_level0.bin"), DamageKind.SLOTS_TORN),
    "slots end in zeros": (
        write_at("data_level0.bin", 280 * SLOT, bytes(20 * SLOT)),
        DamageKind.LABELS_DIFFER,
    ),
    "label flipped": (write_at("data_level0.bin", 4 * SLOT - 8, b"\x77"), DamageKind.LABELS_DIFFER),
    "slot marked deleted": (write_at("data_level0.bin", 2, b"\x01"), DamageKind.LABELS_DIFFER),
    "link count": (write_at("data_level0.bin", 9 * SLOT, b"\xff"), DamageKind.LINKS_OUT_OF_RANGE),
    "link out of range": (write_at("data_level0.bin", 4, b"\xff\xff\xff"), DamageKind.LINKS_OUT_OF_RANGE),
    "NaN": (in_live_slot(132, b"\0\0\xc0\x7f"), DamageKind.VECTORS_NOT_FINITE),
    "zero vector": (in_live_slot(132, bytes(64)), DamageKind.VECTORS_ZERO),
    "lengths missing": (remove("length.bin"), DamageKind.LENGTHS_TORN),
    "lengths cut": (cut("length.bin", 0.9), DamageKind.LENGTHS_TORN),
    "upper links cut": (cut("link_lists.bin", 0.5), DamageKind.UPPER_LINKS_TORN),
    "upper links empty": (cut("link_lists.bin", 0), DamageKind.UPPER_LINKS_TORN),
    "upper links grown": (cut("link_lists.bin", 40_000), DamageKind.UPPER_LINKS_TORN),
    "upper links size": (write_at("link_lists.bin", 0, b"\x07\x11"), DamageKind.UPPER_LINKS_TORN),
    "map cut": (cut("index_metadata.pickle", 0.7), DamageKind.ID_MAP_TORN),
    "map empty": (cut("index_metadata.pickle", 0), DamageKind.ID_MAP_TORN),
    "map calls a function": (call_something, DamageKind.ID_MAP_TORN),
    "map lacks ids": (change_map(forget_ids), DamageKind.LABELS_DIFFER),
    "map disagrees": (change_map(swap_ids), DamageKind.ID_MAP_TORN),
    "map's last label": (
        change_map(lambda content: content.update(total_elements_added=7)),
        DamageKind.ID_MAP_TORN,
    ),
    "map missing": (remove("index_metadata.pickle"), DamageKind.INDEX_MISSING),
    "folder missing": (remove_folder, DamageKind.INDEX_MISSING),
    "queue rows gone": (
        execute("DELETE FROM embeddings_queue WHERE seq_id BETWEEN 310 AND 320"),
        DamageKind.IDS_MISSING,
    ),
    "queue emptied": (execute("DELETE FROM embeddings_queue"), DamageKind.QUEUE_BEHIND),
    "queue vector cut": (
        execute("UPDATE embeddings_queue SET vector = x'00' WHERE seq_id = 310"),
        DamageKind.QUEUE_TORN,
    ),
    "queue operation": (
        execute("UPDATE embeddings_queue SET operation = 9 WHERE seq_id = 310"),
        DamageKind.QUEUE_TORN,
    ),
    "rows deleted in SQLite": (
        execute("DELETE FROM embeddings WHERE segment_id = :m AND id % 9 = 0"),
        DamageKind.IDS_LEFT_BEHIND,
    ),
    "full-text table gone": (execute("DROP TABLE embedding_fulltext_search"), DamageKind.SQLITE_SCHEMA),
    "newer migration": (
        execute("INSERT INTO migrations VALUES ('sysdb', 11, 'x', 'x', 'x')"),
        DamageKind.UNKNOWN_LAYOUT,
    ),
    "no migrations": (execute("DROP TABLE migrations"), DamageKind.UNKNOWN_LAYOUT),
    "SQLite cut": (cut_sqlite, DamageKind.SQLITE_CORRUPT),
    "SQLite zeroed": (zero_sqlite_head, DamageKind.SQLITE_CORRUPT),
    "SQLite missing": (lambda store: files.sqlite_path(store).unlink(), DamageKind.SQLITE_MISSING),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_without_a_trace(name: str, store: Path) -> None:
    """Each damage gives its kind, on its collection only, and the audit leaves every byte as it was."""
    damage, kind = DAMAGES[name]
    damage(store)
    before = digests(store)
    found = audit(store)
    assert kind in kinds(found), found
    assert {each.collection for each in found} <= {"pages", None}
    assert digests(store) == before


@pytest.mark.parametrize("name", [name for name, (_, kind) in DAMAGES.items() if kind.remedy is Remedy.REBUILD])
def test_rebuild_brings_every_vector_back(name: str, store: Path, tmp_path: Path) -> None:
    """Ids, vectors bit for bit, documents and metadata are as before; deletes and a second opening work."""
    DAMAGES[name][0](store)
    report = repair(
        store,
        audit(store),
        lambda: open_writer(store),
        lambda collection, ids: {key: EXPECTED[key] for key in ids},
        aside=tmp_path / "aside",
    )
    assert report.rebuilt == ["pages"] and not report.lost and report.remaining == []
    assert list((tmp_path / "aside").glob("*")) == []
    assert_holds(store, "pages", EXPECTED)
    with open_client(store) as client:
        client.get_collection("pages").delete(ids=make_ids(20, 40))
    assert audit(store) == []
    assert_holds(store, "pages", {key: EXPECTED[key] for key in EXPECTED if key not in make_ids(20, 40)})


@pytest.mark.parametrize("name", ["queue rows gone", "zero vector"])
def test_refill_mends_without_a_rebuild(name: str, store: Path, tmp_path: Path) -> None:
    DAMAGES[name][0](store)
    report = repair(
        store,
        audit(store),
        lambda: open_writer(store),
        lambda collection, ids: {key: EXPECTED[key] for key in ids},
        aside=tmp_path / "aside",
    )
    assert not report.rebuilt and 0 < report.refilled["pages"] < 20 and report.remaining == []
    assert_holds(store, "pages", EXPECTED)


def test_vectors_without_ids_are_deleted(store: Path, tmp_path: Path) -> None:
    DAMAGES["rows deleted in SQLite"][0](store)
    report = repair(
        store, audit(store), lambda: open_writer(store), lambda collection, ids: {}, aside=tmp_path / "aside"
    )
    assert report.deleted["pages"] > 10 and report.remaining == []


@pytest.mark.parametrize("name", ["queue emptied", "SQLite cut", "newer migration"])
def test_hopeless_damage_is_refused_untouched(name: str, store: Path, tmp_path: Path) -> None:
    DAMAGES[name][0](store)
    before = digests(store)
    with pytest.raises(NotRepairableError):
        repair(store, audit(store), lambda: open_writer(store), lambda collection, ids: {}, aside=tmp_path)
    assert digests(store) == before


@pytest.mark.parametrize("name", ["header zero", "slots half", "upper links cut", "map cut", "link count", "NaN"])
def test_salvage_reads_round_the_damage(name: str, store: Path) -> None:
    """What salvage gives for an id that still stands is right once its checksum is held against it."""
    DAMAGES[name][0](store)
    due = {"slots half": 190, "map cut": 300}.get(name, len(EXPECTED) - 1)
    good = {key for key, vector in salvage(store, pages(store)) if key in EXPECTED and (vector == EXPECTED[key]).all()}
    assert len(good) >= due


def test_repair_without_a_cache_uses_what_it_moved_aside(store: Path, tmp_path: Path) -> None:
    """Checksums alone bring the vectors back; an id whose vector is wrong everywhere is reported as lost."""
    DAMAGES["upper links cut"][0](store)
    in_live_slot(140, b"\x11\x22")(store)
    report = repair(
        store,
        audit(store),
        lambda: open_writer(store),
        lambda collection, ids: {},
        aside=tmp_path / "aside",
        checksum=lambda collection, key: zlib.crc32(EXPECTED[key].tobytes()),
    )
    [lost] = report.lost["pages"]
    assert kinds(report.remaining) == {DamageKind.IDS_MISSING}
    assert list((tmp_path / "aside").iterdir()), "the damaged folder stays while something is lost"
    again = repair(
        store,
        report.remaining,
        lambda: open_writer(store),
        lambda collection, ids: {lost: EXPECTED[lost]},
        aside=tmp_path / "aside",
    )
    assert again.remaining == [] and not list((tmp_path / "aside").iterdir())
    assert_holds(store, "pages", EXPECTED)


HALF_A_TRANSACTION = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("DELETE FROM embedding_metadata")
db.execute("DELETE FROM embeddings")
db.execute("PRAGMA cache_spill = 1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_journal_left_behind_is_read_round_and_kept(store: Path, tmp_path: Path) -> None:
    """A killed transaction is no damage: the audit sees the state before it, and Chroma rolls it back."""
    sound = digests(store)
    command = [sys.executable, "-c", HALF_A_TRANSACTION, str(files.sqlite_path(store))]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    before = digests(store)
    assert before["chroma.sqlite3"] != sound["chroma.sqlite3"] and "chroma.sqlite3-journal" in before
    found = audit(store, scratch=tmp_path)
    assert kinds(found) == {DamageKind.UNFINISHED_TRANSACTION} and found[0].safe_to_open
    assert digests(store) == before and list(tmp_path.iterdir()) == [store]
    report = repair(store, found, lambda: open_writer(store), lambda collection, ids: {}, aside=tmp_path / "aside")
    assert report.remaining == [] and audit(store) == []
    assert_holds(store, "pages", EXPECTED)


def test_fingerprint_moves_with_the_files(store: Path) -> None:
    before = fingerprint(store)
    assert {"chroma.sqlite3", f"{segment(store).name}/header.bin"} <= before.keys()
    assert fingerprint(store) == before
    DAMAGES["header zero"][0](store)
    after = fingerprint(store)
    assert [name for name in after if after[name] != before[name]] == [f"{segment(store).name}/header.bin"]
