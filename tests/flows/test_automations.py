"""Automations on a real Prefect server: installed once however often, and what they send arrives."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.automations import main
from tests.flows.conftest import Workspace
from tests.flows.test_server import ROOT, Prefect, wait_until
from tests.support.receivers import Webhook
from tests.support.server_process import ServerProcess
from vectorstore.alerting import URLS

pytestmark = pytest.mark.slow
SECRET = "s3cr3t-t0ken"
NAMES = [f"vectorkeep: {name}" for name in ("alert", "ended", "late", "silent", "zombie")]
IMPATIENT = """
import sys
from datetime import timedelta
from tasks import automations
automations.JUDGED_WITHIN = automations.LATE_AFTER = automations.SILENT_AFTER = timedelta(seconds=10)
automations.LEAST_HEARTBEATS = 0.1
sys.exit(automations.main([]))
"""


class Server(Prefect):
    """Without a worker."""

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as opened:
            self._start(opened, "server", "start", "--host", "127.0.0.1", "--port", self.url.rpartition(":")[2])
            wait_until(lambda: self._answers("GET", "/health"))
            self._processes = opened.pop_all()
        return self

    def python(self, *command: str, urls: str = "", code: int = 0) -> str:
        environment = {**self.environment, URLS: urls}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    def install(self, *command: str, urls: str) -> list[str]:
        return [line.split()[0] for line in self.python(*command, urls=urls).splitlines() if "vectorkeep: " in line]

    def automations(self) -> list[dict[str, Any]]:
        return list(self.ask("POST", "/automations/filter", {}))

    def run_that_nobody_judges(self, flow: str, state: str, name: str) -> str:
        body = {"flow_id": flow, "name": name, "tags": ["vectorkeep"], "state": {"type": "SCHEDULED"}}
        run = str(self.ask("POST", "/flow_runs/", body)["id"])
        kind = "SCHEDULED" if state == "Late" else state.upper()
        self.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": kind, "name": state}, "force": True})
        return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect")
    with ServerProcess(home) as embeddings, Server(home, embeddings) as server:
        yield server


def test_they_are_installed_once_and_changed_where_they_differ(server: Server, webhook: Webhook) -> None:
    urls = f"json://{webhook.place}/{SECRET}"
    command = ("-m", "tasks.automations")
    assert server.install(*command, urls=urls) == ["made"] * 5
    assert server.install("-m", "vectorstore.cli", "alerts", "--install", urls=urls) == ["unchanged"] * 5
    assert server.install(*command, urls=f"{urls} {urls}2") == ["changed"] * 4 + ["unchanged"]
    assert sorted(each["name"] for each in server.automations()) == NAMES
    assert SECRET not in json.dumps(server.automations())
    assert SECRET not in json.dumps(server.ask("POST", "/block_documents/filter", {}))
    said = json.loads(server.python(*command, "--json", urls="mailto://a:b@example.org"))
    assert [each["name"] for each in said["automations"]] == NAMES[-1:]
    assert "can't send" in said["notes"][0]


def test_what_no_run_tells_is_told(server: Server, webhook: Webhook, workspace: Workspace) -> None:
    server.install("-c", IMPATIENT, urls=f"json://{webhook.place}/{SECRET}")
    workspace.settings(embedder="hash", max_document_mb=0.01, alert_memory_share=0)
    workspace.write("large.md", text="word " * 4000)
    server.python("flows/update.py", "-p", f"workspace={workspace.root}", code=1)
    wait_until(lambda: "Vectorkeep FAIL: error rate" in webhook.titles)
    (body,) = [each for each in webhook.received if each["title"] == "Vectorkeep FAIL: error rate"]
    assert "1 of 1 documents failed" in body["message"]

    flow = str(server.ask("GET", "/flows/name/update")["id"])
    server.run_that_nobody_judges(flow, "Failed", "failed-run")
    server.run_that_nobody_judges(flow, "Late", "late-run")
    gone = server.run_that_nobody_judges(flow, "Running", "gone-run")
    beat(server, gone)
    wait_until(lambda: "Vectorkeep FAIL: run failed-run ended badly" in webhook.titles)
    wait_until(lambda: "Vectorkeep FAIL: run late-run is late" in webhook.titles)
    wait_until(lambda: "Vectorkeep FAIL: nobody checks alerts" in webhook.titles)
    wait_until(lambda: server.ask("GET", f"/flow_runs/{gone}")["state"]["type"] == "CRASHED")
    wait_until(lambda: "Vectorkeep FAIL: run gone-run ended badly" in webhook.titles)
    ended = [title for title in webhook.titles if "ended badly" in title]
    assert len(ended) == 2  # not of the run that was judged


def beat(server: Server, run: str) -> None:
    """The only heartbeat of a run, as its process would send it."""
    tag = {"prefect.resource.id": "prefect.tag.vectorkeep", "prefect.resource.role": "tag"}
    event = {
        "occurred": datetime.now(UTC).isoformat(), "event": "prefect.flow-run.heartbeat", "id": str(uuid.uuid4()),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"}, "related": [tag], "payload": {},
    }  # fmt: skip
    server.ask("POST", "/events", [event])


def test_without_a_server_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main([]) == 2
    assert "PREFECT_API_URL is not set" in capsys.readouterr().err
