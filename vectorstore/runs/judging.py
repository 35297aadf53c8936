"""What the history of runs shows over time: the lines that a report draws, and what of them a person should look at.

A *leak* is memory or storage that grows while what is stored does not; a *regression* is work that takes longer than
the history of the same kind of run lets expect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectorstore.output.printable import printable
from vectorstore.runs.trends import DAY, MIN_RECENT, Trend, slower_by, trend

if TYPE_CHECKING:
    import pandas as pd

LEAK = 0.2  # growth as a share over the span
RECENT_S = 7 * DAY


@dataclass(frozen=True)
class Series:
    """Figures over time.

    Attributes:
        name: ``cost``, ``coverage``, ``store``, ``rate``, ``duration`` or ``memory``.
        points: Unix time and figure, the oldest first.
        trend: the line through them, if there are enough.
    """

    name: str
    points: list[tuple[float, float]]
    trend: Trend | None


@dataclass(frozen=True)
class Mark:
    """Something to look at.

    Attributes:
        kind: ``leak`` or ``regression``.
        about: what leaks or got slower.
        message: for a person.
        remedy: the next step.
    """

    kind: str
    about: str
    message: str
    remedy: str


def lines(frame: pd.DataFrame, costs: dict[float, float], since: float) -> list[Series]:
    """The lines of a report from ``since`` (Unix time) on.

    Args:
        frame: the history, see ``history.frame``.
        costs: dollars by the Unix time of each day's start, of these days.
    """
    recent = frame[_unix(frame) >= since]
    updates = recent[recent["verb"] == "update"]
    embedding = updates[(updates["chunks_embedded"] > 0) & (updates["seconds"] > 0)]
    return [
        _series(
            "cost", [at for at in costs if at >= since - DAY], [usd for at, usd in costs.items() if at >= since - DAY]
        ),
        _of("coverage", recent, recent["coverage"]),
        _of("store", recent, recent["store_bytes"]),
        _of("rate", embedding, embedding["chunks_embedded"] / embedding["seconds"]),
        _of("duration", updates, updates["seconds"]),
        _of("memory", updates, updates["memory_mb"]),
    ]


def warnings(frame: pd.DataFrame, now: float, since: float) -> list[Mark]:
    """What a person should look at: leaks from ``since`` on, and regressions by all that is known."""
    recent = frame[_unix(frame) >= since]
    return [*_storage_leak(recent), *_memory_leaks(recent), *_regressions(frame, now)]


def _storage_leak(frame: pd.DataFrame) -> Iterator[Mark]:
    known = frame[frame["store_bytes"].notna() & frame["chunks"].notna()]
    size, held = _trend(known, "store_bytes"), _trend(known, "chunks")
    if size and held and _leaks(size, held):
        yield Mark(
            "leak", "storage",
            f"the store grew by {size.growth:.0%} while its chunks grew by {max(0.0, held.growth):.0%}",
            "run `vectorkeep health --depth deep`: it counts dead places and folders that no index uses;"
            " `vectorkeep health --fix` takes them away",
        )  # fmt: skip


def _memory_leaks(frame: pd.DataFrame) -> Iterator[Mark]:
    for (verb, detail), runs in frame[frame["memory_mb"].notna()].groupby(["verb", "detail"]):
        used, held = _trend(runs, "memory_mb", peaks=True), _trend(runs[runs["chunks"].notna()], "chunks")
        if used and _leaks(used, held):
            yield Mark(
                "leak", "memory",
                f"the memory of `{_kind(verb, detail)}` grew from {used.first:,.0f} to {used.last:,.0f} MB, and the"
                " documents do not explain it",
                "start the worker anew if it lives long; look at what was updated last, Vectorkeep or a package",
            )  # fmt: skip


def _regressions(frame: pd.DataFrame, now: float) -> Iterator[Mark]:
    ended = frame[frame["state"].isin(["completed", "findings", "incomplete"])]
    idle = (ended["verb"] == "update") & (ended["work"].fillna(0) == 0)
    for (verb, detail, is_idle), runs in ended.groupby(["verb", "detail", idle]):
        units = "chunks_written" if verb == "update" and not is_idle else "documents" if verb == "update" else "chunks"
        recent = max(MIN_RECENT, int((_unix(runs) >= now - RECENT_S).sum()))
        times = slower_by(runs["seconds"].to_list(), runs[units].fillna(0).to_list(), recent)
        if times:
            what = _kind(verb, detail) + (" with nothing to do" if is_idle else "")
            yield Mark(
                "regression", "duration",
                f"the last {recent} runs of `{what}` took {times:.1f} times as long as those before, for the same work",
                "look at the load of the machine and its disk, and at what was updated last",
            )  # fmt: skip


def _leaks(used: Trend, held: Trend | None) -> bool:
    return used.believed and used.growth > LEAK and used.growth > 2 * max(0.0, held.growth if held else 0.0)


def _trend(frame: pd.DataFrame, column: str, *, peaks: bool = False) -> Trend | None:
    return trend(_unix(frame).to_list(), frame[column].to_list(), peaks=peaks)


def _of(name: str, frame: pd.DataFrame, values: pd.Series) -> Series:
    known = values.notna()
    return _series(name, _unix(frame)[known].to_list(), values[known].to_list())


def _series(name: str, times: list[float], values: list[float]) -> Series:
    line = trend(times, values, peaks=name == "memory")  # a leak shows in the run that has most to do
    return Series(name, list(zip(times, values, strict=True)), line)


def _unix(frame: pd.DataFrame) -> pd.Series:
    return frame["time"].astype("datetime64[ms, UTC]").astype("int64") / 1000


def _kind(*words: object) -> str:
    return ", ".join(printable(str(word), 40).replace("`", "'") for word in words if word)
