"""A health check or a fix in a process of its own: what it looks at may crash, hang, or grow without bound."""

from __future__ import annotations

import os
import resource
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.workbench import _FORKS, FILE_LIMIT, Workspace
from vectorstore.findings import Depth, HealthReport, Severity

TIMEOUT_S = 120


def look(workspace: Workspace, depth: Depth = Depth.DEEP, *, cwd: Path | None = None, **options: Any) -> HealthReport:
    """A health check's report."""
    report = call("vectorstore.health", "health", workspace, cwd=cwd, depth=depth, **options)
    assert isinstance(report, HealthReport)
    return report


def call(module: str, name: str, workspace: Workspace, *, cwd: Path | None = None, **options: Any) -> Any:
    """What a function of the library returns for a workspace's settings; what it raises is raised here."""
    here, there = _FORKS.Pipe()
    arguments = (module, name, workspace.settings(), options, str(cwd or workspace.root), workspace.env(), there)
    process = _FORKS.Process(target=_call, args=arguments)
    process.start()
    there.close()
    try:
        assert here.poll(TIMEOUT_S), f"{name}: no answer within {TIMEOUT_S} s"
        kind, value = here.recv()
    except EOFError:
        process.join(10)
        raise AssertionError(f"{name}: the process ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if kind == "raised":
        raise value
    assert kind == "returned", f"{name}: {value}"
    return value


def _call(
    module: str, name: str, settings: Any, options: dict[str, Any], cwd: str, env: dict[str, str], answer: Connection
) -> None:
    import importlib

    from vectorstore.errors import VectorkeepError

    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        answer.send(("returned", getattr(importlib.import_module(module), name)(settings, **options)))
    except VectorkeepError as error:
        answer.send(("raised", error))
    except BaseException:
        answer.send(("crashed", traceback.format_exc()))


def named(report: HealthReport, severity: Severity = Severity.WARN) -> dict[str, str]:
    """The checks that found something as bad as ``severity``, with what they said."""
    found: dict[str, str] = {}
    for finding in report.findings:
        if finding.severity >= severity:
            said = f"{finding.severity.name} {finding.collection}: {finding.message} {', '.join(finding.ids[:3])}"
            found[finding.check] = "; ".join(filter(None, (found.get(finding.check), said)))
    return found
