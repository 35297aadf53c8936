"""From texts to vectors through a paid, limited and fallible provider: retries, halving, and every token accounted for.

An attempt is: wait for the limiter, reserve with the budget, ask the embedder, settle. Nothing here knows HTTP.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tenacity
from numpy.typing import NDArray

from vectorstore.embedders.base import AttemptFailed, Embedded, Embedder
from vectorstore.errors import ConfigurationError, EmbeddingFailed, Interrupted, QuotaExhausted, VectorkeepError

if TYPE_CHECKING:
    from vectorstore.embedders.limiter import RateLimiter

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # of the exponential backoff, before jitter
LONGEST_RETRY_AFTER_S = 300.0  # a provider that asks for more is told good-bye: the run can be resumed
TRIES_OF_BAD_ANSWERS = 2  # each of them may be billed
# Texts given up before the provider or the setup is held at fault: for bad answers, which cost money, in a row; for
# refusals only as long as nothing has ever worked.
HOPELESS = {"bad_answer": 5, "refused": 50}

Landed = Callable[[Sequence[int], "NDArray[np.float32]"], object]


class Reservation(Protocol):
    """Money set aside for one attempt; exactly one of the three is called."""

    def settle(self, tokens: int) -> None:
        """So many tokens were billed."""

    def release(self) -> None:
        """Surely nothing was billed."""

    def forfeit(self) -> None:
        """Nobody knows: all of it counts as spent."""


class Budget(Protocol):
    """What the requester needs of the budget."""

    def reserve(self, tokens: int, texts: int) -> Reservation:
        """Set the price of one attempt aside, or raise ``errors.Capped``."""


@dataclass(frozen=True)
class Outcome:
    """What became of the texts of one call.

    Attributes:
        vectors: float32, shape ``(len(texts), dimension)``, row i for text i; the rows of failed texts are NaN.
        failed: position -> one line that says why this text has no vector.
        billed_tokens: settled by what the provider reported.
        forfeited_tokens: reserved for attempts of which nobody knows whether they were billed.
        attempts: requests made.
    """

    vectors: NDArray[np.float32]
    failed: dict[int, str] = field(default_factory=dict)
    billed_tokens: int = 0
    forfeited_tokens: int = 0
    attempts: int = 0


def batches(tokens: Sequence[int], max_texts: int, max_tokens: int) -> Iterator[range]:
    """Consecutive positions that make one request each.

    Args:
        tokens: of each text.
        max_texts, max_tokens: of a request; a text above ``max_tokens`` makes a request of its own.
    """
    start, total = 0, 0
    for end, count in enumerate(tokens):
        if end > start and (end - start >= max_texts or total + count > max_tokens):
            yield range(start, end)
            start, total = end, 0
        total += count
    if start < len(tokens):
        yield range(start, len(tokens))


class Requester:
    """Embeds texts for any number of threads.

    Args:
        embedder: one that is not billable is asked directly: there is no limit to keep and no money to reserve.
        limiter, budget: shared by all requests of the run.
        max_attempts: of one request, the first included.
        batch_texts, batch_tokens: of a request; the embedder's own limits hold as well.
        stop: when set, waits end and no further attempt is made.
        sleep: waits for so many seconds; default: until then or until ``stop`` is set.
        rng: of the jitter.
    """

    def __init__(
        self,
        embedder: Embedder,
        limiter: RateLimiter,
        budget: Budget,
        *,
        max_attempts: int = 6,
        batch_texts: int = 64,
        batch_tokens: int = 32_000,
        stop: threading.Event | None = None,
        sleep: Callable[[float], object] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.embedder = embedder
        self.max_texts = min(batch_texts, embedder.max_texts)
        # below a tenth of the minute's limit, so that whole requests fill the limit well
        per_minute = limiter.tokens_per_minute if embedder.billable else math.inf
        self.max_tokens = int(max(1, min(batch_tokens, embedder.max_tokens, per_minute / 10)))
        self._limiter = limiter
        self._budget = budget
        self._max_attempts = max_attempts
        self._stop = stop or threading.Event()
        self._sleep = sleep or self._stop.wait
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._has_worked = False
        self._given_up = dict.fromkeys(HOPELESS, 0)  # since the last good answer to any thread

    def batches(self, tokens: Sequence[int]) -> Iterator[range]:
        """``batches`` with this requester's bounds."""
        return batches(tokens, self.max_texts, self.max_tokens)

    def embed(self, texts: Sequence[str], tokens: Sequence[int], landed: Landed | None = None) -> Outcome:
        """Vectors for ``texts``, in as many requests as it takes.

        Args:
            texts: none empty.
            tokens: of each text, by the caller's count.
            landed: called with positions and their vectors as each answer arrives. Only what it keeps survives when a
                later request of the same call raises.

        Raises:
            Capped: by the budget, before the request that would not fit.
            EmbeddingFailed, QuotaExhausted, KeyRejected, ConfigurationError: the provider or the setup, not the texts.
            Interrupted: ``stop`` was set.
        """
        return _Call(self, texts, tokens, landed).run()

    # one request, with its retries

    def _request(self, call: _Call, positions: Sequence[int]) -> Embedded:
        """One answer, or the ``AttemptFailed`` that makes it worth halving the request."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_another),
            stop=self._is_enough,
            wait=self._wait,
            sleep=self._pause,
            reraise=True,
        )
        attempts = 0
        failure: VectorkeepError
        try:
            for attempt in retrying:
                with attempt:
                    attempts += 1
                    return self._attempt(call, positions)
        except AttemptFailed as error:
            if error.kind != "transient":
                raise
            failure = _for_good(error, attempts)
        raise failure

    def _attempt(self, call: _Call, positions: Sequence[int]) -> Embedded:
        tokens = sum(call.tokens[i] for i in positions)
        texts = [call.texts[i] for i in positions]
        if self._stop.is_set():
            raise Interrupted("interrupted between two requests", "run again to go on")
        if not self.embedder.billable:
            call.attempts += 1
            return self.embedder.embed(texts)
        self._limiter.acquire(tokens)
        reservation = self._budget.reserve(tokens, len(texts))
        call.attempts += 1
        billed: int | str = "unknown"  # whatever is not foreseen may have been billed
        try:
            answer = self.embedder.embed(texts)
            billed = "unknown" if answer.billed_tokens is None else answer.billed_tokens
        except AttemptFailed as error:
            billed = error.billed
            raise
        except (ConfigurationError, QuotaExhausted):
            billed = "no"
            raise
        finally:
            self._close(reservation, billed, tokens, call)
        return answer

    @staticmethod
    def _close(reservation: Reservation, billed: int | str, tokens: int, call: _Call) -> None:
        if isinstance(billed, int):
            reservation.settle(billed)
            call.billed += billed
        elif billed == "no":
            reservation.release()
        else:
            reservation.forfeit()
            call.forfeited += tokens

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        error = _error(state)
        if error.retry_after_s is not None and error.retry_after_s > LONGEST_RETRY_AFTER_S:
            return True
        most = min(self._max_attempts, TRIES_OF_BAD_ANSWERS) if error.kind == "bad_answer" else self._max_attempts
        return state.attempt_number >= most

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds: exponential with full jitter, no less than the provider asked; "not now" is meant for all."""
        error = _error(state)
        if error.kind == "bad_answer":
            return 0.0  # the limiter paces it
        jittered = self._rng.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (state.attempt_number - 1)))
        wait = max(jittered, error.retry_after_s or 0.0)
        if error.retry_after_s is not None or error.billed == "no":
            self._limiter.penalise(wait)
        return wait

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)  # who is woken by `stop` learns it from the next attempt

    # what the run has seen of the provider, over all threads

    def _good(self) -> None:
        with self._lock:
            self._has_worked = True
            self._given_up = dict.fromkeys(HOPELESS, 0)

    def _give_up(self, error: AttemptFailed) -> None:
        with self._lock:
            self._given_up[error.kind] += 1
            count = self._given_up[error.kind]
            excused = not self.embedder.billable or (error.kind == "refused" and self._has_worked)
        if count >= HOPELESS[error.kind] and not excused:
            raise EmbeddingFailed(
                f"{count} texts in a row got no vector, the last one because: {error.reason}",
                "check `model`, `dimensions` and `openai_base_url`; no text is likely to be at fault",
            )


