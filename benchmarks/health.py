"""What looking costs: health checks at every depth of some 100,000 chunks, and their memory beside a tenth of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

from benchmarks import measure, ours, stores
from benchmarks.measure import Sample, typical
from benchmarks.report import Row, Section
from benchmarks.sections import Bench, Options

DEPTHS = ("quick", "standard", "deep")
QUICK_FACTOR, DEEP_FACTOR = 3.0, 0.15  # what is promised


def health(options: Options) -> Section:
    """The section's rows. Both stores are made by our own update, from pages as long as the reference user's."""
    sizes = (options.health_files // 10, options.health_files)
    settings = {"files": list(sizes), "dimension": options.dimension, "sizes": "reference", "repeat": options.repeat}
    samples: dict[str, list[Sample]] = {}
    chunks: list[int] = []
    integrity = 0.0
    for files in sizes if ours.available() else ():
        bench = Bench(options, f"health-{files}", files, options.dimension, "reference")
        try:
            bench.cold("ours")
            chunks.append(stores.held(bench.store("ours")).rows)
            samples[f"deep {files}"] = [_check(bench, "deep")]
            samples[f"labels {files}"] = [bench.floor("labels", bench.store("ours"))]
            if files == sizes[-1]:
                samples |= _speed(bench)
                integrity = float(bench.ask("integrity", bench.store("ours")).output)
        finally:
            bench.close()
    if not chunks:
        return Section([], {}, [], settings)
    note = (
        f"health: SQLite's own integrity_check, {integrity:.3g} CPU s here, is part of the standard and of the deep"
        " check; it is taken off their figures above"
    )
    rows = _speed_rows(chunks[-1], samples, integrity) + _memory_rows(chunks, sizes, samples)
    return Section(rows, samples, [note], settings | {"chunks": chunks, "integrity_check_s": integrity})


def _speed(bench: Bench) -> dict[str, list[Sample]]:
    """The checks and their floors, in turn."""
    # Chroma writes into a store that it opens: it gets a copy.
    shutil.copytree(bench.store("ours"), bench.path("copy"))
    runs: dict[str, Callable[[], Sample]] = {depth: partial(_check, bench, depth) for depth in DEPTHS}
    runs["ids"] = lambda: bench.floor("ids", bench.store("ours"))
    runs["get"] = lambda: bench.floor("get", bench.path("copy"))
    repeat = bench.options.repeat
    few = {"standard": min(repeat, 3), "deep": min(repeat, 3), "get": bench.options.cold_repeat}
    return measure.alternate(runs, dict.fromkeys(runs, repeat) | few)


def _check(bench: Bench, depth: str) -> Sample:
    bench.options.progress(f"health: {depth}, {bench.corpus.files:,} files")
    return ours.health(bench.path("ours"), bench.env, depth)


def _speed_rows(chunks: int, samples: dict[str, list[Sample]], integrity: float) -> list[Row]:
    cpu = {who: typical(each).cpu_s for who, each in samples.items()}
    work = f"health, {chunks:,} chunks"
    checks = {depth: cpu[depth] - (0.0 if depth == "quick" else integrity) for depth in DEPTHS}
    return [
        Row(
            work, "CPU s, quick; floor: ids and two metadata keys, straight from SQLite", cpu["ids"], checks["quick"],
            promise=QUICK_FACTOR, peers=False,
        ),
        Row(work, "CPU s, standard, less SQLite's integrity_check", ours=checks["standard"], peers=False),
        Row(
            work, "CPU s, deep, less SQLite's integrity_check; floor: Chroma's `get` of everything", cpu["get"],
            checks["deep"], promise=DEEP_FACTOR, peers=False,
        ),
    ]  # fmt: skip


def _memory_rows(chunks: list[int], sizes: tuple[int, int], samples: dict[str, list[Sample]]) -> list[Row]:
    work = f"health, deep, {chunks[0]:,} and {chunks[1]:,} chunks"
    mine, labels = ([typical(samples[f"{who} {files}"]).peak_mb for files in sizes] for who in ("deep", "labels"))
    rows = [
        Row(work, f"peak MB, {held:,} chunks; floor: Chroma's id map", labels[place], mine[place], peers=False)
        for place, held in enumerate(chunks)
    ]
    grown = mine[1] - (labels[1] - labels[0])
    what = f"peak MB, {chunks[1]:,} chunks, less what the id map's grew; × is by our peak for {chunks[0]:,}"
    return [*rows, Row(work, what, ours=grown, factor=grown / mine[0], peers=False)]
