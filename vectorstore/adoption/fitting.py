"""Do chunks that somebody else cut make up a document? White space does not count, nor do marks between two chunks."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from vectorstore.documents.chunks import heading
from vectorstore.documents.markdown import find_blocks

# Characters to search for chunks that are not in the document's order: some seconds. Beyond, it is cut anew instead.
SEARCH_LIMIT = 5_000_000_000
_LETTER = re.compile(r"[^\W_]")  # or digit: what must not be missing between two chunks


class Misfit(StrEnum):
    """Why chunks do not make up a document."""

    CHANGED = "its chunks are not in it: it changed since, or was converted"
    GAP = "its chunks do not cover it"


class Piece(NamedTuple):
    """A chunk that stands in the document.

    Attributes:
        number: its number among the texts given.
        heading: the headings that all of it stands under, ``Title > Section``; empty for none.
    """

    number: int
    heading: str


class _Span(NamedTuple):
    number: int
    start: int
    stop: int


def fit(document: str, texts: Sequence[str]) -> list[Piece] | Misfit:
    """The texts that make up the document, in its order; a text given twice for one place is taken once.

    Every text must stand in the document, each begin behind or where the one before begins, and no letter or digit may
    lie outside all of them; overlap is fine. The order given is tried first, then that of the places where they stand.

    Args:
        document: its lines end with ``\\n``.
        texts: none of them blank.
    """
    solid = _solid(document)
    parts = [_solid(text) for text in texts]
    spans = _walk(solid, enumerate(parts))
    if spans is None:
        if len(solid) * len(parts) > SEARCH_LIMIT:
            return Misfit.GAP
        if any(part not in solid for part in parts):
            return Misfit.CHANGED
        spans = _walk(solid, _by_place(solid, parts))
    return Misfit.GAP if spans is None else list(_pieces(document, spans))


def _solid(text: str) -> str:
    return "".join(text.split())


def _walk(solid: str, parts: Iterable[tuple[int, str]]) -> list[_Span] | None:
    """Where each part stands when they are laid down one after the other; ``None`` where one does not go on."""
    spans: list[_Span] = []
    taken: set[tuple[int, int]] = set()
    start = covered = 0
    due = _next_letter(solid, 0)  # the first letter that no part has covered yet
    for index, part in parts:
        last = due + len(part)
        # A text of marks alone covers nothing: taken as early as can be, it leaves the most room to what follows.
        at = solid.rfind(part, start, last) if _LETTER.search(part) else _find_free(solid, part, start, last, taken)
        if at < 0:
            return None
        if (place := (at, at + len(part))) in taken:
            continue
        taken.add(place)
        spans.append(_Span(index, *place))
        start, covered = at, max(covered, place[1])
        due = _next_letter(solid, covered)
    return spans if due == len(solid) else None


def _find_free(solid: str, part: str, start: int, stop: int, taken: set[tuple[int, int]]) -> int:
    """The first place that is not taken; else the first one, or -1."""
    first = at = solid.find(part, start, stop)
    while at >= 0 and (at, at + len(part)) in taken:
        at = solid.find(part, at + 1, stop)
    return at if at >= 0 else first


def _next_letter(solid: str, start: int) -> int:
    found = _LETTER.search(solid, start)
    return found.start() if found else len(solid)


def _by_place(solid: str, parts: Sequence[str]) -> list[tuple[int, str]]:
    """The parts by where they stand; the second of two equal ones where the text stands a second time, if it does."""
    last: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    for index, part in enumerate(parts):
        at = solid.find(part, last[part] + 1) if part in last else solid.find(part)
        last[part] = at if at >= 0 else last[part]
        places.append((last[part], -len(part), index))
    return [(index, parts[index]) for _, _, index in sorted(places)]


def _pieces(document: str, spans: Sequence[_Span]) -> Iterable[Piece]:
    blocks = find_blocks(document)
    starts, total = [], 0  # of the blocks, as the spans count
    for start, stop in pairwise([*(block.start for block in blocks), len(document)]):
        starts.append(total)
        total += len(_solid(document[start:stop]))
    for span in spans:
        first, last = bisect_right(starts, span.start) - 1, bisect_left(starts, span.stop)
        yield Piece(span.number, heading(block.path for block in blocks[max(first, 0) : last]))
