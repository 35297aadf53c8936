"""Chroma on real damaged stores, asked through `probe`: whatever it does is found, and this process lives."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import psutil
import pytest
from chromadb.config import Settings

import vectorstore.chroma.probe as probe_module
import vectorstore.chroma.probe_process as probe_process
from tests.support.chroma_helpers import (
    DIMENSION,
    create,
    digests,
    file_limit,
    fill,
    make_ids,
    open_client,
    unit_vectors,
)
from tests.vectorstore.test_chroma_files import (
    DAMAGES,
    DELETED,
    HALF_A_TRANSACTION,
    HEALTHY,
    VECTORS,
    cut,
    execute,
    segment,
    write_at,
)
from vectorstore.chroma import files, hnsw
from vectorstore.chroma.fingerprint import SQLITE_NAME
from vectorstore.chroma.probe import ProbeResult, judge, probe
from vectorstore.chroma.probe_child import some_ids
from vectorstore.chroma.probe_copy import OWNER, PREFIX, Changed, NotCopied, copy_sparse, copy_store, throwaway_folder
from vectorstore.chroma.probe_process import ChildEnd

ROOT = Path(__file__).parents[2]
COUNTS = {"empty": 0, "other": 100, "pages": len(VECTORS) - DELETED}
ASKED = {"empty": 0, "other": 5, "pages": 5}
# Three slots fewer than there are: the next vector goes where links lead already, and Chroma waits for its own lock.
DEADLOCK = write_at("header.bin", 20, b"\x29")


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 vectors in the index, 50 in the queue, 10 deleted; a second collection, all in the index; a third, empty."""
    store = tmp_path_factory.mktemp("pristine") / "chroma"
    with open_client(store) as client:
        pages = create(client, "pages")
        fill(pages, VECTORS)
        pages.delete(ids=make_ids(DELETED))
        fill(create(client, "other"), unit_vectors(100, seed=2))
        create(client, "empty")
    return store


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "chroma"))


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for copies; each test must leave it empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two tries."""
    monkeypatch.setattr(probe_module, "PAUSE_S", 0)


# --- healthy stores ---


def test_a_healthy_store_answers_and_keeps_every_byte(store: Path, scratch: Path) -> None:
    before = digests(store)
    found = probe(store, scratch=scratch)
    assert (found.ok, found.outcome, found.collection) == (True, "answered", ""), found
    assert found.counts == COUNTS and found.asked == found.answered == ASKED
    assert digests(store) == before


@pytest.mark.slow
@pytest.mark.parametrize("build", HEALTHY, ids=lambda build: build.__name__.strip("<>"))
def test_no_false_alarm(build: Callable[[Any], None], tmp_path: Path, scratch: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        build(client)
    found = probe(tmp_path / "chroma", scratch=scratch, sample=20)
    assert found.ok and found.answered == found.asked, found


_READER = """
import sys
from pathlib import Path
from tests.support.chroma_helpers import open_client, unit_vectors
with open_client(Path(sys.argv[1])) as client:
    while True:
        answer = client.get_collection("pages").query(query_embeddings=unit_vectors(1), n_results=3)
        print(len(answer["ids"][0]), flush=True)
        if not sys.stdin.readline():
            break
"""


def test_a_reader_in_another_process_is_no_hindrance(store: Path, scratch: Path) -> None:
    command = [sys.executable, "-c", _READER, str(store)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout and reader.stdin
        assert reader.stdout.readline() == "3\n"
        before = digests(store)
        assert probe(store, scratch=scratch).ok
        assert digests(store) == before
        reader.stdin.write("once more\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "3\n"


def test_a_journal_left_behind_is_no_damage(store: Path, scratch: Path) -> None:
    command = [sys.executable, "-c", HALF_A_TRANSACTION, str(files.sqlite_path(store))]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    before = digests(store)
    assert f"{SQLITE_NAME}-journal" in before
    found = probe(store, scratch=scratch)
    assert found.ok and found.counts == COUNTS
    assert digests(store) == before


def odd_vectors(client: Any) -> None:
    """Vectors that can't be first among their own neighbours."""
    same = create(client, "same")
    fill(same, np.repeat(VECTORS[:1], 200, axis=0))
    long = create(client, "long", space="ip")
    fill(long, VECTORS[:150] * np.linspace(0.1, 50, 150, dtype=np.float32)[:, None])
    fill(create(client, "zero", space="cosine"), np.zeros((120, DIMENSION), np.float32))


