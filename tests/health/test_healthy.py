"""Stores that nothing is wrong with, however odd they look: no check says more than INFO, at any depth."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_helpers import open_client, unit_vectors
from tests.support.chroma_server import chroma_server
from tests.support.damage import API, GUIDE, Scene
from tests.support.looking import look, named
from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, document, prose
from vectorstore.findings import Depth, Severity

Build = Callable[[Workspace], None]


def settle(workspace: Workspace) -> None:
    """Update once the documents' times prove that they have not changed since."""
    workspace.update()
    time.sleep(2.1)
    workspace.update()


def just_updated(workspace: Workspace) -> None:
    """Documents changed so shortly before they were read that the next run reads them once more."""
    workspace.fill(20)
    workspace.update()


def settled(workspace: Workspace) -> None:
    workspace.fill(20)
    settle(workspace)


def no_document(workspace: Workspace) -> None:
    workspace.update()


def never_updated(workspace: Workspace) -> None:
    """Not even a ledger."""


def one_document(workspace: Workspace) -> None:
    workspace.write("only.md", document("only", 5))
    workspace.update()


def one_vector(workspace: Workspace) -> None:
    workspace.write("only.md", "One sentence.\n")
    workspace.update()


def documents_without_text(workspace: Workspace) -> None:
    workspace.fill(5)
    workspace.write("blank.md", " \n\n")
    workspace.write("empty.md", "")
    workspace.update()


def everything_deleted(workspace: Workspace) -> None:
    workspace.fill(8)
    workspace.update()
    shutil.rmtree(workspace.docs)
    workspace.write("last.md", document("last"))
    workspace.update("--max-deletes", "8")


def churned(workspace: Workspace) -> None:
    """Edits, deletes and additions over several runs, through two writes of the index."""
    for turn in range(4):
        for n in range(30):
            workspace.write(f"page-{n:02d}.md", document((turn * (n % 3), n), 20))
        for n in range(turn):
            (workspace.docs / f"page-{20 + n}.md").unlink()
        workspace.update()


def just_written_to_the_index(workspace: Workspace) -> None:
    for n in range(50):
        workspace.write(f"page-{n:02d}.md", document(n, 20))
    workspace.update(store_batch=1000)


def queue_only(workspace: Workspace) -> None:
    workspace.fill(90)
    workspace.update()


def moved(workspace: Workspace) -> None:
    workspace.fill(30)
    workspace.update()
    (workspace.docs / "00").rename(workspace.docs / "other")
    workspace.update()


def same_texts(workspace: Workspace) -> None:
    """A licence in every tenth document."""
    for n in range(30):
        workspace.write(f"page-{n}.md", document("the licence" if n % 10 == 0 else n, 2))
    workspace.update()


def many_collections(workspace: Workspace) -> None:
    workspace.values["collection"] = "docs_{folder}"
    for n in range(40):
        workspace.write(f"folder-{n}/page.md", document(n, 2))
    workspace.write("at-the-root.md", document("root"))
    workspace.update()


NAMES = (
    "Übergröße/Straße.md", "日本語/文書.md", "with space/and another .md", "100%/50%25.md", "c#/a#b#00001.md",
    "#.md", "quote'd/\"double\".md", "new\nline/tab\t.md", "emoji-🦜/🥚.md", "combining-e\u0301/e\u0301.md",
    "x" * 200 + "/" + "y" * 200 + ".md", "--next-/--old-1-20260101.md", "semi;colon/back\\slash.md", "*/[a-z]?.md",
    "..a/...md", "root/root.md", "\u2028/\ufeff.md",
)  # fmt: skip


def odd_names(workspace: Workspace) -> None:
    workspace.values["collection"] = "docs_{folder}"
    for name in NAMES:
        workspace.write(name, document(name, 2))
    workspace.update()


def odd_texts(workspace: Workspace) -> None:
    workspace.write("nul-free.md", "# \u0001\u001f \x7f\n\n" + "\u200b\u200d word " * 3)
    workspace.write("bidi.md", "# \u202e reversed\n\nמילים ועוד מילים\n\n" + "\U0010ffff \U0001f600 " * 3)
    workspace.write("crlf.md", "# Title\r\n\r\nText\rand more\r\n")
    workspace.write("bom.md", "\ufeff# Title\n\nText\n")
    workspace.write("long-line.md", "".join(prose(n).replace(" ", "") for n in range(60)))
    workspace.write("special.md", "<|endoftext|> " * 4)
    workspace.update()


