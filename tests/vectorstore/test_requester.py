"""The requester against a real HTTP server that fails in every way: what comes back, and what was asked and paid."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bill import sha_of, tokens_of
from tests.support.embeddings_api import expected_vectors
from tests.support.embeddings_server import EmbeddingsServer
from vectorstore.embedders.base import AttemptFailed, Embedded
from vectorstore.embedders.hash import HashEmbedder
from vectorstore.embedders.limiter import RateLimiter
from vectorstore.embedders.local import LocalEmbedder
from vectorstore.embedders.openai import OpenAIEmbedder
from vectorstore.embedders.requester import Outcome, Requester, batches
from vectorstore.errors import (
    Capped,
    ConfigurationError,
    EmbeddingFailed,
    Interrupted,
    KeyRejected,
    QuotaExhausted,
)


class RecordingBudget:
    """Writes down what becomes of each reservation; refuses above its cap."""

    def __init__(self, cap: float = math.inf) -> None:
        self.cap = cap
        self.events: list[tuple[str, int]] = []

    def reserve(self, tokens: int, texts: int) -> RecordingReservation:
        if self.spent + tokens > self.cap:
            raise Capped("the cap is reached")
        return RecordingReservation(self, tokens)

    @property
    def spent(self) -> int:
        return sum(tokens for _, tokens in self.events)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


class RecordingReservation:
    def __init__(self, budget: RecordingBudget, tokens: int) -> None:
        self.budget, self.tokens, self.open = budget, tokens, True

    def settle(self, tokens: int) -> None:
        self._close("settle", tokens)

    def release(self) -> None:
        self._close("release", 0)

    def forfeit(self) -> None:
        self._close("forfeit", self.tokens)

    def _close(self, kind: str, tokens: int) -> None:
        assert self.open
        self.open = False
        self.budget.events.append((kind, tokens))


class Bench:
    """A requester at a real server, and all that it uses."""

    def __init__(self, server: EmbeddingsServer, **options: Any) -> None:
        self.server = server
        self.stop = threading.Event()
        self.slept: list[float] = []
        self.budget = RecordingBudget(options.pop("cap", math.inf))
        self.limiter = RateLimiter(6_000_000, 60_000_000_000, sleep=lambda _: None, stop=self.stop)
        self.penalties: list[float] = []
        self.limiter.penalise = self.penalties.append  # type: ignore[method-assign]
        self.embedder = OpenAIEmbedder(
            "text-embedding-3-small", 64, base_url=server.url, timeout_s=options.pop("timeout_s", 5.0)
        )
        options = {"sleep": self.slept.append, "rng": random.Random(1), **options}
        self.requester = Requester(self.embedder, self.limiter, self.budget, stop=self.stop, **options)

    def embed(self, texts: Sequence[str], **more: Any) -> Outcome:
        return self.requester.embed(texts, [tokens_of(text) for text in texts], **more)


TEXTS = [f"text number {i} about something" for i in range(10)]
TOKENS = sum(map(tokens_of, TEXTS))


@pytest.fixture
def bench(embeddings_server: EmbeddingsServer) -> Iterator[Bench]:
    made = Bench(embeddings_server)
    yield made
    made.embedder.close()


def assert_right(outcome: Outcome, texts: Sequence[str]) -> None:
    """Every text has its own vector, or none and a reason."""
    assert outcome.vectors.shape == (len(texts), 64)
    right = expected_vectors(list(texts), dimension=64)
    for i in range(len(texts)):
        if i in outcome.failed:
            assert outcome.failed[i]
            assert np.isnan(outcome.vectors[i]).all()
        else:
            assert np.allclose(outcome.vectors[i], right[i], atol=1e-6)


class TestWithoutFailures:
    def test_vectors_and_money(self, bench: Bench) -> None:
        outcome = bench.embed(TEXTS)
        assert_right(outcome, TEXTS)
        assert (outcome.failed, outcome.attempts) == ({}, 1)
        assert outcome.billed_tokens == TOKENS == bench.server.bill.tokens
        assert bench.budget.events == [("settle", TOKENS)]

    def test_overbilling_is_settled_as_billed(self, bench: Bench) -> None:
        bench.server.overbilling = 0.05
        try:
            outcome = bench.embed(TEXTS)
        finally:
            bench.server.overbilling = 0.0
        assert bench.budget.events == [("settle", bench.server.bill.tokens)]
        assert outcome.billed_tokens == bench.server.bill.tokens >= TOKENS

    def test_no_texts_no_request(self, bench: Bench) -> None:
        outcome = bench.embed([])
        assert outcome.vectors.shape == (0, 64)
        assert bench.server.requests == 0

    def test_large_calls_are_cut_into_requests(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, batch_texts=4)
        assert_right(bench.embed(TEXTS), TEXTS)
        assert [request.texts for request in embeddings_server.bill.requests] == [4, 4, 2]

    def test_an_over_long_text_fails_without_a_request(self, bench: Bench) -> None:
        outcome = bench.embed(["word " * 9000])
        assert "takes 8191" in outcome.failed[0]
        assert bench.server.requests == 0
        assert bench.budget.events == []
        mixed = [TEXTS[0], "word " * 9000, TEXTS[1]]
        outcome = bench.embed(mixed)
        assert_right(outcome, mixed)
        assert list(outcome.failed) == [1]

    def test_landed_sees_each_answer_once(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, batch_texts=3)
        landed: dict[int, Any] = {}
        outcome = bench.embed(TEXTS, landed=lambda rows, vectors: landed.update(zip(rows, vectors, strict=True)))
        assert np.array_equal(np.vstack([landed[i] for i in range(10)]), outcome.vectors)

    def test_counts_must_fit(self, bench: Bench) -> None:
        with pytest.raises(ValueError, match="1 texts, but 2"):
            bench.requester.embed(["a"], [1, 2])

    def test_every_attempt_waits_for_the_limiter(self, bench: Bench) -> None:
        acquired: list[int] = []
        bench.limiter.acquire = acquired.append  # type: ignore[method-assign]
        bench.server.fail("status", status=503, nth=(1,))
        bench.embed(TEXTS)
        assert acquired == [TOKENS, TOKENS]

    def test_free_embedders_need_no_limit_and_no_money(self) -> None:
        budget = RecordingBudget(cap=0)
        requester = Requester(HashEmbedder("blake2b", 64), RateLimiter(1, 1), budget)
        assert not requester.embed(["a"] * 1000, [1] * 1000).failed
        assert budget.events == []

    def test_threads_share_one(self, bench: Bench) -> None:
        outcomes: dict[int, Outcome] = {}

        def work(number: int) -> None:
            outcomes[number] = bench.embed([f"{text} {number}" for text in TEXTS])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, outcome in outcomes.items():
            assert_right(outcome, [f"{text} {number}" for text in TEXTS])
        assert bench.budget.spent == bench.server.bill.tokens


# a failure that passes: the fault, what becomes of its reservation
PASSING: list[tuple[str, dict[str, Any], str]] = [
    ("status", {"status": 429}, "release"),
    ("status", {"status": 429, "retry_after": "3"}, "release"),
    ("status", {"status": 409}, "release"),
    ("status", {"status": 408}, "forfeit"),
    ("status", {"status": 500}, "forfeit"),
    ("status", {"status": 500, "billed": True}, "forfeit"),
    ("status", {"status": 502}, "forfeit"),
    ("status", {"status": 503}, "forfeit"),
    ("hang", {}, "forfeit"),
    ("html", {"status": 200}, "forfeit"),
    ("html", {"status": 502}, "forfeit"),
    ("cut_before", {}, "forfeit"),
    ("cut_mid", {}, "forfeit"),
    *((kind, {}, "settle") for kind in ("too_few", "too_many", "dimension", "nan", "inf", "zero", "duplicate_index")),
]


@pytest.mark.parametrize(("kind", "how", "reservation"), PASSING, ids=lambda value: str(value)[:40])
def test_what_passes_is_tried_again(
    embeddings_server: EmbeddingsServer, kind: str, how: dict[str, Any], reservation: str
) -> None:
    bench = Bench(embeddings_server, timeout_s=0.3)
    embeddings_server.fail(kind, nth=(1,), **how)
    outcome = bench.embed(TEXTS)
    assert_right(outcome, TEXTS)
    assert not outcome.failed
    assert (embeddings_server.requests, outcome.attempts) == (2, 2)
    assert bench.budget.kinds == [reservation, "settle"]
    assert outcome.forfeited_tokens == (TOKENS if reservation == "forfeit" else 0)
    assert bench.budget.spent == outcome.billed_tokens + outcome.forfeited_tokens
    assert bench.budget.spent >= embeddings_server.bill.tokens  # never less than what is owed


# a failure that stays: the fault, the exception, requests, what becomes of each reservation
LASTING: list[tuple[str, dict[str, Any], type[Exception], int, str]] = [
    ("status", {"status": 401}, KeyRejected, 1, "release"),
    ("status", {"status": 403}, KeyRejected, 1, "release"),
    ("quota", {}, QuotaExhausted, 1, "release"),
    ("status", {"status": 404}, ConfigurationError, 1, "release"),
    ("status", {"status": 429, "retry_after": "3600"}, EmbeddingFailed, 1, "release"),
    ("status", {"status": 429}, EmbeddingFailed, 4, "release"),
    ("status", {"status": 500}, EmbeddingFailed, 4, "forfeit"),
    ("status", {"status": 503}, EmbeddingFailed, 4, "forfeit"),
    ("hang", {}, EmbeddingFailed, 4, "forfeit"),
    ("html", {"status": 200}, EmbeddingFailed, 4, "forfeit"),
    ("cut_before", {}, EmbeddingFailed, 4, "forfeit"),
    ("cut_mid", {}, EmbeddingFailed, 4, "forfeit"),
]


@pytest.mark.parametrize(("kind", "how", "expected", "requests", "reservation"), LASTING, ids=lambda v: str(v)[:40])
def test_what_stays_ends_the_run(
    embeddings_server: EmbeddingsServer, kind: str, how: dict[str, Any], expected: type[Exception], requests: int,
    reservation: str,
) -> None:  # fmt: skip
    bench = Bench(embeddings_server, timeout_s=0.2 if kind == "hang" else 10, max_attempts=4)
    embeddings_server.fail(kind, **how)
    with pytest.raises(expected) as caught:
        bench.embed(TEXTS)
    assert type(caught.value) is expected
    assert caught.value.hint  # type: ignore[attr-defined]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert embeddings_server.requests == requests
    assert bench.budget.kinds == [reservation] * requests
    if requests > 1:
        assert "4 attempts failed" in str(caught.value)


class TestWaiting:
    def test_retry_after_is_honoured_by_all(self, bench: Bench) -> None:
        bench.server.fail("status", status=429, retry_after="7", nth=(1,))
        bench.embed(TEXTS)
        assert bench.slept == [7.0]
        assert bench.penalties == [7.0]

    def test_retry_after_of_a_503_too(self, bench: Bench) -> None:
        bench.server.fail("status", status=503, retry_after_ms="2500", nth=(1,))
        bench.embed(TEXTS)
        assert bench.slept == bench.penalties == [2.5]

    def test_the_real_limiter_waits(self, embeddings_server: EmbeddingsServer) -> None:
        stop = threading.Event()
        bench = Bench(embeddings_server)
        requester = Requester(bench.embedder, RateLimiter(60_000, 10**8, stop=stop), bench.budget, stop=stop)
        embeddings_server.fail("status", status=429, retry_after_ms="400", nth=(1,))
        started = time.monotonic()
        requester.embed(["a"], [1])
        assert 0.4 <= time.monotonic() - started < 3

    def test_backoff_grows_with_full_jitter(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, max_attempts=10)
        embeddings_server.fail("status", status=500)
        with pytest.raises(EmbeddingFailed):
            bench.embed(["a"])
        bounds = [min(60, 2**n) for n in range(9)]
        assert len(bench.slept) == 9
        assert all(0 <= wait <= bound for wait, bound in zip(bench.slept, bounds, strict=True))
        assert max(bench.slept) > 8
        assert bench.penalties == []  # a fault of one request is no reason for the others to wait

    def test_stop_ends_a_wait(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, sleep=None)
        embeddings_server.fail("status", status=429, retry_after="200")
        threading.Timer(0.2, bench.stop.set).start()
        started = time.monotonic()
        with pytest.raises(Interrupted):
            bench.embed(TEXTS)
        assert time.monotonic() - started < 5
        assert embeddings_server.requests == 1
        assert bench.budget.kinds == ["release"]

    def test_nothing_is_sent_after_stop(self, bench: Bench) -> None:
        bench.stop.set()
        with pytest.raises(Interrupted):
            bench.embed(TEXTS)
        assert bench.server.requests == 0
        assert bench.budget.events == []

    def test_free_embedders_stop_too(self) -> None:
        stop = threading.Event()
        stop.set()
        requester = Requester(HashEmbedder("blake2b", 64), RateLimiter(1, 1), RecordingBudget(), stop=stop)
        with pytest.raises(Interrupted):
            requester.embed(["a"], [1])


class TestHalving:
    @pytest.mark.parametrize("at", [0, 17, 63])
    def test_one_refused_text_costs_the_logarithm(self, bench: Bench, at: int) -> None:
        texts = [f"text {i} of many" for i in range(64)]
        texts[at] += " POISON"
        bench.server.fail("refuse", marker="POISON", message="'$.input' is invalid.")
        outcome = bench.embed(texts)
        assert_right(outcome, texts)
        assert list(outcome.failed) == [at]
        assert "400" in outcome.failed[at]
        assert outcome.attempts == bench.server.requests == 13  # 1 + 2 for each of 6 levels
        assert bench.budget.kinds.count("release") == 7
        good = [text for text in texts if "POISON" not in text]
        assert bench.server.bill.paid_over_needed(good) == 1.0  # the others are paid once

    @pytest.mark.parametrize("kind", ["nan", "inf", "zero"])
    def test_one_text_with_a_bad_vector_does_not_stop_the_others(self, bench: Bench, kind: str) -> None:
        texts = [f"text {i} of many" for i in range(16)]
        texts[5] += " CURSED"
        bench.server.fail(kind, marker="CURSED")
        outcome = bench.embed(texts)
        assert_right(outcome, texts)
        assert list(outcome.failed) == [5]
        assert outcome.attempts == 2 * 5 + 4
        assert bench.budget.spent == bench.server.bill.tokens
        assert set(bench.budget.kinds) == {"settle"}
        assert sum(bench.slept) == 0

    def test_several_texts_at_fault(self, bench: Bench) -> None:
        texts = [f"text {i}{' POISON' if i in (3, 4, 30) else ''}" for i in range(40)]
        bench.server.fail("refuse", marker="POISON")
        outcome = bench.embed(texts)
        assert_right(outcome, texts)
        assert sorted(outcome.failed) == [3, 4, 30]
        paid = bench.server.bill.by_text
        assert all(paid[sha_of(text)] == (0 if "POISON" in text else 1) for text in texts)

    def test_413_is_halved_as_well(self, bench: Bench) -> None:
        bench.server.fail("status", status=413, nth=(1,))
        outcome = bench.embed(TEXTS)
        assert_right(outcome, TEXTS)
        assert not outcome.failed
        assert [request.texts for request in bench.server.bill.requests] == [5, 5]

    def test_an_underestimated_text_fails_alone(self, bench: Bench) -> None:
        """The server counts more tokens than the caller did."""
        texts = [TEXTS[0], "word " * 9000, TEXTS[1]]
        outcome = bench.requester.embed(texts, [10, 10, 10])
        assert_right(outcome, texts)
        assert "maximum context length" in outcome.failed[1]

    def test_a_local_text_without_a_vector_fails_alone(self) -> None:
        embedder = LocalEmbedder("wordllama-l2-supercat", 64)
        requester = Requester(embedder, RateLimiter(1, 1), RecordingBudget())
        outcome = requester.embed(["good", "", "\ud800", *(["fine"] * 5), *([""] * 60)], [1] * 68)
        assert sorted(outcome.failed) == [1, 2, *range(8, 68)]
        assert np.isfinite(outcome.vectors[[0, 3, 7]]).all()

    def test_what_landed_before_the_end_is_kept(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, batch_texts=5)
        embeddings_server.fail("status", status=401, nth=(2,))
        kept: list[int] = []
        with pytest.raises(KeyRejected):
            bench.embed(TEXTS, landed=lambda rows, _: kept.extend(rows))
        assert kept == [0, 1, 2, 3, 4]


class TestHopeless:
    def test_only_bad_answers_end_the_run_before_they_cost_much(self, bench: Bench) -> None:
        """As when the model's dimension is another one: never all texts one by one."""
        texts = [f"text {i} of many" for i in range(64)]
        bench.server.fail("dimension")
        with pytest.raises(EmbeddingFailed, match=r"1 dimension|63 dimensions") as caught:
            bench.embed(texts)
        assert "dimensions" in caught.value.hint
        assert bench.server.bill.tokens <= 6 * sum(map(tokens_of, texts))

    def test_only_refusals_from_the_start_end_the_run(self, bench: Bench) -> None:
        bench.server.fail("refuse")
        with pytest.raises(EmbeddingFailed, match="50 texts in a row"):
            bench.embed([f"text {i}" for i in range(200)])
        assert bench.server.bill.tokens == 0

    def test_refusals_after_a_success_are_the_texts_own(self, bench: Bench) -> None:
        bench.embed(["good"])
        texts = [f"POISON {i}" for i in range(60)]
        bench.server.fail("refuse", marker="POISON")
        assert len(bench.embed(texts).failed) == 60