def test_equal_long_and_zero_vectors_are_found(tmp_path: Path, scratch: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        odd_vectors(client)
    found = probe(tmp_path / "chroma", scratch=scratch, sample=20)
    assert found.ok and found.answered == {"same": 20, "long": 20, "zero": 20}, found


def test_other_databases_are_asked_too(store: Path, scratch: Path) -> None:
    options = Settings(anonymized_telemetry=False, is_persistent=True, persist_directory=str(store))
    with open_client(store):
        chromadb.AdminClient(options).create_database("second")
        client = chromadb.PersistentClient(str(store), database="second", settings=options)
        fill(create(client, "elsewhere"), VECTORS[:120])
    found = probe(store, scratch=scratch)
    assert found.ok and found.counts == COUNTS | {"elsewhere": 120}


@pytest.mark.slow
def test_many_collections_with_few_open_files(tmp_path: Path, scratch: Path) -> None:
    with open_client(tmp_path / "chroma") as client:
        for number in range(40):
            fill(create(client, f"docs-{number}", sync_threshold=20), VECTORS[:20], batch=20)
    script = (
        "import sys; from pathlib import Path; from vectorstore.chroma.probe import probe\n"
        "print(probe(Path(sys.argv[1])))"
    )
    limited = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh", sys.executable, "-c", script, str(tmp_path / "chroma")]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ProbeResult(ok=True") and "collections: 40" in done.stdout, done


# --- what it asks, and of which collections ---


def test_only_the_collections_named_are_copied_and_asked(store: Path, scratch: Path, tmp_path: Path) -> None:
    DAMAGES["header entry point"][0](store)
    found = probe(store, collections=["other"], scratch=scratch)
    assert found.ok and found.counts == {"other": 100}
    copy = copy_store(store, tmp_path / "copy", ["other"])
    assert not (copy.path / segment(store).name).exists()
    assert {path.partition("/")[0] for path in digests(copy.path)} == {path.partition("/")[0] for path in copy.sizes}
    assert len({path.partition("/")[0] for path in copy.sizes}) == 2


def test_a_collection_that_is_not_there_is_said(store: Path, scratch: Path) -> None:
    found = probe(store, collections=["other", "nonsense"], scratch=scratch)
    assert (found.outcome, found.collection) == ("error", "nonsense") and "'nonsense'" in found.detail


def test_a_collection_that_chroma_does_not_list_is_said(store: Path, scratch: Path) -> None:
    execute("UPDATE collections SET database_id = 'lost' WHERE name = 'other'")(store)
    found = probe(store, scratch=scratch)
    assert (found.outcome, found.collection) == ("error", "other"), found


def test_the_sample_is_seeded_and_from_all_over(store: Path, tmp_path: Path) -> None:
    with open_client(store) as client:
        pages = client.get_collection("pages")
        samples = [some_ids(pages, 340, 5, random.Random(f"{seed}/pages")) for seed in (0, 0, 1, 2, 3, 4)]
    assert samples[0] == samples[1] != samples[2]
    rows = sorted(int(id_[-5:]) for sample in samples for id_ in sample)
    assert rows[0] < 100 and rows[-1] > 250 and len(set(rows)) > 20


def test_an_unknown_layout_is_copied_whole(store: Path, scratch: Path, tmp_path: Path) -> None:
    DAMAGES["newer migration"][0](store)
    (store / "extra" / "deep").mkdir(parents=True)
    (store / "extra" / "deep" / "file").write_text("new")
    found = probe(store, scratch=scratch, collections=["pages", "other"])
    assert found.ok and found.counts == {"pages": 340, "other": 100}, found
    assert digests(copy_store(store, tmp_path / "copy", ["pages"]).path) == digests(store)


