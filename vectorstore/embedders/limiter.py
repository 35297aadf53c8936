"""Pacing: how fast requests may leave, so that the provider's limits are used and not met."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from vectorstore.errors import Interrupted

WINDOW_S = 60.5  # a little over a minute: what leaves evenly arrives less so
PACE = 0.98  # of the limit
BURST_S = 0.5  # what an idle time saves up, in seconds' worth: less than providers allow, so that jitter fits in


class RateLimiter:
    """Requests and tokens a minute for all threads of a process, first come, first served.

    Two rules at once. Requests leave evenly, at ``PACE`` of the limit, with a burst of ``BURST_S`` after idle time: one
    larger than that burst goes when the burst is full, and what follows waits for what it overdrew. And no window of
    ``WINDOW_S`` ever holds more than the limit, except one single request that is larger than a whole minute's limit.

    Args:
        requests_per_minute, tokens_per_minute: the provider's limits.
        clock: seconds that never go back.
        sleep: waits for so many seconds; default: until then or until ``stop`` is set.
        stop: when set, whoever waits here is told to give up.
    """

    def __init__(
        self,
        requests_per_minute: float,
        tokens_per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.tokens_per_minute = tokens_per_minute
        self._stop = stop or threading.Event()
        self._clock = clock
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()
        now = clock()
        self._meters = (_Meter(requests_per_minute, now), _Meter(tokens_per_minute, now))
        self._paused_until = now

    def acquire(self, tokens: int) -> None:
        """Wait until one request of ``tokens`` may leave.

        Raises:
            Interrupted: ``stop`` was set; the request must not be sent.
        """
        turn = threading.Event()
        with self._lock:
            self._queue.append(turn)
            first = self._queue[0] is turn
        try:
            if not first:
                turn.wait()  # whoever is first watches `stop`, and passes the turn on when it gives up
            while (wait := self._try(tokens)) > 0:
                self._sleep(wait)
        finally:
            self._leave(turn)

    def penalise(self, seconds: float) -> None:
        """Nobody leaves for so long, because the provider said so; afterwards at an even pace, without a burst."""
        with self._lock:
            until = self._clock() + seconds
            if until > self._paused_until:
                self._paused_until = until
                for meter in self._meters:
                    meter.drain(until)

    def _try(self, tokens: int) -> float:
        """0 if the request may leave now, and is written down; else the seconds until it is worth asking again."""
        if self._stop.is_set():
            raise Interrupted("interrupted while waiting for the provider's rate limit", "run again to go on")
        with self._lock:
            now = self._clock()
            requests, texts = self._meters
            wait = max(self._paused_until - now, requests.wait(1, now), texts.wait(tokens, now))
            if wait <= 0:
                requests.take(1, now)
                texts.take(tokens, now)
            return wait

    def _leave(self, turn: threading.Event) -> None:
        with self._lock:
            self._queue.remove(turn)
            if self._queue:
                self._queue[0].set()


class _Meter:
    """One limit: a level that refills evenly, and a list of what left within the window."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self.rate = limit * PACE / 60
        self.room = max(1.0, self.rate * BURST_S)
        self.level = self.room
        self.at = now
        self.sent: deque[tuple[float, float]] = deque()
        self.in_window = 0.0

    def wait(self, amount: float, now: float) -> float:
        if now > self.at:
            self.level = min(self.room, self.level + (now - self.at) * self.rate)
            self.at = now
        wait = (min(amount, self.room) - self.level) / self.rate
        # what is left by rounding must not become a wait too short for the clock to notice
        return max(wait if wait > 1e-6 else 0.0, self._wait_for_window(amount, now))

    def take(self, amount: float, now: float) -> None:
        self.level -= amount
        self.sent.append((now, amount))
        self.in_window += amount

    def drain(self, until: float) -> None:
        self.level = min(self.level, 0.0)
        self.at = max(self.at, until)  # no refill during the pause

    def _wait_for_window(self, amount: float, now: float) -> float:
        while self.sent and self.sent[0][0] + WINDOW_S <= now:
            self.in_window -= self.sent.popleft()[1]
        if not self.sent:
            self.in_window = 0.0  # forget rounding
        excess = self.in_window + amount - self.limit
        wait = 0.0
        for at, size in self.sent:
            if excess <= 0:
                break
            wait, excess = at + WINDOW_S - now, excess - size
        return wait
