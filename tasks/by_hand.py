"""``python flows/x.py``: a flow run by hand, with short output and the command line's exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect import Flow, State
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import PrefectConsoleHandler

from tasks.states import exit_code

HERE = Path(__file__).parent
EXIT_CODES = """exit codes: 0 done, 1 findings at FAIL or some documents failed, 2 usage or configuration, 3 capped,
4 locked by another run, 5 refused by a safety guard, 6 a backup, store or ledger that does not verify,
130 interrupted"""


def run_by_hand(flow: Flow[..., Any], argv: Sequence[str] | None = None) -> int:
    """Run a flow with parameters from the command line; returns the exit code."""
    _quieten()
    parameters = _parameters(flow, argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Prefect passes SIGTERM on once the run has stopped
    try:
        state = cast(State[Any], flow(**parameters, return_state=True))
        return exit_code(state)
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return 130


def _parameters(flow: Flow[..., Any], argv: Sequence[str] | None) -> dict[str, Any]:
    known = flow.parameters.properties
    width = max(map(len, known)) + 4
    rows = [f"  {name:<{width - 2}}{about['description']}" for name, about in known.items()]
    lines = [textwrap.fill(row, 100, subsequent_indent=" " * width) for row in rows]
    parser = argparse.ArgumentParser(
        description=flow.description, epilog="\n".join(["parameters:", *lines, "", EXIT_CODES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter, its value as JSON or as text; repeatable",
    )  # fmt: skip
    given = {}
    for text in parser.parse_args(argv).param:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            parser.error(f"--param {text!r}: expected NAME=VALUE with one of {', '.join(known)}")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    try:
        flow.validate_parameters(given)
    except ParameterTypeError as error:
        parser.error(str(error))
    return given


def _quieten() -> None:
    """On the terminal only what the tasks say, and what goes wrong; Prefect's server still gets every line."""
    os.environ.setdefault("NO_COLOR", "1")  # colours would end up in the server's log
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_worth_reading)
            handler.setFormatter(logging.Formatter("%(message)s"))


def _worth_reading(record: logging.LogRecord) -> bool:
    if record.name in ("prefect.flows", "prefect.flow_runs", "prefect.task_runs"):
        return Path(record.pathname).parent == HERE or bool(record.exc_info and record.exc_info[0])
    return record.levelno >= logging.WARNING
