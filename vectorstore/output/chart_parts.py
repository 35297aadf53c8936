"""What the pictures of pages are made of, as inline SVG: axes, scales, round figures and dates.

All colours and fonts are the style sheet's, so a picture follows light, dark and paper. Coordinates are those of the
view box.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from vectorstore.output.health_marks import figure, safe

BUCKETS = 90
HALF, FULL = 430, 860  # widths of a view box: half the page, and all of it
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400
_STEPS = (
    _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY,
    30 * _DAY, 60 * _DAY, 91 * _DAY, 182 * _DAY, _YEAR,
)  # fmt: skip
LETTER = 7.0  # of an axis: units wide at most


def nice_ticks(low: float, high: float) -> list[int]:
    """Round whole numbers for an axis, from at or below ``low`` to at or above ``high``.

    From zero, unless all values lie so close together that nothing would be seen of their change.
    """
    return [round(tick) for tick in fine_ticks(low, high, 1.0)]


def fine_ticks(low: float, high: float, least: float) -> list[float]:
    """The same in steps of at least ``least``, which may be a fraction."""
    if low < 0.6 * high or low == high:
        low = 0
    rough = max(least, (high - low) / 4)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [step * number for number in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From values to coordinates."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def labels(ticks: Sequence[int]) -> list[str]:
    """Counts as the labels of an axis."""
    return [figure(tick, ticks[1] - ticks[0]) for tick in ticks]


def margin(texts: Sequence[str]) -> float:
    """Room for the labels of the upright axis."""
    return 12 + LETTER * max(map(len, texts))


def grid(
    ticks: Sequence[float], texts: Sequence[str], up: Callable[[float], float], left: float, right: float
) -> list[str]:
    """A line a tick, each with its label."""
    return [
        f'<line class="grid" x1="{left:.1f}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        f'<text x="{left - 7:.1f}" y="{up(tick) + 4:.1f}" text-anchor="end">{text}</text>'
        for tick, text in zip(ticks, texts, strict=True)
    ]


def dates(first: float, last: float, across: Callable[[float], float], y: float) -> list[str]:
    """Labels of a time axis, at round times, as many as have room."""
    years = math.ceil((last - first) / (3 * _YEAR)) * _YEAR  # wide enough for any history
    for step in (*_STEPS, years):
        form = "%b %Y" if step >= 60 * _DAY else "%d %b" if step >= _DAY else "%H:%M"
        if step < _DAY < last - first:
            form = "%d %b %H:%M"
        wide = LETTER * len(utc(first, form)) + 8
        if across(first + step) - across(first) >= wide:
            break
    low, high = across(first) - 8 + wide / 2, across(last) + 8 - wide / 2  # middles: a label stays below its axis
    times = range(math.ceil(first / step) * step, math.floor(last) + 1, step)
    places = [(across(at), at) for at in times if low <= across(at) <= high]
    return [
        f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{utc(at, form)}</text>'
        for x, at in places or [((low + high) / 2, round((first + last) / 2))]
    ]


def svg(width: int, height: int, title: str, about: str, parts: Iterable[str]) -> str:
    """A picture of ``parts``, with a title and a description for readers who don't see it."""
    key = "c-" + "-".join(title.lower().split())
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key} {key}-d">'
        f'<title id="{key}">{safe(title)}</title><desc id="{key}-d">{safe(about, 2000)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def utc(at: float, form: str) -> str:
    """A Unix time in UTC; ``form`` is `strftime`'s."""
    return time.strftime(form, time.gmtime(at))
