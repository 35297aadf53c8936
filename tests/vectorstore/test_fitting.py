"""Chunks that somebody else cut make up a document, or are found out not to."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vectorstore.adoption import fitting
from vectorstore.adoption.fitting import Misfit, fit
from vectorstore.documents.chunks import Chunker

GUIDE = "# Guide\n\nHow to begin.\n\n## First steps\n\nOpen the box.\n\n---\n\nRead on.\n\n## Last\n\nClose the box.\n"
WORDS = ("alpha", "beta", "gamma", "alpha.", "delta", "---", "beta", "ünï", "章", "|")


def numbers(document: str, texts: list[str]) -> list[int] | Misfit:
    found = fit(document, texts)
    return found if isinstance(found, Misfit) else [piece.number for piece in found]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60), st.booleans(), st.integers(0, 10_000))
@example(["|", "---", "|"], False, 0)
@example(["alpha", "|", "---", "|", "beta"], False, 0)
def test_any_cut_fits(words: list[str], overlap: bool, seed: int) -> None:
    """With any white space, and with overlap where words are not all the same."""
    rng = random.Random(seed)
    if overlap:
        words = [f"{word}{number}" for number, word in enumerate(words)]
    ends = sorted({*rng.sample(range(1, len(words) + 1), rng.randint(1, len(words))), len(words)})
    starts = [0]
    for end in ends[:-1]:
        starts.append(max(starts[-1], end - overlap * rng.randint(0, 2)))
    texts = [rng.choice((" ", "\n\n", "\t")).join(words[a:b]) for a, b in zip(starts, ends, strict=True)]
    found = fit(" ".join(words), texts)
    assert not isinstance(found, Misfit)
    if overlap:
        assert [piece.number for piece in found] == list(range(len(texts)))


@given(st.integers(0, 10_000))
def test_what_lacks_a_part_does_not_fit(seed: int) -> None:
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(rng.randint(3, 40))]
    ends = sorted({*rng.sample(range(1, len(words) + 1), rng.randint(2, len(words))), len(words)})
    texts = [" ".join(words[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    lost = texts.pop(rng.randrange(len(texts)))
    assert numbers(" ".join(words), texts) is Misfit.GAP
    assert numbers(" ".join(words), [*texts, lost.upper()]) is Misfit.CHANGED


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([GUIDE], [0]),
        (["# Guide How to begin.", "## First steps\nOpen the box.", "Read on.", "Last\nClose the box."], [0, 1, 2, 3]),
        (["Guide", "How to begin", "First steps", "Open the box", "Read on", "Last", "Close the box"], list(range(7))),
        (["Close the box.", "Open the box. --- Read on. ## Last", "Guide\n\nHow to begin. ## First steps"], [2, 1, 0]),
        ([GUIDE, "How to begin."], [0, 1]),
        (["How to begin.", GUIDE], [1, 0]),
        ([GUIDE, GUIDE], [0]),
        (["# Guide", "## First steps Open the box. --- Read on. ## Last Close the box."], Misfit.GAP),
        (["# Guide How to begin. ## First steps Open the box."], Misfit.GAP),
        (["First steps Open the box. --- Read on. ## Last Close the box."], Misfit.GAP),
        ([GUIDE.replace("begin", "start")], Misfit.CHANGED),
        ([GUIDE, "Something else."], Misfit.CHANGED),
        ([], Misfit.GAP),
    ],
)  # fmt: skip
def test_golden_cases(texts: list[str], expected: list[int] | Misfit) -> None:
    """White space and marks may be missing, a heading may not; order and copies do not matter."""
    assert numbers(GUIDE, texts) == expected


def test_headings_are_those_of_our_own_cut() -> None:
    text = GUIDE + "\n\n" + "\n\n".join(f"### Part {n}\n\n" + "And so on. " * 20 for n in range(6))
    chunks = Chunker(64).split(text)
    found = fit(text, [chunk.text for chunk in chunks])
    assert not isinstance(found, Misfit)
    assert [piece.heading for piece in found] == [chunk.heading for chunk in chunks]
    assert len({piece.heading for piece in found}) > 3


def test_equal_chunks_in_wrong_order_find_their_places() -> None:
    text = "one two. between. one two. behind. one two."
    texts = ["behind.", "one two.", "between.", "one two.", "one two."]
    found = fit(text, texts)
    assert not isinstance(found, Misfit)
    order = [texts[piece.number] for piece in found]
    assert order == ["one two.", "between.", "one two.", "behind.", "one two."]


def test_a_search_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Close the box.", GUIDE.removesuffix("Close the box.\n")]
    assert numbers(GUIDE, texts) == [1, 0]
    monkeypatch.setattr(fitting, "SEARCH_LIMIT", 10)
    assert numbers(GUIDE, texts) is Misfit.GAP