class _Call:
    """One call of ``Requester.embed``: its texts, and what is known about them so far."""

    def __init__(
        self, requester: Requester, texts: Sequence[str], tokens: Sequence[int], landed: Landed | None
    ) -> None:
        if len(texts) != len(tokens):
            raise ValueError(f"{len(texts)} texts, but {len(tokens)} counts of tokens")
        self.requester = requester
        self.texts = texts
        self.tokens = tokens
        self.landed = landed
        self.vectors = np.full((len(texts), requester.embedder.dimension), np.nan, np.float32)
        self.failed: dict[int, str] = {}
        self.attempts = self.billed = self.forfeited = 0

    def run(self) -> Outcome:
        longest = self.requester.embedder.max_text_tokens
        for i, count in enumerate(self.tokens):
            if count > longest:
                self.failed[i] = f"{count} tokens, the model takes {longest}"
        fitting = [i for i in range(len(self.texts)) if i not in self.failed]
        for part in self.requester.batches([self.tokens[i] for i in fitting]):
            self._embed([fitting[i] for i in part])
        return Outcome(self.vectors, self.failed, self.billed, self.forfeited, self.attempts)

    def _embed(self, positions: list[int]) -> None:
        """Fill in these rows; a request that is at fault is halved down to the text at fault."""
        waiting = [positions]
        while waiting:
            these = waiting.pop()
            try:
                answer = self.requester._request(self, these)
            except AttemptFailed as error:
                if len(these) == 1:
                    self.failed[these[0]] = error.reason
                    self.requester._give_up(error)
                else:
                    middle = len(these) // 2
                    waiting += [these[middle:], these[:middle]]
                continue
            self.requester._good()
            self.vectors[these] = answer.vectors
            if self.landed:
                self.landed(these, answer.vectors)


def _worth_another(error: BaseException) -> bool:
    return isinstance(error, AttemptFailed) and error.kind != "refused"


def _error(state: tenacity.RetryCallState) -> AttemptFailed:
    error: Any = state.outcome.exception() if state.outcome else None
    assert isinstance(error, AttemptFailed)
    return error


def _for_good(error: AttemptFailed, attempts: int) -> EmbeddingFailed:
    if error.retry_after_s is not None and error.retry_after_s > LONGEST_RETRY_AFTER_S:
        return EmbeddingFailed(
            f"the provider asks to wait {error.retry_after_s:.0f} s ({error.reason})", "run again after that time"
        )
    return EmbeddingFailed(
        f"{attempts} attempts failed, the last one: {error.reason}",
        "run again when the provider answers: it goes on where it stopped; see `max_attempts`, `request_timeout_s`",
    )
