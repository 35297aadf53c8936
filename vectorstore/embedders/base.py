"""What every embedder is: texts in, unit vectors and the billed tokens out.

An embedder makes one attempt and classifies what went wrong. Retries, limits, halving and money are the requester's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedded(NamedTuple):
    """One answer.

    Attributes:
        vectors: float32, shape ``(len(texts), dimension)``, each row of norm 1 within 1e-5, row i for text i.
        billed_tokens: what the provider says it bills; 0 for local embedders; None if the answer does not say, then
            the whole reservation counts as spent.
    """

    vectors: NDArray[np.float32]
    billed_tokens: int | None


class Embedder(Protocol):
    """The contract that one conformance suite holds every embedder to."""

    provider: str  # "local", "openai", "hash"
    model: str
    dimension: int
    max_texts: int  # a request
    max_tokens: int  # a request
    max_text_tokens: int  # one text
    billable: bool

    def embed(self, texts: Sequence[str]) -> Embedded:
        """One attempt at embedding ``texts`` (at least one, none empty).

        Raises:
            AttemptFailed: a classified failure of this attempt.
            KeyRejected, QuotaExhausted, ConfigurationError: every further attempt would fail too.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class AttemptFailed(Exception):
    """One attempt failed.

    Args:
        reason: one line for a person, without secrets.
        kind: ``"transient"`` (try again), ``"refused"`` (the input is at fault: halve the batch), ``"bad_answer"`` (an
            answer that is not the vectors asked for: each attempt may be billed, so try again once, then halve).
        billed: ``"no"`` (surely not), ``"unknown"`` (time-out, cut connection, 5xx: assume the reservation is spent),
            or a number of tokens that the answer reported.
        retry_after_s: seconds the provider asked to wait, if it did.
    """

    def __init__(self, reason: str, kind: str, billed: str | int = "no", retry_after_s: float | None = None) -> None:
        super().__init__(reason, kind, billed, retry_after_s)
        self.reason = reason
        self.kind = kind
        self.billed = billed
        self.retry_after_s = retry_after_s