def swapped(workspace: Workspace) -> None:
    """Another dimension serves; what served before is kept."""
    workspace.fill(20)
    workspace.update()
    workspace.values["dimensions"] = 32
    workspace.update("--mode", "stale")


def swapped_back(workspace: Workspace) -> None:
    swapped(workspace)
    workspace.values["dimensions"] = 64
    workspace.update("--mode", "stale")
    workspace.fill(20, prefix="later")
    workspace.update()


def other_space(workspace: Workspace) -> None:
    workspace.values["space"] = "l2"
    workspace.fill(20)
    workspace.update()


def cosine(workspace: Workspace) -> None:
    """Chroma keeps other floats than those that it is sent; some are in the index, some in the queue."""
    workspace.values["space"] = "cosine"
    for n in range(60):
        workspace.write(f"page-{n:02d}.md", document(n, 20))
    workspace.update()


def killed(workspace: Workspace) -> None:
    """Runs that were killed at four steps; the next update put everything right."""
    workspace.fill(60, 3)
    for step in ("Ledger.intend", "Ledger.commit"):
        for when in ("before", "after"):
            assert workspace.start("update", die=f"{when} vectorstore.ledger:{step} 1").killed()
    assert workspace.start("update", die="after vectorstore.chroma.store:Store.upsert 2", store_batch=50).killed()
    workspace.update()


def stores_of_others(workspace: Workspace) -> None:
    """Another program keeps collections of its own in the same store, and files beside them."""
    workspace.fill(20)
    workspace.update()
    with open_client(workspace.store) as client:
        theirs = client.create_collection("theirs", embedding_function=None)
        theirs.upsert(ids=["a", "b"], embeddings=unit_vectors(2, 8), metadatas=[{"k": 1}, {"k": "x"}])
        client.create_collection("nothing-yet", embedding_function=None)
    (workspace.store / "README.txt").write_text("not Chroma's")
    (workspace.store / "notes").mkdir()
    (workspace.store / "notes" / "a.txt").write_text("not Chroma's either")


def added_again(workspace: Workspace) -> None:
    """Another program adds ids that are there, which Chroma ignores, and deletes some that are not."""
    workspace.fill(20)
    workspace.update()
    with open_client(workspace.store) as client:
        collection = client.get_collection("docs")
        ids = sorted(collection.get(include=[])["ids"])[:6]
        before = collection.get(ids=ids, include=["embeddings"])["embeddings"]
        collection.add(ids=ids, embeddings=unit_vectors(6, 64), documents=["other"] * 6)
        collection.update(ids=["nobody"], embeddings=unit_vectors(1, 64))
        collection.delete(ids=["nobody either"])
        assert np.array_equal(collection.get(ids=ids, include=["embeddings"])["embeddings"], before)


def written_again(workspace: Workspace) -> None:
    """Another program writes rows as they are."""
    workspace.fill(20)
    workspace.update()
    with open_client(workspace.store) as client:
        collection = client.get_collection("docs")
        rows = collection.get(include=["embeddings", "documents", "metadatas"])
        collection.upsert(**{key: rows[key] for key in ("ids", "embeddings", "documents", "metadatas")})


def looked_into(workspace: Workspace) -> None:
    """Somebody opened the store and searched, which changes its SQLite file."""
    workspace.fill(20)
    workspace.update()
    with open_client(workspace.store) as client:
        client.get_collection("docs").query(query_embeddings=unit_vectors(1, 64), n_results=3)


def restored(workspace: Workspace) -> None:
    """Store, ledger and documents were copied, and all their times are of today."""
    workspace.fill(20)
    workspace.update()
    for path in workspace.root.rglob("*"):
        os.utime(path)


def mended(workspace: Workspace) -> None:
    """A store that was lost and filled anew, and a ledger too."""
    workspace.fill(20)
    workspace.update()
    shutil.rmtree(workspace.store)
    workspace.update()
    workspace.ledger.unlink()
    workspace.update()


def paused(workspace: Workspace) -> None:
    workspace.fill(20)
    workspace.update()
    workspace.values |= {"paused": True, "protected": True}


