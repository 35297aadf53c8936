"""A plain Chroma writer to be killed; it says what Chroma has acknowledged, a message a call."""

from __future__ import annotations

import resource
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.chroma_helpers import FILE_LIMIT, open_client, unit_vectors

ROWS, DIMENSION = 7_000, 8
Operations = list[tuple[str, int, int]]


def all_vectors() -> NDArray[np.float32]:
    """The vectors of every row that a test may write."""
    return unit_vectors(ROWS, DIMENSION, seed=5)


def row_ids(first: int, last: int) -> list[str]:
    # Long ids make the id map, and with it the time that a persist takes, larger.
    return [f"{'framework/topic/' * 6}page-{row // 7}.md#{row:05d}" for row in range(first, last)]


def apply(collection: Any, vectors: NDArray[np.float32], verb: str, first: int, last: int) -> None:
    ids = row_ids(first, last)
    if verb == "delete":
        collection.delete(ids=ids)
        return
    collection.upsert(
        ids=ids,
        embeddings=vectors[first:last],
        documents=[f"text of {identifier}" for identifier in ids],
        metadatas=[{"id": identifier} for identifier in ids],
    )


def write(store: Path, operations: Operations, acknowledged: Connection) -> None:
    """For a process: all of the operations, each ``(verb, first row, row after the last)``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    vectors = all_vectors()
    with open_client(store) as client:
        collection = client.get_collection("pages")
        for verb, first, last in operations:
            apply(collection, vectors, verb, first, last)
            acknowledged.send((verb, first, last))
