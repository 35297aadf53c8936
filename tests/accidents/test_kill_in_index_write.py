"""SIGKILL inside Chroma's index write, forty times over: found before Chroma opens the store, and mended.

A writer process is watched until it begins to persist its index, and killed a little later; the delay steps
through the time that a persist takes. `Writer` is all that knows which process is killed and what it has
acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from tests.accidents.index_mender import mend, mend_limited
from tests.accidents.index_writer import Operations, all_vectors, apply, row_ids, write
from tests.support.chroma_helpers import create, file_limit, open_client
from tests.support.forked import FORKS, Forked
from tests.support.workbench import limit_files
from vectorstore.chroma import files
from vectorstore.chroma.audit import Remedy, audit

KILLS, NEEDED_HITS = 40, 10
BASE = 2_000
SYNC_THRESHOLD = 500
LARGEST_FILE = 64 << 20
# A persist of new rows alone, and one that changes and deletes rows of the index as well.
SCRIPTS: list[Operations] = [
    [("upsert", BASE, BASE + 500), ("upsert", BASE + 500, BASE + 1_000)],
    [("delete", 0, 200), ("upsert", 200, 400), ("upsert", BASE, BASE + 500), ("upsert", 0, 150)],
]


class Writer:
    """The process to kill."""

    def __init__(self, store: Path, operations: Operations) -> None:
        self._said, there = FORKS.Pipe(duplex=False)
        self.process = Forked(target=write, args=(store, operations, there))
        self.process.start()
        there.close()

    def kill(self) -> int:
        """Kill at once; returns how many operations were acknowledged before."""
        self.process.kill()
        self.process.join(30)
        done = 0
        with contextlib.suppress(EOFError):
            while self._said.recv():
                done += 1
        return done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with file_limit():
        store = tmp_path_factory.mktemp("base") / "chroma"
        with open_client(store) as client:
            collection = create(client, "pages", sync_threshold=SYNC_THRESHOLD)
            for first in range(0, BASE, SYNC_THRESHOLD):
                apply(collection, all_vectors(), "upsert", first, first + SYNC_THRESHOLD)
        yield store


@pytest.fixture(scope="module")
def opener() -> Iterator[ProcessPoolExecutor]:
    """Whatever opens a store that was killed does so in a process of its own: it may crash."""
    with ProcessPoolExecutor(1, mp_context=FORKS, initializer=limit_files) as pool:
        yield pool


def segment(store: Path) -> Path:
    with files.open_snapshot(store) as db:
        return store / files.list_collections(db, store)[0].vector_segment


def wait_for_persist(folder: Path, process: BaseProcess, timeout: float = 30.0) -> None:
    """Return as soon as the header, which a persist writes first, is touched."""
    header = folder / "header.bin"
    before = header.stat().st_mtime_ns
    end = time.monotonic() + timeout
    while os.stat(header).st_mtime_ns == before:
        assert process.is_alive() and time.monotonic() < end, "the writer never began to persist"
        time.sleep(0.000_2)  # the writer and the check of the kill before need both cores


def wait_for_map(folder: Path, before: int) -> None:
    """Return when the id map, which a persist writes last, has stood still for 20 ms."""
    path = folder / "index_metadata.pickle"
    end = time.monotonic() + 10
    while time.monotonic() < end:
        status = path.stat()
        if status.st_mtime_ns != before and time.time_ns() - status.st_mtime_ns > 20_000_000:
            return


def measure_persist(base: Path, folder: Path, operations: Operations) -> float:
    """Seconds from the first touch of the header to the last of the id map, in a writer left alone."""
    store = Path(shutil.copytree(base, folder / "timed"))
    index = segment(store)
    before = (index / "index_metadata.pickle").stat().st_mtime_ns
    writer = Writer(store, operations)
    wait_for_persist(index, writer.process)
    start = time.time_ns()
    wait_for_map(index, before)
    end = (index / "index_metadata.pickle").stat().st_mtime_ns
    writer.kill()
    return (end - start) / 1e9


def kill_at(store: Path, operations: Operations, delay: float) -> int:
    index = segment(store)
    writer = Writer(store, operations)
    wait_for_persist(index, writer.process)
    end = time.perf_counter() + delay
    while time.perf_counter() < end:
        pass
    return writer.kill()


def rows_after(operations: Operations, done: int) -> tuple[set[int], set[int]]:
    """Rows due after `done` acknowledged operations, and rows that the next one leaves open."""
    rows = set(range(BASE))
    for verb, first, last in operations[:done]:
        rows = rows - set(range(first, last)) if verb == "delete" else rows | set(range(first, last))
    unsettled = set(range(*operations[done][1:])) if done < len(operations) else set()
    return rows - unsettled, unsettled


def mend_and_read(store: Path, aside: Path) -> tuple[dict[str, bytes], list[str], bool]:
    """Audit, repair, and only then read with Chroma: the vectors, the damages, whether the index was torn."""
    vectors = dict(zip(row_ids(0, len(all_vectors())), all_vectors(), strict=True))
    found = audit(store)
    if found:
        mend(store, aside)
    read: dict[str, bytes] = {}
    with open_client(store) as client:
        collection = client.get_collection("pages")
        ids = collection.get(include=[])["ids"]
        for first in range(0, len(ids), 2_000):
            page = collection.get(ids=ids[first : first + 2_000], include=["embeddings", "metadatas", "documents"])
            rows = zip(page["ids"], page["embeddings"], page["metadatas"], page["documents"], strict=True)
            for identifier, vector, metadata, document in rows:
                assert metadata == {"id": identifier} and document == f"text of {identifier}"
                read[identifier] = np.asarray(vector, np.float32).tobytes()
        some = ids[::100]
        answers = collection.query(query_embeddings=[vectors[key] for key in some], n_results=1)["ids"]
        assert sum(answer[0] == key for answer, key in zip(answers, some, strict=True)) >= 0.9 * len(some)
        # The store must take writes as well, past a persist of its own.
        collection.upsert(ids=ids[:SYNC_THRESHOLD], embeddings=[vectors[key] for key in ids[:SYNC_THRESHOLD]])
    assert audit(store) == []
    return read, [damage.kind.value for damage in found], any(d.remedy is Remedy.REBUILD for d in found)


@dataclass(frozen=True)
class Check:
    """A killed store whose repair and reading are under way."""

    store: Path
    operations: Operations
    done: int
    answer: Future[tuple[dict[str, bytes], list[str], bool]]

    def finish(self) -> tuple[list[str], bool]:
        """Hold what Chroma answers against what was acknowledged; returns the damages, and whether torn."""
        read, kinds, hit = self.answer.result(timeout=60)
        vectors = all_vectors()
        ids = dict(zip(row_ids(0, len(vectors)), range(len(vectors)), strict=True))
        due, unsettled = rows_after(self.operations, self.done)
        assert {ids[key] for key in read} - unsettled == due, f"{self.store.name}: {kinds}"
        assert all(read[key] == vectors[ids[key]].tobytes() for key in read), f"{self.store.name}: {kinds}"
        assert max(path.stat().st_size for path in self.store.rglob("*")) < LARGEST_FILE
        shutil.rmtree(self.store)
        return kinds, hit


def kill_repair(store: Path, aside: Path, delay: float) -> bool:
    """Kill a repair `delay` seconds after it moved the index away; returns whether it was still at work."""
    index = segment(store)
    process = Forked(target=mend_limited, args=(store, aside))
    process.start()
    end = time.monotonic() + 30
    while not aside.exists() or not index.exists():
        assert process.is_alive() and time.monotonic() < end, "the repair never began a new index"
    time.sleep(delay)
    process.kill()
    process.join(30)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killed_repair_is_repaired(base: Path, opener: ProcessPoolExecutor, tmp_path: Path) -> None:
    """A killed repair, and the killed repair of that, leave a store that the next repair mends."""
    vectors, killed = all_vectors(), 0
    store, aside = Path(shutil.copytree(base, tmp_path / "chroma")), tmp_path / "aside"
    (segment(store) / "length.bin").unlink()
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3):
        shutil.rmtree(aside, ignore_errors=True)
        killed += kill_repair(store, aside, delay)
        assert all(damage.remedy is not Remedy.RESTORE for damage in audit(store))
        # Nothing of the repair so far may be of use to the next one, for the next kill to hit one as long.
        shutil.rmtree(segment(store), ignore_errors=True)
        segment(store).mkdir()
        (segment(store) / "header.bin").touch()
    assert killed >= 2, "the repairs were over before the kill"
    read, _, _ = opener.submit(mend_and_read, store, aside).result(timeout=60)
    assert read == {key: row.tobytes() for key, row in zip(row_ids(0, BASE), vectors[:BASE], strict=True)}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_forty_kills_inside_a_persist(base: Path, opener: ProcessPoolExecutor, tmp_path: Path) -> None:
    """Every acknowledged row answers with its very vector, and no file outgrows its due."""
    durations = [measure_persist(base, tmp_path / str(n), script) for n, script in enumerate(SCRIPTS)]
    seen: Counter[str] = Counter()
    hits = 0
    # The check of one kill runs while the next writer starts.
    checks: deque[Check] = deque()
    for kill in range(KILLS):
        operations, duration = SCRIPTS[kill % 2], durations[kill % 2]
        store = Path(shutil.copytree(base, tmp_path / f"kill-{kill}"))
        done = kill_at(store, operations, duration * kill / KILLS)
        answer = opener.submit(mend_and_read, store, tmp_path / f"aside-{kill}")
        checks.append(Check(store, operations, done, answer))
        while len(checks) > (1 if kill < KILLS - 1 else 0):
            kinds, hit = checks.popleft().finish()
            hits += hit
            seen.update(kinds or ["sound"])
    print(f"\n{hits} of {KILLS} kills tore the index; persist {durations} s; {dict(seen)}")
    assert hits >= NEEDED_HITS, f"only {hits} of {KILLS} kills hit: the test did not aim ({dict(seen)})"
