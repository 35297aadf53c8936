"""What a run costs the machine: CPU, memory, disk. Every figure is ``None`` where the system does not tell it."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from vectorstore.settings import Settings

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cpu_seconds() -> float:
    """CPU that this process and its ended children have used so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def memory_mb() -> float:
    """The largest resident size of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def memory_share(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float | None:
    """The share of memory that is in use, 0 to 1: of the machine or of a container around us, whichever is fuller."""
    shares = [share for share in (_machine_share(proc), *_cgroup_shares(proc, cgroups)) if share is not None]
    return min(1.0, max(shares)) if shares else None


def store_bytes(settings: Settings) -> int | None:
    """The size of the embedded store's files; ``None`` of a server, or where there is no store."""
    root = settings.path(settings.chroma_path)
    if settings.chroma_url or not root.is_dir():
        return None
    return _bytes_below(str(root))


def _bytes_below(folder: str) -> int:
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # what goes away meanwhile does not count
        for entry in entries:
            with contextlib.suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += _bytes_below(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total


def _machine_share(proc: Path) -> float | None:
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            known[name] = int(value.split()[0])
    total, free = known.get("MemTotal"), known.get("MemAvailable")
    return 1 - free / total if total and free is not None else None


def _cgroup_shares(proc: Path, cgroups: Path) -> Iterator[float]:
    """Of our control group and of each one above it, those that have a limit."""
    place = ""
    with contextlib.suppress(OSError, ValueError):
        lines = (proc / "self/cgroup").read_text().splitlines()
        place = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    parts = [part for part in place.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        folder = cgroups.joinpath(*parts[:depth])
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            limit = int((folder / "memory.max").read_text())  # "max" without a limit
            yield _used(folder, "memory.current", "inactive_file") / limit
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # the first version of control groups
        folder = cgroups / "memory"
        limit = int((folder / "memory.limit_in_bytes").read_text())
        yield _used(folder, "memory.usage_in_bytes", "total_inactive_file") / limit


def _used(folder: Path, name: str, cached: str) -> int:
    """Bytes in use without the file cache, which gives way."""
    used = int((folder / name).read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        used -= int(value) if key == cached else 0
    return max(0, used)
