"""What the command line does with the history of runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from vectorstore.alerting import URLS
from vectorstore.settings import Settings

_Report = TypeVar("_Report")


def by_hand(settings: Settings, verb: str, call: Callable[[], _Report], *, dry_run: bool = False) -> _Report:
    """What ``call`` returns, with the run in the history; see ``runs.recording``. Then alerts are judged."""
    from vectorstore.runs.recording import recorded

    try:
        return recorded(settings, verb, call, by="cli", dry_run=dry_run, note=_say)
    finally:
        if not dry_run and os.environ.get(URLS):
            from vectorstore.alerts import after_run

            after_run(settings, _say)


def _say(note: str) -> None:
    print(f"vectorkeep: {note}", file=sys.stderr)
