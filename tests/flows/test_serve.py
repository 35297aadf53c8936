"""``vectorkeep serve``: one command for one machine, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.children import Child
from tasks.prefect_api import PrefectApi
from tasks.zombies import run_processes
from tests.flows.conftest import Workspace
from tests.flows.test_deployments import TIMETABLE
from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def wait_until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    """Of all its threads."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)


class Served:
    """``vectorkeep serve`` for a workspace, as a process; what it says goes to ``serve.out``."""

    def __init__(self, root: Path, port: int, **environment: str) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {**own, "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1", **environment}
        self.root, self.port, self.api = root, port, PrefectApi(f"http://127.0.0.1:{port}/api")
        self.out = root / "serve.out"
        self.start()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "vectorstore.cli", "--workspace", str(self.root), "serve", *arguments]

    def start(self) -> None:
        with open(self.out, "w") as out:
            self.process = subprocess.Popen(
                self.command("--port", str(self.port)), cwd=ROOT, env=self.environment, stdout=out, stderr=out
            )
        wait_until(lambda: "\nready " in self.said() or self.process.poll() is not None, 240)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.out.read_text()

    def begin(self, name: str, **parameters: Any) -> str:
        (deployment,) = (each for each in self.api.deployments() if each["name"] == name)
        asked = {"parameters": parameters}
        return str(self.api.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", asked)["id"])

    def state(self, run: str) -> Any:
        return self.api.ask("GET", f"/flow_runs/{run}")["state"]

    def ended(self, run: str, within_s: float = 60) -> str:
        wait_until(lambda: self.state(run)["type"] in FINAL, within_s)
        return str(self.state(run)["name"])

    def processes(self) -> list[int]:
        """Its own, the server's, the worker's, the runs'."""
        below = children_of(self.process.pid)
        runs = [pid for pids in run_processes(str(self.root)).values() for pid in pids]
        return [self.process.pid, *below, *(each for child in below for each in children_of(child)), *runs]


@pytest.fixture
def served(workspace: Workspace, tmp_path: Path) -> Iterator[Served]:
    workspace.settings(embedder="openai", batch_texts=1, concurrency=1)
    workspace.write(*(f"{number:02}.md" for number in range(60)))
    with socket.socket() as one, socket.socket() as another:
        one.bind(("127.0.0.1", 0))
        another.bind(("127.0.0.1", 0))
        port, metrics = one.getsockname()[1], another.getsockname()[1]
    with ServerProcess(tmp_path, latency=0.3) as embeddings:
        served = Served(
            workspace.root, port, OPENAI_API_KEY=embeddings.key, OPENAI_BASE_URL=embeddings.url,
            VECTORKEEP_METRICS_PORT=str(metrics),
        )  # fmt: skip
        try:
            yield served
        finally:
            for pid in served.processes():
                kill(pid)
            served.process.wait()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def pause_all(served: Served) -> None:
    """As the UI's switches do; what starts by the clock would meet what a test starts."""
    for deployment in served.api.deployments():
        for schedule in deployment["schedules"]:
            path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
            served.api.ask("PATCH", path, {"active": False})


def begun(served: Served) -> str:
    """An update that has paid for something and goes on for a while."""
    before = paid(served)
    run = served.begin("update")
    wait_until(lambda: paid(served) > before + 2)
    return run


def paid(served: Served) -> int:
    """Requests up to now."""
    bill = served.root.parent / "bill.jsonl"
    return len(bill.read_text().splitlines()) if bill.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(600)  # two starts of all of Prefect
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_serves_whatever_is_killed_and_leaves_nothing(served: Served, tmp_path: Path) -> None:
    said = served.said()
    assert f"\nserver     {served.api.ui}, " in said
    assert f"\ndeployed   {len(TIMETABLE)} deployments, " in said
    assert all(f"Z  {name}\n" in said for name, schedules in TIMETABLE.items() if schedules)
    assert {each["parameters"]["workspace"] for each in served.api.deployments()} == {str(served.root)}
    assert (served.root / ".prefect" / "prefect.db").exists()
    (metrics,) = re.findall(r"(?m)^metrics    (\S+/metrics), ", said)
    with urllib.request.urlopen(metrics, timeout=20) as answer:
        assert b"vectorkeep_" in answer.read()

    second = subprocess.run(served.command(), env=served.environment, cwd=ROOT, capture_output=True, text=True)
    assert (second.returncode, "this workspace is being served: `vectorkeep serve`, " in second.stderr) == (4, True)
    (tmp_path / "other").mkdir()
    elsewhere = [*served.command("--port", str(served.port)), "--workspace", str(tmp_path / "other")]
    other = subprocess.run(elsewhere, env=served.environment, cwd=ROOT, capture_output=True, text=True)
    assert (other.returncode, f"is for the workspace {served.root}" in other.stderr) == (2, True)

    pause_all(served)

    # Worker and flow at once: nobody tells the server.
    run = begun(served)
    for pid in [children_of(served.process.pid)[-1], *run_processes(str(served.root))[run]]:
        kill(pid)
    assert served.ended(run) == "Crashed"

    # The whole machine: nobody is there to tell.
    run = begun(served)
    everything = served.processes()
    for pid in everything:
        kill(pid)
    served.process.wait()
    wait_until(lambda: gone(everything), 10)
    served.start()
    assert served.state(run)["name"] == "Crashed"
    assert not any(schedule["active"] for each in served.api.deployments() for schedule in each["schedules"])
    assert served.ended(served.begin("update", max_cost_usd=0)) == "Capped", "the next run runs within a minute"

    # Stopped: the run ends at the end of its batch, and keeps what it paid for.
    begun(served)
    everything = served.processes()
    asked = time.monotonic()
    kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert time.monotonic() - asked < 20
    wait_until(lambda: gone(everything), 2)
    assert not run_processes(str(served.root))
    assert '"state": "interrupted"' in (served.root / ".hashes" / "embedding_checkpoint.json").read_text()


@pytest.mark.slow
def test_a_port_that_is_taken_is_an_error_with_a_way_out(workspace: Workspace) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "vectorstore.cli", "serve", "--port", str(port)]
        place = {**environment, "PYTHONPATH": str(ROOT), "VECTORKEEP_WORKSPACE": str(workspace.root)}
        done = subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"port {port} is taken by something that is no Prefect server" in done.stderr
    assert f"vectorkeep serve --port {port + 1}" in done.stderr


