"""The command ``serve``: Prefect's part of one machine, as a process of its own, for the library knows no Prefect."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vectorstore.errors import ConfigurationError
from vectorstore.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
PORT = 4200


def add_commands(add: Callable[..., Any]) -> None:
    """Add the command; ``add(name, action, text)`` gives a parser."""
    serve = add("serve", _serve, "start a Prefect server, the deployments, a worker and the metrics; Ctrl-C ends them")
    serve.add_argument("--port", type=int, default=PORT, metavar="N", help=f"of the server, on 127.0.0.1 ({PORT})")


def _serve(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.workspace)
    if not (ROOT / "prefect.yaml").is_file():
        raise ConfigurationError(
            f"there is no prefect.yaml beside the package, in {ROOT}",
            "run this from a checkout, installed with `pip install -e .`: flows and deployments lie there",
        )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [
        sys.executable, "-P", "-m", "tasks.serve",
        "--workspace", str(settings.workspace), "--port", str(arguments.port),
    ]  # fmt: skip
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # signals then reach it directly
