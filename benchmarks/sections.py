"""The sections of the table: what is prepared, what is measured in turn, which rows come of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks import corpus, measure, ours, stores
from benchmarks.measure import Sample, typical
from benchmarks.report import Row, Section

PEERS = {"langchain": "benchmarks.peers.langchain_index", "llamaindex": "benchmarks.peers.llamaindex_pipeline"}
CHANGED, DELETED, ADDED = 0.01, 0.005, 0.005

# What is promised.
UNCHANGED_FACTOR, UNCHANGED_PEAK_MB = 3.0, 300.0
CHANGED_FACTOR = 1.5
COLD_FACTOR, COLD_PEAK_FACTOR = 1.1, 1.3
TENFOLD_PEAK_FACTOR = 1.3


@dataclass(frozen=True)
class Options:
    """How much to measure; ``peers_python`` is empty if they are not to run."""

    scratch: str
    files: int = 20_000
    dimension: int = 1536
    repeat: int = 5  # runs of a second or so
    cold_repeat: int = 2  # runs of minutes
    scale_files: int = 280_000
    scale_dimension: int = 32
    memory_files: int = 4_000
    memory_dimension: int = 256
    health_files: int = 30_000  # some 100,000 chunks
    backup_files: int = 10_000  # some 33,000 chunks
    prefect_files: int = 2_000
    peers_python: str = ""
    progress: Callable[[str], None] = field(default=lambda _: None)


class Bench:
    """One corpus, and the state that each contender keeps of it."""

    def __init__(self, options: Options, name: str, files: int, dimension: int, sizes: str = "chunk") -> None:
        self.options = options
        self.base = os.path.join(options.scratch, name)
        self.dimension = dimension
        options.progress(f"writing {files:,} files")
        made = measure.run(_python("corpus", self.path("corpus"), "--files", str(files), "--sizes", sizes))
        self.corpus = corpus.Corpus(**json.loads(made.output))
        self.env = ours.settings(self.corpus.root, dimension)

    def path(self, *parts: str) -> str:
        """A path in this bench's folder."""
        return os.path.join(self.base, *parts)

    def contenders(self) -> list[str]:
        """Who can run here: ``ours`` and the peers."""
        peers = list(PEERS) if self.options.peers_python else []
        return (["ours"] if ours.available() else []) + peers

    def floor(self, verb: str, *arguments: str) -> Sample:
        """One floor."""
        return self.ask(verb, *arguments).sample

    def ask(self, verb: str, *arguments: str) -> measure.Result:
        """One floor, and what it says."""
        self.options.progress(f"floor: {verb}, {self.corpus.files:,} files")
        return measure.run(_python("floors", verb, *arguments))

    def run(self, who: str, state: str) -> Sample:
        """One update by a contender of its state."""
        self.options.progress(f"{who}: {os.path.basename(state)}, {self.corpus.files:,} files")
        if who == "ours":
            return ours.update(state, self.env)
        command = [self.options.peers_python, "-m", PEERS[who], self.corpus.root, state, str(self.dimension)]
        return measure.run(command).sample

    def cold(self, who: str) -> Sample:
        """A contender's first run; leaves its state in the folder ``who``."""
        state = self.path(who)
        shutil.rmtree(state, ignore_errors=True)
        if who == "raw":
            return self.floor("upsert", self.rows(), state)
        if who == "ours":
            ours.init(state, self.env)
        return self.run(who, state)

    def rows(self, mutation: str = "") -> str:
        """The folder of prepared rows of the whole corpus, or of a mutation of it."""
        out = self.path("rows-changed" if mutation else "rows")
        if not os.path.exists(out):
            self.options.progress("preparing the floor's rows")
            extra = ("--mutation", mutation) if mutation else ()
            measure.run(_python("floors", "prepare", self.corpus.root, out, str(self.dimension), *extra))
        return out

    def compare(self, suffix: str = "", rows: int | None = None) -> list[str]:
        """Check that every store there is holds as many rows; how ours differs from the floor's."""
        expected = self.corpus.files if rows is None else rows
        held = {
            who: stores.expect_rows(who, self.store(who, suffix), expected)
            for who in ("raw", *self.contenders())
            if os.path.isdir(self.path(who + suffix))
        }
        return stores.differences(held["ours"], held["raw"]) if {"ours", "raw"} <= held.keys() else []

    def store(self, who: str, suffix: str = "") -> str:
        """A contender's Chroma folder."""
        state = self.path(who + suffix)
        return state if who == "raw" else ours.store(state) if who == "ours" else os.path.join(state, "chroma")

    def from_copy(self, who: str, suffix: str, once: Callable[[str], Sample]) -> Sample:
        """Measure ``once`` on a copy of a contender's state."""
        shutil.rmtree(self.path(who + suffix), ignore_errors=True)
        shutil.copytree(self.path(who), self.path(who + suffix))
        return once(self.path(who + suffix))

    def close(self) -> None:
        """Remove everything."""
        self.options.progress("cleaning up")
        shutil.rmtree(self.base, ignore_errors=True)


