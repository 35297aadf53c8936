"""A workspace to have accidents in: documents, settings, real runs of the command line, and what is in the store.

Runs are processes of their own, forked from a server that has imported everything: a kill every second instead of
every third. ``Workspace.cli`` starts Python anew, as a person would.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support.bill import sha_of
from tests.support.forked import Forked
from tests.support.server_process import ServerProcess
from vectorstore.documents.chunks import Chunker
from vectorstore.reading import chunk_hash
from vectorstore.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
FILE_LIMIT = 2 << 30  # opening a store that was killed in its index write can grow a file without bound
KEEP = ("PATH", "HOME", "TMPDIR", "LANG", "TIKTOKEN_CACHE_DIR")

Row = tuple[bytes, str, str]  # vector, document, metadata as JSON
WORDS = [
    a + b + c
    for a in ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "ru")
    for b in ("lan", "mer", "nit", "por", "sud", "tal", "ven")
    for c in ("a", "e", "io", "um", "is")
]


def prose(seed: object, words: int = 9) -> str:
    """A sentence of its own for every seed."""
    rng = random.Random(str(seed))
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def document(seed: object, sections: int = 1) -> str:
    """Markdown with about one chunk of 64 tokens to a section."""
    parts = [f"## Part {n} of {seed}\n\n{prose((seed, n))}" for n in range(sections)]
    return f"# Title {seed}\n\n" + "\n\n".join(parts) + "\n"


class Result(NamedTuple):
    """A run that ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        return dict(json.loads(self.out))


