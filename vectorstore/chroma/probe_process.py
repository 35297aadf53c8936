"""The process that opens a copy of a store with Chroma: started with limits and without secrets, ended in any case."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectorstore.chroma.probe_copy import StoreCopy

LEAST_FILE_LIMIT, MOST_GROWTH = 64 << 20, 2 << 30  # bytes
MEMORY_BASE, MEMORY_SHARE = 4 << 30, 4  # bytes, and times the copy; a healthy store was seen to take 0.15 GB and once
WATCH_S = 0.5
NICENESS = 10
GRACE_S = 10
# All else stays away: keys and passwords, and settings that Chroma would take for its own.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS")


@dataclass(frozen=True)
class ChildEnd:
    """What became of the child.

    Attributes:
        lines: what it said, see `vectorstore.chroma.probe_child`.
        code: its exit code; negative: the signal that ended it.
        stopped: ``time`` or ``memory`` where it was ended because it took too much; else empty.
        grown: relative paths of the copy's files that grew to the limit.
        growth: bytes that the copy takes more on the disk than before.
        complaint: the end of its standard error.
    """

    lines: list[dict[str, Any]]
    code: int
    stopped: str
    grown: list[str]
    growth: int
    complaint: str

    def last(self, key: str) -> dict[str, Any]:
        """The last line that has a key; an empty one if there is none."""
        return next((line for line in reversed(self.lines) if key in line), {})


def run_child(
    folder: Path, copy: StoreCopy, names: Collection[str] | None, *, timeout_s: float, sample: int, seed: int
) -> ChildEnd:
    """Have the collections of a copy asked; ``folder`` is for what the child needs. Nothing of the child is left."""
    limits = _limits(copy, timeout_s)
    request = {
        "store": str(copy.path), "databases": copy.databases, "collections": None if names is None else sorted(names),
        "sample": sample, "seed": seed, "limits": limits, "alarm_s": math.ceil(timeout_s) + GRACE_S,
        "niceness": NICENESS,
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    with (
        open(folder / "stderr", "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "vectorstore.chroma.probe_child", str(folder / "request.json")],
            cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            process_group=0,
        ) as child,
    ):  # fmt: skip
        try:
            output, stopped = _wait(child, timeout_s, MEMORY_BASE + MEMORY_SHARE * sum(copy.on_disk.values()))
        except BaseException:
            _kill(child)
            raise
    now = {str(path.relative_to(copy.path)): path.stat() for path in copy.path.rglob("*") if path.is_file()}
    limit = limits["RLIMIT_FSIZE"]
    return ChildEnd(
        lines=_lines(output),
        code=child.returncode,
        stopped=stopped,
        grown=sorted(path for path, each in now.items() if each.st_size >= limit > copy.sizes.get(path, 0)),
        growth=sum(each.st_blocks * 512 for each in now.values()) - sum(copy.on_disk.values()),
        complaint=(folder / "stderr").read_text(encoding="utf-8", errors="replace")[-1000:],
    )


def _limits(copy: StoreCopy, timeout_s: float) -> dict[str, int]:
    """For the child's ``setrlimit``: bytes, and seconds of CPU.

    No address space: by torn sizes Chroma reserves any amount of it without using it, and denied that it raises where
    it would otherwise go on and fill the disk.
    """
    # By what a file takes on the disk: a damaged one can have holes of terabytes already.
    largest = max((min(size, 2 * copy.on_disk[path]) for path, size in copy.sizes.items()), default=0)
    growth = min(MOST_GROWTH, copy.free // 2)
    return {
        "RLIMIT_FSIZE": min(max(LEAST_FILE_LIMIT, 2 * largest), largest + growth),
        "RLIMIT_CPU": math.ceil(timeout_s) * (os.cpu_count() or 1),
        "RLIMIT_CORE": 0,
    }


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    root = str(Path(__file__).resolve().parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    return kept | {"HOME": str(folder), "TMPDIR": str(folder)} | dict.fromkeys(THREADS, "2")


def _wait(child: subprocess.Popen[bytes], timeout_s: float, memory: int) -> tuple[bytes, str]:
    """What the child has said at its end, and why it had to be stopped, if so."""
    end = time.monotonic() + timeout_s
    while True:
        left = max(0.0, end - time.monotonic())
        try:
            return child.communicate(timeout=min(left, WATCH_S))[0], ""
        except subprocess.TimeoutExpired:
            stopped = "memory" if _resident(child.pid) > memory else "" if left > WATCH_S else "time"
        if stopped:
            _kill(child)
            return child.communicate()[0], stopped


def _resident(pid: int) -> int:
    """Bytes of memory that a process has in use; 0 where that can't be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _lines(output: bytes) -> list[dict[str, Any]]:
    """The lines that came whole."""
    return [json.loads(line) for line in output.split(b"\n")[:-1]]