def main_sections(options: Options, wanted: Sequence[str]) -> Iterator[tuple[str, Section]]:
    """``cold``, ``unchanged`` and ``changed``: one corpus, and in turn the states that each run leaves to the next."""
    bench = Bench(options, "main", options.files, options.dimension)
    try:
        first = cold(bench, measured="cold" in wanted)
        if "cold" in wanted:
            yield "cold", first
        if "unchanged" in wanted:
            yield "unchanged", unchanged(bench)
        if "changed" in wanted:
            yield "changed", changed(bench)
    finally:
        bench.close()


def cold(bench: Bench, measured: bool = True) -> Section:
    """Everything is new. Not ``measured``: once each, for the states that the other sections start from."""
    repeat = bench.options.cold_repeat if measured else 1
    who = ["raw", *bench.contenders()]
    samples = measure.alternate(
        {name: _bind(bench.cold, name) for name in who}, {n: repeat if n in ("raw", "ours") else 1 for n in who}
    )
    work = f"cold: everything is new, {bench.corpus.files:,} files"
    cpu = _row(work, "CPU s", samples, "raw", "cpu_s", COLD_FACTOR)
    peak = _row(work, "peak MB", samples, "raw", "peak_mb", COLD_PEAK_FACTOR)
    return Section([cpu, _protection(cpu), peak], samples, bench.compare(), _settings(bench, repeat))


def unchanged(bench: Bench) -> Section:
    """Nothing changed since the cold run."""
    samples = _unchanged(bench, bench.contenders())
    work = f"nothing changed, {bench.corpus.files:,} files"
    rows = [
        _row(work, "CPU s, floor: scan and stat", samples, "scan", "cpu_s", UNCHANGED_FACTOR),
        _row(work, "CPU s, floor: read and hash too", samples, "read", "cpu_s"),
        _row(work, "peak MB", samples, "", "peak_mb"),
    ]
    return Section(rows, samples, [], _settings(bench, bench.options.repeat))


def changed(bench: Bench) -> Section:
    """1 % changed, 0.5 % deleted, 0.5 % added since the cold run; each repetition starts from a copy of its state."""
    mutation = corpus.mutate(bench.corpus, changed=CHANGED, deleted=DELETED, added=ADDED)
    described = bench.path("mutation.json")
    with open(described, "w", encoding="utf-8") as file:
        json.dump(asdict(mutation), file)
    rows = bench.rows(described)
    runs = {"raw": lambda: bench.from_copy("raw", "-changed", lambda state: bench.floor("write", rows, state))}
    for who in bench.contenders():
        runs[who] = _bind(bench.from_copy, who, "-changed", _bind(bench.run, who))
    repeat = min(bench.options.repeat, 3)
    samples = measure.alternate(runs, dict.fromkeys(runs, repeat))
    left = bench.corpus.files + len(mutation.added) - len(mutation.deleted)
    work = f"1 % changed, 0.5 % deleted, 0.5 % added, {bench.corpus.files:,} files"
    table = [
        _row(work, "CPU s", samples, "raw", "cpu_s", CHANGED_FACTOR),
        _row(work, "peak MB", samples, "raw", "peak_mb"),
    ]
    return Section(table, samples, bench.compare("-changed", left), _settings(bench, repeat))


