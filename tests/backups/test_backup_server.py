"""Backups of a Chroma server, and into one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest

from tests.support.chroma_server import chroma_server
from tests.support.kept import OPEN, PRIVATE, Kept
from tests.support.workbench import Row, read_store


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "server").mkdir()
    with chroma_server(tmp_path / "server") as address:
        yield address


def client(url: str) -> Any:
    host, port = url.removeprefix("http://").split(":")
    return chromadb.HttpClient(host, int(port))


def rows_at(url: str) -> dict[str, Row]:
    """Everything a server answers for, as ``read_store`` gives it."""
    found: dict[str, Row] = {}
    for collection in client(url).list_collections():
        got = collection.get(include=["embeddings", "documents", "metadatas"])
        columns = (got["ids"], got["embeddings"], got["documents"], got["metadatas"])
        for id_, vector, text, metadata in zip(*columns, strict=True):
            content = str(sorted(metadata.items()))
            found[f"{collection.name}/{id_}"] = (np.asarray(vector, np.float32).tobytes(), text, content)
    return found


@pytest.mark.slow
def test_from_a_server_and_back(tmp_path: Path, url: str) -> None:
    workspace = Kept(tmp_path / "ws", chroma_url=url, collection="docs_{folder}", max_delete_share=1.0)
    workspace.fill_small()
    workspace.update()
    foreign = client(url).create_collection("foreign")
    foreign.add(ids=["one"], embeddings=[[1.0, 0.0]], documents=["not ours"], metadatas=[{"key": 1}])
    due = rows_at(url)
    assert "choose kind portable" in workspace.refused("backup", "--kind", "full", code=2)
    made = workspace.report("backup")
    assert made["kind"] == "portable" and sum(made["collections"].values()) == len(due)
    workspace.write("a/page-0.md", "# Changed\n\nOther words.\n")
    workspace.write("c/new.md", "# New\n\nIn a collection of its own.\n")
    workspace.update()
    client(url).delete_collection("docs_b")
    now = rows_at(url)
    assert workspace.report("restore", "--dry-run")["safety"] == "" and rows_at(url) == now
    safety = workspace.report("restore", made["name"])["safety"]
    found = rows_at(url)
    assert {id_: row for id_, row in found.items() if not id_.startswith("docs_c/")} == due
    assert workspace.report("restore", "--undo")["name"] == safety
    undone = rows_at(url)
    assert {id_: row for id_, row in undone.items() if not id_.startswith("docs_b/")} == now
    report = workspace.report("restore", made["name"], "--into", str(tmp_path / "new"))
    assert any("chroma_url" in note for note in report["adapted"])
    rows = read_store(tmp_path / "new" / "chroma")
    assert {id_: row[:2] for id_, row in rows.items()} == {id_: row[:2] for id_, row in due.items()}
    done = workspace.cli("update", "--json", "--workspace", str(tmp_path / "new"))
    assert done.report["kinds"] == {"added": 1, "changed": 1, "unchanged": OPEN + PRIVATE - 1}
    assert rows_at(url) == undone
    workspace.assert_tidy()


@pytest.mark.slow
def test_from_files_into_a_server(backed_up: tuple[Kept, str, str], url: str) -> None:
    workspace, full, portable = backed_up
    due = {id_: row[:2] for id_, row in workspace.rows().items()}
    workspace.set(chroma_url=url)
    for argv in ([], ["--dry-run"]):
        assert "choose a portable backup" in workspace.refused("restore", full, *argv, code=2)
    assert workspace.report("restore", portable)["safety"] == ""
    assert {id_: row[:2] for id_, row in rows_at(url).items()} == due
    workspace.cache.unlink()
    workspace.assert_settled()
