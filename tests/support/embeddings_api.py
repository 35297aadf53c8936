"""The words of OpenAI's embeddings API, as a server reads and writes them."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any, NamedTuple

import numpy as np

from tests.support.bill import tokens_of
from tests.support.faults import Fault, error_body
from vectorstore.embedders.hash import hash_vectors

MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
MAX_TEXTS, MAX_TOKENS, MAX_TEXT_TOKENS = 2048, 300_000, 8191


def expected_vectors(texts: list[str], model: str = "text-embedding-3-small", dimension: int = 0) -> np.ndarray:
    """What the server answers: float32 unit vectors from model and text alone."""
    return hash_vectors([f"{model}\n{text}" for text in texts], dimension or MODELS[model])


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012  never changed
    content_type: str = "application/json"
    lost: str = ""  # hang, cut_before, cut_mid
    bill_id: int = 0


class BadRequest(Exception):
    def __init__(self, message: str, param: str | None = "input", code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.reply = json_reply(status, error_body(message, kind, code, param))


class Call(NamedTuple):
    """A request's body, understood."""

    texts: list[str]
    model: str
    dimension: int
    as_base64: bool
    tokens: list[int]

    @property
    def total(self) -> int:
        return sum(self.tokens)

    @classmethod
    def read(cls, body: bytes, models: dict[str, int]) -> Call:
        try:
            asked = json.loads(body)
        except ValueError:
            raise BadRequest("We could not parse the JSON body of your request.", None) from None
        model, texts = asked.get("model"), asked.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if model not in models:
            raise BadRequest(f"The model `{model}` does not exist.", "model", "model_not_found", 404)
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
            raise BadRequest("'$.input' is invalid.")
        dimension = asked.get("dimensions", models[model])
        if "dimensions" in asked and model == "text-embedding-ada-002":
            raise BadRequest("This model does not support specifying dimensions.", "dimensions")
        if not isinstance(dimension, int) or not 1 <= dimension <= models[model]:
            raise BadRequest(f"Invalid value for 'dimensions' = {dimension}.", "dimensions")
        if asked.get("encoding_format", "float") not in ("float", "base64"):
            raise BadRequest("Invalid value for 'encoding_format'.", "encoding_format")
        tokens = [_tokens_of(text) for text in texts]
        return cls(texts, model, dimension, asked.get("encoding_format") == "base64", tokens)

    def check(self) -> None:
        if len(self.texts) > MAX_TEXTS:
            raise BadRequest(f"Invalid 'input': array too long. Expected at most {MAX_TEXTS} items.")
        if max(self.tokens) > MAX_TEXT_TOKENS:
            message = f"This model's maximum context length is {MAX_TEXT_TOKENS} tokens, "
            raise BadRequest(f"{message}however you requested {max(self.tokens)} tokens.")
        if self.total > MAX_TOKENS:
            raise BadRequest(f"Requested {self.total} tokens, max {MAX_TOKENS} tokens per request.", code="max_tokens")


_tokens_of = functools.lru_cache(maxsize=4096)(tokens_of)


def _shown(vector: np.ndarray, as_base64: bool) -> str | list[float]:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()


def json_reply(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), headers or {})


def vectors_reply(call: Call, fault: Fault | None, billed: int, headers: dict[str, str]) -> Reply:
    """The answer of HTTP 200, spoilt if a fault says so."""
    vectors = expected_vectors(call.texts, call.model, call.dimension)
    if fault:
        vectors = fault.spoil(vectors, call.texts)
    order = fault.indices(len(vectors)) if fault else list(range(len(vectors)))
    shown = [_shown(vector, call.as_base64) for vector in vectors]
    answer: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": shown[i % len(shown)]} for i in order],
        "model": call.model,
        "usage": {"prompt_tokens": billed, "total_tokens": billed},
    }
    for kind, field in (("no_usage", "usage"), ("no_data", "data")):
        if fault and fault.kind == kind:
            del answer[field]
    return json_reply(200, answer, headers)
