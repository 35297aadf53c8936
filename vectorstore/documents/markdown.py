"""Where a Markdown text may be cut: its blocks, their headings, and how strong the seam before each one is."""

from __future__ import annotations

import re
from typing import NamedTuple

# Seams, strongest first. 1 to 6 are headings of that level.
PARAGRAPH, LINE, INDENTED_LINE, SENTENCE, PIECE = 7, 8, 9, 10, 11
MAX_TITLE = 120  # characters of a heading that a breadcrumb keeps

# The lines that matter to the cut; all others are skipped at the speed of the regular expression.
_MARK = re.compile(
    r"""^(?:
      (?P<blank> (?:[^\S\n]*+\n)+ )
    | [ ]{0,3}(?P<atx> \#{1,6} )(?:[ \t]++(?P<title>[^\n]*))?$
    | [ \t]*+(?P<fence> `{3,}+ | ~{3,}+ )(?P<info>[^\n]*)$
    | [ ]{0,3}(?P<setext> =+ | -+ )[ \t]*$
    )""",
    re.MULTILINE | re.VERBOSE,
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=[\w\"'#])(?:[^\n]*\n){1,500}?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_NO_TITLE = re.compile(r"[ \t]{4}|\s*(?:[-*+>|#=]|\d+[.)]\s)")


class Block(NamedTuple):
    """A heading with the paragraph after it, or a paragraph, list, table or fenced code.

    Attributes:
        start: offset of its first line in the text, in characters. It ends where the next block starts.
        body: offset behind its heading line; ``start`` without a heading.
        seam: how strong the seam before it is, 1 (a first-level heading) to ``PARAGRAPH``.
        path: the titles of the headings it stands under, its own included.
    """

    start: int
    body: int
    seam: int
    path: tuple[str, ...]


def find_blocks(text: str) -> list[Block]:
    """The blocks of a text whose lines end with ``\\n``, in order; linear in its length."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.blocks: list[Block] = []
        self.levels: list[int] = []
        self.path: tuple[str, ...] = ()
        self.fence = ""
        self.below = -1  # offset of the line below the last heading
        self.first = 0  # offset of the last line that may be the first of a paragraph

    def run(self) -> list[Block]:
        front = _FRONT_MATTER.match(self.text)
        start = front.end() if front else 0
        if front:
            self.add(0, 0, PARAGRAPH)
        self.first = start
        self.paragraph(start)
        for mark in _MARK.finditer(self.text, start):
            if self.fence:
                self.close_fence(mark)
            elif mark["blank"] is not None:
                self.first = mark.end()
                if mark.start() != self.below:  # the text below a heading stays with it
                    self.paragraph(mark.end())
            elif mark["atx"]:
                self.heading(mark.start(), mark.end(), len(mark["atx"]), mark["title"] or "")
            elif mark["fence"]:
                self.open_fence(mark)
            else:
                self.setext(mark)
        return self.blocks

    def add(self, start: int, body: int, seam: int) -> None:
        if self.blocks and self.blocks[-1].start == start:
            self.blocks.pop()  # what looked like a paragraph is a heading
        self.blocks.append(Block(start, body, seam, self.path))

    def paragraph(self, start: int) -> None:
        """A paragraph may start here: a blank line is before it."""
        if start < len(self.text) and not _blank_line(self.text, start):
            self.add(start, start, PARAGRAPH)

    def heading(self, start: int, end: int, level: int, title: str) -> None:
        keep = sum(known < level for known in self.levels)
        self.levels = [*self.levels[:keep], level]
        self.path = (*self.path[:keep], _plain(title))
        self.below = self.first = end + 1
        self.add(start, end, level)

    def setext(self, mark: re.Match[str]) -> None:
        """A line under a one-line paragraph makes a heading of it."""
        title = self.text[self.first : max(mark.start() - 1, 0)]
        if self.first < mark.start() and "\n" not in title and not _NO_TITLE.match(title):
            self.heading(self.first, mark.end(), 1 if mark["setext"][0] == "=" else 2, title)

    def open_fence(self, mark: re.Match[str]) -> None:
        if mark["fence"][0] == "~" or "`" not in mark["info"]:
            self.fence = mark["fence"]

    def close_fence(self, mark: re.Match[str]) -> None:
        closing = mark["fence"]
        if closing and closing.startswith(self.fence) and not mark["info"].strip():
            self.fence = ""


def _blank_line(text: str, start: int) -> bool:
    """Whether nothing but white space follows in this line: the last line of a text without a line end."""
    end = text.find("\n", start)
    line = text[start:] if end < 0 else text[start:end]
    return not line or line.isspace()


def _plain(title: str) -> str:
    title = " ".join(title[: 4 * MAX_TITLE].split())
    return re.sub(r"(?:^| )#+$", "", title)[:MAX_TITLE]
