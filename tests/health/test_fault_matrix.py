"""The fault matrix: every kind of damage, done to a real store, is found and is called what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.damage import DAMAGES, Scene
from tests.support.looking import look, named, traces
from vectorstore.findings import Depth, Severity

# Chroma crashes on some, raises on some, and answers on some; making it try takes longer than all else.
PROBED = (
    "header_slot_size_flipped", "data_level0_cut_to_50%", "links_flipped", "link_list_size_flipped", "id_map_lacks_ids",
    "vectors_doubled", "schema_torn",
)  # fmt: skip


ROOT = Path(__file__).parents[2]
PARTS = 5  # into which a standard check divides rows as few as these


@pytest.mark.parametrize("name", DAMAGES)
def test_found_at_deep(name: str, slight: Scene) -> None:
    """A check that is named for the damage reports it, none reports what is not there, and no byte changes."""
    damage = DAMAGES[name]
    damage.apply(slight)
    before = traces(slight.workspace)
    report = look(slight.workspace, verify_content=damage.contents, probe=name in PROBED)
    assert traces(slight.workspace) == before
    assert named(report, damage.severity).keys() & damage.expect, (damage.text, named(report, Severity.INFO))
    wrong = named(report).keys() - damage.expect - damage.also
    assert not wrong, (damage.text, {check: named(report)[check] for check in wrong})


LESSER = [name for name, damage in DAMAGES.items() if damage.depth < Depth.DEEP]


@pytest.mark.parametrize("name", LESSER)
def test_found_at_its_depth(name: str, scene: Scene) -> None:
    """What a lesser depth can find it finds; at standard all parts of the rows together show all faults."""
    damage = DAMAGES[name]
    damage.apply(scene)
    found: set[str] = set()
    for seed in range(PARTS if damage.depth is Depth.STANDARD else 1):
        report = look(scene.workspace, damage.depth, seed=seed, verify_content=damage.contents)
        assert not named(report).keys() - damage.expect - damage.also, (damage.text, named(report))
        found |= named(report, damage.severity).keys()
        if found & damage.expect:
            return
    raise AssertionError((damage.text, found))


def test_forty_kinds() -> None:
    assert len(DAMAGES) >= 40


def test_the_readme_counts_them() -> None:
    assert f"{len(DAMAGES)} kinds of damage" in (ROOT / "README.md").read_text()
