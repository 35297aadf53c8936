"""SIGINT and SIGTERM stop a run cleanly: what was in flight is kept, and the next run pays only the rest."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import STOP_SIGNALS, Workspace, paid, wait_until


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_stops_at_the_end_of_a_batch(tmp_path: Path, server: ServerProcess, number: signal.Signals) -> None:
    """A signal ends the run with exit code 130; nothing of what was paid is paid again."""
    server.control(latency_s=0.05)
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(200)
    run = workspace.start("update", "--json")
    assert wait_until(lambda: paid(server) > 60)
    run.signal(number)
    stopped = time.monotonic()
    result = run.wait()
    assert result.code == 130 and result.report["state"] == "interrupted" and "run again" in result.out
    assert time.monotonic() - stopped < 5
    billed = paid(server)
    assert 60 < billed < 200
    assert workspace.run("status", code=0).report["last_update"]["state"] == "interrupted"
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == 200


@pytest.mark.parametrize("documents", [1, 300])
def test_stops_while_the_provider_is_down(tmp_path: Path, server: ServerProcess, documents: int) -> None:
    """A signal ends a run that waits to try again, whether or not there is more to read."""
    server.control(fail=[{"kind": "status", "status": 503}])
    workspace = Workspace(tmp_path / "w", server, max_attempts=12)
    workspace.fill(documents)
    run = workspace.start("update", "--json")
    assert wait_until(lambda: server.state()["requests"] > 1, pause=0.05)
    run.signal(signal.SIGTERM)
    stopped = time.monotonic()
    assert run.wait().code == 130
    assert time.monotonic() - stopped < 5
    server.control(reset=True)
    workspace.update()
    workspace.assert_in_step()


def test_second_signal_stops_at_once(tmp_path: Path, server: ServerProcess) -> None:
    """A second signal does not wait for a provider that hangs."""
    server.control(fail=[{"kind": "hang"}])
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(20)
    run = workspace.start("update")
    assert wait_until(lambda: server.state()["requests"], pause=0.05)
    run.signal(signal.SIGTERM)
    time.sleep(0.3)
    run.signal(signal.SIGTERM)
    run.process.join(5)
    assert run.process.exitcode == -signal.SIGTERM
    server.control(reset=True)
    workspace.update()
    workspace.assert_in_step()
