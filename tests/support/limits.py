"""The provider's side of a rate limit: strict and continuous, with a small burst."""

from __future__ import annotations

import threading
import time


class Allowance:
    """Tokens or requests a minute, refilled continuously, with room for ``burst_s`` seconds' worth.

    One request larger than that room is let in when the room is full; what it overdraws is waited for by the next.
    """

    def __init__(self, per_minute: float, burst_s: float) -> None:
        self.rate = per_minute / 60
        self.limit = int(per_minute)
        self.room = max(1.0, self.rate * burst_s)
        self.level = self.room
        self.at = time.monotonic()

    def wait_for(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` would be let in; 0: now."""
        self.level = min(self.room, self.level + (now - self.at) * self.rate)
        self.at = now
        return max(0.0, (min(amount, self.room) - self.level) / self.rate)

    def take(self, amount: float) -> None:
        self.level -= amount

    def remaining(self) -> int:
        return max(0, int(self.level))


class Limits:
    """Requests and tokens together; a request that is turned away takes nothing."""

    def __init__(self, requests_per_minute: float = 0, tokens_per_minute: float = 0, burst_s: float = 2.0) -> None:
        self._lock = threading.Lock()
        self._each = {
            name: Allowance(limit, burst_s)
            for name, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute))
            if limit
        }

    def admit(self, tokens: int) -> float:
        """0 if let in, else the seconds to wait."""
        amounts = {"requests": 1, "tokens": tokens}
        with self._lock:
            now = time.monotonic()
            wait = max((part.wait_for(amounts[name], now) for name, part in self._each.items()), default=0.0)
            if not wait:
                for name, part in self._each.items():
                    part.take(amounts[name])
            return wait

    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*``, as OpenAI sends them."""
        found = {}
        with self._lock:
            for name, part in self._each.items():
                found[f"x-ratelimit-limit-{name}"] = str(part.limit)
                found[f"x-ratelimit-remaining-{name}"] = str(part.remaining())
                found[f"x-ratelimit-reset-{name}"] = f"{(part.room - part.level) / part.rate:.3f}s"
        return found
