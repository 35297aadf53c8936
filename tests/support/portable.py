"""Stores with every kind of row, and portable exports of them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.support.chroma_helpers import create, open_client
from vectorstore.backups.portable import Exported, export
from vectorstore.backups.selection import Allow
from vectorstore.chroma import files
from vectorstore.chroma.api_rows import ApiRows
from vectorstore.chroma.file_rows import FileRows
from vectorstore.chroma.rows import RowReader
from vectorstore.chroma.store import Store
from vectorstore.settings import Settings

DIMENSION = 16
ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
METADATA: list[dict[str, Any] | None] = [
    None,
    {"text": "plain", "empty": "", "unicode": "Grüße \u200b𝄞 \x00 end", "lines": 'two\nlines\t"quoted" \\'},
    {"whole": 0, "negative": -(2**53) - 1, "large": 2**62, "true": True, "false": False},
    {"float": 1.0, "tiny": 5e-324, "third": 1 / 3, "huge": -1.7976931348623157e308, "zero": 0.0},
    {"texts": ["b", "", "a", "b"], "numbers": [3, 1, 2], "floats": [1.0, 2.5], "truths": [True, False, True]},
    {"doc_key": "guide/a.md", "chunk": 3, "heading": "A > B", "tokens": 70},
    {"ключ": "значение", "with space": 1, "a" * 300: "long key"},
]
DOCUMENTS: list[str | None] = [None, "", "A text.", "Grüße 𝄞 \x00 \u200b", "line\nline\r\n\ttab", "x" * 20_000]


class StoredRow(NamedTuple):
    """A row as Chroma answers for it."""

    document: str | None
    metadata: dict[str, Any]
    uri: str | None
    vector: NDArray[np.float32]


def vectors(rows: int, seed: int = 1) -> NDArray[np.float32]:
    """Of any length, with the largest, smallest and negative zero among them."""
    found = np.random.default_rng(seed).standard_normal((rows, DIMENSION), dtype=np.float32) * 3
    found[0, :4] = 1e-44, -0.0, 3.0e5, -1e-30
    return found


def fill_kinds(collection: Any, rows: int, seed: int = 1) -> None:
    """Rows of every kind, in an order that is not that of their ids; some written twice, some deleted."""
    all_vectors = vectors(rows, seed)
    ids = [f"{'bäz'[n % 3]}/page {n % 7}#{(n * 37) % rows:05d}" for n in range(rows)]
    for start in range(0, rows, 25):
        part = slice(start, start + 25)
        numbers = range(start, min(start + 25, rows))
        collection.upsert(
            ids=ids[part], embeddings=all_vectors[part], documents=[DOCUMENTS[n % len(DOCUMENTS)] for n in numbers],
            metadatas=[METADATA[n % len(METADATA)] for n in numbers],
        )  # fmt: skip
    collection.upsert(ids=["with uri"], embeddings=all_vectors[:1], uris=["file:///tmp/x.png"])
    collection.upsert(ids=ids[3:6], embeddings=all_vectors[6:9])
    collection.delete(ids=ids[10:14])


def make_store(client: Any) -> None:
    """Collections of each space and history."""
    indexed = create(client, "indexed", 50, ef_construction=70, max_neighbors=9, ef_search=33, resize_factor=1.5)
    fill_kinds(indexed, 200)
    fill_kinds(create(client, "queued", 1000), 60, seed=2)
    fill_kinds(create(client, "euclid", 50, space="l2"), 120, seed=3)
    fill_kinds(create(client, "angles", 50, space="cosine"), 120, seed=4)
    create(client, "empty")
    marked = {"vectorkeep_pipeline": "hash/blake2b/16/c", "number": 3, "float": 1.5, "truth": True}
    client.create_collection(
        "marked", metadata=marked, configuration={"hnsw": {"space": "ip"}}, embedding_function=None
    ).upsert(ids=["one"], embeddings=vectors(1))
    client.create_collection("old_one", metadata={"hnsw:space": "l2", "hnsw:M": 12}, embedding_function=None)


def everything(client: Any) -> dict[str, dict[str, StoredRow]]:
    """All rows of all collections."""
    found: dict[str, dict[str, StoredRow]] = {}
    for collection in client.list_collections():
        answer = collection.get(include=["documents", "metadatas", "embeddings", "uris"])
        columns = [answer[key] for key in ("ids", "documents", "metadatas", "uris", "embeddings")]
        found[collection.name] = {
            id_: StoredRow(text, metadata or {}, uri, np.asarray(vector, np.float32))
            for id_, text, metadata, uri, vector in zip(*columns, strict=True)
        }
    return found


def assert_same(found: Mapping[str, StoredRow], due: Mapping[str, StoredRow], *, within: float = 0) -> None:
    """Types count: 1, 1.0 and ``True`` are three values. ``within``: vectors as far as cosine distances see them."""
    assert found.keys() == due.keys()
    for id_, row in due.items():
        other = found[id_]
        assert (other.document, other.uri) == (row.document, row.uri), id_
        assert spelled(other.metadata) == spelled(row.metadata), id_
        if within:
            np.testing.assert_allclose(unit(other.vector), unit(row.vector), rtol=0, atol=within, err_msg=id_)
        else:
            assert other.vector.tobytes() == row.vector.tobytes(), id_


def unit(vector: NDArray[np.float32]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector.astype(np.float64))


def spelled(metadata: Mapping[str, Any]) -> list[str]:
    return sorted(f"{key!r}: {value!r}" for key, value in metadata.items())


def definitions(client: Any) -> dict[str, Any]:
    """Metadata and settings of all collections, as Chroma gives them."""
    return {
        each.name: (each.metadata, each._model.configuration_json["hnsw"], vector_index(each))
        for each in client.list_collections()
    }


def vector_index(collection: Any) -> dict[str, Any]:
    index = collection._model.serialized_schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"]
    function = index.get("embedding_function") or {"type": "legacy"}
    return {**index, "embedding_function": function}  # none and the older word for none


def build(folder: Path) -> Path:
    """A store of ``make_store`` at ``folder/chroma``."""
    with open_client(folder / "chroma") as client:
        make_store(client)
    return folder / "chroma"


@contextmanager
def file_reader(store: Path, unreadable: Sequence[str] = ()) -> Iterator[FileRows]:
    with files.open_snapshot(store) as db:
        ids = {each.name: each.id for each in files.list_collections(db, store)}
        yield FileRows(store, db, frozenset(ids[name] for name in unreadable))


@contextmanager
def api_reader(workspace: Path, **values: Any) -> Iterator[ApiRows]:
    reader = ApiRows(Store(Settings(workspace=workspace, **values)))
    try:
        yield reader
    finally:
        reader.close()


def write_portable(reader: RowReader, folder: Path, *, only: str = "", allow: Allow | None = None) -> Exported:
    """An export of all collections, or one, into a new folder."""
    folder.mkdir()
    return export(reader, [each for each in reader.collections() if only in ("", each.name)], folder, allow=allow)


def export_store(store: Path, folder: Path, *, only: str = "", allow: Allow | None = None) -> Exported:
    """The same of an embedded store's files."""
    with file_reader(store) as reader:
        return write_portable(reader, folder, only=only, allow=allow)


