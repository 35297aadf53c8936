"""What can go wrong with an embeddings request, scripted: which requests are hit, and what becomes of their answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time

import numpy as np

# before any work is done, like a provider that turns a request away
STATUS_KINDS = ("status", "quota", "refuse")
# the work is done and billed, the answer gets lost or spoilt
LOST_KINDS = ("hang", "cut_before", "cut_mid", "html")
SPOILT_KINDS = (
    "too_few", "too_many", "dimension", "nan", "inf", "zero", "duplicate_index", "shuffled", "no_usage", "no_data",
)  # fmt: skip


@dataclass
class Fault:
    """One rule. All conditions must hold; the first rule that matches a request wins.

    Args:
        kind: of ``STATUS_KINDS``, ``LOST_KINDS`` or ``SPOILT_KINDS``.
        nth: numbers of the requests hit, counted from 1 since the rule was made; empty: all.
        probability: of a hit, drawn from ``seed``.
        marker: only requests with a text that contains it; nan, inf and zero then spoil that text's vector.
        times: hits at most; 0: no end.
        status: for ``status`` and ``html``.
        retry_after, retry_after_ms: headers of the answer.
        retry_date_s: the same as an HTTP date so many seconds ahead.
        message: of the error.
        billed: whether the request is billed; default: lost and spoilt ones are, the others not.
    """

    kind: str
    nth: tuple[int, ...] = ()
    probability: float = 1.0
    seed: int = 0
    marker: str = ""
    times: int = 0
    status: int = 500
    retry_after: str = ""
    retry_after_ms: str = ""
    retry_date_s: float | None = None
    message: str = ""
    billed: bool | None = None
    seen: int = field(default=0, repr=False)
    hits: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in STATUS_KINDS + LOST_KINDS + SPOILT_KINDS:
            raise ValueError(f"unknown fault {self.kind!r}")
        self.nth = tuple(self.nth)
        self._random = random.Random(self.seed)

    def matches(self, texts: list[str]) -> bool:
        """Whether this request is to be hit; called once a request, in order."""
        self.seen += 1
        return (
            (not self.nth or self.seen in self.nth)
            and (not self.times or self.hits < self.times)
            and any(self.marker in text for text in texts)
            and (self.probability >= 1 or self._random.random() < self.probability)
        )

    @property
    def bills(self) -> bool:
        return self.kind not in STATUS_KINDS if self.billed is None else self.billed

    def headers(self) -> dict[str, str]:
        headers = {"retry-after": self.retry_after, "retry-after-ms": self.retry_after_ms}
        if self.retry_date_s is not None:
            headers["retry-after"] = formatdate(time() + self.retry_date_s, usegmt=True)
        return {name: value for name, value in headers.items() if value}

    def error(self) -> tuple[int, dict[str, object]]:
        """HTTP status and OpenAI's error object."""
        if self.kind == "quota":
            return 429, error_body("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
        if self.kind == "refuse":
            return 400, error_body(self.message or "'$.input' is invalid.", "invalid_request_error", param="input")
        kinds = {401: "invalid_request_error", 429: "rate_limit_exceeded", 400: "invalid_request_error"}
        codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
        kind = kinds.get(self.status, "server_error")
        return self.status, error_body(self.message or f"Scripted {self.status}.", kind, codes.get(self.status))

    def spoil(self, vectors: np.ndarray, texts: list[str]) -> np.ndarray:
        """The vectors as the answer shows them; ``index`` faults and the rest are the server's."""
        if self.kind in ("nan", "inf", "zero"):
            row = next(i for i, text in enumerate(texts) if self.marker in text)
            if self.kind == "zero":
                vectors[row] = 0
            else:
                vectors[row, 0] = np.nan if self.kind == "nan" else np.inf
        if self.kind == "too_few":
            return vectors[:-1]
        if self.kind == "too_many":
            return np.vstack([vectors, vectors[:1]])
        return vectors[:, :-1] if self.kind == "dimension" else vectors

    def indices(self, count: int) -> list[int]:
        order = list(range(count))
        if self.kind == "duplicate_index":
            order[-1] = 0 if count > 1 else 1
        if self.kind == "shuffled":
            order.reverse()
        return order


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
