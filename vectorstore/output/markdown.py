"""The pieces of pages in Markdown.

Names of documents come from the disk: they are escaped, or a file called ``![](http://…)`` would load a picture, and
one called ``http://…`` would be a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vectorstore.output.printable import printable

LONGEST = 400  # characters of a text from outside


def page(title: str, *parts: str) -> str:
    """A page; parts without text are left out."""
    return "\n\n".join([f"## {title}", *filter(None, parts)]) + "\n"


def facts(rows: Mapping[str, str]) -> str:
    """A table of names and values, both Markdown; values without text are left out."""
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]]) if lines else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table of cells in Markdown, the last ``numbers`` columns set to the right."""
    rules = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def section(heading: str, items: Iterable[str]) -> str:
    """A list of lines in Markdown under a heading; empty without lines."""
    lines = [f"- {item}" for item in items]
    return f"### {heading}\n" + "\n".join(lines) if lines else ""


def quote(word: str, message: str, hint: str = "") -> str:
    """What stopped a run, and the next step."""
    return f"> **{word}:** {escaped(message)}" + (f"\n>\n> **Next:** {escaped(hint)}" if hint else "")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _escaped(one_line(text))


def prose(text: str) -> str:
    """A sentence of the library's: what stands between backticks is code, the rest is shown as it is."""
    parts = re.split(r"`([^`|]+)`", one_line(text, LONGEST))
    return "".join(f"`{part}`" if number % 2 else _escaped(part) for number, part in enumerate(parts))


def one_line(text: str, limit: int = 0) -> str:
    """Text without what a browser would act on or a server not take: turned writing, halves of characters."""
    return printable(" ".join(text.split()), limit)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&@]|:(?=//)|(?<=[wW]{3})\.)", r"\\\1", text)
