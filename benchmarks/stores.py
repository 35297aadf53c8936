"""What a Chroma store holds, read from its SQLite file without opening the store: did all do the same work?"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import NamedTuple

from benchmarks.measure import BenchmarkFailed

TEXTS = """
SELECT count(*), coalesce(sum(length(string_value)), 0) FROM embedding_metadata WHERE key = 'chroma:document'
"""


class Held(NamedTuple):
    """The rows of a store, their metadata entries and the characters of their texts."""

    rows: int
    entries: int
    characters: int


def held(store: str) -> Held:
    """What the store in this folder holds."""
    path = os.path.join(os.path.abspath(store), "chroma.sqlite3")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        rows = base.execute("SELECT count(*) FROM embeddings").fetchone()[0]
        texts, characters = base.execute(TEXTS).fetchone()
        entries = base.execute("SELECT count(*) FROM embedding_metadata").fetchone()[0]
    return Held(rows, entries - texts, characters)


def expect_rows(who: str, store: str, rows: int) -> Held:
    """What the store holds.

    Raises:
        BenchmarkFailed: not this number of rows.
    """
    found = held(store)
    if found.rows != rows:
        raise BenchmarkFailed(f"{who}: the store holds {found.rows:,} chunks, {rows:,} were expected")
    return found


def differences(ours: Held, floor: Held) -> list[str]:
    """How what we store differs from what the floor stores, a sentence each; empty if the comparison is fair."""
    found = []
    if ours.entries / ours.rows != floor.entries / floor.rows:
        found.append(
            f"Vectorkeep stores {ours.entries / ours.rows:.1f} metadata entries a chunk, "
            f"the floor {floor.entries / floor.rows:.1f}"
        )
    if abs(ours.characters - floor.characters) > 0.01 * floor.characters:
        found.append(f"Vectorkeep stores {ours.characters:,} characters of text, the floor {floor.characters:,}")
    return found
