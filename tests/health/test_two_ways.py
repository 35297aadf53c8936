"""Read from its files or through Chroma, a store shows the same faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.health.conftest import copied
from tests.support.chroma_server import chroma_server
from tests.support.damage import DAMAGES, Scene
from tests.support.looking import look, named, traces
from tests.support.server_process import ServerProcess
from vectorstore.findings import HealthReport

# One or two for every check and every way of getting there: making Chroma open a copy takes seconds.
SEEN = (
    "labels_exchanged", "vectors_flipped_in_the_file", "vectors_doubled_in_the_file", "vector_nudged",
    "id_map_lacks_ids", "store_of_another_day", "queued_writes_removed", "queued_vectors_zeroed",
    "rows_removed_from_sqlite", "heading_removed", "texts_removed", "metadata_and_texts_removed",
    "tokens_as_text_in_sqlite", "orphans_unknown_id", "orphans_chunk_beyond", "chunk_in_another_collection",
    "metadata_chunk_as_float", "metadata_chunk_as_truth", "metadata_extra_list", "metadata_exchanged", "texts_edited",
    "vectors_zeroed", "vectors_copied", "document_deleted", "collection_deleted", "collection_renamed",
    "collection_made_anew", "mark_taken_away", "ledger_forgot_a_document", "ledger_vector_changed",
    "ledger_of_another_pipeline", "ledger_of_another_day",
)  # fmt: skip
# Faults of rows: both ways have to name the same ids.
BY_ROW = {"orphans", "two_places", "text", "metadata", "vectors", "zero", "norm", "not_finite"}


def rows_at_fault(report: HealthReport) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    found = [each for each in report.findings if each.check in BY_ROW and each.severity and each.collection]
    return {(each.check, each.collection): (each.count, each.ids) for each in found}


@pytest.fixture
def scene(small: Scene, server: ServerProcess, tmp_path: Path) -> Iterator[Scene]:
    yield from copied(small, server, tmp_path)


@pytest.mark.parametrize("name", SEEN)
def test_seen_through_chroma(name: str, scene: Scene) -> None:
    """The same check, the same number, the same ids; and no byte changes."""
    damage = DAMAGES[name]
    damage.apply(scene)
    before = traces(scene.workspace)
    through, direct = look(scene.workspace, way="api"), look(scene.workspace, way="files")
    assert traces(scene.workspace) == before
    assert direct.way == "files"
    assert named(through).keys() & damage.api, (damage.text, named(through))
    assert not named(through).keys() - damage.api - damage.expect - damage.also, (damage.text, named(through))
    if through.way != "none":  # Chroma could not open the copy
        assert rows_at_fault(through) == rows_at_fault(direct), damage.text
        assert through.norms == direct.norms or "index" in named(direct)


@pytest.mark.parametrize(
    "name",
    [
        "vectors_random",
        "texts_edited",
        "queued_writes_removed",
        "metadata_chunk_as_float",
        "orphans_unknown_document",
        "chunks_deleted",
    ],
)
def test_seen_behind_a_server(name: str, scene: Scene, tmp_path: Path) -> None:
    """A Chroma server shows them as well."""
    damage = DAMAGES[name]
    damage.apply(scene)
    with chroma_server(scene.store) as url:
        scene.workspace.values["chroma_url"] = url
        report = look(scene.workspace)
    assert report.way == "api" and named(report).keys() & damage.api, (damage.text, named(report))
    assert not named(report).keys() - damage.api - damage.expect - damage.also, (damage.text, named(report))
