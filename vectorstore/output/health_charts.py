"""The pictures of the health page, as inline SVG: shares, counts and findings over time, lengths of vectors.

All colours and fonts are the style sheet's, so a picture follows light, dark and paper. Coordinates are those of the
view box; no picture holds more than ``BUCKETS`` marks a line, however many runs there were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from vectorstore.output.chart_parts import (
    BUCKETS,
    FULL,
    HALF,
    LETTER,
    dates,
    grid,
    labels,
    margin,
    nice_ticks,
    scale,
    svg,
    utc,
)  # fmt: skip
from vectorstore.output.health_marks import figure, safe
from vectorstore.output.printable import printable

if TYPE_CHECKING:
    from vectorstore.output.health_history import Run


def share_bar(share: float) -> str:
    """A bar of 0 to 1, to stand beside its figure; what is lacking stays visible, and so does the little there is."""
    width = 100.0 if share >= 1 else min(98.5, max(1.5, share * 100)) if share > 0 else 0.0
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="10"/><rect class="fill" width="{width:.2f}" height="10"/></svg>'
    )


def counts_chart(title: str, runs: Sequence[Run], lines: Mapping[str, Callable[[Run], int]]) -> str:
    """Counts over time: one or two lines, by name.

    Args:
        title: for readers who don't see it.
        runs: at least two, of different times, the oldest first.
        lines: name of each line -> its value.
    """
    shown = [bucket[-1] for bucket in _buckets(runs)]
    values = [value(run) for run in shown for value in lines.values()]
    ticks = nice_ticks(min(values), max(values))
    left, top, right, bottom = margin(labels(ticks)), 14, HALF - 14, 172
    across = scale(shown[0].time, shown[-1].time, left, right)
    up = scale(ticks[0], ticks[-1], bottom, top)
    parts = grid(ticks, labels(ticks), up, left, right) + dates(shown[0].time, shown[-1].time, across, bottom + 20)
    for style, value in zip(("first", "second"), lines.values(), strict=False):
        points = [(across(run.time), up(value(run))) for run in shown]
        parts.append(f'<polyline class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        some = points if len(points) <= 31 else points[-1:]
        parts += [f'<circle class="dot-{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in some]
    last = ", ".join(f"{label} {value(shown[-1]):,}" for label, value in lines.items())
    return svg(HALF, 200, title, f"{len(runs):,} checks; at the last one: {last}.", parts)


def findings_chart(runs: Sequence[Run]) -> str:
    """Findings over time: a lane a severity, each on a scale of its own; a stroke where a check found none.

    Args:
        runs: at least two, of different times, the oldest first.
    """
    left, right, lane = 74.0, FULL - 74.0, 58
    across = scale(runs[0].time, runs[-1].time, left + 5, right - 5)
    buckets = _buckets(runs)
    width = max(2.0, min(14.0, (right - left) / len(buckets) * 0.7, (right - left) / BUCKETS * 0.9))
    parts, maxima = [], []
    for row, level in enumerate(("fail", "warn", "info")):
        base = (row + 1) * lane
        count = attrgetter(level)
        most = max(map(count, runs))
        maxima.append(f"{level.upper()} at most {most:,}")
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>')
        parts.append(f'<text class="strong" x="{left - 10}" y="{base - 4}" text-anchor="end">{level.upper()}</text>')
        parts.append(f'<text x="{right + 8}" y="{base - 4}">max {figure(most)}</text>')
        for bucket in buckets:
            x = across(bucket[len(bucket) // 2].time)
            parts.append(_mark(max(bucket, key=count), level, most, x, base, width, lane - 14))
    parts += dates(runs[0].time, runs[-1].time, across, 3 * lane + 22)
    return svg(FULL, 3 * lane + 32, "Findings over time", f"{len(runs):,} checks: {'; '.join(maxima)}.", parts)


def _mark(run: Run, level: str, most: int, x: float, base: float, width: float, height: float) -> str:
    count = getattr(run, level)
    about = f"<title>{utc(run.time, '%Y-%m-%d %H:%M')} UTC, {safe(run.depth)}: {count:,} {level.upper()}</title>"
    if not count:
        return f'<line class="none" x1="{x:.1f}" x2="{x:.1f}" y1="{base - 4}" y2="{base}">{about}</line>'
    tall = max(4.0, count / most * height)
    return (
        f'<rect class="fill-{level}" x="{x - width / 2:.1f}" y="{base - tall:.1f}" width="{width:.1f}"'
        f' height="{tall:.1f}">{about}</rect>'
    )


def norms_chart(norms: Mapping[str, int]) -> str:
    """The lengths of vectors as columns; the least of them stays visible beside the largest.

    Args:
        norms: length -> how many; not empty.
    """
    ranked = sorted(norms.items(), key=lambda item: (_number(item[0]), item[0]))
    bins = [(printable(edge, 24), count) for edge, count in ranked]
    ticks = nice_ticks(0, max(1, *norms.values()))
    left, top, right, bottom = margin(labels(ticks)), 24, FULL - 10, 196
    up = scale(0, ticks[-1], bottom, top)
    parts = grid(ticks, labels(ticks), up, left, right)
    step = (right - left) / len(bins)
    wide = min(step * 0.82, 90.0)
    every = math.ceil((LETTER * max(len(edge) for edge, _ in bins) + 6) / step)
    for place, (edge, count) in enumerate(bins):
        middle = left + (place + 0.5) * step
        y = min(up(count), bottom - 2) if count else bottom
        about = f"<title>{safe(edge)}: {count:,}</title>"
        parts.append(
            f'<rect class="fill" x="{middle - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{bottom - y:.1f}">'
            f"{about}</rect>"
        )
        if count and step > LETTER * len(figure(count)) + 4:
            parts.append(
                f'<text class="strong" x="{middle:.1f}" y="{y - 5:.1f}" text-anchor="middle">{figure(count)}</text>'
            )
        if place % every == 0:
            parts.append(f'<text x="{middle:.1f}" y="{bottom + 18}" text-anchor="middle">{safe(edge)}</text>')
    listed = ", ".join(f"{edge}: {count:,}" for edge, count in bins if count)
    return svg(FULL, 222, "Lengths of vectors", f"{sum(norms.values()):,} vectors; {listed}.", parts)


def _buckets(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in the order of time, in ``BUCKETS`` spans of equal length at most; none is empty."""
    start, length = runs[0].time, max(1e-3, runs[-1].time - runs[0].time)
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(min(BUCKETS - 1, int((run.time - start) / length * BUCKETS)), []).append(run)
    return list(found.values())


def _number(edge: str) -> float:
    try:
        return float(edge)
    except ValueError:
        return math.inf