class TestMoney:
    def test_a_capped_budget_sends_nothing(self, embeddings_server: EmbeddingsServer) -> None:
        bench = Bench(embeddings_server, cap=TOKENS - 1)
        with pytest.raises(Capped):
            bench.embed(TEXTS)
        assert embeddings_server.requests == 0

    def test_every_attempt_is_reserved_anew(self, embeddings_server: EmbeddingsServer) -> None:
        """A retry may be billed once more, so the cap must hold for it too."""
        bench = Bench(embeddings_server, cap=2 * TOKENS)
        embeddings_server.fail("status", status=500, billed=True)
        with pytest.raises(Capped):
            bench.embed(TEXTS)
        assert bench.budget.kinds == ["forfeit", "forfeit"]
        assert embeddings_server.requests == 2
        assert embeddings_server.bill.tokens == 2 * TOKENS

    def test_an_answer_that_does_not_say_its_price_costs_the_reservation(self, bench: Bench) -> None:
        bench.server.fail("no_usage")
        outcome = bench.embed(TEXTS)
        assert_right(outcome, TEXTS)
        assert bench.budget.events == [("forfeit", TOKENS)]
        assert outcome.forfeited_tokens == TOKENS

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()], ids=repr)
    def test_what_nobody_foresaw_counts_as_spent(self, bench: Bench, error: BaseException) -> None:
        def embed(_: Sequence[str]) -> Embedded:
            raise error

        bench.embedder.embed = embed  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            bench.embed(TEXTS)
        assert bench.budget.kinds == ["forfeit"]

    def test_nobody_listens(self, tmp_path: Path, bench: Bench) -> None:
        bench.requester.embedder = OpenAIEmbedder("text-embedding-3-small", 64, base_url="http://127.0.0.1:9/v1")
        with pytest.raises(EmbeddingFailed, match=r"6 attempts failed.*no connection"):
            bench.embed(TEXTS)
        assert bench.budget.kinds == ["release"] * 6

    @pytest.mark.parametrize("seed", range(5))
    def test_in_a_storm_nothing_is_owed_that_was_not_counted(
        self, embeddings_server: EmbeddingsServer, seed: int
    ) -> None:
        bench = Bench(embeddings_server, max_attempts=30, batch_texts=4, timeout_s=0.3)
        embeddings_server.overbilling = 0.05
        embeddings_server.fail("refuse", marker="POISON")
        for number, kind in enumerate(["status", "cut_before", "cut_mid", "nan", "too_few", "shuffled", "html"]):
            embeddings_server.fail(kind, probability=0.08, seed=seed * 100 + number, billed=number % 2 == 0 or None)
        texts = [f"text {i} {'POISON' if i % 17 == 5 else ''}" for i in range(80)]
        try:
            outcome = bench.embed(texts)
        finally:
            embeddings_server.overbilling = 0.0
        assert_right(outcome, texts)
        assert set(outcome.failed) >= {i for i in range(80) if i % 17 == 5}
        assert bench.budget.spent >= 0.95 * embeddings_server.bill.tokens  # forfeits know nothing of overbilling
        assert bench.budget.spent == outcome.billed_tokens + outcome.forfeited_tokens


