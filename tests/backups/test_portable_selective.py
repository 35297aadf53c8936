"""A selective export holds nothing of a sensitive row, wherever one looks."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.chroma_helpers import create, file_limit, open_client, unit_vectors
from tests.support.chroma_server import chroma_server
from tests.support.portable import (
    api_reader,
    export_store,
    file_reader,
    opened,
    unpacked,
    write_portable,
)
from vectorstore.backups.portable import load, read_facts
from vectorstore.backups.selection import SensitiveRule

ROWS = 300
RULE = SensitiveRule(["private/**", "visibility=secret"])
VECTORS = unit_vectors(ROWS)


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


def mark(kind: str, n: int) -> str:
    """Letters that stand for one field of one row, and are nowhere else."""
    return blake2b(f"{kind} {n}".encode(), digest_size=10).hexdigest()


def is_sensitive(n: int) -> bool:
    """By its folder, by its metadata, or by both; a third of all, some at both ends of the order of ids."""
    return n % 6 in (0, 1) or n in (2, ROWS - 1)


def row(n: int) -> dict[str, Any]:
    private, secret = is_sensitive(n) and n % 6 != 1, n % 6 in (1, 0) and is_sensitive(n)
    key = f"{'private' if private else 'open'}/{mark('key', n)}.md"
    return {
        "id": f"{key}#{n:05d}",
        "document": f"Before {mark('text', n)} after, and much else that is said in every row.",
        "metadata": {"doc_key": key, "heading": mark("heading", n), "tags": [mark("tag", n), "other"]}
        | ({"visibility": "secret"} if secret else {}),
    }


def marks(n: int) -> list[bytes]:
    """What may not be found of a row: words, the vector's bytes as they are, and its bytes of like weight."""
    vector = VECTORS[n]
    planes = vector.view(np.uint8).reshape(-1, 4)
    words = [mark(kind, n).encode() for kind in ("key", "text", "heading", "tag")]
    return [*words, vector.tobytes()[:12], vector.tobytes()[-12:], *(planes[:, k].tobytes() for k in range(3))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the index and in the queue; in ``hr`` all rows are sensitive; some were written twice, or deleted."""
    folder = tmp_path_factory.mktemp("store")
    with open_client(folder / "chroma") as client:
        for name, numbers in (
            ("pages", range(ROWS - 20)),
            ("hr-salaries", [0, 6, 12]),
            ("late", range(ROWS - 20, ROWS)),
        ):
            collection = create(client, name, 100 if name == "pages" else 1000)
            rows = [row(n) for n in numbers]
            for _ in range(2):
                collection.upsert(
                    ids=[each["id"] for each in rows], documents=[each["document"] for each in rows],
                    metadatas=[each["metadata"] for each in rows], embeddings=VECTORS[list(numbers)],
                )  # fmt: skip
        create(client, "hr-nothing-yet")
        client.get_collection("pages").delete(ids=[row(12)["id"]])
    return folder / "chroma"


def found_of(numbers: range | list[int], folder: Path) -> set[int]:
    """The rows of which anything at all is in a portable backup."""
    everything = b"\x00".join(unpacked(folder))
    return {n for n in numbers if any(each in everything for each in marks(n))}


SENSITIVE = [n for n in range(ROWS) if is_sensitive(n)]
ALLOWED = [n for n in range(ROWS) if not is_sensitive(n)]


def test_nothing_sensitive_is_in_the_bytes(store: Path, tmp_path: Path) -> None:
    done = export_store(store, tmp_path / "out", allow=RULE.allows)
    assert found_of(SENSITIVE, tmp_path / "out") == set()
    assert found_of(ALLOWED, tmp_path / "out") == set(ALLOWED), "the search would find them"
    assert [each.name for each in done.collections] == ["late", "pages"]
    assert b"hr-" not in b"\x00".join(unpacked(tmp_path / "out")), "names may say what rows say"
    assert sum(each.rows for each in done.collections) == len(ALLOWED)
    assert done.left_out == len(SENSITIVE) - 1 + 3, "one was deleted, three are in two collections"
    assert done.lacking == ()


def test_the_search_sees_what_a_full_export_holds(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out")
    assert found_of(SENSITIVE, tmp_path / "out") == set(SENSITIVE)
    everything = b"\x00".join(unpacked(tmp_path / "out"))
    for kind in (0, 1, 2, 3, 6, 7, 8):  # Parquet has no vector in one piece
        assert all(marks(n)[kind] in everything for n in SENSITIVE), kind


def test_the_search_reads_every_page(store: Path, tmp_path: Path) -> None:
    """What is unpacked is what Parquet says that its pages hold, but for their headers."""
    done = export_store(store, tmp_path / "out", allow=RULE.allows)
    for each in done.collections:
        facts = pq.ParquetFile(tmp_path / "out" / each.file).metadata
        columns = [facts.row_group(g).column(c) for g in range(facts.num_row_groups) for c in range(4)]
        due = sum(column.total_uncompressed_size for column in columns)
        (tmp_path / each.name).mkdir()
        (tmp_path / each.name / "one").write_bytes((tmp_path / "out" / each.file).read_bytes())
        parts = unpacked(tmp_path / each.name)
        assert len(parts) == 2 + len(columns)
        assert due - 60 * len(columns) <= sum(map(len, parts[1:-1])) <= due
        assert all(column.statistics is None for column in columns)


def test_nothing_sensitive_comes_from_a_server_either(store: Path, tmp_path: Path) -> None:
    with chroma_server(store) as url, api_reader(tmp_path, chroma_url=url) as reader:
        write_portable(reader, tmp_path / "out", allow=RULE.allows)
    assert found_of(SENSITIVE, tmp_path / "out") == set()
    assert found_of(ALLOWED, tmp_path / "out") == set(ALLOWED)


def test_a_selection_loads(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out", allow=RULE.allows)
    with opened(tmp_path / "new") as target:
        load(tmp_path / "out", target)
        assert sum(target.counts().values()) == len(ALLOWED)
        assert target.present("pages", [row(n)["id"] for n in ALLOWED[:50]]) == {row(n)["id"] for n in ALLOWED[:50]}


def test_rows_without_a_vector_are_named_only_if_they_are_allowed(store: Path, tmp_path: Path) -> None:
    with file_reader(store, unreadable=["pages"]) as reader:
        done = write_portable(reader, tmp_path / "out", only="pages", allow=RULE.allows)
    assert done.collections[0].without_vector == done.collections[0].rows
    assert done.lacking and not any(mark("key", n) in name for n in SENSITIVE for name in done.lacking)


def test_a_selection_that_allows_nothing_is_empty(store: Path, tmp_path: Path) -> None:
    done = export_store(store, tmp_path / "out", allow=SensitiveRule(["**"]).allows)
    assert done.collections == () and read_facts(tmp_path / "out") == []
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["collections.json"]
    with opened(tmp_path / "new") as target:
        assert load(tmp_path / "out", target) == []