def test_a_server_that_is_named_must_answer(workspace: Workspace) -> None:
    place = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "vectorstore.cli", "--workspace", str(workspace.root), "serve"]
    done = subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True)
    assert (done.returncode, "no Prefect server answers at PREFECT_API_URL" in done.stderr) == (2, True)


def test_without_a_checkout_it_says_what_is_missing(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "vectorstore", tmp_path / "site" / "vectorstore")
    place = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "vectorstore.cli", "--workspace", str(workspace.root), "serve"]
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)
    assert (done.returncode, "run this from a checkout" in done.stderr) == (2, True)


class TestChild:
    def child(self, tmp_path: Path, script: str) -> Child:
        return Child("worker", [sys.executable, "-c", script], os.environ, tmp_path, tmp_path / "logs" / "child.log")

    def test_starts_again_when_it_dies_and_waits_longer_each_time(self, tmp_path: Path) -> None:
        child = self.child(tmp_path, "print('once more')")
        child.start()
        said = []
        deadline = time.monotonic() + 30
        while len(said) < 2 and time.monotonic() < deadline:
            if news := child.look():
                said.append(news)
            time.sleep(0.02)
        child.end(1)
        assert "the worker ended with 0; it starts again in 1 s" in said[0]
        assert "it starts again in 2 s" in said[1]
        assert child.last_words() == "once more\nonce more"

    def test_what_does_not_want_to_end_is_killed_with_all_it_started(self, tmp_path: Path) -> None:
        deaf = (
            "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork();"
            " print(os.getpid(), flush=True); time.sleep(60)"
        )
        child = self.child(tmp_path, deaf)
        child.start()
        wait_until(lambda: len(child.last_words().splitlines()) == 2, 20)
        child.end(0.2)
        wait_until(lambda: gone([int(pid) for pid in child.last_words().splitlines()]), 5)
        assert not child.running()

    def test_its_log_does_not_grow_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.children.LOG_BYTES", 1000)
        child = self.child(tmp_path, "import time; print('x' * 2000, flush=True); time.sleep(60)")
        child.start()
        wait_until(lambda: child.log.stat().st_size > 1000, 20)
        child.look()
        assert (child.log.stat().st_size, (tmp_path / "logs" / "child.log.1").stat().st_size) == (0, 2001)
        child.end(1)