@contextmanager
def opened(workspace: Path, **values: Any) -> Iterator[Store]:
    """A store to load into."""
    workspace.mkdir(exist_ok=True)
    store = Store(Settings(workspace=workspace, **values))
    try:
        yield store
    finally:
        store.close()


def unpacked(folder: Path) -> list[bytes]:
    """All that the bytes of a portable backup say: its files as they lie there, and each page decompressed."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found.append(data)
            found += _frames(data)
        found.append(str(path.relative_to(folder)).encode())
    return found


def _frames(data: bytes) -> Iterator[bytes]:
    """The contents of every zstd frame; the four bytes that begin one may be there by chance as well."""
    start = data.find(ZSTD_FRAME)
    while start >= 0:
        with contextlib.suppress(OSError, IndexError):
            frame = data[start : start + _frame_length(data, start)]
            with pa.input_stream(pa.BufferReader(frame), compression="zstd") as stream:
                yield stream.read()
        start = data.find(ZSTD_FRAME, start + 1)


def _frame_length(data: bytes, start: int) -> int:
    """RFC 8878: a header, blocks with their length in three bytes until the last one, maybe a checksum."""
    descriptor = data[start + 4]
    single = bool(descriptor & 32)
    at = start + 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (int(single), 2, 4, 8)[descriptor >> 6]
    last = 0
    while not last:
        header = int.from_bytes(data[at : at + 3], "little")
        last = header & 1 or at > len(data)
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
    return at + (4 if descriptor & 4 else 0) - start


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
