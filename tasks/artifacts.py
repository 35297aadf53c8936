"""What a run stores for Prefect's UI: Markdown pages, tables and a progress bar.

Keys are stable, so that the UI shows a history of each.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from tasks.pages import cell
from vectorstore.backups.steps import Step
from vectorstore.output.backup_text import size_text
from vectorstore.progress import Progress

PROGRESS = "vectorkeep-progress"
TABLE_ROWS = 1000


class ProgressBar:
    """A progress artifact, made when there is something to show, and updated at most every few seconds."""

    def __init__(self, every_s: float = 3.0) -> None:
        self._every = every_s
        self._next = time.monotonic() + every_s  # what is over by then needs no bar
        self._id: UUID | None = None

    def show(self, progress: Progress | None, *, now: bool = False) -> None:
        """Show the counters, unless it is too soon."""
        if progress and progress.documents_total:
            self._send(100 * progress.documents_done / progress.documents_total, _progress_text(progress), now)

    def show_step(self, command: str, step: Step) -> None:
        """Show how far a step of a command has got, unless it is too soon; each step begins anew."""
        self._send(100 * step.done / step.total if step.total else 0, _step_text(command, step), False)

    def end(self, command: str) -> None:
        """Show that all its steps are done."""
        self._send(100, f"{command}: done", True)

    def _send(self, percent: float, text: str, now: bool) -> None:
        if time.monotonic() < self._next and not now:
            return
        percent = float(int(min(100.0, percent)))  # the UI shows all digits; 100 only when all is done
        with shielded():
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, PROGRESS, text))
            else:
                update_progress_artifact(self._id, percent, text)
        self._next = time.monotonic() + self._every


def publish_page(text: str, key: str, description: str) -> None:
    """Store a Markdown page."""
    with shielded():
        create_markdown_artifact(text, key, description)


def publish_table(rows: Sequence[Mapping[str, Any]], key: str, description: str) -> None:
    """Store a table of at most ``TABLE_ROWS`` rows; none without rows. Texts are made fit to be shown."""
    if not rows:
        return
    if len(rows) > TABLE_ROWS:
        description += f": the first {TABLE_ROWS:,} of {len(rows):,}"
    with shielded():
        create_table_artifact([_cells(row) for row in rows[:TABLE_ROWS]], key, description)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """A picture that the server does not take stops nothing; the run's own state still tells."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("an artifact could not be stored: %r", error)


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell(value) if isinstance(value, str) else value for name, value in row.items()}


def _step_text(command: str, step: Step) -> str:
    counted: Callable[[int], str] = (lambda count: f"{count:,}") if step.in_rows else size_text
    unit = " rows" if step.in_rows else ""
    return f"{command}: {step.what}" + (f", {counted(step.done)} of {counted(step.total)}{unit}" if step.total else "")


def _progress_text(progress: Progress) -> str:
    unit = "chunks" if progress.command == "health" else "documents"
    parts = [f"{progress.command}: {progress.documents_done:,} of {progress.documents_total:,} {unit}"]
    if progress.chunks_written:
        parts.append(f"{progress.chunks_written:,} chunks written")
    if progress.tokens_embedded:
        parts.append(f"{progress.tokens_embedded:,} tokens, ${progress.cost_usd:.6f}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return " · ".join(parts)
