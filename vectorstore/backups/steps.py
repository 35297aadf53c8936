"""How far a backup, a restore or a drill has got, for a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Step:
    """What is under way.

    Attributes:
        what: in words, such as ``writing``.
        total: bytes or rows; 0 where that is not known.
        done: of them.
    """

    what: str
    total: int
    done: int = 0

    @property
    def in_rows(self) -> bool:
        """Whether rows are counted, and not bytes."""
        return "rows" in self.what or "filling" in self.what


OnStep = Callable[[Step], None]


class Steps:
    """Counts one step, and tells it on."""

    def __init__(self, what: str, total: int, on_step: OnStep) -> None:
        self._step, self._on_step = Step(what, total), on_step
        on_step(self._step)

    def add(self, count: int) -> None:
        """So many more bytes or rows are done."""
        self._step.done += count
        self._on_step(self._step)
