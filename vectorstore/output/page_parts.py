"""What pages are made of: one HTML file, no script, nothing from elsewhere; for a screen, light or dark, and for paper.

What is handed over here is HTML already; text from outside goes through ``health_marks.safe`` first.
"""

from __future__ import annotations

from collections.abc import Iterable

from vectorstore.output.health_style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # should a name ever slip through, it can do nothing


def html_page(title: str, inner: str) -> str:
    """A whole page."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{inner}
</main>
</body>
</html>
"""


def listed(facts: Iterable[tuple[str, str]]) -> str:
    """Terms and what they are; a term without anything is left out."""
    rows = "".join(f"<dt>{term}</dt><dd>{fact}</dd>" for term, fact in facts if fact)
    return f'<dl class="facts">{rows}</dl>'


def section(title: str, inner: str) -> str:
    """A part of the page below a heading."""
    place = "s-" + title.partition(":")[0].lower().replace(" ", "-")
    return f'<section aria-labelledby="{place}"><h2 id="{place}">{title}</h2>\n{inner}</section>'


def figure(picture: str, caption: str, title: str = "") -> str:
    """A picture with what it shows."""
    head = f"<h3>{title}</h3>" if title else ""
    return f'<figure class="card">{head}{picture}<figcaption>{caption}</figcaption></figure>'


def wide(label: str, picture: str) -> str:
    """A picture that a narrow screen moves sideways instead of making it too small to read."""
    return f'<div class="scroll full" tabindex="0" role="region" aria-label="{label}">{picture}</div>'


def key(style: str) -> str:
    """The sample of a line, to stand before what it means."""
    line = f'<line class="{style}" x1="2" x2="32" y1="5" y2="5"/>'
    return f'<svg class="key" viewBox="0 0 34 10" aria-hidden="true">{line}</svg>'
