"""The chunker: bounded, complete, exact, and local in what an edit changes."""

import importlib.metadata
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vectorstore.documents import chunks
from vectorstore.documents.chunks import Chunk, Chunker
from vectorstore.documents.markdown import MAX_TITLE, find_blocks
from vectorstore.documents.tokens import load_encoding
from vectorstore.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[2]
ENCODING = load_encoding("cl100k_base")


def count(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


def check(text: str, cut: list[Chunk], limit: int) -> None:
    """What holds for the chunks of any text."""
    at = 0
    for chunk in cut:
        assert chunk.text.strip() and chunk.text == chunk.text.rstrip()
        assert chunk.tokens == count(chunk.text) <= limit
        start = text.index(chunk.text, at)
        assert not text[at:start].strip(), "text was lost or duplicated"
        at = start + len(chunk.text)
    assert not text[at:].strip(), "the end was lost"


def readmes() -> list[str]:
    """Real documents: the descriptions of what is installed here."""
    texts = (d.read_text("METADATA") or d.read_text("PKG-INFO") or "" for d in importlib.metadata.distributions())
    found = sorted({text.replace("\r\n", "\n") for text in texts if len(text) > 500})
    assert len(found) > 20
    return found


# ---- properties

MARKS = ["# One", "## Two ##", "### Three", "###### Six", "#no", "Set\n===", "ext\n---", "---", "***", "```", "```py",
         "````", "~~~", "- item", "  - deeper", "| a | b |", "|---|---|", "> quote", "    code", "", "", "", "   ",
         "\t", "key: value", 'Yes. No! Why? "So." Then', "完了。次の文。", "a\r", "\u2028x", "x\x1c"]  # fmt: skip
LINES = st.one_of(
    st.sampled_from(MARKS),
    st.text(max_size=60),
    st.integers(1, 80).map(lambda n: " ".join(f"word{i % 7}" for i in range(n)) + "."),
    st.integers(1, 900).flatmap(lambda n: st.sampled_from("a= -漢9é😀\u00a0`#").map(lambda char: char * n)),
)
TEXTS = st.lists(LINES, max_size=40).map("\n".join)


@settings(max_examples=250, deadline=None)
@given(text=TEXTS, limit=st.sampled_from([16, 17, 40, 400]))
@example(text="---\na: 1\n---\n", limit=16)
@example(text="x" * 2000 + "\n\n" + "y" * 2000, limit=16)
@example(text="!!! \n\n  \n /x\n\t\n.\u0085\n\n'll", limit=16)
@example(text="# " + "long heading " * 50 + "\n\ntext", limit=16)
@example(text="\ufeff \u200b", limit=16)
def test_every_chunk_is_bounded_exact_and_nothing_is_lost(text, limit):
    cut = Chunker(limit).split(text)
    check(text, cut, limit)
    assert cut == Chunker(limit).split(text)


@pytest.mark.parametrize("limit", [50, 400])
def test_real_documents_are_cut_whole(limit):
    chunker = Chunker(limit)
    sizes = []
    for text in readmes():
        cut = chunker.split(text)
        check(text, cut, limit)
        sizes += [chunk.tokens for chunk in cut if len(cut) > 1]
    assert sum(sizes) / len(sizes) > limit / 2
    assert sum(size < limit / 8 for size in sizes) < len(sizes) / 50  # crumbs


@pytest.fixture(scope="module")
def gpt2() -> tiktoken.Encoding:
    """GPT-2's way to split white space, with ranks that are at hand."""
    return tiktoken.Encoding(
        "gpt2ish",
        pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
        mergeable_ranks=ENCODING._mergeable_ranks,
        special_tokens={},
    )


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="word\n\n\n" * 60)
def test_an_encoding_whose_pieces_reach_across_lines_is_counted_again(gpt2, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "load_encoding", lambda name: gpt2)
        cut = Chunker(16, "gpt2ish").split(text)
    assert all(chunk.tokens == len(gpt2.encode_ordinary(chunk.text)) <= 16 for chunk in cut)
    assert "".join("".join(chunk.text.split()) for chunk in cut) == "".join(text.split())


