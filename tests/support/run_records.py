"""Records of runs, as the history has them."""

from __future__ import annotations

from typing import Any

from vectorstore.runs.record import RunRecord

NOW = 1_790_000_000.0
HOUR = 3600.0


def record(verb: str = "update", state: str = "completed", *, hours_ago: float = 1.0, **figures: Any) -> RunRecord:
    """A run that started so many hours before ``NOW``."""
    started = NOW - hours_ago * HOUR
    values = {"seconds": 10.0, "cpu_seconds": 5.0, "exit_code": 0 if state == "completed" else 1, **figures}
    return RunRecord(run=f"{started:.0f}-{verb}", verb=verb, by="cli", started=started, state=state, **values)


def nights(count: int, verb: str = "update", **figures: Any) -> list[RunRecord]:
    """So many good runs, one a day, the last of them a day ago."""
    return [record(verb, hours_ago=24.0 * (count - number), **figures) for number in range(count)]
