"""The checks of rows: each a function of a page and of what the ledger says of it, giving the rows at fault.

A row that the ledger knows is held against its checksums: text, metadata and vector, bit for bit. A row of a
collection that Vectorkeep did not make can only be held against itself and its neighbours.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from vectorstore.chroma.rows import METADATA_KEYS, Page
from vectorstore.chroma.vector_facts import VectorFacts

NORM_TOLERANCE = 1e-3
_NORM_STEP = 0.05
_NO_TEXT = bytes(16)


Record = tuple[bytes, int, int]
"""The fields of a `ledger.ChunkRecord`: text's hash, checksums of vector and metadata."""


class Expected(NamedTuple):
    """What the ledger says of a page: one entry a row; ``None`` for a row that it does not know."""

    records: Sequence[Record | None]
    unit: bool
    """Whether the collection's vectors should be of length one."""
    exact: bool = True
    """Whether Chroma keeps vectors as they are sent: under ``cosine`` it brings them to length one its own way."""


Faults = Iterator[tuple[str, list[int]]]
"""Check and the numbers of the rows at fault."""


def check_page(page: Page, texts: Sequence[bytes], facts: VectorFacts | None, expected: Expected) -> Faults:
    """All checks of a page; ``texts``: its ``hash_texts``; ``facts``: of its vectors, where they can be read."""
    yield "text", _wrong_texts(texts, expected.records)
    yield "metadata", _wrong_metadata(page, expected.records)
    if facts is not None:
        yield from check_vectors(facts, expected)


def hash_texts(page: Page) -> list[bytes]:
    """The hash of every text as the ledger keeps it, 16 bytes; of a row without text, zeros."""
    return [
        _NO_TEXT if text is None else blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        for text in page.documents
    ]


def _wrong_texts(texts: Sequence[bytes], records: Sequence[Record | None]) -> list[int]:
    return [
        row
        for row, (text, record) in enumerate(zip(texts, records, strict=True))
        if record is not None and text != record[0]
    ]


def _wrong_metadata(page: Page, records: Sequence[Record | None]) -> list[int]:
    """Missing, additional, of another type, or of another value."""
    wrong = []
    own = itemgetter(*METADATA_KEYS)
    for row, (values, record) in enumerate(zip(page.metadatas, records, strict=True)):
        if record is None:
            continue
        try:
            doc_key, chunk, heading, tokens = own(values)
        except KeyError:
            wrong.append(row)
            continue
        if (
            len(values) != len(METADATA_KEYS)
            or type(doc_key) is not str  # what a checksum of the text form can't tell: 1 from "1", from 1.0, from True
            or type(chunk) is not int
            or type(heading) is not str
            or type(tokens) is not int
            or _metadata_crc(doc_key, chunk, heading, tokens) != record[2]
        ):
            wrong.append(row)
    return wrong


def _metadata_crc(doc_key: str, chunk: int, heading: str, tokens: int) -> int:
    """What `reading.metadata_crc` gives for these values, without building a dictionary."""
    text = f"doc_key={doc_key}\0chunk={chunk}\0heading={heading}\0tokens={tokens}"
    return zlib.crc32(text.encode(errors="surrogatepass"))


def check_vectors(facts: VectorFacts, expected: Expected) -> Faults:
    """The checks of vectors. A vector gives one fault, the plainest: NaN is not also a wrong checksum."""
    import numpy as np

    there, squares = facts.there, facts.squares
    bad, zero = there & np.isnan(squares), there & (squares == 0)
    yield "no_vector", np.flatnonzero(~there).tolist()
    yield "not_finite", np.flatnonzero(bad).tolist()
    yield "zero", np.flatnonzero(zero).tolist()
    sound = there & ~bad & ~zero
    crcs = (-1 if record is None or not expected.exact else record[1] for record in expected.records)
    due = np.fromiter(crcs, np.int64, len(there))
    wrong = sound & (due >= 0) & (facts.digests >> np.uint64(32) != due.astype(np.uint64))
    yield "vectors", np.flatnonzero(wrong).tolist()
    if expected.unit:
        off = np.abs(np.sqrt(squares) - 1) > NORM_TOLERANCE
        yield "norm", np.flatnonzero(sound & ~wrong & off).tolist()


def norm_histogram(facts: VectorFacts) -> dict[str, int]:
    """How many vectors have which length: lower edge, in steps of 0.05, as text -> count; "10+" for longer ones."""
    import numpy as np

    lengths = np.sqrt(facts.squares[facts.there & np.isfinite(facts.squares)])
    # A length of 1 - 1e-7 belongs to 1: half a step is added, so the edge lies in the middle of a bar.
    steps = np.minimum(np.round(lengths / _NORM_STEP), 10 / _NORM_STEP).astype(np.int64)
    edges, counts = np.unique(steps, return_counts=True)
    return {
        "10+" if edge * _NORM_STEP >= 10 else f"{edge * _NORM_STEP:.2f}": count
        for edge, count in zip(edges.tolist(), counts.tolist(), strict=True)
    }