class Run:
    """A run under way."""

    def __init__(self, workspace: Workspace, argv: list[str], cwd: Path, env: Mapping[str, str], die: str) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=workspace.root.parent, prefix="run-"))
        arguments = (argv, dict(env), str(cwd), str(self._folder), FILE_LIMIT, die)
        from tests.support.run_process import run

        self.process = Forked(target=run, args=arguments)
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> float:
        """SIGKILL; returns when (Unix seconds). Nothing of the process is left afterwards."""
        at = time.time()
        self.process.kill()
        self.process.join()
        return at

    def killed(self, timeout: float = 60) -> bool:
        """Wait for the end; whether it was a SIGKILL."""
        self.process.join(timeout)
        return self.process.exitcode == -signal.SIGKILL

    def signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 60) -> Result:
        """The end; a traceback is never one."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"no end after {timeout} s: {self._text('err')}")
        result = Result(self.process.exitcode or 0, self._text("out"), self._text("err"))
        assert "Traceback" not in result.err and "Exception in thread" not in result.err, result.err
        return result

    def _text(self, name: str) -> str:
        path = self._folder / name
        return path.read_text() if path.exists() else ""


class Workspace:
    """A workspace folder with documents in ``docs``.

    Args:
        root: the folder; made.
        server: the embeddings API; without one the ``hash`` embedder is used, which costs nothing.
        settings: over the small defaults.
    """

    def __init__(self, root: Path, server: ServerProcess | None = None, **settings: Any) -> None:
        self.root, self.server = root, server
        self.docs = root / "docs"
        self.docs.mkdir(parents=True, exist_ok=True)
        embedder = {"embedder": "openai", "openai_base_url": server.url} if server else {"embedder": "hash"}
        self.values: dict[str, Any] = {
            **embedder, "dimensions": 64, "chunk_tokens": 64, "concurrency": 4, "batch_texts": 8, "store_batch": 100,
            "max_attempts": 2, "requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000,
            **settings,
        }  # fmt: skip

    def copy(self, root: Path, **settings: Any) -> Workspace:
        """A copy of all of it in another place, with some settings changed."""
        shutil.copytree(self.root, root)
        return Workspace(root, self.server, **{**self.values, **settings})

    # documents

    def write(self, key: str, text: str | bytes) -> Path:
        path = self.docs / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def fill(self, count: int, sections: int = 1, prefix: str = "") -> None:
        """``count`` documents, in folders of 100."""
        for n in range(count):
            self.write(f"{n // 100:02d}/page-{n:05d}.md", document(f"{prefix}{n}", sections))

    def texts(self) -> set[str]:
        """The distinct texts of all chunks: what must be paid, once."""
        chunker = Chunker(self.values["chunk_tokens"])
        return {chunk.text for path in self.docs.rglob("*.md") for chunk in chunker.split(path.read_text())}

    # runs

    def settings(self, **over: Any) -> Settings:
        return load_settings(self.root, **{**self.values, **over})

    def env(self, **over: Any) -> dict[str, str]:
        """The environment of a run: settings in small letters, other variables in capitals; ``None`` removes."""
        env = {name: os.environ[name] for name in KEEP if name in os.environ} | {"PYTHONPATH": str(ROOT)}
        env["OPENAI_API_KEY"] = ServerProcess.key
        for name, value in {**self.values, **over}.items():
            variable = name if name.isupper() else f"VECTORKEEP_{name.upper()}"
            env.pop(variable, None)
            if value is not None:
                env[variable] = value if isinstance(value, str) else json.dumps(value, default=str)
        return env

    def start(self, *argv: str, cwd: Path | None = None, die: str = "", **over: Any) -> Run:
        """A run of the command line: ``start("update", max_cost_usd=1)``; ``die``: see ``run_process.run``."""
        full = [argv[0], "--workspace", str(self.root), *argv[1:]]
        return Run(self, full, cwd or self.root, self.env(**over), die)

    def run(self, *argv: str, code: int | None = None, timeout: float = 60, **over: Any) -> Result:
        """The same to its end, with ``--json``; ``code`` is what it has to exit with."""
        result = self.start(*argv, "--json", **over).wait(timeout)
        assert code is None or result.code == code, (result.code, result.err, result.out[-2000:])
        return result

    def update(self, *argv: str, code: int | None = 0, **over: Any) -> dict[str, Any]:
        """An update's report."""
        return self.run("update", *argv, code=code, **over).report

    def cli(self, *argv: str, cwd: Path | None = None, powerless: bool = False, **over: Any) -> Result:
        """The same by ``python -m vectorstore.cli``; ``powerless``: permissions hold for root too."""
        done = subprocess.run(
            [sys.executable, "-m", "vectorstore.cli", *argv], cwd=cwd or self.root, env=self.env(**over),
            capture_output=True, text=True, timeout=120, preexec_fn=_drop_powers if powerless else None,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    # what there is afterwards

    @property
    def store(self) -> Path:
        return Path(self.values.get("chroma_path") or self.root / "chroma")

    @property
    def ledger(self) -> Path:
        return self.root / ".hashes" / "ledger.sqlite3"

    @property
    def cache(self) -> Path:
        return self.root / ".hashes" / "cache.sqlite3"

    @property
    def spend(self) -> Path:
        return self.root / ".hashes" / "spend.sqlite3"

    def rows(self) -> dict[str, Row]:
        """Everything Chroma answers for, by ``collection/id``; from a copy, so that looking leaves no trace."""
        with tempfile.TemporaryDirectory(dir=self.root.parent) as folder:
            copy = Path(shutil.copytree(self.store, Path(folder) / "chroma"))
            return read_store(copy)

    def assert_in_step(self, collection: str = "") -> dict[str, Row]:
        """The store (or one collection) holds the documents' chunks, all, nothing else, each under its own vector."""
        rows = {key: row for key, row in self.rows().items() if not collection or key.startswith(f"{collection}/")}
        chunker = Chunker(self.values["chunk_tokens"])
        due = {}
        for path in self.docs.rglob("*.md"):
            key = path.relative_to(self.docs).as_posix()
            for n, chunk in enumerate(chunker.split(path.read_text())):
                due[f"docs/{key}#{n:05d}"] = chunk.text
        assert {key: row[1] for key, row in rows.items()} == due
        vectors = expected(list(due.values()), self.values)
        for key, vector in zip(due, vectors, strict=True):
            assert np.frombuffer(rows[key][0], np.float32).tobytes() == vector.tobytes(), key
        return rows


def _drop_powers() -> None:
    """Root may read everything by two capabilities; without them in the bounding set the next program has neither."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def expected(texts: list[str], values: Mapping[str, Any]) -> np.ndarray:
    """The vectors that belong to texts, from the texts alone."""
    from tests.support.embeddings_api import expected_vectors
    from vectorstore.embedders.hash import hash_vectors

    if values["embedder"] == "hash":
        return hash_vectors(texts, values["dimensions"])
    raw = expected_vectors(texts, values.get("model") or "text-embedding-3-small", values["dimensions"])
    return (raw / np.sqrt(np.einsum("ij,ij->i", raw, raw, dtype=np.float64))[:, None]).astype(np.float32)


def read_store(path: Path) -> dict[str, Row]:
    """Everything a store answers for. Opens it: give it a copy."""
    import chromadb
    from chromadb.config import Settings as ChromaSettings

    client = chromadb.PersistentClient(str(path), settings=ChromaSettings(anonymized_telemetry=False))
    rows: dict[str, Row] = {}
    try:
        for collection in client.list_collections():
            ids = collection.get(include=[])["ids"]
            for start in range(0, len(ids), 2000):
                page = collection.get(ids=ids[start : start + 2000], include=["embeddings", "documents", "metadatas"])
                columns = (page["ids"], page["embeddings"], page["documents"], page["metadatas"])
                for id_, vector, text, metadata in zip(*columns, strict=True):
                    content = json.dumps(metadata, sort_keys=True)
                    rows[f"{collection.name}/{id_}"] = (np.asarray(vector, np.float32).tobytes(), text, content)
    finally:
        client.close()
    return rows


def stored_ids(store: Path) -> set[str]:
    """The ids that Chroma will answer for, read from its SQLite file without Chroma."""
    from vectorstore.chroma import files

    if not files.sqlite_path(store).is_file():
        return set()
    with files.open_snapshot(store) as db:
        pending = files.read_pending(db)
        return {
            id_
            for collection in files.list_collections(db, store)
            for id_ in files.stored_ids(db, collection, pending.get(collection.id, []))
        }


def cached_hashes(path: Path) -> set[bytes]:
    """The hashes in the vector cache, also of one whose writer was killed."""
    if not path.exists():
        return set()
    with tempfile.TemporaryDirectory(dir=path.parents[2]) as folder:
        for suffix in ("", "-wal"):
            if (source := Path(f"{path}{suffix}")).exists():
                shutil.copyfile(source, Path(folder) / f"cache{suffix}")
        with closing(sqlite3.connect(Path(folder) / "cache")) as db:
            try:
                return {row[0] for row in db.execute("SELECT hash FROM vectors")}
            except sqlite3.OperationalError:  # killed before it had tables
                return set()


def uncached(workspace: Workspace, texts: Iterable[str]) -> set[str]:
    """``sha_of`` of those of ``texts`` that were billed and whose vector did not reach the cache."""
    assert workspace.server
    billed, cached = workspace.server.bill.by_text, cached_hashes(workspace.cache)
    return {sha for text in texts if (sha := sha_of(text)) in billed and chunk_hash(text) not in cached}


def paid(server: ServerProcess) -> int:
    """How many texts were billed, each as often as it was."""
    return sum(server.bill.by_text.values())


def digests(*folders: Path) -> dict[str, str]:
    """Every file below ``folders`` with the SHA-256 of its bytes."""
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_until(condition: Callable[[], object], timeout: float = 30, pause: float = 0.002) -> bool:
    """Wait for a condition; whether it came true in time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False


def limit_files() -> tuple[int, int]:
    """Let no file of this process and of those it starts grow past ``FILE_LIMIT``; returns the limits before."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, before[1]))
    return before


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
