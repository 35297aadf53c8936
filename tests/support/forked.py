"""Processes forked by a server that has imported all they need, begun and awaited from any thread."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import wait
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.preload"])
_ONE = threading.Lock()  # whoever begins a process looks after all others, too: two would share one's exit code


class Forked(FORKS.Process):  # type: ignore[name-defined,misc]
    """A process of ``FORKS``."""

    def start(self) -> None:
        with _ONE:
            super().start()

    def join(self, timeout: float | None = None) -> None:
        wait([self.sentinel], timeout)
        with _ONE:
            super().join(0)

    def is_alive(self) -> bool:
        with _ONE:
            return bool(super().is_alive())

    @property
    def exitcode(self) -> Any:
        with _ONE:
            return super().exitcode
