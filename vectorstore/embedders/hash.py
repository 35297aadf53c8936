"""The ``hash`` embedder: free, deterministic unit vectors without any meaning, for tests, rehearsals and benchmarks.

The formula is fixed for ever and uses no library's random stream, so that vectors agree between versions and machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from vectorstore.embedders.base import AttemptFailed, Embedded
from vectorstore.errors import ConfigurationError

_ROWS = 256  # at a time: bounds the working memory to some megabytes
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def hash_vectors(texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Unit vectors from the texts alone.

    blake2b of the UTF-8 bytes seeds a splitmix64 stream; each 32 bits of it become one component, uniform around 0.

    Returns:
        float32, shape ``(len(texts), dimension)``, rows of norm 1.

    Raises:
        UnicodeEncodeError: a lone surrogate in a text.
    """
    vectors = np.empty((len(texts), dimension), np.float32)
    steps = np.arange(1, (dimension + 1) // 2 + 1, dtype=np.uint64) * _GOLDEN
    for start in range(0, len(texts), _ROWS):
        part = texts[start : start + _ROWS]
        digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in part)
        seeds = np.frombuffer(digests, "<u8").astype(np.uint64)
        rows = vectors[start : start + len(part)]
        rows[:] = _splitmix(seeds[:, None] + steps).astype("<u8").view("<i4")[:, :dimension]
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return vectors


def _splitmix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state ^= state >> np.uint64(30)
    state *= _MIX_1
    state ^= state >> np.uint64(27)
    state *= _MIX_2
    state ^= state >> np.uint64(31)
    return state


class HashEmbedder:
    """See the module and ``base.Embedder``. Equal texts get equal vectors; all others are nearly orthogonal."""

    provider = "hash"
    max_texts = 100_000
    max_tokens = 1_000_000_000
    max_text_tokens = 1_000_000_000
    billable = False

    def __init__(self, model: str, dimension: int) -> None:
        if model != "blake2b":
            raise ConfigurationError(f"the hash embedder has no model {model!r}", "leave `model` out, or: blake2b")
        self.model = model
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See ``base.Embedder.embed``; fails for a text that is not valid Unicode only."""
        failure = ""
        try:
            return Embedded(hash_vectors(texts, self.dimension), 0)
        except UnicodeEncodeError as error:
            failure = f"not valid Unicode: {error.reason}"
        raise AttemptFailed(failure, "refused")  # outside: the error's context would carry the whole text

    def close(self) -> None:
        """Nothing to let go of."""
