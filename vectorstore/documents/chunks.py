"""The chunker: Markdown into parts of bounded length whose borders stay where they are when the text around changes.

A text is a row of units (blocks, and lines, sentences or pieces of those too long to stay whole) with a seam before
each. A stretch that fits into a chunk becomes one; any other is cut at its strongest seam (headings by level, then
paragraphs, then finer ones), and both parts are looked at again. Among seams of one strength a hash of the text
behind the seam decides, so the choice depends on what is there and not on what was counted before it: text put in
anywhere changes the chunk it falls into and at times a neighbour; the chunks beyond stay as they are. Small sections
under one parent stay together as long as they fit. A seam within ``max_tokens / 4`` of the stretch's ends is left
alone, so that no crumbs come about. The price of borders that stay: a chunk is filled to 60 % on average.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice, pairwise
from typing import NamedTuple
from zlib import crc32

from vectorstore.documents.markdown import INDENTED_LINE, LINE, PIECE, SENTENCE, Block, find_blocks
from vectorstore.documents.tokens import load_encoding
from vectorstore.errors import ConfigurationError

VERSION = "md1"  # raise it with every change of where a text is cut: stored vectors are then known to be stale
MIN_TOKENS = 16
# Encodings whose pieces never reach across a line end into a line with text: counts of lines add up exactly.
ADDITIVE = frozenset({"cl100k_base"})
_LINE_START = re.compile(r"\n([^\S\n]*+)(?=\S)")
_SENTENCE_END = re.compile(r"[.!?…][\"')\]*_]*\s+(?=\S)|[。！？]+(?=\S)")


class Chunk(NamedTuple):
    """A part of a document.

    Attributes:
        text: what is embedded; it does not end with white space.
        heading: the headings that all of it stands under, ``Title > Section``; empty for none.
        tokens: the length of ``text`` in tokens, exactly.
    """

    text: str
    heading: str
    tokens: int


class Unit(NamedTuple):
    """A stretch of text that stays whole, from ``start`` to where the next unit starts."""

    start: int
    seam: int
    tokens: int
    path: tuple[str, ...]


class Chunker:
    """Cuts texts into chunks.

    Args:
        max_tokens: no chunk is longer; at least 16.
        encoding: name of the tiktoken encoding that counts; it is loaded when the first text is cut.

    Attributes:
        id: names everything that decides where a text is cut; a part of the pipeline id.

    Raises:
        ConfigurationError: ``max_tokens`` is too small; on the first text: the encoding can't be loaded.
    """

    def __init__(self, max_tokens: int, encoding: str = "cl100k_base") -> None:
        if max_tokens < MIN_TOKENS:
            raise ConfigurationError(f"chunk_tokens = {max_tokens} is below {MIN_TOKENS}", "400 suits most documents")
        self.max_tokens = max_tokens
        self.encoding = encoding
        self.id = f"{VERSION}-{max_tokens}-{encoding}"

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        return load_encoding(self.encoding).encode_ordinary

    def count(self, text: str) -> int:
        """The length of a text in tokens."""
        return len(self._encode(text))

    def split(self, text: str) -> list[Chunk]:
        """The chunks of a text, in order: all of it but white space, each part once. Empty for a blank text.

        Linear in the length of the text, whatever it holds. Lines end with ``\\n``.
        """
        additive = self.encoding in ADDITIVE and "\r" not in text
        return list(_Cut(text, self.max_tokens, self.count, additive).chunks())


class _Cut:
    """One text on its way into chunks."""

    def __init__(self, text: str, limit: int, count: Callable[[str], int], additive: bool) -> None:
        self.text = text.rstrip()
        self.limit = limit
        self.count = count
        self.additive = additive
        # A longer stretch is too long in all likelihood, and tiktoken's time can grow with the square of a run's
        # length: it is cut before it is counted. What turns out to fit is put together again.
        self.countable = 6 * limit
        size = limit // 4  # characters of a piece: at most four bytes each, and a token is at least a byte
        self.piece = re.compile(rf"(?s:.{{1,{size}}}(?<=\s)(?=\S)|.{{1,{size}}})")

    def chunks(self) -> Iterator[Chunk]:
        units = self._units()
        if not units:
            return
        for first, last in _stretches(self.text, units, self.limit):
            yield from self._emit(units[first:last], self._start(units, last))

    def _units(self) -> list[Unit]:
        blocks = find_blocks(self.text)
        units: list[Unit] = []
        for block, end in zip(blocks, [*(block.start for block in blocks[1:]), len(self.text)], strict=False):
            tokens = self._tokens(block.start, end)
            if tokens <= self.limit:
                units.append(Unit(block.start, block.seam, tokens, block.path))
            else:
                units += self._lines(block, end)
        return units

    def _tokens(self, start: int, end: int) -> int:
        """The tokens of a stretch, or more than the limit for one that is too long to be counted."""
        return self.count(self.text[start:end]) if end - start <= self.countable else self.limit + 1

    def _start(self, units: list[Unit], index: int) -> int:
        return units[index].start if index < len(units) else len(self.text)

    def _lines(self, block: Block, end: int) -> Iterator[Unit]:
        """A block that is too long, by its lines; a heading stays with the first of them."""
        cuts = [(mark.start() + 1, INDENTED_LINE if mark[1] else LINE) for mark in self._line_starts(block, end)]
        cuts.insert(0, (block.start, block.seam))
        for (start, seam), (stop, _) in pairwise([*cuts, (end, 0)]):
            tokens = self._tokens(start, stop)
            if tokens <= self.limit:
                yield Unit(start, seam, tokens, block.path)
            else:
                yield from self._sentences(start, stop, seam, block.path)

    def _line_starts(self, block: Block, end: int) -> Iterator[re.Match[str]]:
        marks = _LINE_START.finditer(self.text, block.body, end)
        return islice(marks, 1 if block.body > block.start else 0, None)

    def _sentences(self, start: int, end: int, seam: int, path: tuple[str, ...]) -> Iterator[Unit]:
        ends = [mark.end() for mark in _SENTENCE_END.finditer(self.text, start, end)]
        for first, stop in pairwise([start, *ends, end]):
            tokens = self._tokens(first, stop)
            if tokens <= self.limit:
                yield Unit(first, seam, tokens, path)
            else:
                yield from self._pieces(first, stop, seam, path)
            seam = SENTENCE

    def _pieces(self, start: int, end: int, seam: int, path: tuple[str, ...]) -> Iterator[Unit]:
        for mark in self.piece.finditer(self.text, start, end):
            yield Unit(mark.start(), seam, self.count(mark[0]), path)
            seam = PIECE

    def _emit(self, units: list[Unit], end: int) -> Iterator[Chunk]:
        """The chunk of a stretch; several when counting its own text shows that the units' sum was too low."""
        text = self.text[units[0].start : end].rstrip()
        if not text:
            return
        tokens = self._exact(units, text, end)
        if tokens <= self.limit:
            yield Chunk(text, heading(unit.path for unit in units), tokens)
            return
        if len(units) == 1:
            units = list(self._pieces(units[0].start, end, units[0].seam, units[0].path))
        limit = min(self.limit, sum(unit.tokens for unit in units) - 1)
        for first, last in _stretches(self.text, units, limit):
            yield from self._emit(units[first:last], units[last].start if last < len(units) else end)

    def _exact(self, units: list[Unit], text: str, end: int) -> int:
        """The tokens of a chunk, from its units' counts where those add up."""
        if not self.additive or any(unit.seam > INDENTED_LINE for unit in units[1:]):
            return self.count(text)
        start, stop = units[0].start, units[0].start + len(text)
        total = sum(unit.tokens for unit in units)
        if stop == end:
            return total
        # The last line was counted with the white space behind it, which is not in the chunk.
        last = units[-1]
        tail = max(self.text.rfind("\n", start, stop) + 1, last.start)
        behind = last.tokens if tail == last.start else self.count(self.text[tail:end])
        return total - behind + self.count(self.text[tail:stop])