def test_lone_surrogates_do_not_stop_it():
    cut = Chunker(16).split("a \udc80 b\n\n" * 50)
    assert "".join(chunk.text for chunk in cut).count("\udc80") == 50


@pytest.mark.parametrize("text", ["", " ", "\n\n\t\n", "\u00a0\u2028\n"])
def test_a_blank_text_has_no_chunk(text):
    assert Chunker(16).split(text) == []


# ---- locality

WORDS = [f"w{i}" for i in range(50)] + ["the", "of", "and", "to", "in", "a", "is", "that"]


def sentence(seed: random.Random, words: int) -> str:
    return " ".join(seed.choices(WORDS, k=words)).capitalize() + "."


def document(seed: random.Random) -> list[str]:
    """The blocks of a document with headings, lists, code, long and short paragraphs."""
    blocks = [f"# Title {seed.random()}"]
    for _ in range(seed.randrange(1, 25)):
        kind = seed.random()
        if kind < 0.25:
            blocks.append("#" * seed.randrange(2, 5) + " " + sentence(seed, 4))
        elif kind < 0.32:
            blocks.append("\n".join("- " + sentence(seed, 8) for _ in range(seed.randrange(2, 60))))
        elif kind < 0.40:
            blocks.append("```\n" + "\n".join(sentence(seed, 5) for _ in range(seed.randrange(1, 50))) + "\n```")
        elif kind < 0.45:
            blocks.append(" ".join(sentence(seed, 15) for _ in range(seed.randrange(1, 60))))
        else:
            blocks.append(sentence(seed, seed.randrange(5, 150)))
    return blocks


def lost_and_paid(chunker: Chunker, before: str, after: str, added: str) -> tuple[int, int]:
    """How many chunks of ``before`` are gone, and the tokens to embed beyond what was added."""
    old, new = {chunk.text for chunk in chunker.split(before)}, chunker.split(after)
    paid = sum(chunk.tokens for chunk in new if chunk.text not in old)
    return len(old - {chunk.text for chunk in new}), paid - chunker.count(added)


@pytest.mark.parametrize("where", ["top", "middle"])
def test_a_new_paragraph_changes_the_chunks_it_touches(where):
    chunker, losses = Chunker(400), []
    for number in range(150):
        seed = random.Random(number)
        blocks, added = document(seed), sentence(seed, seed.choice([5, 30, 100, 200]))
        at = 0 if where == "top" else len(blocks) // 2
        after = "\n\n".join([*blocks[:at], added, *blocks[at:]])
        lost, paid = lost_and_paid(chunker, "\n\n".join(blocks), after, added)
        assert paid <= 2.5 * 400
        losses.append(lost)
    assert max(losses) <= (2 if where == "top" else 4)
    assert sum(lost > 1 for lost in losses) <= 15


def test_a_new_paragraph_on_top_of_real_documents_changes_one_or_two_chunks():
    chunker, losses, chunked = Chunker(400), [], 0
    for text in readmes():
        added = "A paragraph that was not there before.\n\n"
        losses.append(lost_and_paid(chunker, text, added + text, added)[0])
        chunked += len(chunker.split(text))
    assert sum(lost > 2 for lost in losses) <= len(losses) // 50
    assert sum(losses) < chunked / 4


def test_a_long_section_without_headings_falls_into_step_again():
    seed = random.Random(7)
    blocks = [sentence(seed, 60) for _ in range(300)]
    before, after = "\n\n".join(blocks), "\n\n".join(["New.", *blocks[:100], *blocks[101:]])
    chunker = Chunker(400)
    lost, paid = lost_and_paid(chunker, before, after, "New.")
    assert len(chunker.split(before)) > 50 and lost <= 4 and paid <= 4 * 400


def test_a_long_line_falls_into_step_at_a_sentence():
    seed = random.Random(8)
    sentences = [sentence(seed, 20) for _ in range(1000)]
    lost, paid = lost_and_paid(Chunker(400), " ".join(sentences), " ".join(["New here.", *sentences]), "New here.")
    assert lost <= 2 and paid <= 2 * 400


# ---- Markdown

