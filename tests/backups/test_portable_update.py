"""After a portable backup was loaded into an empty store beside its ledger, an update has nothing to do or to pay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chroma_helpers import file_limit
from tests.support.chroma_server import chroma_server
from tests.support.portable import api_reader, export_store, opened, write_portable
from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, paid
from vectorstore.backups.portable import load
from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.ledger import Ledger


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "server").mkdir()
    with ServerProcess(tmp_path / "server") as process:
        yield process


def forget(workspace: Workspace) -> None:
    """No cache, no store: what an update needs it must find in the backup, or pay."""
    workspace.cache.unlink()
    shutil.rmtree(workspace.store)


@pytest.mark.parametrize("said", [True, False], ids=["the ledger is told", "the ledger is not told"])
@pytest.mark.parametrize("space", ["ip", "cosine"])
def test_an_update_after_a_load_pays_nothing(tmp_path: Path, server: ServerProcess, said: bool, space: str) -> None:
    workspace = Workspace(tmp_path / "ws", server, space=space)
    workspace.fill(30, sections=2)
    workspace.update()
    due, before = workspace.rows(), paid(server)
    export_store(workspace.store, tmp_path / "out")
    forget(workspace)
    with opened(workspace.root) as store:
        load(tmp_path / "out", store)
    if said:
        ledger = Ledger(workspace.ledger)
        ledger.store_closed(fingerprint(workspace.store))
        ledger.close()
    report = workspace.update()
    assert report["kinds"] == {"unchanged": 30} and report["chunks_written"] == report["chunks_embedded"] == 0
    assert paid(server) == before
    if space == "ip":
        assert workspace.assert_in_step() == due
        assert workspace.run("health").code == 0
    workspace.write("00/page-00000.md", "# Another title\n\nAnd another text.\n")
    assert workspace.update()["kinds"] == {"changed": 1, "unchanged": 29}
    assert paid(server) == before + 1


def test_the_same_where_the_store_is_a_server(tmp_path: Path, server: ServerProcess) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with chroma_server(tmp_path / "old") as old, chroma_server(tmp_path / "new") as new:
        workspace = Workspace(tmp_path / "ws", server, chroma_url=old)
        workspace.fill(12)
        workspace.update()
        before = paid(server)
        with api_reader(workspace.root, chroma_url=old) as reader:
            write_portable(reader, tmp_path / "out")
        with opened(workspace.root, chroma_url=new) as store:
            load(tmp_path / "out", store)
        workspace.cache.unlink()
        report = workspace.update(chroma_url=new)
        assert report["kinds"] == {"unchanged": 12} and paid(server) == before


def test_rows_that_were_left_out_come_back_from_the_source(tmp_path: Path, server: ServerProcess) -> None:
    """A selective backup beside the whole ledger: the update finds what the store lacks, and pays for that alone."""
    workspace = Workspace(tmp_path / "ws", server)
    workspace.fill(10, prefix="open ")
    workspace.write("private/a.md", "# Private\n\nNobody's business.\n")
    workspace.update()
    before = paid(server)
    done = export_store(
        workspace.store, tmp_path / "out", allow=lambda metadata, _text, _id: "private" not in metadata["doc_key"]
    )
    assert done.left_out == 1
    forget(workspace)
    with opened(workspace.root) as store:
        load(tmp_path / "out", store)
    assert workspace.update()["chunks_written"] == 1
    assert paid(server) == before + 1
    workspace.assert_in_step()
