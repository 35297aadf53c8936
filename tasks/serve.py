"""``vectorkeep serve``: all that one machine needs, in one process to start and to stop.

A Prefect server (unless there is one), the deployments of ``prefect.yaml`` for one workspace, a worker, the metrics.
What dies is started again; runs whose process was killed are ended, so that none of them blocks the next.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tasks.children import Child
from tasks.deploying import ROOT, begin_automations, deploy, installed_automations
from tasks.prefect_api import PrefectApi
from tasks.zombies import run_processes, settle_zombies, signal_all
from vectorstore.errors import ConfigurationError, Locked, VectorkeepError
from vectorstore.lock import WriterLock, holder
from vectorstore.runs.metrics_server import MetricsServer
from vectorstore.settings import Settings, load_settings

POOL = "vectorkeep"
START_S = 180.0  # on a busy machine a server takes its time
RUNS_END_S = 20.0  # what a run gets to end its batch when all is stopped
ZOMBIES_EVERY_S = 15.0
SECRETS = ("OPENAI_API_KEY", "VECTORKEEP_BACKUP_PASSWORD", "VECTORKEEP_ALERT_URLS")  # no business of the server's


class Desk:
    """What runs for one workspace.

    Args:
        settings: of the workspace.
        port: of the server, if it has to be started.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings, self.port = settings, port
        self.home = settings.workspace / ".prefect"
        given = os.environ.get("PREFECT_API_URL", "")
        self.given = bool(given)
        self.api = PrefectApi(given or f"http://127.0.0.1:{port}/api")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.env = {
            "PREFECT_HOME": str(self.home), **os.environ, "PREFECT_API_URL": self.api.url, "PYTHONPATH": path,
            "VECTORKEEP_WORKSPACE": str(settings.workspace), "PWD": str(ROOT), "DO_NOT_TRACK": "1",
        }  # fmt: skip
        self.server: Child | None = None
        self.worker = self._child("worker", self.env, "worker", "start", "--pool", POOL, "--type", "process")
        self.metrics = MetricsServer(settings)
        self.stop = threading.Event()

    def start(self) -> None:
        """Start everything, and say where it is.

        Raises:
            VectorkeepError: something else has the port, another workspace has the server, or Prefect does not start.
        """
        self._reach_server()
        self._check_workspace()
        for name in settle_zombies(self.api):
            say("ended", f"{name}: its process was killed")
        self.worker.start()
        self._start_metrics()
        self._wait("the work pool", lambda: self.api.ask("GET", f"/work_pools/{POOL}"), self.worker)
        say("worker", f"started; its log: {self.worker.log}")
        installing = begin_automations(self.env)
        try:
            deploy(self.api, self.settings.workspace, self.env, self.home / "prefect.yaml")
            for line in installed_automations(installing):
                say("alerts", line)
        finally:
            installing.kill()
        self._say_what_is_next()

    def keep(self) -> None:
        """Until it is stopped: what dies is started again, and runs that were killed are ended."""
        self.api.patience_s = 10  # a signal does not wait longer
        looked = time.monotonic()
        while not self.stop.wait(0.5):
            for child in filter(None, (self.server, self.worker)):
                if news := child.look():
                    say("!", news)
            if time.monotonic() - looked > ZOMBIES_EVERY_S:
                self._look_at_server()
                looked = time.monotonic()

    def end(self) -> None:
        """End all of it: the runs at the end of their batch, then the worker (it kills its runs), the server last."""
        workspace = str(self.settings.workspace)
        asked: set[int] = set()  # once each: a second signal would not wait for the batch's end
        deadline = time.monotonic() + RUNS_END_S
        while (left := run_processes(workspace)) and time.monotonic() < deadline:
            new = {pid for pids in left.values() for pid in pids} - asked
            if new and not asked:
                say("stopping", "runs end at the end of their batch")
            signal_all(new, signal.SIGTERM)
            asked |= new
            time.sleep(0.2)
        signal_all((pid for pids in left.values() for pid in pids), signal.SIGKILL)
        self.worker.end(within_s=5)
        self.metrics.stop()
        if self.server:
            self.server.end(within_s=10)

    def _start_metrics(self) -> None:
        try:
            self.metrics.start()
        except ConfigurationError as error:
            say("!", f"{error.message}: {error.hint}")
            return
        if self.metrics.port:
            say("metrics", f"http://127.0.0.1:{self.metrics.port}/metrics, /health, /status, /report")

    def _reach_server(self) -> None:
        if self.api.answers():
            say("server", f"{self.api.ui}, found running")
            return
        if self.given:
            raise ConfigurationError(
                f"no Prefect server answers at PREFECT_API_URL, {self.api.url}",
                "start it, or unset PREFECT_API_URL: then this command starts one",
            )
        if taken(self.port):
            raise ConfigurationError(
                f"port {self.port} is taken by something that is no Prefect server",
                f"stop that, or take another port: `vectorkeep serve --port {self.port + 1}`",
            )
        self._wait("the server", self.api.answers, self._start_server())
        say("server", f"{self.api.ui}, its data in {self.env['PREFECT_HOME']}")

    def _start_server(self) -> Child:
        quiet = {name: value for name, value in self.env.items() if name not in SECRETS}
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        self.server = self._child("server", quiet, "server", "start", *where)
        self.server.start()
        return self.server

    def _look_at_server(self) -> None:
        if self.api.answers():
            try:
                for name in settle_zombies(self.api):
                    say("ended", f"{name}: its process was killed")
            except OSError as error:
                say("!", f"the server: {error}")
        elif self.server is None and not self.given and not taken(self.port):
            say("!", "the server that was found is gone; this command starts one of its own")
            self._start_server()

    def _check_workspace(self) -> None:
        others = {each["parameters"].get("workspace", "") for each in self.api.deployments()}
        for other in others - {"", str(self.settings.workspace)}:
            raise ConfigurationError(
                f"the server at {self.api.ui} is for the workspace {other}",
                f"start another one for this workspace: `vectorkeep serve --port {self.port + 1}`",
            )

    def _say_what_is_next(self) -> None:
        """The next runs, as the server's scheduler made them: what is missing here will never start."""
        deployments = self.api.deployments()
        timed = {each["id"]: each["name"] for each in deployments if any(s["active"] for s in each["schedules"])}
        say("deployed", f"{len(deployments)} deployments, {len(timed)} of them with a schedule")
        try:
            self._wait("the schedules", lambda: timed.keys() <= self.api.next_runs().keys(), self.worker, 60)
        except VectorkeepError:
            missing = sorted(timed[key] for key in timed.keys() - self.api.next_runs().keys())
            say("!", f"the server's scheduler made no runs for {', '.join(missing)}; see the server's log")
        for key, when in sorted(self.api.next_runs().items(), key=lambda item: item[1]):
            if key in timed:
                say("next", f"{when[:16].replace('T', ' ')}Z  {timed[key]}")

    def _wait(self, what: str, condition: Any, child: Child, within_s: float = START_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if self.stop.wait(0.3):
                raise KeyboardInterrupt
            if not child.running() or time.monotonic() > deadline:
                raise VectorkeepError(
                    f"{what} did not come up: {child.last_words()}", f"see the log of the {child.name}: {child.log}"
                )

    def _child(self, name: str, env: dict[str, str], *command: str) -> Child:
        log = self.settings.workspace / "logs" / f"prefect-{name}.log"
        return Child(name, [sys.executable, "-m", "prefect", *command], env, ROOT, log)


def main(argv: list[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vectorkeep serve")
    parser.add_argument("--workspace")
    parser.add_argument("--port", type=int, default=4200)
    arguments = parser.parse_args(argv)
    try:
        return serve(load_settings(arguments.workspace), arguments.port)
    except VectorkeepError as error:
        print(f"vectorkeep: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def serve(settings: Settings, port: int) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    Raises:
        Locked: this workspace is being served already.
        VectorkeepError: see ``Desk.start``.
    """
    desk = Desk(settings, port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: desk.stop.set())
    with alone(settings):
        say("workspace", str(settings.workspace))
        try:
            desk.start()
            say("ready", "Ctrl-C ends all of it")
            desk.keep()
        except OSError as error:
            raise VectorkeepError(
                f"the Prefect server at {desk.api.ui}: {error}", "see its log, and try again"
            ) from error
        finally:
            desk.end()
    return 0


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """The only ``serve`` of a workspace."""
    path = settings.workspace / ".prefect" / "serve.lock"
    with ExitStack() as held:
        try:
            held.enter_context(WriterLock([path], "vectorkeep serve"))
        except Locked:
            raise Locked(f"this workspace is being served: {holder(path)}", "open its UI, or stop it first") from None
        yield


def taken(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def say(word: str, text: str) -> None:
    """A line for a person."""
    print(f"{word:<10} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
