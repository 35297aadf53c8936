"""What Prefect adds: the flow `update` beside the same update by the command line, alone and with a server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import measure, ours
from benchmarks.measure import REPOSITORY, BenchmarkFailed, Sample, typical
from benchmarks.report import Row, Section
from benchmarks.sections import Bench, Options

STATES = {"everything is new": "new", "nothing changed": "unchanged"}
TASK_RUNS_FACTOR = 10.0  # of 280,000 documents, by those of 2,000
DIMENSION = 32  # the rest of the work is the same whatever it is
_START_S = 120.0


def prefect(options: Options) -> Section:
    """The section's rows: CPU and wall of the flow and of the command line in turn, and the task runs of many files."""
    few, many = options.prefect_files, options.scale_files
    repeat = min(options.repeat, 3)
    with _server(options) as server:
        samples, served = _in_turn(options, few, server, repeat)
        runs = {files: _task_runs(options, files, server) for files in (few, many)}
    rows = [row for state in STATES for row in _rows(state, few, samples, served)]
    work = f"Prefect, everything is new, {few:,} and {many:,} files"
    rows.append(
        Row(work, "task runs; floor: those of the fewer", runs[few], runs[many], promise=TASK_RUNS_FACTOR, peers=False)
    )
    return Section(rows, samples, [], {"files": [few, many], "dimension": DIMENSION, "repeat": repeat})


class _Server:
    """A Prefect server of its own.

    Attributes:
        env: what lets a flow find it.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, home: str) -> None:
        self._process, self._url = process, url
        self.env = {"PREFECT_API_URL": f"{url}/api", "PREFECT_HOME": home}

    def cpu_s(self) -> float:
        """CPU seconds of the server so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settled_cpu_s(self) -> float:
        """The same once it has written what it was sent: it does so in batches, seconds later."""
        time.sleep(5)
        return self.cpu_s()

    def task_runs(self) -> int:
        """How many it has recorded."""
        return int(self._ask("/task_runs/count"))

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/api/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _ask(self, path: str) -> Any:
        request = urllib.request.Request(
            f"{self._url}/api{path}", b"{}", {"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def _server(options: Options) -> Iterator[_Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = os.path.join(options.scratch, "prefect-server")
    os.makedirs(home)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = measure.environment({"PREFECT_HOME": home, "DO_NOT_TRACK": "1"})
    with open(os.path.join(home, "server.log"), "wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = _Server(process, f"http://127.0.0.1:{port}", home)
        until = time.monotonic() + _START_S
        while not server.answers():
            if process.poll() is not None or time.monotonic() > until:
                raise BenchmarkFailed(f"Prefect's server did not start; see {home}")
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _in_turn(
    options: Options, files: int, server: _Server, repeat: int
) -> tuple[dict[str, list[Sample]], dict[str, list[float]]]:
    """Samples by way and state, and what the server took for each run that it served."""
    bench = Bench(options, "prefect", files, DIMENSION)
    served: dict[str, list[float]] = {}
    alone = {"PREFECT_HOME": os.path.join(options.scratch, "prefect-alone")}
    ways: dict[str, Callable[[str], Sample]] = {
        "command": lambda state: ours.update(state, bench.env),
        "flow alone": lambda state: _flow(state, bench.env | alone),
        "flow": lambda state: _flow(state, bench.env | server.env),
    }

    def once(way: str, state: str) -> Sample:
        options.progress(f"Prefect: {way}, {state}, {files:,} files")
        workspace = bench.path(way.replace(" ", "-"))
        if state == "new":
            shutil.rmtree(workspace, ignore_errors=True)
            ours.init(workspace, bench.env)
        before = server.cpu_s()
        sample = ways[way](workspace)
        if way == "flow":
            served.setdefault(state, []).append(server.settled_cpu_s() - before)
        return sample

    def bound(way: str, state: str) -> Callable[[], Sample]:
        return lambda: once(way, state)

    try:
        runs = {f"{way}, {state}": bound(way, state) for state in STATES.values() for way in ways}
        return measure.alternate(runs, dict.fromkeys(runs, repeat)), served
    finally:
        bench.close()


def _flow(workspace: str, env: dict[str, str]) -> Sample:
    command = [sys.executable, "flows/update.py", "-p", f"workspace={workspace}"]
    return measure.run(command, env | {"DO_NOT_TRACK": "1"}).sample


def _task_runs(options: Options, files: int, server: _Server) -> int:
    """Those of a first update of so many files."""
    bench = Bench(options, f"prefect-{files}", files, DIMENSION, "note")
    try:
        options.progress(f"Prefect: task runs, {files:,} files")
        ours.init(bench.path("flow"), bench.env)
        before = server.task_runs()
        _flow(bench.path("flow"), bench.env | server.env)
        server.settled_cpu_s()
        return server.task_runs() - before
    finally:
        bench.close()


def _rows(state: str, files: int, samples: dict[str, list[Sample]], served: dict[str, list[float]]) -> list[Row]:
    work = f"Prefect, {state}, {files:,} files"
    key = STATES[state]
    command, alone, flow = (typical(samples[f"{way}, {key}"]) for way in ("command", "flow alone", "flow"))
    floor = "floor: the command line"
    server = sorted(served[key])[len(served[key]) // 2]
    return [
        Row(work, f"CPU s, flow without a server; {floor}", command.cpu_s, alone.cpu_s, peers=False),
        Row(work, f"CPU s, flow with a server; {floor}", command.cpu_s, flow.cpu_s, peers=False),
        Row(work, "CPU s that the server takes for it", ours=server, peers=False),
        Row(work, f"wall s, flow without a server; {floor}", command.wall_s, alone.wall_s, peers=False),
        Row(work, f"wall s, flow with a server; {floor}", command.wall_s, flow.wall_s, peers=False),
    ]
