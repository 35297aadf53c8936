"""How far a run has got: counters that threads share, and the checkpoint file that shows them to people.

The checkpoint is a picture, never the source of truth: deleting it loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKPOINT = "embedding_checkpoint.json"


@dataclass
class Progress:
    """A run's counters. Change them under ``lock``; money in USD, times in Unix seconds."""

    run: str
    command: str
    started: float
    state: str = "running"
    documents_total: int = 0
    documents_done: int = 0
    collections_total: int = 0
    chunks_written: int = 0
    chunks_from_cache: int = 0
    chunks_embedded: int = 0
    chunks_deleted: int = 0
    chunks_repaired: int = 0
    tokens_embedded: int = 0
    tokens_billed: int = 0
    requests: int = 0
    cost_usd: float = 0.0
    failed: int = 0
    last_document: str = ""
    kinds: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to counters."""
        with self.lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def count_kind(self, kind: str) -> None:
        """Count a document of this kind."""
        with self.lock:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        """The counters, to print or to write."""
        with self.lock:
            return asdict(self)


class Checkpoint:
    """Writes the checkpoint file, at most once in ``every_s`` seconds unless told to."""

    def __init__(
        self, folder: Path, progress: Progress, every_s: float = 2.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._progress, self._every, self._clock = folder / CHECKPOINT, progress, every_s, clock
        self._next = 0.0

    def write(self, *, now: bool = False, **more: Any) -> None:
        """Write it, whole or not at all. A checkpoint that can't be written stops nothing."""
        at = self._clock()
        if not now and at < self._next:
            return
        self._next = at + self._every
        picture = self._progress.snapshot() | {"updated": at, "pid": os.getpid()} | more
        temporary = self._path.with_suffix(".json.new")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(picture, indent=2) + "\n", encoding="utf-8")
            temporary.replace(self._path)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last picture, or ``None`` when there is none that can be read."""
    try:
        found = json.loads((folder / CHECKPOINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
