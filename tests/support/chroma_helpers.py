"""A real Chroma store for tests: build it, open it for a repair, read it back."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings
from numpy.typing import NDArray

from vectorstore.chroma.files import StoredCollection, iter_queue, list_collections, open_snapshot

FILE_LIMIT = 2 << 30
DIMENSION = 16


@contextmanager
def file_limit() -> Iterator[None]:
    """Chroma can grow a file of a damaged store without bound: nothing here may write past 2 GiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def open_client(store: Path) -> Iterator[Any]:
    """A client that lets go of the store at the end: the next one reads the files again."""
    client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
    try:
        yield client
    finally:
        del client
        SharedSystemClient.clear_system_cache()


def unit_vectors(rows: int, dimension: int = DIMENSION, seed: int = 1) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered_vectors(rows: int, clusters: int, dimension: int = DIMENSION, seed: int = 1) -> NDArray[np.float32]:
    """Unit vectors in clouds, as those of texts are; evenly spread ones have no neighbours to speak of."""
    random = np.random.default_rng(seed)
    centres = unit_vectors(clusters, dimension, seed + 1)
    vectors = centres[random.integers(0, clusters, rows)] + 0.3 * unit_vectors(rows, dimension, seed + 2)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_ids(rows: int, start: int = 0) -> list[str]:
    return [f"guide/page-{n // 5}.md#{n:05d}" for n in range(start, start + rows)]


def create(client: Any, name: str, sync_threshold: int = 100, **hnsw: Any) -> Any:
    settings = {"space": "ip", "sync_threshold": sync_threshold, "batch_size": 50, **hnsw}
    return client.create_collection(name, configuration={"hnsw": settings})


def fill(collection: Any, vectors: NDArray[np.float32], start: int = 0, batch: int = 100) -> None:
    for first in range(0, len(vectors), batch):
        part = vectors[first : first + batch]
        ids = make_ids(len(part), start + first)
        collection.upsert(
            ids=ids,
            embeddings=part,
            documents=[f"text of {identifier}" for identifier in ids],
            metadatas=[{"id": identifier} for identifier in ids],
        )


def stored_collection(store: Path, name: str) -> StoredCollection:
    """As its files describe it; all its vectors must be in the index, none in the queue."""
    with open_snapshot(store) as db:
        found = next(each for each in list_collections(db, store) if each.name == name)
        assert not list(iter_queue(db, found))
    return found


class ChromaWriter:
    """What `repair` needs of an open store."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def upsert_vectors(self, collection: str, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self.client.get_collection(collection).upsert(ids=list(ids), embeddings=vectors)

    def delete_ids(self, collection: str, ids: Sequence[str]) -> None:
        self.client.get_collection(collection).delete(ids=list(ids))


@contextmanager
def open_writer(store: Path) -> Iterator[ChromaWriter]:
    with open_client(store) as client:
        yield ChromaWriter(client)


def digests(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def assert_holds(store: Path, name: str, expected: dict[str, NDArray[np.float32]]) -> None:
    """Chroma answers for exactly these ids: vectors bit for bit, documents, metadata, and a query."""
    with open_client(store) as client:
        collection = client.get_collection(name)
        assert collection.count() == len(expected)
        got = collection.get(include=["embeddings", "documents", "metadatas"])
        assert set(got["ids"]) == set(expected)
        rows = zip(got["ids"], got["embeddings"], got["documents"], got["metadatas"], strict=True)
        for identifier, vector, document, metadata in rows:
            assert np.asarray(vector, np.float32).tobytes() == expected[identifier].tobytes(), identifier
            assert document == f"text of {identifier}"
            assert metadata == {"id": identifier}
        some = list(expected)[:: max(1, len(expected) // 20)]
        answers = collection.query(query_embeddings=[expected[key] for key in some], n_results=1)["ids"]
        assert [answer[0] for answer in answers] == some
