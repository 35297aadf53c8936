"""The limiter on a virtual clock: never above the limit in any window, nearly all of it used, fair, interruptible."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorstore.embedders.limiter import RateLimiter
from vectorstore.errors import Interrupted


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at
        self.sleeps = 0

    def __call__(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds
        self.sleeps += 1


def limiter(clock: Clock, requests: float = 3000, tokens: float = 1_000_000) -> RateLimiter:
    return RateLimiter(requests, tokens, clock=clock, sleep=clock.sleep)


def run(
    clock: Clock, limits: RateLimiter, sizes: list[int], idle: list[float] | None = None
) -> list[tuple[float, int]]:
    sent = []
    for i, size in enumerate(sizes):
        clock.at += idle[i % len(idle)] if idle else 0
        limits.acquire(size)
        sent.append((clock.at, size))
    return sent


def fullest(sent: list[tuple[float, int]], window: float = 60.0) -> tuple[int, int]:
    """The most requests and the most tokens in any window."""
    most, start, tokens, most_tokens = 0, 0, 0, 0
    for end, (at, size) in enumerate(sent):
        tokens += size
        while sent[start][0] <= at - window:
            tokens -= sent[start][1]
            start += 1
        most, most_tokens = max(most, end - start + 1), max(most_tokens, tokens)
    return most, most_tokens


@settings(max_examples=60, deadline=None)
@given(
    requests=st.integers(1, 600),
    per_minute=st.integers(1_000, 100_000),
    shares=st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=20),
    idle=st.lists(st.one_of(st.just(0.0), st.floats(0, 90)), min_size=1, max_size=5),
)
def test_no_window_holds_more_than_the_limit(
    requests: int, per_minute: int, shares: list[float], idle: list[float]
) -> None:
    clock = Clock()
    sizes = [max(1, int(share * per_minute)) for share in shares] * 20
    sent = run(clock, limiter(clock, requests, per_minute), sizes, idle)
    most, most_tokens = fullest(sent)
    assert most <= requests
    assert most_tokens <= per_minute


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 32_000), min_size=5, max_size=40))
def test_at_least_95_percent_of_the_binding_limit_is_used(sizes: list[int]) -> None:
    clock = Clock()
    many = sizes * (4000 // len(sizes))
    sent = run(clock, limiter(clock), many)
    minutes = (sent[-1][0] - sent[0][0]) / 60
    used = max((len(sent) - 1) / 3000, sum(size for _, size in sent[1:]) / 1_000_000) / minutes
    assert used >= 0.95


@pytest.mark.parametrize("size", [300, 333, 334, 8_000, 20_000, 50_000])
def test_long_runs_use_the_limit(size: int) -> None:
    clock = Clock()
    sent = run(clock, limiter(clock), [size] * max(600, min(9000, 4_000_000 // size)))
    steady = [(at, tokens) for at, tokens in sent if at > sent[0][0] + 60]
    minutes = (steady[-1][0] - steady[0][0]) / 60
    assert max(len(steady) / 3000, len(steady) * size / 1_000_000) / minutes >= 0.95


def test_requests_leave_evenly() -> None:
    clock = Clock()
    sent = run(clock, limiter(clock), [10] * 300)
    after_the_burst = [at for at, _ in sent[60:]]
    gaps = [b - a for a, b in pairwise(after_the_burst)]
    assert max(gaps) <= 1.1 * 60 / (3000 * 0.98)
    assert sent[20][0] == sent[0][0]  # the burst is half a second's worth, no more
    assert sent[148][0] - sent[0][0] > 2.4


def test_a_request_above_the_whole_limit_goes_alone() -> None:
    clock = Clock()
    limits = limiter(clock, tokens=1000)
    sent = run(clock, limits, [10, 5000, 10])
    assert sent[1][0] - sent[0][0] >= 60
    assert sent[2][0] - sent[1][0] >= 60


def test_a_penalty_stops_everybody_and_leaves_no_burst() -> None:
    clock = Clock()
    limits = limiter(clock)
    limits.acquire(10)
    start = clock.at
    limits.penalise(7)
    limits.penalise(2)  # a shorter one shortens nothing
    sent = run(clock, limits, [10] * 50)
    assert sent[0][0] >= start + 7
    assert sent[-1][0] - sent[0][0] > 0.95
    assert clock.sleeps <= 52  # it knows how long to wait


def test_a_penalty_reaches_who_waits_already() -> None:
    clock = Clock()
    limits = limiter(clock, requests=60)
    limits.acquire(1)
    penalties = [5.0]

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if penalties:
            limits.penalise(penalties.pop())

    limits._sleep = sleep
    start = clock.at
    limits.acquire(1)
    assert clock.at >= start + 5


def test_first_come_first_served() -> None:
    limits = RateLimiter(60 * 50, 60 * 1000 / 0.98)  # 1000 tokens a second
    limits.acquire(1000)
    order: list[int] = []

    def work(number: int, tokens: int) -> None:
        limits.acquire(tokens)
        order.append(number)

    threads = []
    for number, tokens in enumerate([400, 1, 1, 300, 1]):  # a small one must not overtake a large one
        threads.append(threading.Thread(target=work, args=(number, tokens)))
        threads[-1].start()
        _until(lambda n=number: len(limits._queue) == n + 1)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def test_stop_wakes_everybody_at_once() -> None:
    stop = threading.Event()
    limits = RateLimiter(1, 1_000_000, stop=stop)
    limits.acquire(1)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            limits.acquire(1)
        except Interrupted as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    _until(lambda: len(limits._queue) == 8)
    stop.set()
    started = time.monotonic()
    for thread in threads:
        thread.join(5)
    assert len(failures) == 8
    assert time.monotonic() - started < 2
    with pytest.raises(Interrupted):
        limits.acquire(1)
    assert not limits._queue


def test_threads_together_keep_the_limit() -> None:
    limits = RateLimiter(60 * 100, 1e9)
    sent: list[float] = []
    deadline = time.monotonic() + 1.5

    def work() -> None:
        while time.monotonic() < deadline:
            limits.acquire(1)
            sent.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = max(sent) - min(sent)
    assert len(sent) <= 98 * seconds + 49 + 2


def _until(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)
