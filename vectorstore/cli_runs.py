"""What the command line does with the history of runs: keeps it, and tells it: ``report``, ``metrics``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vectorstore.alerting import URLS
from vectorstore.settings import Settings, load_settings

_Report = TypeVar("_Report")
_FORMATS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}  # by the suffix of --output


def add_commands(add: Callable[..., Any]) -> None:
    """Add the commands; ``add(name, action, text)`` gives a parser."""
    report = add("report", _report, "what happened this week, what it cost, and where figures go")
    report.add_argument("--days", type=int, default=30, metavar="N", help="of the lines and trends (30)")
    report.add_argument(
        "--format", choices=("text", "markdown", "html"), default="", help="default: by the suffix of --output, or text"
    )
    report.add_argument("--output", type=Path, metavar="FILE", help="write it there instead of printing it")

    metrics = add("metrics", _metrics, "figures for Prometheus")
    metrics.add_argument("--output", type=Path, metavar="FILE", help="write them there instead of printing them")


def by_hand(settings: Settings, verb: str, call: Callable[[], _Report], *, dry_run: bool = False) -> _Report:
    """What ``call`` returns, with the run in the history; see ``runs.recording``. Then alerts are judged."""
    from vectorstore.runs.recording import recorded

    try:
        return recorded(settings, verb, call, by="cli", dry_run=dry_run, note=_say)
    finally:
        if not dry_run and os.environ.get(URLS):
            from vectorstore.alerts import after_run

            after_run(settings, _say)


def _report(arguments: argparse.Namespace) -> int:
    from vectorstore.report import report

    found = report(load_settings(arguments.workspace), days=arguments.days)
    suffix = arguments.output.suffix.lower() if arguments.output else ""
    form = "json" if arguments.json else arguments.format or _FORMATS.get(suffix, "text")
    _hand_over(_formed(found, form), arguments.output)
    return 0


def _formed(found: Any, form: str) -> str:
    import json

    from vectorstore.runs.report_page import report_page
    from vectorstore.runs.report_text import report_markdown, report_text

    if form == "json":
        return json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    return {"html": report_page, "markdown": report_markdown, "text": report_text}[form](found).rstrip("\n") + "\n"


def _metrics(arguments: argparse.Namespace) -> int:
    from vectorstore.runs.metrics import metrics_text

    _hand_over(metrics_text(load_settings(arguments.workspace)), arguments.output)
    return 0


def _hand_over(text: str, output: Path | None) -> None:
    """Print it, or write it: whole or not at all."""
    if output is None:
        sys.stdout.write(text)
        return
    from vectorstore.output.health_files import write_text

    write_text(output, text)


def _say(note: str) -> None:
    print(f"vectorkeep: {note}", file=sys.stderr)
