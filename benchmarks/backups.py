"""What a safe copy costs: full and portable backups, their verification and their restore, and what they take up."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure, ours, stores
from benchmarks.measure import Sample, typical
from benchmarks.report import Row, Section
from benchmarks.sections import Bench, Options

DIMENSIONS = (384, 1536)
REAL_DIMENSION = 256  # of wordllama's vectors
KINDS = ("full", "portable")
# What is promised.
WRITE_FACTOR, VERIFY_FACTOR, EXTRACT_FACTOR = 1.4, 0.6, 1.4
PEAK_MB = 200.0
SAVED_AT_384 = 75.0


def backup(options: Options) -> Section:
    """The section's rows. All stores are made by our own update, from pages as long as the reference user's."""
    sizes = (options.backup_files // 10, options.backup_files)
    settings = {
        "files": list(sizes), "dimensions": list(DIMENSIONS), "sizes": "reference", "repeat": options.repeat,
    }  # fmt: skip
    if not ours.available():
        return Section([], {}, [], settings)
    samples: dict[str, list[Sample]] = {}
    rows: list[Row] = []
    for dimension in DIMENSIONS:
        with _Store(options, sizes[1], dimension) as large:
            samples |= (speed := large.speed())
            rows += _speed_rows(large.work, large.named(speed)) + _size_rows(large.work, large.sizes(), dimension)
            held = large.chunks
    with _Store(options, sizes[0], DIMENSIONS[-1]) as small:
        samples |= (few := small.peaks())
        rows += _memory_rows((small.chunks, held), small.named(few), large.named(speed))
    return Section([*rows, _real_row(options, sizes[0])], samples, [], settings)


class _Store:
    """One store of ours, removed at the end, and what is done with it."""

    def __init__(self, options: Options, files: int, dimension: int, embedder: str = "hash") -> None:
        self._bench = Bench(options, f"backup-{embedder}-{dimension}-{files}", files, dimension, "reference")
        self._bench.env["VECTORKEEP_EMBEDDER"] = embedder
        self._name = f"{dimension} {files}"

    def __enter__(self) -> _Store:
        try:
            self._bench.cold("ours")
            self.chunks = stores.held(self._bench.store("ours")).rows
        except BaseException:
            self._bench.close()
            raise
        self.work = f"backup, {self.chunks:,} chunks of {self._bench.dimension:,} dimensions"
        return self

    def __exit__(self, *_: object) -> None:
        self._bench.close()

    def speed(self) -> dict[str, list[Sample]]:
        """Commands, parts of them, and floors, in turn; what one leaves, the next one reads."""
        runs: dict[str, Callable[[], Sample]] = {
            "pack": lambda: self._floor("pack", "ours"),
            "pack hashed": lambda: self._floor("pack", "ours", "hashed"),
            "write": lambda: self._part("write"),
            "backup": lambda: self.backup("full"),
            "verify": lambda: self._command("full", "verify"),
            "unpack": lambda: self._floor("unpack", *self._archives("full")),
            "unpack hashed": lambda: self._floor("unpack", *self._archives("full"), "hashed"),
            "extract": lambda: self._part("extract"),
            "restore": lambda: self._restore("full"),
            "portable backup": lambda: self.backup("portable"),
            "portable restore": lambda: self._restore("portable"),
        }
        repeat = self._bench.options.repeat
        few = {"restore": min(repeat, 3), "portable backup": min(repeat, 3), "portable restore": 1}
        return self._labelled(measure.alternate(runs, dict.fromkeys(runs, repeat) | few))

    def peaks(self) -> dict[str, list[Sample]]:
        """The commands whose memory must not grow with the store."""
        runs = {
            "backup": lambda: self.backup("full"),
            "verify": lambda: self._command("full", "verify"),
            "portable backup": lambda: self.backup("portable"),
        }
        return self._labelled(measure.alternate(runs, dict.fromkeys(runs, 1)))

    def named(self, samples: dict[str, list[Sample]]) -> dict[str, Sample]:
        """The typical sample of each run, without the store's name."""
        return {who.removesuffix(f" {self._name}"): typical(each) for who, each in samples.items()}

    def sizes(self) -> dict[str, float]:
        """MB (10^6 bytes) of the store's folder, and of the archives that are there, by kind."""
        files = (path for path in Path(self._bench.store("ours")).rglob("*") if path.is_file())
        found = {"store": sum(path.stat().st_size for path in files)}
        found |= {kind: os.path.getsize(path) for kind in KINDS for path in self._archives(kind)}
        return {name: size / 1e6 for name, size in found.items()}

    def backup(self, kind: str) -> Sample:
        """One ``vectorkeep backup``; the one before it is removed."""
        shutil.rmtree(self._folder(kind), ignore_errors=True)
        return self._command(kind, "backup", "--kind", kind)

    def _restore(self, kind: str) -> Sample:
        return self._command(kind, "restore", "--into", self._gone("restored"))

    def _command(self, kind: str, *words: str) -> Sample:
        self._bench.options.progress(f"{kind}: {words[0]}, {self._name}")
        return ours.run(self._bench.path("ours"), self._env(kind), *words)

    def _part(self, verb: str) -> Sample:
        self._bench.options.progress(f"part: {verb}, {self._name}")
        command = [sys.executable, "-m", "benchmarks.backup_parts", verb, self._bench.path("ours"), self._gone("part")]
        return measure.run(command, self._env("full")).sample

    def _floor(self, verb: str, source: str, *words: str) -> Sample:
        return self._bench.floor(verb, self._bench.path(source), self._gone("floor"), *words)

    def _env(self, kind: str) -> dict[str, str]:
        return self._bench.env | {"VECTORKEEP_BACKUPS_PATH": self._folder(kind)}

    def _folder(self, kind: str) -> str:
        return self._bench.path(f"{kind}-backups")

    def _archives(self, kind: str) -> list[str]:
        return [str(path) for path in Path(self._folder(kind)).glob("backup_*.tar.gz")]

    def _gone(self, name: str) -> str:
        """A path in the bench's folder with nothing there."""
        path = self._bench.path(name)
        if os.path.isfile(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _labelled(self, samples: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
        return {f"{who} {self._name}": each for who, each in samples.items()}


def _speed_rows(work: str, costs: dict[str, Sample]) -> list[Row]:
    cpu = {who: each.cpu_s for who, each in costs.items()}

    def row(what: str, floor: str, who: str, promise: float | None = None) -> Row:
        return Row(work, f"CPU s, {what}", cpu.get(floor), cpu[who], promise=promise, peers=False)

    return [
        row("full: writing alone; floor: one isal stream of the same files", "pack", "write", WRITE_FACTOR),
        row("full: writing alone; floor: the stream and the digests", "pack hashed", "write"),
        row("full: `backup`, which writes and verifies; floor: the stream", "pack", "backup"),
        row("full: `verify`, every byte; in place of a floor: our writing", "write", "verify", VERIFY_FACTOR),
        row("full: `verify`, every byte; in place of a floor: our `backup`", "backup", "verify"),
        row("full: unpacking alone, verified; floor: isal and tarfile", "unpack", "extract", EXTRACT_FACTOR),
        row("full: unpacking alone, verified; floor: and the digests", "unpack hashed", "extract"),
        row("full: `restore --into`, with its deep health check; floor: isal and tarfile", "unpack", "restore"),
        row("portable: `backup`", "", "portable backup"),
        row("portable: `restore --into`: rows are added to a new Chroma store", "", "portable restore"),
    ]


def _size_rows(work: str, sizes: dict[str, float], dimension: int) -> list[Row]:
    """What is saved is of the store's folder; an archive holds ledger and settings too."""
    rows = [
        Row(work, f"MB, {kind} archive; floor: the store as it lies there", sizes["store"], sizes[kind], peers=False)
        for kind in KINDS
    ]
    promise = SAVED_AT_384 if dimension == 384 else None
    saved = _saved(sizes["store"], sizes["portable"])
    return [*rows, Row(work, "% saved, portable", ours=saved, promise=promise, bound="least", peers=False)]


def _memory_rows(chunks: tuple[int, int], small: dict[str, Sample], large: dict[str, Sample]) -> list[Row]:
    work = f"backup, {chunks[0]:,} and {chunks[1]:,} chunks of {DIMENSIONS[-1]:,} dimensions"
    commands = {"backup": "full `backup`", "verify": "`verify` of it", "portable backup": "portable `backup`"}
    return [
        Row(
            work, f"peak MB, {what}, {held:,} chunks", ours=costs[who].peak_mb,
            promise=None if who.startswith("portable") else PEAK_MB, bound="most", peers=False,
        )
        for who, what in commands.items() for held, costs in zip(chunks, (small, large), strict=True)
    ]  # fmt: skip


def _real_row(options: Options, files: int) -> Row:
    """Do the vectors of the hash embedder shrink as a model's do?"""
    saved = {}
    for embedder in ("hash", "local"):
        with _Store(options, files, REAL_DIMENSION, embedder) as store:
            store.backup("portable")
            sizes = store.sizes()
            saved[embedder] = _saved(sizes["store"], sizes["portable"])
            work = store.work
    what = "% saved, portable, with wordllama's vectors; floor: with those of the hash embedder"
    return Row(work, what, saved["hash"], saved["local"], peers=False)


def _saved(store: float, archive: float) -> float:
    return 100 * (1 - archive / store)