def scale(options: Options) -> Section:
    """Nothing changed in as many files as the reference user keeps.

    The pages are short and the vectors small: a run with nothing to do looks at neither, and the cold run before it,
    which is not measured, would take most of an hour.
    """
    bench = Bench(options, "scale", options.scale_files, options.scale_dimension, "note")
    try:
        who = [name for name in bench.contenders() if name == "ours"]
        for name in who:
            bench.cold(name)
        samples = _unchanged(bench, who)
        bench.compare()
    finally:
        bench.close()
    work = f"nothing changed, {options.scale_files:,} files"
    rows = [
        _row(work, "CPU s, floor: scan and stat", samples, "scan", "cpu_s", UNCHANGED_FACTOR),
        replace(_row(work, "peak MB", samples, "", "peak_mb", UNCHANGED_PEAK_MB), bound="most"),
    ]
    return Section([replace(row, peers=False) for row in rows], samples, [], _settings(bench, options.repeat))


def memory(options: Options) -> Section:
    """The peak of a cold run, and of one ten times its size, less what Chroma's own index takes more."""
    peaks: dict[str, list[float]] = {}
    samples: dict[str, list[Sample]] = {}
    sizes = (options.memory_files, 10 * options.memory_files)
    for files in sizes:
        bench = Bench(options, f"memory-{files}", files, options.memory_dimension)
        try:
            for who in ("raw", *(["ours"] if ours.available() else [])):
                sample = bench.cold(who)
                samples[f"{who} {files}"] = [sample]
                peaks.setdefault(who, []).append(sample.peak_mb)
            bench.compare()
        finally:
            bench.close()
    settings = {"files": list(sizes), "dimension": options.memory_dimension}
    return Section(_memory_rows(sizes, peaks), samples, [], settings)


def warm_up(options: Options) -> None:
    """Everything once on a few files: byte code gets compiled, and what can't run here says so before the long runs."""
    bench = Bench(options, "warm-up", 60, 16)
    try:
        cold(bench, measured=False)
        _unchanged(bench, bench.contenders(), repeat=1)
    finally:
        bench.close()


def _unchanged(bench: Bench, who: Sequence[str], repeat: int = 0) -> dict[str, list[Sample]]:
    runs: dict[str, Callable[[], Sample]] = {}
    for verb in ("scan", "read"):
        runs[verb] = _bind(bench.floor, verb, bench.corpus.root)
    for name in who:
        runs[name] = _bind(bench.run, name, bench.path(name))
    repeat = repeat or bench.options.repeat
    repeats = {name: min(repeat, 3) if name in PEERS else repeat for name in runs}
    return measure.alternate(runs, repeats)


def _row(
    work: str, what: str, samples: dict[str, list[Sample]], floor: str, figure: str, promise: float | None = None
) -> Row:
    def value(who: str) -> float | None:
        return getattr(typical(samples[who]), figure) if samples.get(who) else None

    return Row(work, what, value(floor), value("ours"), value("langchain"), value("llamaindex"), promise)


def _protection(cpu: Row) -> Row:
    extra = None if cpu.ours is None or cpu.floor is None else max(0.0, cpu.ours - cpu.floor)
    factor = None if extra is None or not cpu.floor else extra / cpu.floor
    what = "CPU s over the floor: protection against kills costs at most this"
    return Row(cpu.work, what, cpu.floor, extra, factor=factor, peers=False)


def _memory_rows(sizes: tuple[int, int], peaks: dict[str, list[float]]) -> list[Row]:
    work = f"cold, {sizes[0]:,} and {sizes[1]:,} files"
    mine, raw = peaks.get("ours", [None, None]), peaks["raw"]
    rows = [
        Row(work, f"peak MB, {size:,} files", raw[place], mine[place], peers=False) for place, size in enumerate(sizes)
    ]
    own: dict[str, Any] = {}
    if mine[0] is not None and mine[1] is not None:
        grown = mine[1] - (raw[1] - raw[0])
        own = {"ours": grown, "factor": grown / mine[0]}
    what = f"peak MB, {sizes[1]:,} files, less what the floor's grew; × is by our peak for {sizes[0]:,}"
    return [*rows, Row(work, what, promise=TENFOLD_PEAK_FACTOR, peers=False, **own)]


def _settings(bench: Bench, repeat: int) -> dict[str, Any]:
    return {"files": bench.corpus.files, "dimension": bench.dimension, "sizes": bench.corpus.sizes, "repeat": repeat}


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


def _bind(function: Callable[..., Sample], *arguments: Any) -> Callable[..., Sample]:
    return lambda *rest: function(*arguments, *rest)