def test_a_segment_that_leads_out_of_the_store_is_not_followed(
    store: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("mine")
    execute(f"UPDATE segments SET id = '{outside}' WHERE id = :v")(store)
    found = probe(store, scratch=scratch)
    assert not found.ok and (outside / "precious").read_text() == "mine"


# --- damaged stores: found, the collection named, this process alive, the store untouched ---


def grow_at_opening(store: Path) -> None:
    """A torn size in link_lists.bin, and more in the queue than the threshold: Chroma writes the index as it opens."""
    with open_client(store) as client:
        client.get_collection("pages").modify(configuration={"hnsw": {"sync_threshold": 10}})
    write_at("link_lists.bin", 3, b"\x07")(store)


def isolate_slots(store: Path) -> None:
    """No slot is linked to another: a search ends where it begins."""
    with files.open_snapshot(store) as db:
        other = next(each for each in files.list_collections(db, store) if each.name == "other")
    folder = store / other.vector_segment
    header = hnsw.read_header(folder, DIMENSION)
    with (folder / "data_level0.bin").open("r+b") as file:
        for slot in range(header.slots):
            file.seek(slot * header.slot_size)
            file.write(bytes(2))


FOUND: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "entry point": (
        DAMAGES["header entry point"][0],
        "crashed",
        "pages",
        "SIGSEGV while collection 'pages' was counted",
    ),
    "links": (DAMAGES["link out of range"][0], "crashed", "pages", "SIGSEGV while collection 'pages'"),
    "map cut": (cut("index_metadata.pickle", 0.7), "error", "pages", "InternalError: "),
    "map lacks ids": (DAMAGES["map missing"][0], "error", "pages", "Error finding id"),
    "folder missing": (DAMAGES["folder missing"][0], "error", "pages", "Error finding id"),
    "SQLite cut": (DAMAGES["SQLite cut"][0], "error", "", "malformed"),
    "SQLite no database": (DAMAGES["SQLite zeroed"][0], "error", "", "not a database"),
    "panic": (execute("UPDATE collections SET dimension = 'a'"), "error", "", "PanicException: "),
    "grows": (grow_at_opening, "grew", "pages", "grew to the limit while collection 'pages'"),
    "deadlock": (DEADLOCK, "hung", "pages", "no answer in time while collection 'pages' was counted"),
    "SQLite missing": (DAMAGES["SQLite missing"][0], "not_run", "", f"there is no {SQLITE_NAME}"),
}


@pytest.mark.parametrize("name", FOUND)
def test_damage_is_found(name: str, store: Path, scratch: Path) -> None:
    damage, outcome, collection, words = FOUND[name]
    damage(store)
    before = digests(store)
    found = probe(store, scratch=scratch, timeout_s=6 if outcome == "hung" else 120)
    assert (found.ok, found.outcome, found.collection) == (False, outcome, collection), found
    assert words in found.detail and "\n" not in found.detail and str(scratch) not in found.detail
    assert digests(store) == before


@pytest.mark.parametrize("name", ["header empty", "header half", "header zero", "header missing", "slots half"])
def test_a_torn_file_is_found(name: str, store: Path, scratch: Path) -> None:
    """Whatever it makes of Chroma: it was seen to crash and to raise on the same bytes."""
    DAMAGES[name][0](store)
    found = probe(store, scratch=scratch)
    assert not found.ok and found.outcome in ("crashed", "error") and found.collection == "pages"
    assert found.counts == {"empty": 0, "other": 100}


def test_what_a_search_does_not_find_is_counted(store: Path, scratch: Path) -> None:
    """Of an index whose lowest level has no links a search finds only where it begins."""
    isolate_slots(store)
    found = probe(store, scratch=scratch, sample=40)
    assert found.asked["other"] == 40 and found.answered["other"] < 20, found
    assert found.answered["pages"] == 40


# --- the child ---


def test_the_child_has_limits_and_no_secrets(store: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at from outside while it hangs; then it is killed by somebody else."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "VECTORKEEP_MODEL",
        "CHROMA_SERVER_HOST",
    ):
        monkeypatch.setenv(name, "secret-value")
    DEADLOCK(store)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(probe, store, scratch=scratch, timeout_s=60)
        child = hanging_child()
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert b"PYTHONPATH" in environment and b"secret" not in environment and b"OPENAI" not in environment
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
        assert os.readlink(f"/proc/{child.pid}/fd/0") == "/dev/null"
        assert child.nice() > psutil.Process().nice()
        limits = {which: child.rlimit(which)[0] for which in LIMITS}
        assert limits[resource.RLIMIT_FSIZE] == 64 << 20 and limits[resource.RLIMIT_CORE] == 0
        assert 0 < limits[resource.RLIMIT_CPU] < 3600
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "1000\n"
        child.kill()
        found = answer.result(timeout=30)
    assert found.outcome == "not_run" and "SIGKILL from elsewhere" in found.detail


LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_CPU)


