"""One measurement: a fresh process, and what the kernel says it cost.

CPU seconds are user + system of the whole process (interpreter start, imports, threads, and children it waited for);
the peak is ``ru_maxrss``. Wall time is kept, but on a shared machine it says little.

The measuring process must stay small: Linux starts a child's ``ru_maxrss`` at its parent's.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
TIMEOUT_S = 6 * 3600.0


class Sample(NamedTuple):
    """What one process cost."""

    cpu_s: float
    wall_s: float
    peak_mb: float


class Result(NamedTuple):
    """A sample and what the process printed."""

    sample: Sample
    output: str


class BenchmarkFailed(Exception):
    """A process failed, or its result is not the expected one: its figures would mean nothing."""


def run(command: Sequence[str], env: Mapping[str, str] | None = None, *, accept: Sequence[int] = (0,)) -> Result:
    """Run a command in the repository's root.

    Raises:
        BenchmarkFailed: it ended with an exit code that is not in ``accept``.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(env or {}), stdout=out, stderr=err)
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            watchdog.cancel()
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode not in accept:
            raise BenchmarkFailed(_failure(command, process.returncode, err.read() or out.read()))
        sample = Sample(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)
        return Result(sample, out.read())


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without settings and paths that would steer a tool under test, and ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VECTORKEEP_", "PYTHON", "OPENAI_")) and name != "MAX_EMBEDDING_COST"
    }
    return kept | {"ANONYMIZED_TELEMETRY": "False"} | dict(extra)


def alternate(runs: Mapping[str, Callable[[], Sample]], repeats: Mapping[str, int]) -> dict[str, list[Sample]]:
    """Run each ``repeats[name]`` times, in turn, so that a slow minute of the machine meets all of them."""
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    for turn in range(max((repeats[name] for name in runs), default=0)):
        for name, once in runs.items():
            if turn < repeats[name]:
                samples[name].append(once())
    return samples


def typical(samples: Sequence[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(*(median(figures) for figures in zip(*samples, strict=True)))


def _failure(command: Sequence[str], code: int, text: str) -> str:
    tail = "\n".join(text.strip().splitlines()[-15:])
    shown = " ".join(Path(part).name if os.path.isabs(part) else part for part in command)
    return f"exit code {code} from: {shown}\n{tail}"
