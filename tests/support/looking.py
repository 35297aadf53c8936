"""A health check or a fix in a process of its own: what it looks at may crash, hang, or grow without bound; or it is
to be killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
import traceback
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.forked import FORKS, Forked
from tests.support.workbench import FILE_LIMIT, Row, Workspace, read_store
from vectorstore.findings import Depth, HealthReport, Severity
from vectorstore.settings import Settings

TIMEOUT_S = 120
SEED = 0


class Call:
    """A call of a function of the library, under way in another process.

    Args:
        function: ``"vectorstore.health:health"``; it is given the workspace's settings and the options.
        cwd: the working directory; default: the workspace.
        die: a step to be killed at, see ``run_process.run``.
    """

    def __init__(
        self, function: str, workspace: Workspace, *, cwd: Path | None = None, die: str = "", **options: Any
    ) -> None:
        self._answer, there = FORKS.Pipe()
        where = str(cwd or workspace.root)
        arguments = (function, workspace.settings(), options, where, workspace.env(), die, there)
        self.process = Forked(target=_call, args=arguments)
        self.process.start()
        there.close()

    def result(self) -> Any:
        """What it returns; what it raises of the library's own errors is raised here."""
        try:
            assert self._answer.poll(TIMEOUT_S), f"no answer within {TIMEOUT_S} s"
            kind, value = self._answer.recv()
        except EOFError:
            self.process.join(10)
            raise AssertionError(f"the process ended with {self.process.exitcode}") from None
        finally:
            self.kill()
        if kind == "raised":
            raise value
        assert kind == "returned", value
        return value

    def killed(self) -> bool:
        """Wait for the end; whether it was a SIGKILL."""
        self.process.join(TIMEOUT_S)
        return self.process.exitcode == -signal.SIGKILL

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def look(workspace: Workspace, depth: Depth = Depth.DEEP, *, cwd: Path | None = None, **options: Any) -> HealthReport:
    """A health check's report; its samples do not go by the hour, as they do elsewhere."""
    report = Call("vectorstore.health:health", workspace, cwd=cwd, depth=depth, **{"seed": SEED} | options).result()
    assert isinstance(report, HealthReport)
    return report


def rows_of(workspace: Workspace) -> dict[str, Row]:
    """Everything Chroma answers for, by ``collection/id``, from a copy."""
    return dict(Call("tests.support.looking:_rows", workspace).result())


def _rows(settings: Settings) -> dict[str, Row]:
    with tempfile.TemporaryDirectory(dir=settings.workspace.parent) as folder:
        return read_store(Path(shutil.copytree(settings.path(settings.chroma_path), Path(folder) / "chroma")))


def traces(workspace: Workspace) -> dict[str, str]:
    """Digest, size, time and mode of everything in a workspace, but SQLite's -shm: memory that processes share, made
    anew by whoever opens a log."""
    found = {}
    for path in workspace.root.rglob("*"):
        if path.name != ".hashes" and not path.name.endswith("-shm"):
            about = path.lstat()
            content = sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = f"{content} {about.st_size} {about.st_mtime_ns} {about.st_mode:o}"
    return found


def _call(
    function: str, settings: Any, options: dict[str, Any], cwd: str, env: dict[str, str], die: str, answer: Connection
) -> None:
    import importlib

    from tests.support.pausing.stepping import die_at
    from tests.support.run_process import fork_probes
    from vectorstore.errors import VectorkeepError

    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if die:
        die_at(die)
    fork_probes()
    module, _, name = function.partition(":")
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
