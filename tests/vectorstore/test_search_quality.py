"""Self-queries, recall and links, measured from the files: right figures, and they fall when the index is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.chroma_helpers import (
    DIMENSION,
    clustered_vectors,
    create,
    digests,
    file_limit,
    fill,
    make_ids,
    open_client,
    stored_collection,
    unit_vectors,
)
from vectorstore.chroma import hnsw, search_quality
from vectorstore.chroma.graph_search import Graph, Space
from vectorstore.chroma.search_quality import Measurement, SearchQuality, measure

SPACES: tuple[Space, ...] = ("ip", "cosine", "l2")
COARSE = {"max_neighbors": 2, "ef_construction": 5, "ef_search": 10}
TEXTS = clustered_vectors(4_000, clusters=80)
STRETCHED = TEXTS[:600] * np.linspace(0.5, 2, 600, dtype=np.float32)[:, None]
NOISE = unit_vectors(1_000, dimension=200)
COPIES = np.repeat(clustered_vectors(20, clusters=20), 30, axis=0)
LENGTHS = np.where(np.arange(500) % 2, 1, 0.01)[:, None].astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("quality") / "chroma"
    with open_client(store) as client:
        fill(create(client, "texts", sync_threshold=1_000), TEXTS)
        for space in SPACES:
            fill(create(client, f"texts-{space}", space=space), TEXTS[:1_000])
            vectors = TEXTS[:600] if space == "ip" else STRETCHED
            fill(create(client, f"coarse-{space}", space=space, **COARSE), vectors)
        fill(create(client, "noise", max_neighbors=4, ef_construction=10, ef_search=10), NOISE)
        fill(create(client, "copies"), COPIES)
        fill(create(client, "lengths"), clustered_vectors(500, clusters=10) * LENGTHS)
        fill(create(client, "seven", sync_threshold=7), TEXTS[:7])
        delete_some(create(client, "coarse-deleted", space="l2", **COARSE))
    return store


def delete_some(collection: Any) -> None:
    fill(collection, STRETCHED)
    collection.delete(ids=make_ids(200, 100))


def open_graph(store: Path, name: str) -> Graph:
    found = stored_collection(store, name)
    folder = store / found.vector_segment
    return Graph(folder, hnsw.read_header(folder, found.dimension), found.space, ef_search=found.ef_search)


def quality(store: Path, name: str, **options: int) -> SearchQuality:
    with open_graph(store, name) as graph:
        return measure(graph.folder, graph.header, graph.space, ef_search=graph.ef_search, **options)


@pytest.mark.parametrize("name", ["texts", *(f"texts-{space}" for space in SPACES)])
def test_a_sound_index_finds_nearly_all(store: Path, name: str) -> None:
    found = quality(store, name)
    assert (found.self_found, found.self_total) == (20, 20)
    assert found.recall_total == 200 and found.recall_found >= 196
    assert found.links_near >= 0.97 * found.links_total > 100
    assert found.stranded == 0


@pytest.mark.parametrize("name", [*(f"coarse-{space}" for space in SPACES), "coarse-deleted"])
def test_the_figures_are_those_of_search_and_of_exact_search(store: Path, name: str) -> None:
    """On an index so coarse that it misses a good part; every vector that is not deleted is asked for."""
    found = quality(store, name, queries=1_000)
    with open_graph(store, name) as graph:
        slots = graph.read(range(600))
        slots = slots[slots["mark"] & 1 == 0]
        vectors = slots["vector"].astype(np.float64)
        by_label = dict(zip(slots["label"].tolist(), vectors, strict=True))
        assert sorted(probe.label for probe in found.probes) == sorted(by_label)
        for probe in found.probes:
            query = by_label[probe.label]
            answer = graph.search(query, 10)
            squares, dots = ((vectors - query) ** 2).sum(axis=1), vectors @ query
            near = np.sort(squares if graph.space == "l2" else 1 - dots)[9]
            tolerance = 1e-6 * (near if graph.space == "l2" else 1)
            assert probe.right == sum(distance <= near + tolerance for _, distance in answer)
            assert probe.self_found == (probe.label in dict(answer))
    assert len(found.probes) == (400 if name == "coarse-deleted" else 600)
    assert 0.1 < found.recall_found / found.recall_total < 0.9
    assert 0.1 < found.self_found / found.self_total < 0.9


def test_blocks_and_stacks_of_any_size_give_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = quality(store, "coarse-l2")
    for block_bytes, product in ((1, 1), (204 * 100, 320 * 7), (204 * 599, 320 * 601), (204 * 600, 320 * 600)):
        monkeypatch.setattr(hnsw, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(search_quality, "_ONE_THREAD", product)
        assert quality(store, "coarse-l2") == expected


def test_a_caller_that_reads_the_slots_anyway_gets_the_same(store: Path) -> None:
    with open_graph(store, "coarse-ip") as graph:
        measurement = Measurement(graph, seed=5)
        for first, block in hnsw.iter_slots(graph.folder, graph.header, block=130):
            measurement.add(first, block)
        assert measurement.result() == quality(store, "coarse-ip", seed=5)


def test_a_seed_draws_its_sample(store: Path) -> None:
    first, again, other = (quality(store, "texts", seed=seed) for seed in (1, 1, 2))
    assert first == again
    drawn, others = ({probe.label for probe in each.probes} for each in (first, other))
    assert len(drawn) == len(others) == 20 and len(drawn & others) < 5


def test_copies_are_no_misses(store: Path) -> None:
    """Thirty vectors are the same: the first ten results can be any of them."""
    found = quality(store, "copies", queries=1_000)
    others = 0
    with open_graph(store, "copies") as graph:
        slots = graph.read(range(600))
        vectors = dict(zip(slots["label"].tolist(), slots["vector"], strict=True))
        for probe in found.probes:
            answer = dict(graph.search(vectors[probe.label], 10))
            # Chroma may leave some of so many copies without a way in; then they are misses.
            assert probe.right == sum(distance < 1e-5 for distance in answer.values())
            assert probe.self_found == (probe.right > 0)
            others += bool(probe.self_found) and probe.label not in answer
    assert found.self_found >= 500 and others >= 300


def test_a_short_vector_need_not_find_itself_under_ip(store: Path) -> None:
    found = quality(store, "lengths", queries=500)
    assert [probe.self_found for probe in found.probes].count(None) == 250
    assert found.self_total == found.self_found == 250


def test_of_few_vectors_all_are_asked_for(store: Path) -> None:
    found = quality(store, "seven")
    assert (found.self_found, found.self_total, found.recall_found, found.recall_total) == (7, 7, 49, 49)
    assert found.links_total == found.stranded == 0


def test_hard_vectors_are_told_apart_from_a_damaged_index(store: Path) -> None:
    """Vectors without neighbours to speak of: little is found, and yet the links are as they should be."""
    found = quality(store, "noise")
    assert found.recall_found < 0.6 * found.recall_total
    assert found.links_near == found.links_total > 100
    assert found.stranded == 0


def test_looking_changes_nothing(store: Path) -> None:
    before = digests(store)
    quality(store, "texts")
    assert digests(store) == before


# --- damage ---


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """A copy of the segment folder of "texts"."""
    return Path(shutil.copytree(store / stored_collection(store, "texts").vector_segment, tmp_path / "segment"))


def measure_copy(folder: Path) -> SearchQuality:
    return measure(folder, hnsw.read_header(folder, DIMENSION), "ip")


def slots_of(folder: Path) -> NDArray[np.void]:
    """All slots, to be changed in the file."""
    header = hnsw.read_header(folder, DIMENSION)
    return np.memmap(folder / "data_level0.bin", hnsw.slot_dtype(header), mode="r+", shape=(header.slots,))


def test_links_that_lead_anywhere_are_seen(folder: Path) -> None:
    slots = slots_of(folder)
    slots["links"] = np.random.default_rng(1).integers(0, len(slots), slots["links"].shape)
    slots.flush()
    found = measure_copy(folder)
    assert found.recall_found < 0.8 * found.recall_total
    assert found.self_found < 0.8 * found.self_total
    assert 0.4 < found.links_near / found.links_total < 0.6


def test_links_that_are_gone_are_seen(folder: Path) -> None:
    """Those that are left are near, as they should be: what tells is that searches end early."""
    slots = slots_of(folder)
    slots["count"] = np.minimum(slots["count"], 1)
    slots.flush()
    found = measure_copy(folder)
    assert found.recall_found < 0.2 * found.recall_total and found.self_found < 0.2 * found.self_total
    assert found.links_near >= 0.9 * found.links_total > 0 and found.stranded >= 15


def test_links_gone_from_every_other_slot_are_seen(folder: Path) -> None:
    slots = slots_of(folder)
    slots["count"][::2] = 0
    slots.flush()
    assert measure_copy(folder).stranded >= 3


def test_vectors_at_the_wrong_place_are_seen(folder: Path) -> None:
    """Each vector is sound, and the links were made for another."""
    slots = slots_of(folder)
    slots["vector"] = np.roll(slots["vector"], 1, axis=0)
    slots.flush()
    found = measure_copy(folder)
    assert found.recall_found < 0.8 * found.recall_total
    assert 0.4 < found.links_near / found.links_total < 0.6


def test_not_a_number_does_not_stop_it(folder: Path) -> None:
    slots = slots_of(folder)
    slots["vector"][::2, 3] = np.nan
    slots["vector"][1::4] = np.float32(3e38)
    slots.flush()
    assert measure_copy(folder).recall_total <= 200
