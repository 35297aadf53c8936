"""Which run is not like those before it: three sigma from the own history, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple

from vectorstore.runs.record import VERBS, RunRecord

RAN_THROUGH = ("completed", "incomplete", "findings")  # a run that was cut short is no measure
WINDOW = 100  # runs that count as history
SEEN_BEFORE = 0.9  # of a distance: an earlier run that was so far off makes it no news ...
TIMES_SEEN = 2  # ... if there were so many; a single one may have been the same fault


class Figure(NamedTuple):
    """A figure of a run: its name in a record, the least sigma that is believed, and whether less is news, too.

    A history that is all the same has sigma 0, and the next run, a millisecond off, would be a deviation.
    """

    name: str
    unit: str
    least: float
    least_share: float
    both_ways: bool = False


FIGURES = (
    Figure("seconds", " s", 1.0, 0.1),
    Figure("cost_usd", " USD", 0.01, 0.1),
    Figure("documents", " documents", 1.0, 0.01, both_ways=True),
    Figure("failures", " failed documents", 1.0, 0.1),
    Figure("memory_mb", " MB", 20.0, 0.1),
)


class Deviation(NamedTuple):
    """The newest run of a verb, and how a figure of it lies outside."""

    run: RunRecord
    figure: Figure
    value: float
    usual: float
    bound: float


def deviations(runs: Sequence[RunRecord], sigmas: float, least_runs: int) -> Iterator[Deviation]:
    """The figures of each verb's newest run that lie more than ``sigmas`` from those of the runs before.

    Runs are compared with their like: a deep check with deep ones. Recurring ones are no news: a figure that was as far
    off twice before in the last ``WINDOW`` runs is left out, such as that of a monthly rush.

    Args:
        runs: in the order of time.
        least_runs: with fewer earlier runs that ran through nothing is said.
    """
    for verb in VERBS:
        own = [each for each in runs if each.verb == verb and each.state in RAN_THROUGH]
        known = [each for each in own if each.detail == own[-1].detail][-WINDOW - 1 :]
        for figure in FIGURES:
            if known and (found := _judged(known[-1], figure, known[:-1], sigmas, least_runs)):
                yield found


def _judged(
    run: RunRecord, figure: Figure, earlier: Sequence[RunRecord], sigmas: float, least_runs: int
) -> Deviation | None:
    value = getattr(run, figure.name)
    known = [float(old) for each in earlier if (old := getattr(each, figure.name)) is not None]
    if value is None or len(known) < max(least_runs, 2):
        return None
    mean = sum(known) / len(known)
    spread = sqrt(sum((each - mean) ** 2 for each in known) / (len(known) - 1))
    allowed = sigmas * max(spread, figure.least, figure.least_share * abs(mean))
    side = -1 if figure.both_ways and value < mean else 1
    distance = side * (value - mean)
    seen = sum(side * (each - mean) >= SEEN_BEFORE * distance for each in known)
    if distance <= allowed or seen >= TIMES_SEEN:
        return None
    return Deviation(run, figure, float(value), mean, mean + side * allowed)