SECTIONED = "\n\n".join(
    ["# Guide #", "Intro.", "## Setup", "Word " * 30, "### Linux", "Word " * 25, "Setext", "------", "Word " * 30]
).replace("Setext\n\n", "Setext\n")


def headings(text: str, limit: int) -> list[tuple[str, str]]:
    return [(chunk.heading, chunk.text.split("\n")[0]) for chunk in Chunker(limit).split(text)]


def test_a_text_is_cut_at_headings_and_a_chunk_knows_what_it_stands_under():
    assert headings(SECTIONED, 50) == [
        ("Guide", "# Guide #"), ("Guide > Setup > Linux", "### Linux"), ("Guide > Setext", "Setext")
    ]  # fmt: skip
    assert headings(SECTIONED, 400) == [("Guide", "# Guide #")]


def test_small_sections_under_one_parent_stay_together():
    text = "# T\n\n" + "".join(
        f"## P{p}\n\n" + "".join(f"### S{s}\n\nWord word.\n\n" for s in range(4)) for p in range(4)
    )
    assert headings(text, 40) == [("T", "# T"), ("T > P1", "## P1"), ("T > P2", "## P2"), ("T > P3", "## P3")]


@pytest.mark.parametrize(
    ("text", "seams"),
    [
        ("```\n# no\n\n# no\n```\n\n# yes", [7, 1]),
        ("~~~ md\n```\n# no\n~~~\n# yes", [7, 1]),
        ("````\n```\n# no\n````\n# yes", [7, 1]),
        ("```inline``` code\n# yes", [7, 1]),
        ("- item\n\n      ```\n      x\n\n# no\n      ```\n# yes", [7, 7, 1]),
        ("```\nnever closed\n\n# no", [7]),
        ("    # no, code\n\n   # yes", [7, 1]),
        ("#no\n\n#\n\n####### no", [7, 1]),  # a lone # is an empty heading; what is below it stays with it
        ("Set\n===\n\next\n---\ntext", [1, 2]),
        ("text\nmore\n---\n\n- item\n---\n\n| a |\n---\n\n***\n---", [7, 7, 7, 7]),
        ("---\ntitle: x\n# no\n---\n# yes", [7, 1]),
        ("---\n\nA rule.\n\n---\n\n# yes", [7, 7, 7, 1]),
        ("# A\n\n\n  \ntext\n\nmore", [1, 7]),
        ("\n\n  \ntext", [7]),
    ],
)
def test_blocks(text, seams):
    assert [block.seam for block in find_blocks(text)] == seams


def test_front_matter_stays_in_one_piece_in_the_first_chunk():
    front = "---\ntitle: A\n\ntags: [b]\n---"
    cut = Chunker(40).split(front + "\n\n# A\n\n" + "Word " * 35 + "\n\n# B\n\n" + "Word " * 30)
    assert cut[0].text.startswith(front)
    assert Chunker(40).split(front + "\n# T\n\nText.")[0].heading == "T"


def test_a_heading_is_not_left_behind_by_its_text():
    text = "# T\n\n" + "Word " * 30 + "\n\n## Long\n\n" + " ".join(f"Sentence {i} is here." for i in range(60))
    cut = Chunker(40).split(text)
    assert all(not chunk.text.splitlines()[-1].startswith("#") for chunk in cut)
    assert {chunk.heading for chunk in cut} == {"T", "T > Long"}


def test_a_huge_heading_does_not_become_a_huge_breadcrumb():
    (first, *_) = Chunker(400).split("# " + "x" * 100_000 + "\n\ntext")
    assert len(first.heading) == MAX_TITLE


# ---- hostile input: the time is linear