BUILDS: list[Build] = [
    just_updated, settled, no_document, never_updated, one_document, one_vector, documents_without_text,
    everything_deleted, churned, just_written_to_the_index, queue_only, moved, same_texts, many_collections, odd_names,
    odd_texts, swapped, swapped_back, other_space, cosine, killed, stores_of_others, added_again, written_again,
    looked_into,
    restored, mended, paused,
]  # fmt: skip


def assert_healthy(workspace: Workspace) -> None:
    for depth in Depth:
        report = look(workspace, depth)
        assert not named(report), (depth.name, named(report), report.notes)
        assert report.exit_code == 0 and report.depth == depth.name.lower()


def test_as_built(scene: Scene) -> None:
    """What the fault matrix damages is healthy before that."""
    assert_healthy(scene.workspace)
    assert {each.name for each in look(scene.workspace).collections} == {GUIDE, "docs_notes", API}


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_healthy(build: Build, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    build(workspace)
    assert_healthy(workspace)


def test_behind_a_server(tmp_path: Path) -> None:
    """A store that only Chroma's server can look into."""
    (tmp_path / "chroma").mkdir()
    with chroma_server(tmp_path / "chroma") as url:
        workspace = Workspace(tmp_path / "w", chroma_url=url, collection="docs_{folder}")
        workspace.fill(150, 4)
        workspace.update()
        assert_healthy(workspace)
        assert look(workspace).way == "api"


def test_journal_of_a_killed_writer_of_the_ledger(scene: Scene) -> None:
    """A run that was killed in a commit, and one that went on: the write-ahead log was left and is gone again."""
    scene.edit("guide/new.md", document("new", 2))
    assert scene.workspace.start("update", die="before vectorstore.ledger:Ledger.commit 1").killed()
    scene.workspace.update()
    assert_healthy(scene.workspace)


@contextmanager
def at_work(workspace: Workspace) -> Iterator[None]:
    """An update that is in the middle of its writes, stopped there, though not while it keeps others from reading."""
    run = workspace.start("update", store_batch=20)
    ledger = workspace.ledger
    try:
        assert wait_for_intents(ledger), "the run was over before it could be stopped"
        run.signal(signal.SIGSTOP)
        while not all(readable(path) for path in (workspace.spend, ledger, workspace.store / "chroma.sqlite3")):
            run.signal(signal.SIGCONT)
            time.sleep(0.001)
            run.signal(signal.SIGSTOP)
        yield
    finally:
        run.signal(signal.SIGCONT)
        assert run.wait().code == 0


@pytest.mark.slow
def test_a_spend_ledger_that_somebody_holds(scene: Scene) -> None:
    """Is told, and no check goes without its verdict for it."""
    with closing(sqlite3.connect(scene.workspace.spend, isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS totals (scope TEXT, picousd INTEGER)")
        db.execute("BEGIN EXCLUSIVE")
        report = look(scene.workspace, Depth.QUICK)
        db.execute("ROLLBACK")
    assert named(report, Severity.WARN).keys() == {"budget"}


@pytest.mark.slow
@pytest.mark.parametrize("depth", Depth)
def test_a_store_that_somebody_holds(scene: Scene, depth: Depth) -> None:
    """Is not called broken: to restore a backup over it would be the harm."""
    with closing(sqlite3.connect(scene.sqlite, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        report = look(scene.workspace, depth)
        db.execute("ROLLBACK")
    assert named(report).keys() == {"lock"} and named(report, Severity.FAIL) == {}
    assert all(each.check != "sqlite" for each in report.findings)


def readable(path: Path) -> bool:
    """Whether nobody is about to write to an SQLite file; a moment passes before a stopped process stands still."""
    time.sleep(0.01)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as db:
        try:
            db.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            return False
    return True


def wait_for_intents(ledger: Path) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            db = sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)
            try:
                if db.execute("SELECT count(*) FROM intents").fetchone()[0]:
                    return True
            finally:
                db.close()
        except sqlite3.OperationalError:
            pass
        time.sleep(0.001)
    return False


def test_beside_an_update(scene: Scene, server: ServerProcess) -> None:
    """While an update writes nothing is called broken; that it is at work is said."""
    for n in range(30):
        scene.edit(f"guide/page-{n:03d}.md", document(("at work", n), 20))
    with at_work(scene.workspace):
        for depth in Depth:
            found = named(look(scene.workspace, depth))
            assert found.keys() <= {"in_step", "coverage"}, (depth.name, found)
    time.sleep(2.1)
    scene.workspace.update()
    assert_healthy(scene.workspace)