def hanging_child() -> psutil.Process:
    """The probe's child, once Chroma waits for a lock in it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.1)
        for child in psutil.Process().children():
            if "vectorstore.chroma.probe_child" in child.cmdline() and child.num_threads() > 4:
                spent = sum(child.cpu_times()[:2])
                time.sleep(0.5)
                if sum(child.cpu_times()[:2]) == spent:
                    return child
    raise AssertionError("no child hangs")


@pytest.mark.slow
def test_memory_without_bound_is_stopped(store: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_process, "MEMORY_BASE", 0)
    monkeypatch.setattr(probe_process, "WATCH_S", 6)
    DEADLOCK(store)
    found = probe(store, scratch=scratch, timeout_s=60)
    assert found.outcome == "grew" and "memory grew to the limit" in found.detail


def test_nothing_is_said_of_a_store_that_chroma_had_no_time_to_open(store: Path, scratch: Path) -> None:
    found = probe(store, scratch=scratch, timeout_s=0.01)
    assert found.outcome == "not_run" and "did not start: it took too much time" in found.detail


# --- the copy ---


def test_no_room_for_a_copy(store: Path, scratch: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(scratch)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no permission to mount a small disk: {mounted.stderr.strip()}")
    try:
        found = probe(store, scratch=scratch)
        assert list(scratch.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(scratch)], check=True)
    assert found.outcome == "not_run" and f"are needed in {scratch}" in found.detail


@pytest.mark.parametrize("missing", ["store", "scratch"])
def test_missing_folders_are_said(missing: str, store: Path, scratch: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    found = probe(gone, scratch=scratch) if missing == "store" else probe(store, scratch=gone)
    assert found.outcome == "not_run" and str(gone) in found.detail and not gone.exists()


def test_holes_are_copied_as_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for offset in (0, 3 << 20, (3 << 20) + 5000, 70 << 20):
            file.seek(offset)
            file.write(os.urandom(9000))
        file.truncate(100 << 20)
    copy_sparse(source, target)
    assert target.stat().st_size == 100 << 20 and target.stat().st_blocks * 512 < 1 << 20
    with source.open("rb") as first, target.open("rb") as second:
        while part := first.read(16 << 20):
            assert second.read(16 << 20) == part


def test_a_file_grown_by_holes_takes_no_room(store: Path, tmp_path: Path) -> None:
    os.truncate(segment(store) / "link_lists.bin", 1 << 30)
    copy = copy_store(store, tmp_path / "copy", None)
    assert max(copy.sizes.values()) == 1 << 30
    taken = sum(path.stat().st_blocks * 512 for path in copy.path.rglob("*"))
    assert taken < 8 << 20 and sum(copy.on_disk.values()) < 8 << 20


def test_a_pipe_among_the_files_is_not_waited_for(store: Path, scratch: Path) -> None:
    (segment(store) / "header.bin").unlink()
    os.mkfifo(segment(store) / "header.bin")
    found = probe(store, scratch=scratch)
    assert (found.outcome, found.collection) == ("error", "pages")


_OWNER = """
import sys, time
from pathlib import Path
from vectorstore.chroma.probe_copy import throwaway_folder
with throwaway_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_kill_leaves_is_removed_a_day_later(scratch: Path, store: Path) -> None:
    """Not the folder of a probe that still runs, nor a young one, nor what is not the probe's."""
    killed, alive = (
        subprocess.Popen([sys.executable, "-c", _OWNER, str(scratch)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    try:
        left, held = (Path(owner.stdout.readline().strip()) for owner in (killed, alive) if owner.stdout)
        killed.kill()
        killed.wait()
        foreign = scratch / "documents"
        foreign.mkdir()
        assert probe(store, scratch=scratch).ok and left.exists()
        for folder in (left, held, foreign):
            os.utime(folder, (0, time.time() - 25 * 3600))
        assert probe(store, scratch=scratch).ok
        assert sorted(scratch.iterdir()) == sorted([foreign, held]) and (held / OWNER).exists()
    finally:
        for owner in (killed, alive):
            owner.kill()
            owner.communicate()
    shutil.rmtree(foreign)
    shutil.rmtree(held)


def test_the_folder_has_a_name_and_goes_when_something_is_raised(scratch: Path) -> None:
    with pytest.raises(KeyboardInterrupt), throwaway_folder(scratch) as folder:
        assert folder.parent == scratch and folder.name.startswith(PREFIX) and folder.stat().st_mode & 0o077 == 0
        raise KeyboardInterrupt


# --- beside a writer ---


@pytest.mark.usefixtures("at_once")
def test_a_bad_answer_is_not_believed_when_the_store_was_written_meanwhile(store: Path, scratch: Path) -> None:
    DAMAGES["header entry point"][0](store)
    with touching(files.sqlite_path(store), every_s=0.2):
        found = probe(store, scratch=scratch)
    assert found.outcome == "not_run" and "somebody wrote to the store" in found.detail
    assert probe(store, scratch=scratch).outcome == "crashed"


def test_a_copy_of_two_moments_is_noticed(store: Path, tmp_path: Path) -> None:
    for number in range(20):  # a copy between two touches is a good one
        with touching(files.sqlite_path(store), every_s=0):
            try:
                copy_store(store, tmp_path / f"copy-{number}", None)
            except Changed:
                break
    else:
        raise AssertionError("twenty copies beside somebody who never stops, and none was noticed")
    with pytest.raises(NotCopied):
        copy_store(tmp_path / "nowhere", tmp_path / "copy", None)


class touching:  # noqa: N801  reads like a verb
    """Somebody who writes to a file again and again."""

    def __init__(self, path: Path, every_s: float) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._touch, args=(path, every_s))

    def _touch(self, path: Path, every_s: float) -> None:
        while not self._stop.wait(every_s):
            path.touch()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("at_once")
def test_beside_a_writer_there_is_no_false_alarm(store: Path, scratch: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(store)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert writer.stdout
        writer.stdout.readline()
        seen = [probe(store, scratch=scratch) for _ in range(8)]
    finally:
        writer.kill()
        writer.communicate()
    assert {each.outcome for each in seen} <= {"answered", "not_run"}, seen


_WRITER = """
import sys
from itertools import count
from pathlib import Path
from tests.support.chroma_helpers import fill, open_client, unit_vectors
with open_client(Path(sys.argv[1])) as client:
    for turn in count():
        fill(client.get_collection("pages"), unit_vectors(40, seed=turn), start=40 * (turn % 20), batch=40)
        print(turn, flush=True)
"""


# --- the judge, by golden cases ---

AT: list[dict[str, Any]] = [{"at": "open"}, {"at": "count", "collection": "docs"}]
ANSWER: dict[str, Any] = {"answer": "docs", "count": 9, "asked": 5, "answered": 4}
DONE: dict[str, Any] = {"done": True}
QUIET = ChildEnd(lines=AT, code=0, stopped="", grown=[], growth=0, complaint="")
FULL: dict[str, Any] = {"error": "InternalError: error returned from database: (code: 13) database or disk is full"}

GOLDEN: list[tuple[ChildEnd, str, str]] = [
    (replace(QUIET, lines=[*AT, ANSWER, DONE]), "answered", "vectors found: 4 of 5"),
    (replace(QUIET, lines=[*AT, ANSWER, DONE], code=-signal.SIGSEGV), "answered", "vectors found: 4 of 5"),
    (replace(QUIET, lines=[*AT, ANSWER | {"answered": 0}, DONE]), "error", "'docs' found none of 5"),
    (replace(QUIET, code=-signal.SIGSEGV), "crashed", "SIGSEGV while collection 'docs' was counted"),
    (replace(QUIET, code=-signal.SIGABRT), "crashed", "SIGABRT while"),
    (replace(QUIET, code=-signal.SIGBUS), "crashed", "SIGBUS while"),
    (replace(QUIET, code=3), "crashed", "exit code 3 while"),
    (replace(QUIET, code=-signal.SIGXFSZ), "grew", "a file grew to the limit"),
    (replace(QUIET, code=-signal.SIGKILL, stopped="time", grown=["a/link_lists.bin"]), "grew", "a/link_lists.bin grew"),
    (replace(QUIET, lines=[*AT, FULL], growth=1 << 30), "grew", "disk is full"),
    (replace(QUIET, lines=[*AT, FULL], growth=1 << 20), "not_run", "disk is full"),
    (replace(QUIET, code=-signal.SIGKILL, stopped="time"), "hung", "no answer in time while collection 'docs'"),
    (
        replace(QUIET, code=-signal.SIGKILL, stopped="memory"),
        "grew",
        "memory grew to the limit while collection 'docs'",
    ),
    (replace(QUIET, code=-signal.SIGXCPU), "hung", "no answer in time"),
    (replace(QUIET, code=-signal.SIGALRM), "hung", "no answer in time"),
    (replace(QUIET, code=-signal.SIGKILL), "not_run", "SIGKILL from elsewhere"),
    (replace(QUIET, lines=[*AT, {"error": "ValueError: two\nlines"}]), "error", "was counted: ValueError: two lines"),
    (replace(QUIET, lines=[{"error": "ModuleNotFoundError: chromadb"}]), "not_run", "ModuleNotFoundError: chromadb"),
    (replace(QUIET, lines=[], code=1, complaint="Traceback\nImportError: x\n"), "not_run", "start: ImportError: x"),
    (replace(QUIET, lines=[], code=1), "not_run", "did not start: exit code 1"),
]


@pytest.mark.parametrize(("end", "outcome", "words"), GOLDEN)
def test_what_the_end_of_the_child_says(end: ChildEnd, outcome: str, words: str) -> None:
    found = judge(end, ["docs"])
    assert found.outcome == outcome and words in found.detail, found
    assert isinstance(found, ProbeResult) and found.ok == (outcome == "answered")