HOSTILE = {
    "million tokens": lambda n: "ab" * n,
    "letters": lambda n: "a" * n,
    "base64": lambda n: "".join(random.Random(n).choices("ABCDEFGHabcdefgh0123456789+/", k=n)),
    "signs": lambda n: "=" * n,
    "text over a line of signs": lambda n: "x\n" + "-" * n,
    "hashes": lambda n: "#" * n,
    "spaces": lambda n: " " * n + "x",
    "heading of spaces": lambda n: "# " + " " * n + "x",
    "no-break spaces": lambda n: "\u00a0" * n + "\n",
    "empty lines": lambda n: "\n" * n + "x",
    "han": lambda n: "漢" * (n // 3),
    "emoji": lambda n: "😀" * (n // 4),
    "stops": lambda n: "." * n,
    "stops and quotes": lambda n: ("." + '"' * 99) * (n // 100),
    "fences": lambda n: "```\n" * (n // 4),
    "headings": lambda n: "# h\n" * (n // 4),
    "equal lines": lambda n: "same line\n" * (n // 10),
    "equal pairs of lines": lambda n: "this\nthat\n" * (n // 10),
    "front matter without an end": lambda n: "---\nk: v\n" + "x\n" * (n // 2),
}


@pytest.mark.timeout(60)  # what is not linear takes many minutes
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_input_is_cut_in_linear_time(kind):
    text = HOSTILE[kind](400_000)
    cut = Chunker(400).split(text)
    assert all(chunk.tokens <= 400 for chunk in cut)
    assert "".join("".join(chunk.text.split()) for chunk in cut) == "".join(text.split())
    assert all(chunk.tokens == count(chunk.text) for chunk in random.Random(1).sample(cut, min(20, len(cut))))


@pytest.mark.timeout(60)
def test_a_line_of_a_million_tokens_takes_seconds():
    text = "ab" * 2_100_000
    cut = Chunker(400).split(text)
    assert sum(chunk.tokens for chunk in cut) > 1_000_000 and max(chunk.tokens for chunk in cut) <= 400
    assert "".join(chunk.text for chunk in cut) == text


# ---- identity and encodings


def test_the_id_names_version_and_parameters():
    assert Chunker(400).id == "md1-400-cl100k_base"
    assert Chunker(16, "o200k_base").id == f"{chunks.VERSION}-16-o200k_base"


def test_where_a_text_is_cut_is_part_of_the_version():
    """Golden: when this changes, raise VERSION, or stores keep vectors of chunks that no longer exist."""
    seed = random.Random(3)
    text = "\n\n".join(block for _ in range(3) for block in document(seed))
    cut = Chunker(200).split(text)
    assert chunks.VERSION == "md1"
    assert (len(cut), [chunk.tokens for chunk in cut[:10]], zlib.crc32(repr(cut).encode())) == GOLDEN


GOLDEN = (87, [180, 110, 59, 84, 148, 112, 171, 87, 146, 90], 786851551)


@pytest.mark.parametrize("limit", [15, 0, -1])
def test_a_limit_too_small_is_refused(limit):
    with pytest.raises(ConfigurationError, match="below 16"):
        Chunker(limit)


def isolated(script: str, tmp_path: Path) -> str:
    """The output of a process that has no network, and no encoding that was downloaded before."""
    fence = "import socket\ndef no(*a, **k): raise OSError('off')\nsocket.socket.connect = socket.getaddrinfo = no\n"
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", fence + script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_default_encoding_needs_no_network(tmp_path):
    script = (
        "from vectorstore.documents.chunks import Chunker;"
        " print(Chunker(16).count('hello world'), Chunker(16).split('a b'))"
    )
    assert isolated(script, tmp_path) == "2 [Chunk(text='a b', heading='', tokens=2)]"


def test_an_encoding_that_can_not_be_had_says_what_to_do(tmp_path):
    script = """
from vectorstore.documents.chunks import Chunker
from vectorstore.errors import ConfigurationError
try: Chunker(16, "o200k_base").split("a")
except ConfigurationError as error: print(error.message, "|", error.hint)
"""
    message, hint = isolated(script, tmp_path).split(" | ")
    assert message.startswith("encoding: o200k_base can't be loaded") and "TIKTOKEN_CACHE_DIR" in hint


def test_an_unknown_encoding_is_refused_with_the_choices():
    with pytest.raises(ConfigurationError, match="'cl200k' is unknown") as caught:
        Chunker(16, "cl200k").split("a")
    assert "cl100k_base" in caught.value.hint and "_offline" not in caught.value.hint


def test_tiktoken_is_imported_when_the_first_text_is_cut():
    script = "import sys, vectorstore.documents.chunks as c; c.Chunker(400).id; print('tiktoken' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "False"