def _stretches(text: str, units: list[Unit], limit: int) -> list[tuple[int, int]]:
    """Where a row of units is cut so that every stretch fits, or is a single unit: (first, behind the last)."""
    upto = [0]  # tokens before a unit
    for unit in units:
        upto.append(upto[-1] + unit.tokens)
    cuts = [0, len(units)]
    if upto[-1] > limit:
        low = limit // 4
        for index in _by_strength(text, units):
            at = bisect_left(cuts, index)
            left, here, right = upto[cuts[at - 1]], upto[index], upto[cuts[at]]
            if right - left > limit and here - left >= low and right - here >= low:
                cuts.insert(at, index)
        cuts = [*_balanced(upto, cuts, limit), len(units)]
    return list(pairwise(cuts))


def _by_strength(text: str, units: list[Unit]) -> list[int]:
    """The seams, strongest first; those of one strength by a hash of the text behind them."""
    keys, last, repeats = [], 0, 0
    ends = [unit.start for unit in units[1:]] + [len(text)]
    for unit, end in zip(units, ends, strict=True):
        value = crc32(text[unit.start : min(end, unit.start + 200)].encode(errors="surrogatepass"))
        # Equal lines in a row would all be cut, or none: their number in the row tells them apart.
        repeats = repeats + 1 if value == last else 0
        last = value
        keys.append(unit.seam << 32 | (crc32(repeats.to_bytes(8, "big"), value) if repeats else value))
    return sorted(range(1, len(units)), key=keys.__getitem__)


def _balanced(upto: list[int], cuts: list[int], limit: int) -> Iterator[int]:
    """Cuts what still does not fit: one long unit with little beside it. The more even cut wins."""
    for left, right in pairwise(cuts):
        todo = [(left, right)]
        while todo:
            first, last = todo.pop()
            if upto[last] - upto[first] <= limit or last - first == 1:
                yield first
                continue
            ends = upto[first], upto[last]
            middle = max(range(first + 1, last), key=lambda i: min(upto[i] - ends[0], ends[1] - upto[i]))
            todo += [(middle, last), (first, middle)]


def heading(paths: Iterable[tuple[str, ...]]) -> str:
    """The headings that all blocks with these paths stand under, ``Title > Section``; those under none don't count."""
    known = [path for path in paths if path]
    low, high = min(known, default=()), max(known, default=())
    size = 0
    while size < len(low) and low[size] == high[size]:
        size += 1
    return " > ".join(filter(None, low[:size]))
