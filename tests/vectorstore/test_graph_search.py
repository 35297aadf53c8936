"""The search over the files gives what Chroma gives, and ends on whatever the files hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.chroma_helpers import (
    DIMENSION,
    create,
    digests,
    file_limit,
    fill,
    make_ids,
    open_client,
    stored_collection,
    unit_vectors,
)
from vectorstore.chroma import hnsw
from vectorstore.chroma.graph_search import Graph, Space
from vectorstore.chroma.search_quality import measure

SPACES: tuple[Space, ...] = ("ip", "cosine", "l2")
LENGTHS = np.linspace(0.5, 2, 1_000, dtype=np.float32)[:, None]
VECTORS = unit_vectors(1_000) * LENGTHS
# So coarse that the way through the graph decides what is found.
COARSE = {"max_neighbors": 2, "ef_construction": 5, "ef_search": 3}


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


def of_size(rows: int, batch: int = 100) -> Callable[[Any, str, Space], None]:
    """Persisted with its last row."""

    def build(client: Any, name: str, space: Space) -> None:
        fill(create(client, name, sync_threshold=max(rows, 2), space=space), VECTORS[:rows], batch=batch)

    return build


def one_vector(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, sync_threshold=2, space=space, batch_size=2)
    for vector in VECTORS[:2]:
        collection.upsert(ids=["a"], embeddings=vector[None])


def coarse(client: Any, name: str, space: Space) -> None:
    fill(create(client, name, space=space, **COARSE), VECTORS[:800])


def some_deleted(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, space=space, **COARSE)
    fill(collection, VECTORS[:600])
    collection.delete(ids=make_ids(100, 150))


def many_deleted(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, space=space, **COARSE)
    fill(collection, VECTORS[:500])
    collection.delete(ids=make_ids(400))


def nearly_all_deleted(client: Any, name: str, space: Space) -> None:
    """Chroma compares with all of so few, instead of walking through the deleted ones."""
    collection = create(client, name, space=space, **COARSE)
    fill(collection, VECTORS[:600])
    collection.delete(ids=make_ids(501))


def a_fifth_deleted(client: Any, name: str, space: Space) -> None:
    """Not more than a fifth: Chroma still walks."""
    collection = create(client, name, sync_threshold=20, batch_size=20, space=space, **COARSE)
    fill(collection, VECTORS[:100])
    collection.delete(ids=make_ids(20))


def a_quarter_deleted(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, sync_threshold=25, batch_size=25, space=space, **COARSE)
    fill(collection, VECTORS[:100])
    collection.delete(ids=make_ids(25))


def all_deleted(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, space=space)
    fill(collection, VECTORS[:200])
    collection.delete(ids=make_ids(200))


def updated(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, space=space)
    fill(collection, VECTORS[:400])
    fill(collection, VECTORS[500:700], start=100)


def deleted_and_back(client: Any, name: str, space: Space) -> None:
    collection = create(client, name, space=space)
    fill(collection, VECTORS[:300])
    collection.delete(ids=make_ids(100))
    fill(collection, VECTORS[500:600], start=50)


COLLECTIONS: dict[str, Callable[[Any, str, Space], None]] = {
    "one-vector": one_vector,
    "two-vectors": of_size(2),
    "33-vectors": of_size(33),
    "99-vectors": of_size(99, batch=7),
    "101-vectors": of_size(101),
    "1000-vectors": of_size(1_000),
    **{build.__name__: build for build in (coarse, some_deleted, a_fifth_deleted, a_quarter_deleted, many_deleted)},
    **{build.__name__: build for build in (nearly_all_deleted, all_deleted, updated, deleted_and_back)},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[Space, Path]:
    """For each space a store with all the collections."""
    stores = {space: tmp_path_factory.mktemp(space) / "chroma" for space in SPACES}
    for space, store in stores.items():
        with open_client(store) as client:
            for name, build in COLLECTIONS.items():
                build(client, name, space)
    return stores


def open_graph(store: Path, name: str) -> Graph:
    collection = stored_collection(store, name)
    folder = store / collection.vector_segment
    header = hnsw.read_header(folder, collection.dimension)
    return Graph(folder, header, collection.space, ef_search=collection.ef_search)


def ask_chroma(store: Path, name: str, queries: NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
    with open_client(store) as client:
        got = client.get_collection(name).query(query_embeddings=queries, n_results=k, include=["distances"])
    return [list(zip(ids, distances, strict=True)) for ids, distances in zip(got["ids"], got["distances"], strict=True)]


def assert_same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    """Equal distances in order, and equal ids but for ties with the last."""
    distances = [distance for _, distance in expected]
    np.testing.assert_allclose([distance for _, distance in found], distances, rtol=1e-5, atol=1e-5)
    near = max(distances, default=0) - 1e-5
    assert {key for key, distance in found if distance < near} == {key for key, distance in expected if distance < near}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", COLLECTIONS)
def test_gives_what_chroma_gives(stores: dict[Space, Path], name: str, space: Space) -> None:
    """For queries from anywhere and for stored ones, for few results and for more than the breadth of a search."""
    queries = np.concatenate([3 * unit_vectors(15, seed=9), VECTORS[::67]])
    for k in (1, 10, 150):
        answers = ask_chroma(stores[space], name, queries, k)
        with open_graph(stores[space], name) as graph:
            for query, expected in zip(queries, answers, strict=True):
                assert_same(graph.nearest(query, k), expected)


def test_the_coarse_index_is_no_easy_case(stores: dict[Space, Path]) -> None:
    """An exact search in place of the walk would be told apart."""
    with open_graph(stores["ip"], "coarse") as graph:
        found = [graph.search(query, 1)[0][1] for query in VECTORS[:50]]
    assert np.mean(np.isclose(found, (1 - VECTORS[:50] @ VECTORS[:800].T).min(axis=1), atol=1e-5)) < 0.5


def test_a_wider_search_finds_more(stores: dict[Space, Path]) -> None:
    with open_graph(stores["l2"], "coarse") as graph:
        farthest = {ef: sum(graph.search(query, 10, ef)[-1][1] for query in VECTORS[:20]) for ef in (1, 10, 50, 400)}
    assert farthest[1] == farthest[10] > farthest[50] > farthest[400]


def test_labels_are_those_of_the_id_map(stores: dict[Space, Path]) -> None:
    with open_graph(stores["cosine"], "updated") as graph:
        id_map = hnsw.read_id_map(graph.folder)
        assert id_map is not None
        for (label, distance), pair in zip(graph.search(VECTORS[3], 10), graph.nearest(VECTORS[3], 10), strict=True):
            assert (id_map.labels[pair[0]], pair[1]) == (label, distance)


def test_looking_changes_nothing(stores: dict[Space, Path]) -> None:
    before = digests(stores["ip"])
    with open_graph(stores["ip"], "some_deleted") as graph:
        graph.nearest(VECTORS[0], 10)
    assert digests(stores["ip"]) == before


def test_a_query_of_another_shape_is_refused(stores: dict[Space, Path]) -> None:
    with open_graph(stores["ip"], "updated") as graph, pytest.raises(ValueError, match="16 dimensions"):
        graph.search(np.ones(DIMENSION + 1), 1)


def test_an_index_without_slots_answers_nothing(stores: dict[Space, Path]) -> None:
    with open_graph(stores["ip"], "updated") as graph:
        empty = Graph(graph.folder, graph.header._replace(slots=0, entry_slot=0), "ip")
    with empty:
        assert empty.search(VECTORS[0], 10) == []
    assert measure(graph.folder, empty.header, "ip").probes == ()


# --- files that are not what Chroma wrote ---


@pytest.fixture
def folder(stores: dict[Space, Path], tmp_path: Path) -> Path:
    """A copy of the segment folder of 1,000 vectors under "ip"."""
    found = stored_collection(stores["ip"], "1000-vectors")
    return Path(shutil.copytree(stores["ip"] / found.vector_segment, tmp_path / "segment"))


def nearest(folder: Path, query: NDArray[np.float32], k: int = 10) -> list[tuple[str, float]]:
    with Graph(folder, hnsw.read_header(folder, DIMENSION), "ip") as graph:
        return graph.nearest(query, k)


def slots_of(folder: Path) -> NDArray[np.void]:
    """All slots, to be changed in the file."""
    header = hnsw.read_header(folder, DIMENSION)
    return np.memmap(folder / "data_level0.bin", hnsw.slot_dtype(header), mode="r+", shape=(header.slots,))


def test_an_overwritten_vector_is_not_found_by_its_old_query(folder: Path) -> None:
    (key, _), *_ = nearest(folder, VECTORS[999])
    assert key == make_ids(1_000)[999]
    slots = slots_of(folder)
    slot = int(np.flatnonzero((slots["vector"] == VECTORS[999]).all(axis=1))[0])
    slots["vector"][slot] = -VECTORS[999]
    slots.flush()
    assert key not in dict(nearest(folder, VECTORS[999]))


def cut_slots(folder: Path) -> None:
    path = folder / "data_level0.bin"
    path.write_bytes(path.read_bytes()[: 200 * 500])


def cut_upper_links(folder: Path) -> None:
    path = folder / "link_lists.bin"
    path.write_bytes(path.read_bytes()[:-100])


def remove_upper_links(folder: Path) -> None:
    (folder / "link_lists.bin").unlink()


def link_past_the_end(folder: Path) -> None:
    slots_of(folder)["links"][:, 0] = 1_000


def count_past_the_list(folder: Path) -> None:
    slots_of(folder)["count"] = 33


def change_upper_links(folder: Path, change: Callable[[NDArray[np.uint32]], None]) -> None:
    """Each record is its size, and for each level a count and 16 links."""
    words = np.memmap(folder / "link_lists.bin", "<u4", mode="r+")
    position = 0
    while position < len(words):
        size = int(words[position]) // 4
        for first in range(position + 1, position + 1 + size, 17):
            change(words[first : first + 17])
        position += 1 + size


def link_past_the_end_above(folder: Path) -> None:
    change_upper_links(folder, lambda words: words.__setitem__(1, 1_000))


def count_past_the_list_above(folder: Path) -> None:
    change_upper_links(folder, lambda words: words.__setitem__(0, 17))


def enter_below_the_top(folder: Path) -> None:
    header = hnsw.read_header(folder, DIMENSION)
    low = int(np.flatnonzero(hnsw.read_upper_links(folder, header).levels == 0)[0])
    raw = bytearray((folder / "header.bin").read_bytes())
    raw[56:60] = low.to_bytes(4, "little")
    (folder / "header.bin").write_bytes(raw)


DAMAGES: dict[Callable[[Path], None], str] = {
    cut_slots: "data_level0.bin",
    link_past_the_end: "data_level0.bin",
    count_past_the_list: "data_level0.bin",
    cut_upper_links: "link_lists.bin",
    remove_upper_links: "link_lists.bin",
    link_past_the_end_above: "link_lists.bin",
    count_past_the_list_above: "link_lists.bin",
    enter_below_the_top: "link_lists.bin",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_wrong_file_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(hnsw.TornFileError) as searching:
        nearest(folder, VECTORS[0])
    with pytest.raises(hnsw.TornFileError) as measuring:
        measure(folder, hnsw.read_header(folder, DIMENSION), "ip")
    assert searching.value.file == measuring.value.file == DAMAGES[damage]


def test_an_id_that_is_not_in_the_map_is_named(folder: Path) -> None:
    (folder / "index_metadata.pickle").unlink()
    with pytest.raises(hnsw.TornFileError) as raised:
        nearest(folder, VECTORS[0])
    assert raised.value.file == "index_metadata.pickle"


def test_slots_that_are_cut_are_seen_before_and_while_they_are_read(folder: Path) -> None:
    with Graph(folder, hnsw.read_header(folder, DIMENSION), "ip") as graph:
        cut_slots(folder)
        with pytest.raises(hnsw.TornFileError, match="while it was read"):
            graph.search(VECTORS[0], 10)
        with pytest.raises(hnsw.TornFileError, match="shorter than"):
            Graph(folder, graph.header, "ip")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("file", ["data_level0.bin", "link_lists.bin"])
@pytest.mark.parametrize("seed", range(25))
def test_flipped_bits_in_links_neither_hang_nor_crash(folder: Path, file: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    flips = int(random.choice([1, 30, 1_000]))
    if file == "data_level0.bin":
        slots = slots_of(folder)
        area = slots.view(np.uint8).reshape(len(slots), -1)[:, :132]
        # Mostly the low bits, so that many links stay in range and lead astray.
        bits = random.integers(0, 32 if seed % 2 else 10, flips)
        places = (random.integers(0, 1_000, flips), random.integers(0, 33, flips) * 4 + bits // 8)
    else:
        area = np.memmap(folder / file, np.uint8, mode="r+")
        bits, places = random.integers(0, 8, flips), (random.integers(0, len(area), flips),)
    np.bitwise_xor.at(area, places, (1 << bits % 8).astype(np.uint8))
    header = hnsw.read_header(folder, DIMENSION)
    for space in SPACES:
        for look in (look_for_five, measure_five):
            try:
                look(folder, header, space)
            except hnsw.TornFileError as error:
                assert error.file == file


def look_for_five(folder: Path, header: hnsw.Header, space: Space) -> None:
    with Graph(folder, header, space) as graph:
        assert all(len(graph.search(vector, 10)) <= 10 for vector in VECTORS[:5])


def measure_five(folder: Path, header: hnsw.Header, space: Space) -> None:
    quality = measure(folder, header, space, queries=5)
    assert quality.recall_found <= quality.recall_total
