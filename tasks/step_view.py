"""How far a backup or a restore has got: noted by the library's thread, sent by the task's own."""

from __future__ import annotations

import threading

from tasks.artifacts import ProgressBar
from vectorstore.backups.steps import OnStep, Step
from vectorstore.errors import Interrupted

NOT_HALF = "filling the store"  # the rows of one that is in use: what was begun there is better ended


class StepView:
    """The progress of one command.

    Args:
        command: in a word, for the bar.
    """

    def __init__(self, command: str) -> None:
        self._command, self._bar = command, ProgressBar()
        self._step: Step | None = None

    def noted(self, stop: threading.Event) -> OnStep:
        """Notes each step; ends a run that was asked to stop, where nothing is left half done by that."""

        def note(step: Step) -> None:
            self._step = step
            if stop.is_set() and step.what != NOT_HALF:
                raise Interrupted(f"stopped while {step.what}", "run again")

        return note

    def look(self) -> None:
        """Show what was noted, if the bar is due."""
        if self._step:
            self._bar.show_step(self._command, self._step)

    def end(self) -> None:
        """Show that it is done."""
        self._bar.end(self._command)
