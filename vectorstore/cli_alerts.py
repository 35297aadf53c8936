"""The commands ``alerts`` and ``check-key``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from vectorstore.errors import ConfigurationError
from vectorstore.settings import Settings, load_settings

Add = Callable[..., Any]


def add_commands(add: Add) -> None:
    """Add the commands; ``add(name, action, text)`` gives a parser."""
    alerts = add("alerts", _alerts, "judge what a person should know of, and tell who was not told yet")
    what = alerts.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="only say what would be told; changes nothing")
    what.add_argument("--test", action="store_true", help="send a test message, and say which address took it")
    what.add_argument("--install", action="store_true", help="install the automations on the Prefect server")
    add("check-key", _check_key, "ask the provider whether it accepts the key; costs nothing")


def _alerts(arguments: argparse.Namespace) -> int:
    from vectorstore.alerts import alerts
    from vectorstore.output.alert_text import alerts_text

    if arguments.install:
        return _install(arguments)
    settings = _settings(arguments)
    if arguments.test:
        return _test(arguments, settings)
    report = alerts(settings, send=not arguments.dry_run)
    _show(arguments, report.to_dict(), alerts_text(report))
    return report.exit_code


def _test(arguments: argparse.Namespace, settings: Settings) -> int:
    from vectorstore.alerting import URLS
    from vectorstore.alerts import try_addresses
    from vectorstore.output.alert_text import trial_text

    sent = try_addresses(settings)
    if not sent:
        raise ConfigurationError(f"{URLS} is not set", "put addresses there, see docs/alerts.md")
    results = [{"address": label, "ok": not reason, "reason": reason} for label, reason in sent.items()]
    _show(arguments, {"addresses": results}, trial_text(sent))
    return int(any(sent.values()))


def _install(arguments: argparse.Namespace) -> int:
    """In a process of its own: this one never imports Prefect."""
    import subprocess

    command = [sys.executable, "-m", "tasks.automations", *(["--json"] if arguments.json else [])]
    return subprocess.run(command, check=False).returncode


def _check_key(arguments: argparse.Namespace) -> int:
    from vectorstore.check_key import check_key

    report = check_key(_settings(arguments))
    next_step = f"\n  next: {report.hint}" if report.hint else ""
    state = report.state.replace("_", " ")
    message = "" if report.message == report.state else f": {report.message}"
    _show(arguments, report.to_dict(), f"{report.address}: {state}{message}{next_step}")
    return report.exit_code


def _settings(arguments: argparse.Namespace) -> Settings:
    return load_settings(arguments.workspace)


def _show(arguments: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    print(json.dumps(value, indent=2, default=str) if arguments.json else text)
