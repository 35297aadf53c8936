"""What a portable backup takes: memory follows the page, not the rows; and a quarter of the store's disk at most."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.portable import export_store, opened
from vectorstore.chroma.store import Rows

ROOT = Path(__file__).parents[2]
EXPORT = """
import sys
from collections.abc import Iterator
from pathlib import Path
import numpy as np
import pyarrow.parquet
from vectorstore.backups.portable import export, read_pages
from vectorstore.chroma.definition import Definition
from vectorstore.chroma.rows import Page, StoredCollection

rows, dimension, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng = np.random.default_rng(1)

class MadeUp:
    way = "api"  # its ids are sorted, too

    def definition(self, collection):
        return Definition({}, {"space": "ip"})

    def ids(self, collection):
        for start in range(0, rows, 1000):
            yield [f"guides/page-{n * 7919 % rows:07d}.md#00000" for n in range(start, min(start + 1000, rows))]

    def read(self, collection, ids, *, vectors=True):
        texts = [f"{id_} " + " ".join(map(str, rng.integers(0, 10**6, 110))) for id_ in ids]
        metadatas = [{"doc_key": id_[:-6], "chunk": 0, "heading": "A > B", "tokens": 200} for id_ in ids]
        found = rng.standard_normal((len(ids), dimension), np.float32)
        return Page(ids, texts, metadatas, found, np.ones(len(ids), bool))

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

before = peak()
done = export(MadeUp(), [StoredCollection("1", "made-up", None, dimension, "ip", rows)], folder)
written = peak()
assert sum(len(page.ids) for page in read_pages(folder, done.collections[0])) == rows
print(before, written, peak())
"""


def peaks(folder: Path, rows: int, dimension: int) -> tuple[float, float, float]:
    """MB before an export, after it, and after reading it."""
    folder.mkdir()
    command = [sys.executable, "-c", EXPORT, str(rows), str(dimension), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, written, read = map(float, done.stdout.split())
    return before, written, read


@pytest.mark.slow
def test_memory_follows_the_page(tmp_path: Path) -> None:
    small = peaks(tmp_path / "small", 10_000, 384)
    large = peaks(tmp_path / "large", 60_000, 384)
    wide = peaks(tmp_path / "wide", 5_000, 3072)
    assert large[1] < small[1] * 1.2 and large[2] < small[2] * 1.2, (small, large)
    assert max(large[2], wide[2]) < 200, (large, wide)


@pytest.mark.slow
def test_a_quarter_of_the_store_at_most(tmp_path: Path) -> None:
    """At 384 dimensions; the text is that of this project's own files, cut as chunks are."""
    import numpy as np

    text = "\n".join(path.read_text() for path in sorted(ROOT.glob("*/*.py")) + sorted(ROOT.glob("docs/*.md")))
    texts = [text[start : start + 825] for start in range(0, min(len(text), 825 * 4000), 825)]
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((len(texts), 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = [f"guides/topic-{n // 400}/page-{n // 4:05d}.md" for n in range(len(texts))]
    with opened(tmp_path) as store:
        store.prepare("docs", "a/b/384/c")
        ids = [f"{key}#{n % 4:05d}" for n, key in enumerate(keys)]
        metadatas = [
            {"doc_key": key, "chunk": n % 4, "heading": f"Page {n // 4}", "tokens": 200} for n, key in enumerate(keys)
        ]
        store.upsert("docs", Rows(ids, vectors, texts, metadatas))
    export_store(tmp_path / "chroma", tmp_path / "out")
    assert size(tmp_path / "out") < 0.25 * size(tmp_path / "chroma")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
