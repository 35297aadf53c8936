"""What search answers: canaries, worn indexes, and a store that Vectorkeep did not make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_helpers import create, fill, make_ids, open_client, unit_vectors
from tests.support.looking import look, named
from tests.support.workbench import Workspace, document
from vectorstore.checks.search import ask_files
from vectorstore.chroma.files import open_snapshot
from vectorstore.findings import Severity

PAGES = 30


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "w")
    for n in range(PAGES):
        workspace.write(f"page-{n}.md", document(n))
    workspace.update()
    return workspace


@pytest.mark.parametrize("way", ["files", "api"])
def test_canaries(workspace: Workspace, way: str) -> None:
    """The text of a chunk finds its document; another document's name does not stand for it."""
    text = document(7).strip()
    workspace.values["canaries"] = {text: "page-7.md"}
    assert "canaries" not in named(look(workspace, way=way, probe=False))
    workspace.values["canary_k"] = 1
    workspace.values["canaries"] = {text: "page-8.md"}
    assert "'page-7.md' first" in named(look(workspace, way=way, probe=False), Severity.FAIL)["canaries"]


def test_a_canary_whose_document_left_the_store(workspace: Workspace) -> None:
    workspace.values["canaries"] = {document(7).strip(): "page-7.md"}
    (workspace.docs / "page-7.md").unlink()
    workspace.update()
    assert "canaries" in named(look(workspace, probe=False))


def foreign(tmp_path: Path, vectors: np.ndarray) -> Workspace:
    workspace = Workspace(tmp_path / "w", chroma_path="theirs")
    with open_client(workspace.root / "theirs") as client:
        fill(create(client, "others"), vectors)
    return workspace


def test_a_sound_store_of_somebody_else(tmp_path: Path) -> None:
    """Without a ledger: nothing is an orphan, nothing is missing, and there is no fault in it."""
    report = look(foreign(tmp_path, unit_vectors(600)))
    assert not named(report)
    assert {"vectors", "not_finite", "zero", "self_query", "recall", "probe", "sqlite"} <= {
        finding.check for finding in report.findings
    }
    assert report.collections[0].state == "foreign" and report.collections[0].checked == 600


def test_faults_in_a_store_of_somebody_else(tmp_path: Path) -> None:
    """Zeros, and a vector that stands with two texts."""
    vectors = unit_vectors(600)
    vectors[5] = 0
    vectors[9] = vectors[8]
    found = named(look(foreign(tmp_path, vectors), probe=False))
    assert found.keys() == {"zero", "duplicate_vectors"}
    assert "guide/page-1.md#00005" in found["zero"]
    assert "#00008" in found["duplicate_vectors"] and "#00009" in found["duplicate_vectors"]


def test_a_row_is_found_after_its_metadata_changed(tmp_path: Path) -> None:
    """The change waits in the queue, without a vector: the index's is still the newest. A delete there counts."""
    vectors = unit_vectors(250)
    with open_client(tmp_path / "chroma") as client:
        collection = create(client, "pages")
        fill(collection, vectors)
        collection.update(ids=make_ids(2), metadatas=[{"seen": True}] * 2)
        collection.delete(ids=make_ids(1))
    with open_snapshot(tmp_path / "chroma") as db:
        nearest = ask_files(db, tmp_path / "chroma", ["pages"], {"gone": vectors[0], "there": vectors[1]}, 1)
    assert nearest["there"] == make_ids(1, 1) and nearest["gone"] != make_ids(1)
