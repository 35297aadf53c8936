"""The ``local`` embedder: wordllama's static token vectors, shipped with its package. Free, offline, CPU only."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectorstore.embedders.base import AttemptFailed, Embedded
from vectorstore.errors import ConfigurationError

DIMENSIONS = (64, 128, 256)
_MODEL = "wordllama-l2-supercat"
_CHARACTERS = 500_000  # tokenised at a time
_TOKENS = 8192  # pooled at a time: 8 MB


class LocalEmbedder:
    """See the module and ``base.Embedder``. A text's vector is the mean of its tokens' vectors, made unit length.

    wordllama's own ``embed`` pads each batch to its longest text, which takes gigabytes for one long document and
    makes a vector depend on its neighbours; so only its weights and its tokenizer are used.
    """

    provider = "local"
    max_texts = 100_000
    max_tokens = 1_000_000_000
    max_text_tokens = 1_000_000
    billable = False

    def __init__(self, model: str, dimension: int) -> None:
        if model != _MODEL:
            raise ConfigurationError(f"the local embedder has no model {model!r}", f"leave `model` out, or: {_MODEL}")
        if dimension not in DIMENSIONS:
            raise ConfigurationError(
                f"the local embedder has no {dimension} dimensions", "set `dimensions` to 64, 128 or 256"
            )
        self.model = model
        self.dimension = dimension
        self._weights, self._tokenizer = _load(dimension)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See ``base.Embedder.embed``; fails only for texts at fault: no token, no direction, not valid Unicode."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start, part in _portions(texts):
            for row, ids in enumerate(self._tokenise(part), start):
                total = self._pool(ids)
                norm = float(np.sqrt(total @ total))
                if not norm > 1e-9:
                    raise AttemptFailed(f"the local model has no vector for {texts[row][:40]!r}", "refused")
                vectors[row] = total / norm
        return Embedded(vectors, 0)

    def close(self) -> None:
        """Nothing to let go of."""

    def _tokenise(self, texts: list[str]) -> Iterator[list[int]]:
        if not all(map(_is_unicode, texts)):
            raise AttemptFailed("not valid Unicode: a lone surrogate", "refused")
        return (encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def _pool(self, ids: list[int]) -> NDArray[np.float64]:
        total = np.zeros(self.dimension)
        for start in range(0, len(ids), _TOKENS):
            total += self._weights[ids[start : start + _TOKENS]].sum(axis=0, dtype=np.float64)
        return total


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _portions(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Consecutive texts of bounded length together, each portion with the number of its first text."""
    start, length = 0, 0
    for end, text in enumerate(texts):
        if end > start and length + len(text) > _CHARACTERS:
            yield start, list(texts[start:end])
            start, length = end, 0
        length += len(text)
    yield start, list(texts[start:])


def _load(dimension: int) -> tuple[NDArray[np.float32], Any]:
    # Rust threads below our threads bring nothing, and their library warns after every fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with _root_logger_kept():
        import wordllama

        model = wordllama.WordLlama.load(
            cache_dir=Path(wordllama.__file__).parent, dim=256, trunc_dim=dimension, disable_download=True
        )
    model.tokenizer.no_padding()
    return model.embedding, model.tokenizer


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo wordllama's ``logging.basicConfig`` at import: it would print every library's INFO lines."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
