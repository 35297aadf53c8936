"""The small pieces of the health page: text made safe, figures, signs of severity."""

from __future__ import annotations

import html
import math
import re
import time

from vectorstore.findings import Severity
from vectorstore.output.printable import printable

# Each has a shape of its own: a circle ticked, a circle with an i, a triangle, an octagon crossed.
_SHAPES = {
    Severity.PASS: '<circle cx="12" cy="12" r="10"/><path d="M7.5 12.5l3 3 6-7"/>',
    Severity.INFO: '<circle cx="12" cy="12" r="10"/><path d="M12 11v6M12 7.2v.1"/>',
    Severity.WARN: '<path d="M12 3L22 20.5H2z"/><path d="M12 10v4.5M12 17.4v.1"/>',
    Severity.FAIL: '<path d="M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9z"/><path d="M8.5 8.5l7 7M15.5 8.5l-7 7"/>',
}


def safe(text: str, limit: int = 400) -> str:
    """Text from outside as HTML that does nothing and turns nothing round; ``limit`` characters at most."""
    return html.escape(printable(text, limit))


def prose(text: str) -> str:
    """A sentence of a finding; what stands between backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe(text))


def name(text: str, tag: str = "bdi", limit: int = 120) -> str:
    """A name from outside, kept apart from the text around it."""
    return f'<{tag} class="name" dir="auto">{safe(text, limit)}</{tag}>'


def icon(severity: Severity) -> str:
    """The sign of a severity; its word stands beside it."""
    return (
        '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2.2"'
        f' stroke-linecap="round" stroke-linejoin="round">{_SHAPES[severity]}</svg>'
    )


def badge(severity: Severity) -> str:
    """A severity as a word and its sign on a coloured ground."""
    return f'<span class="badge b-{severity.name.lower()}">{icon(severity)}{severity.name}</span>'


def sign(severity: Severity) -> str:
    """A severity as a coloured sign and its word."""
    return f'<span class="sign"><span class="t-{severity.name.lower()}">{icon(severity)}</span>{severity.name}</span>'


def percent(share: float) -> str:
    """A share in percent, never rounded up: all but one of a million is "99.9 %"."""
    if 0 < share < 0.001:
        return "&lt;0.1 %"
    return f"{math.floor(share * 1000 + 1e-9) / 10:.1f} %" if share < 1 else "100 %"


def figure(number: int, step: int = 1000) -> str:
    """A count in few letters: "9,876", "278 k", "1.20 M"; in full where a ``step`` would not show."""
    if number < 10_000 or step < 1000:
        return f"{number:,}"
    if number < 1_000_000:
        return f"{number // 1000:,} k"
    return f"{number / 1e6:.2f} M" if step >= 10_000 else f"{number:,}"


def when(unix: float) -> str:
    """A time in UTC, for people and machines."""
    at = time.gmtime(unix)
    return (
        f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", at)}">{time.strftime("%Y-%m-%d %H:%M", at)} UTC</time>'
    )