class Stub:
    """An embedder that does as it is told."""

    provider, model, dimension, billable = "stub", "stub", 2, True
    max_texts, max_tokens, max_text_tokens = 2048, 300_000, 8191

    def __init__(self, *failures: AttemptFailed) -> None:
        self.failures = list(failures)

    def embed(self, texts: Sequence[str]) -> Embedded:
        if self.failures:
            raise self.failures.pop(0)
        return Embedded(np.full((len(texts), 2), 0.5**0.5, np.float32), len(texts))

    def close(self) -> None: ...


def test_requests_stay_small_against_a_small_limit() -> None:
    requester = Requester(Stub(), RateLimiter(100, 50_000), RecordingBudget())
    assert requester.max_tokens == 5_000


def test_a_bad_answer_after_other_failures_still_ends_in_halving() -> None:
    failures = [AttemptFailed("busy", "transient", "no")] * 3 + [AttemptFailed("NaN", "bad_answer", 2)]
    requester = Requester(Stub(*failures), RateLimiter(1e6, 1e9), RecordingBudget(), sleep=lambda _: None)
    requester._limiter.penalise = lambda _: None  # type: ignore[method-assign]
    outcome = requester.embed(["a", "b"], [1, 1])
    assert not outcome.failed
    assert outcome.attempts == 6


class TestBatches:
    @given(
        tokens=st.lists(st.integers(1, 500), max_size=80),
        max_texts=st.integers(1, 20),
        max_tokens=st.integers(1, 1000),
    )
    def test_every_text_once_in_order_and_within_bounds(
        self, tokens: list[int], max_texts: int, max_tokens: int
    ) -> None:
        made = list(batches(tokens, max_texts, max_tokens))
        assert [i for part in made for i in part] == list(range(len(tokens)))
        for part in made:
            assert 1 <= len(part) <= max_texts
            assert len(part) == 1 or sum(tokens[i] for i in part) <= max_tokens
        for part, following in pairwise(made):  # none could have taken one more
            full = len(part) == max_texts
            assert full or sum(tokens[i] for i in part) + tokens[following[0]] > max_tokens

    def test_golden(self) -> None:
        assert list(batches([5, 5, 5, 99, 1, 1, 1, 1], 3, 10)) == [
            range(2), range(2, 3), range(3, 4), range(4, 7), range(7, 8),
        ]  # fmt: skip
        assert list(batches([], 3, 10)) == []
