"""The pictures of a report, as inline SVG: figures over time with their trend, and columns a day."""

from __future__ import annotations

from collections.abc import Sequence

from vectorstore.output.chart_parts import BUCKETS, HALF, dates, fine_ticks, grid, margin, scale, svg, utc
from vectorstore.output.health_marks import safe
from vectorstore.runs.judging import Series
from vectorstore.runs.trends import DAY
from vectorstore.runs.words import TITLES, middle_text, trend_text, value_text

_TOP, _BOTTOM, _RIGHT, _HEIGHT = 14, 172, HALF - 14, 200
_LEAST = {"cost": 1e-6, "coverage": 0.0001, "store": 1.0, "rate": 0.1, "duration": 0.1, "memory": 1.0}


def line_chart(series: Series) -> str:
    """Figures over time, and their trend where it is hardly chance. The series has two points of different times."""
    points = _thinned(series.points)
    values = [value for _, value in points]
    line = series.trend if series.trend and series.trend.believed else None
    ends = (line.first, line.last) if line else ()
    ticks = fine_ticks(max(0.0, min([*values, *ends])), max([*values, *ends]), _LEAST[series.name])
    texts = _tick_texts(series.name, ticks)
    left = margin(texts)
    first, last = points[0][0], points[-1][0]
    across, up = scale(first, last, left, _RIGHT), scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    parts = grid(ticks, texts, up, left, _RIGHT) + dates(first, last, across, _BOTTOM + 20)
    path = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in points)
    parts.append(f'<polyline class="first" points="{path}"/>')
    if line:
        parts.append(
            f'<line class="second" x1="{across(first):.1f}" y1="{up(max(ticks[0], line.first)):.1f}"'
            f' x2="{across(last):.1f}" y2="{up(max(ticks[0], line.last)):.1f}"/>'
        )
    some = points if len(points) <= 31 else points[-1:]
    parts += [
        f'<circle class="dot-first" cx="{across(at):.1f}" cy="{up(value):.1f}" r="3">'
        f"<title>{utc(at, '%Y-%m-%d %H:%M')} UTC: {safe(value_text(series.name, value))}</title></circle>"
        for at, value in some
    ]
    return _svg(series, parts)


def day_chart(series: Series) -> str:
    """A column a day, or for a few days where there are more than have room."""
    span = max(1, -(-len(series.points) // BUCKETS))
    columns = [series.points[start : start + span] for start in range(0, len(series.points), span)]
    sums = [(part[0][0], sum(value for _, value in part)) for part in columns]
    ticks = fine_ticks(0.0, max(value for _, value in sums) or 0.01, _LEAST[series.name])
    texts = _tick_texts(series.name, ticks)
    left = margin(texts)
    first, last = sums[0][0], sums[-1][0] + span * DAY
    across, up = scale(first, last, left, _RIGHT), scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    parts = grid(ticks, texts, up, left, _RIGHT) + dates(first, last, across, _BOTTOM + 20)
    wide = min(40.0, (_RIGHT - left) / len(sums) * 0.76)
    for at, value in sums:
        middle, y = across(at + span * DAY / 2), min(up(value), _BOTTOM - 1.5) if value else _BOTTOM
        about = f"<title>{utc(at, '%Y-%m-%d')}: {safe(value_text(series.name, value))}</title>"
        parts.append(
            f'<rect class="fill" x="{middle - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}"'
            f' height="{_BOTTOM - y:.1f}">{about}</rect>'
        )
    return _svg(series, parts)


def _svg(series: Series, parts: Sequence[str]) -> str:
    about = f"{len(series.points):,} figures, median {middle_text(series)}; {trend_text(series)}."
    return svg(HALF, _HEIGHT, TITLES[series.name], about, parts)


def _tick_texts(name: str, ticks: Sequence[float]) -> list[str]:
    """Short labels, fine enough to tell one tick from the next."""
    if name == "coverage":
        digits = next((n for n in (0, 1) if ticks[1] - ticks[0] >= 10 ** -(n + 2) * 0.999), 2)
        return [f"{tick:.{digits}%}" for tick in ticks]
    if name == "cost":
        digits = next(n for n in (0, 1, 2, 3, 4, 5, 6) if n == 6 or round(ticks[1], n) == round(ticks[1], 9))
        return [f"${tick:,.{max(2, digits) if digits else 0}f}" for tick in ticks]
    if name == "store":
        unit, word = next((u, w) for u, w in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")) if ticks[-1] >= u)
        return [f"{tick / unit:,.{2 if (ticks[1] - ticks[0]) / unit < 0.1 else 1}f} {word}" for tick in ticks]
    unit_text = {"rate": "/s", "duration": " s", "memory": " MB"}[name]
    return [f"{tick:,.0f}{unit_text}" if ticks[1] - ticks[0] >= 1 else f"{tick:,.1f}{unit_text}" for tick in ticks]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``BUCKETS`` points: the largest of each span of time, so that no peak is lost."""
    start, length = points[0][0], max(1e-3, points[-1][0] - points[0][0])
    if len(points) <= BUCKETS:
        return list(points)
    found: dict[int, tuple[float, float]] = {}
    for at, value in points:
        place = min(BUCKETS - 1, int((at - start) / length * BUCKETS))
        found[place] = max(found.get(place, (at, value)), (at, value), key=lambda point: point[1])
    return list(found.values())
