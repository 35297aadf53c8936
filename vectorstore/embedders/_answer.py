"""Reading an answer of the embeddings API without trust: what is not the vectors asked for is never passed on."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectorstore.embedders.base import AttemptFailed, Embedded


def read_answer(body: bytes, count: int, dimension: int) -> Embedded:
    """The vectors of a body of HTTP 200, in the order of the request, with norm 1.

    Both transports are read: base64 of little-endian float32, and lists of numbers, which some compatible servers
    answer whatever was asked.

    Raises:
        AttemptFailed: of kind ``"bad_answer"``, billed as its usage says; or ``"transient"`` if it is no JSON at all.
    """
    answer = _parsed(body)
    billed = _billed(answer)
    problem = ""
    try:
        vectors = _in_order(answer["data"], count, dimension)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        _check_lengths(lengths)
        return Embedded((vectors / lengths[:, None]).astype(np.float32), billed if isinstance(billed, int) else None)
    except _Bad as error:
        problem = str(error)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        problem = f"an answer of another shape ({type(error).__name__})"
    raise AttemptFailed(problem, "bad_answer", billed)


class _Bad(Exception):
    """What is wrong, for a person."""


def _parsed(body: bytes) -> dict[str, Any]:
    answer: object = None
    with contextlib.suppress(ValueError):
        answer = json.loads(body)
    if isinstance(answer, dict):
        return answer
    start = " ".join(body[:80].decode("utf-8", "replace").split())
    raise AttemptFailed(f"HTTP 200 without the API's JSON: {start!r}", "transient", "unknown")


def _billed(answer: dict[str, Any]) -> int | str:
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else "unknown"


def _in_order(data: list[dict[str, Any]], count: int, dimension: int) -> NDArray[np.float32]:
    if len(data) != count:
        raise _Bad(f"{len(data)} vectors for {count} texts")
    vectors = np.full((count, dimension), np.nan, np.float32)  # a row left out can never pass
    seen = set()
    for item in data:
        index, vector = item["index"], _vector(item["embedding"])
        if not (isinstance(index, int) and 0 <= index < count) or index in seen:
            raise _Bad(f"vector index {index!r} twice or out of range for {count} texts")
        if vector.shape != (dimension,):
            raise _Bad(f"a vector of {vector.size} dimensions, {dimension} were expected")
        seen.add(index)
        vectors[index] = vector
    return vectors


def _vector(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return np.asarray(embedding, np.float32)


def _check_lengths(lengths: NDArray[np.float64]) -> None:
    if not np.isfinite(lengths).all():
        raise _Bad(f"a vector that is not finite, for text {int(np.argmin(np.isfinite(lengths)))} of the request")
    if lengths.min() < 1e-6:
        raise _Bad(f"a zero vector, for text {int(lengths.argmin())} of the request")
