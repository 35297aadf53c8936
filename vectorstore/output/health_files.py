"""A health report as a file: JSON for programs, one HTML page for people."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.errors import ConfigurationError
from vectorstore.findings import HealthReport
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from vectorstore.output.health_history import Run

SUFFIXES = (".json", ".html")


def check_output(path: Path) -> None:
    """See that a report may be written there by its name; to be asked before the work.

    Raises:
        ConfigurationError: the suffix says neither JSON nor HTML, or it is a folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{path}: a report is a .json or an .html file", "name one of these")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder", "name a file in it")


def keep_report(settings: Settings, report: HealthReport, outputs: Sequence[Path]) -> list[str]:
    """Add a report to the history and write it where it was asked for; notes for a person.

    Raises:
        ConfigurationError: a file can't be written.
    """
    from vectorstore.output.health_history import append, read

    notes = append(settings.hashes, report) if settings.hashes.is_dir() else []
    if not outputs:
        return notes
    pages = any(path.suffix.lower() == ".html" for path in outputs)
    history = read(settings.hashes).runs() if pages and settings.hashes.is_dir() else []
    for path in outputs:
        write_report(report, path, history)
    return notes


def write_report(report: HealthReport, path: Path, history: Sequence[Run] = ()) -> None:
    """Write a report, whole or not at all; missing folders are made, a file that is there is replaced.

    Args:
        report: what a health check found.
        path: its suffix says what: ``.json``, in the schema of docs/health_report.schema.json, or ``.html``.
        history: for the pictures of the page; see ``health_page``.

    Raises:
        ConfigurationError: it can't be written there; nothing was.
    """
    check_output(path)
    if path.suffix.lower() == ".json":
        text = json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
    else:
        from vectorstore.output.health_page import health_page

        text = health_page(report, history)
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; missing folders are made, a link stays one.

    Raises:
        ConfigurationError: it can't be written there; nothing was.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigurationError(
            f"the report can't be written to {path}: {error.strerror}", "name a place that can be written"
        ) from None
