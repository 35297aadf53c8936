"""The one command: ``python -m benchmarks.run``. Measures, and writes the table into docs/benchmarks.md.

A section that is not run keeps its rows. ``--quick`` is small, prints its table and writes nothing: the promises are
about the full sizes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace

from tqdm import tqdm

from benchmarks import measure, ours, report, sections
from benchmarks.api import api
from benchmarks.backups import backup
from benchmarks.health import health
from benchmarks.prefect_share import prefect
from benchmarks.sections import Options

PEERS_PYTHON = measure.REPOSITORY / "build" / "peers-venv" / "bin" / "python"
PEERS_PACKAGES = ("langchain-core", "langchain-chroma", "llama-index-core")
MAIN = ("cold", "unchanged", "changed")
QUICK = {
    "files": 2_000, "repeat": 3, "cold_repeat": 1, "scale_files": 20_000, "memory_files": 500,
    "health_files": 600, "backup_files": 600, "prefect_files": 200,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 if a promise is broken, else 0."""
    given = _arguments().parse_args(argv)
    wanted = given.only.split(",") if given.only else list(report.SECTIONS)
    if unknown := set(wanted) - set(report.SECTIONS):
        _arguments().error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(report.SECTIONS)}")
    peers = _peers(given.peers_python) if set(wanted) & set(MAIN) else ""
    if not ours.available():
        _say("vectorstore.cli is not there: Vectorkeep's rows will say 'not run'")
    results = {} if given.quick else report.load()
    conditions = report.conditions(_versions(peers))
    if given.scratch:
        os.makedirs(given.scratch, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vectorkeep-bench-", dir=given.scratch) as scratch, _progress() as bar:
        options = Options(scratch, peers_python=peers, progress=_teller(bar))
        options = replace(options, **_sizes(given))
        for name, section in _measured(options, wanted):
            report.merge(results, name, section, conditions)
            if not given.quick:
                report.save(results)  # after each: what took minutes is not lost to a failure after it
    print(report.render(results))
    return int(report.broken(results))


def _measured(options: Options, wanted: list[str]) -> Iterator[tuple[str, report.Section]]:
    sections.warm_up(options)
    main_wanted = [name for name in MAIN if name in wanted]
    if main_wanted:
        yield from sections.main_sections(options, main_wanted)
    others: dict[str, Callable[[Options], report.Section]] = {
        "scale": sections.scale, "memory": sections.memory, "health": health, "backup": backup, "api": api,
        "prefect": prefect,
    }  # fmt: skip
    for name, section in others.items():
        if name in wanted:
            yield name, section(options)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--files", type=int, help="files of the main corpus (20,000)")
    parser.add_argument("--repeat", type=int, help="repetitions of short runs (5)")
    parser.add_argument("--cold-repeat", type=int, help="repetitions of the floor's and our cold run (2)")
    parser.add_argument("--scale-files", type=int, help="files of the large corpus (280,000)")
    parser.add_argument("--memory-files", type=int, help="files of the smaller memory run (4,000)")
    parser.add_argument("--health-files", type=int, help="files of the corpus of health checks (30,000)")
    parser.add_argument("--backup-files", type=int, help="files of the corpus of backups (10,000)")
    parser.add_argument("--prefect-files", type=int, help="files of the corpus for Prefect's share (2,000)")
    parser.add_argument("--quick", action="store_true", help="small sizes; prints the table and writes nothing")
    parser.add_argument("--only", default="", help=f"sections, with commas between: {','.join(report.SECTIONS)}")
    parser.add_argument("--peers-python", default=str(PEERS_PYTHON), help="the Python of the peers' environment")
    parser.add_argument("--scratch", help="where the temporary corpora and stores go (the system's place)")
    return parser


def _sizes(given: argparse.Namespace) -> dict[str, int]:
    names = (
        "files", "repeat", "cold_repeat", "scale_files", "memory_files", "health_files", "backup_files",
        "prefect_files",
    )  # fmt: skip
    asked = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return (QUICK if given.quick else {}) | asked


def _peers(python: str) -> str:
    if os.path.exists(python):
        return os.path.abspath(python)
    _say(f"no peers at {python}: their rows will say 'not run'. `make bench` makes their environment")
    return ""


def _versions(peers_python: str) -> dict[str, str]:
    found = {"chromadb": importlib.metadata.version("chromadb")}
    if peers_python:
        ask = f"import importlib.metadata as m, json; print(json.dumps([m.version(n) for n in {PEERS_PACKAGES!r}]))"
        found |= zip(PEERS_PACKAGES, json.loads(measure.run([peers_python, "-c", ask]).output), strict=True)
    return found


def _progress() -> tqdm:
    return tqdm(unit="run", file=sys.stderr, bar_format="{n_fmt} {elapsed} {desc}", dynamic_ncols=True)


def _teller(bar: tqdm) -> Callable[[str], None]:
    def tell(what: str) -> None:
        bar.set_description_str(what, refresh=False)
        bar.update()

    return tell


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except measure.BenchmarkFailed as failure:
        _say(f"\nthe benchmark stopped: {failure}")
        sys.exit(1)
