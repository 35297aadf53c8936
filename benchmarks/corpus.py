"""Markdown corpora from a seed, and seeded changes to them.

``python -m benchmarks.corpus ROOT --files 20000`` writes one; the same arguments always write the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random

REFERENCE_FOLDERS = 341
REFERENCE_FILES = 278_778
REFERENCE_MEAN = 4_200  # bytes: 1.17 GB in 278,778 files
SPREAD = 1.1  # sigma of the log-normal sizes: many short pages, few very long ones
# Before any run: a file that was written in the second of its scan would be a special case for the tools under test.
EPOCH_NS = 1_700_000_000 * 10**9

_WORD_LIST = """
a access action actor add after all an and any app apply array as async at attribute available be before behavior
binding body bool button by call can case change check child class close closure code collection color completion
configure container content context convert create current custom data date declare default define delegate describe
detail device dictionary disable display document double each element enable encode end ensure error event example
expression extension file first float for format frame from function generic get group handle has hash height how if
image import in index init input instance integer interface into is item iterate key kind label last layout length
level library line list listen load local main make manage map match method model modifier module move name new next
node not notify null number object of on open operation option or order output parameter parent pass path perform
platform point position present print private process property protocol provide public queue range read receive
record reference register release remove render replace request require reset resource response result return root
row run scene schedule scope section see select send sequence set shape share show signal size sort source span stack
start state static status step stop store stream string structure style submit subscribe support sync system table
task test text that the thread throw time title to token track transform tree true type union until update use user
using value variable vector version view visible wait when where which width window with without work wrap write you
"""
WORDS = _WORD_LIST.split()


@dataclass(frozen=True)
class Corpus:
    """What was asked for; ``sizes`` is ``note`` (~200 bytes), ``chunk`` (~800: one chunk each) or ``reference``."""

    root: str
    files: int
    folders: int
    sizes: str = "chunk"
    seed: int = 1


@dataclass(frozen=True)
class Mutation:
    """The document keys that ``mutate`` touched."""

    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    added: tuple[str, ...]


def folders_for(files: int) -> int:
    """As many files a folder as the reference user keeps, at least two folders."""
    return max(2, min(REFERENCE_FOLDERS, round(files * REFERENCE_FOLDERS / REFERENCE_FILES)))


def make(root: str, files: int, *, folders: int = 0, sizes: str = "chunk", seed: int = 1) -> Corpus:
    """Write a corpus into ``root``, which must not hold one yet."""
    corpus = Corpus(root, files, folders or folders_for(files), sizes, seed)
    for folder in range(corpus.folders):
        os.makedirs(os.path.join(root, _folder(folder)))
    writer = _Writer(seed, sizes)
    for number in range(files):
        path = os.path.join(root, _key(number, corpus.folders))
        _write(path, writer.page(number))
        os.utime(path, ns=(EPOCH_NS, EPOCH_NS + number * 1000))
    return corpus


def mutate(corpus: Corpus, *, changed: float, deleted: float, added: float, seed: int = 2) -> Mutation:
    """Rewrite, delete and add shares of the corpus's files (0.01 is one in a hundred)."""
    changes, deletes, adds = (round(corpus.files * share) for share in (changed, deleted, added))
    picked = Random(seed).sample(range(corpus.files), changes + deletes)
    new = range(corpus.files, corpus.files + adds)
    writer = _Writer(corpus.seed * 1_000_003 + seed, corpus.sizes)
    for number in (*picked[:changes], *new):
        _write(os.path.join(corpus.root, _key(number, corpus.folders)), writer.page(number))
    for number in picked[changes:]:
        os.unlink(os.path.join(corpus.root, _key(number, corpus.folders)))
    groups = (picked[:changes], picked[changes:], new)
    return Mutation(*(tuple(_key(number, corpus.folders) for number in group) for group in groups))


def documents(root: str) -> Iterator[tuple[str, str]]:
    """Every document's key and text, in the order of the keys."""
    for folder in sorted(os.listdir(root)):
        for name in sorted(os.listdir(os.path.join(root, folder))):
            key = f"{folder}/{name}"
            yield key, read(root, key)


def read(root: str, key: str) -> str:
    """One document's text."""
    with open(os.path.join(root, key), encoding="utf-8") as file:
        return file.read()


class _Writer:
    """Pages out of a pool of sentences: choosing whole sentences keeps 280,000 pages below a minute."""

    def __init__(self, seed: int, sizes: str) -> None:
        self.random = Random(seed)
        self.sizes = sizes
        self.sentences = [self._sentence() for _ in range(5_000)]
        self.code = [self._code() for _ in range(500)]

    def page(self, number: int) -> str:
        """A page of about the wanted size; its title makes it unlike every other."""
        target = self._size()
        parts = [f"# Page {number}: {' '.join(self.random.choices(WORDS, k=4))}"]
        length = len(parts[0])
        while length < target:
            part = self._part(len(parts))
            parts.append(part[: max(40, target - length)] if self.sizes != "reference" else part)
            length += len(parts[-1]) + 2
        return "\n\n".join(parts) + "\n"

    def _size(self) -> int:
        if self.sizes == "note":
            return self.random.randrange(120, 280)
        if self.sizes == "chunk":
            return self.random.randrange(650, 950)
        mean = REFERENCE_MEAN - 95  # a page ends with a whole part, on average that much past its target
        size = self.random.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD)
        return int(min(max(size, 200), 200_000))

    def _part(self, position: int) -> str:
        if position % 5 == 0:
            return "## " + " ".join(self.random.choices(WORDS, k=3)).capitalize()
        if position % 5 == 4 and self.sizes == "reference":
            return self.random.choice(self.code)
        return " ".join(self.random.choices(self.sentences, k=3))

    def _sentence(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randrange(8, 18))).capitalize() + "."

    def _code(self) -> str:
        a, b, c, d = self.random.choices(WORDS, k=4)
        return f"```swift\nfunc {a}{b.title()}(_ {c}: String) -> Int {{\n    return {d}({c})\n}}\n```"


def _folder(folder: int) -> str:
    return f"framework-{folder:03d}"


def _key(number: int, folders: int) -> str:
    return f"{_folder(number % folders)}/page-{number:06d}.md"


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--sizes", choices=("note", "chunk", "reference"), default="chunk")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(asdict(make(given.root, given.files, sizes=given.sizes, seed=given.seed))))


if __name__ == "__main__":
    main()
