"""Read from its files or through Chroma, a store shows the same faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chroma_server import chroma_server
from tests.support.damage import DAMAGES, Scene
from tests.support.looking import look, named, traces
from vectorstore.findings import HealthReport

SEEN = [name for name, damage in DAMAGES.items() if damage.api]
# Faults of rows: both ways have to name the same ids.
BY_ROW = {"orphans", "two_places", "text", "metadata", "vectors", "zero", "norm", "not_finite"}


def rows_at_fault(report: HealthReport) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    found = [each for each in report.findings if each.check in BY_ROW and each.severity and each.collection]
    return {(each.check, each.collection): (each.count, each.ids) for each in found}


@pytest.mark.parametrize("name", SEEN)
def test_seen_through_chroma(name: str, scene: Scene) -> None:
    """The same check, the same number, the same ids; and no byte changes."""
    damage = DAMAGES[name]
    damage.apply(scene)
    before = traces(scene.workspace)
    through, direct = look(scene.workspace, way="api"), look(scene.workspace, way="files")
    assert traces(scene.workspace) == before
    assert (through.way, direct.way) == ("api", "files")
    assert named(through).keys() & damage.api, (damage.text, named(through))
    assert not named(through).keys() - damage.api - damage.expect - damage.also, (damage.text, named(through))
    assert rows_at_fault(through) == rows_at_fault(direct), damage.text
    assert through.norms == direct.norms


@pytest.mark.parametrize(
    "name", ["vectors_random", "texts_edited", "metadata_chunk_as_float", "orphans_unknown_document", "chunks_deleted"]
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
