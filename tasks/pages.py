"""The pieces of Markdown pages, with what only Prefect's UI needs; see ``vectorstore.output.markdown``."""

from __future__ import annotations

import re

from vectorstore.output.markdown import LONGEST, escaped, facts, one_line, page, prose, quote, section, table

__all__ = [
    "LONGEST",
    "SHOWN",
    "cell",
    "escaped",
    "facts",
    "more",
    "one_line",
    "page",
    "prose",
    "quote",
    "section",
    "table",
]
SHOWN = 20  # lines of a list; the tables hold more
_ACTIVE = re.compile(  # links and pictures, tags, emphasis, entities, headings and lists, and what escapes others
    r"(?<=\])[(\[]|<(?=[\w/!?])|[`*~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|^(?:>|[+-](?=\s)|#(?=[#\s]))"
    r"|:(?=//)|(?<=[wW]{3})\.|\\(?=[!-/:-@\[-`{-~])"
)


def more(count: int, key: str) -> str:
    """Where the rest of ``count`` lines is."""
    return f"\n\n… and {count - SHOWN:,} more: see the artifact `{key}`" if count > SHOWN else ""


def cell(text: str) -> str:
    """Text for a table artifact: one of Prefect's UIs renders its cells as Markdown, the other shows them as they are.

    So only what would do something there is escaped, and names mostly stay as they are.
    """
    parts = re.split(r"`([^`]+)`", one_line(text))
    return "".join(f"`{part}`" if number % 2 else _ACTIVE.sub(r"\\\g<0>", part) for number, part in enumerate(parts))
