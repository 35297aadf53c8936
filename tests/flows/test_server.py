"""The whole of Prefect: a server, a worker, the deployments of ``prefect.yaml``, and what a browser shows of it."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Workspace
from tests.flows.test_deployments import DEPLOYMENTS, TIMETABLE
from tests.support.chroma_helpers import file_limit, open_client
from tests.support.server_process import ServerProcess
from vectorstore.settings import load_settings
from vectorstore.update import update

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FORMS = ("update", "health", "backup", "prune", "verify", "drill", "restore", "recover", "maintain")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "who|`![x](http://127.0.0.1:9/x.png)<img>#00000"
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: apt-get install chromium")


class Prefect:
    """A server and a worker of their own, ended by process id.

    Args:
        scheduling: the server makes the runs of schedules; it takes a minute until all have some.

    Attributes:
        deployments: of ``prefect.yaml``, by name, as the server knows them. Their schedules are paused then.
        scheduled: the runs that the server had made by then.
        embeddings: the embeddings API that the worker's runs call.
        started: the processes, ``server`` and ``worker``.
    """

    def __init__(self, home: Path, embeddings: ServerProcess, *, scheduling: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.home, self.embeddings = f"http://127.0.0.1:{port}", home, embeddings
        self._scheduling = scheduling
        self.environment = {
            **os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"{self.url}/api", "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OPENAI_API_KEY": embeddings.key, "OPENAI_BASE_URL": embeddings.url,
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": str(scheduling),
        }  # fmt: skip
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._processes = contextlib.ExitStack()

    def __enter__(self) -> Prefect:
        with contextlib.ExitStack() as opened:
            self.start_server(opened)
            self._start(opened, "worker", "start", "--pool", "vectorkeep", "--type", "process")
            wait_until(lambda: self._answers("GET", "/work_pools/vectorkeep"))
            self.deployed = subprocess.run(
                [*self._prefect(), "--no-prompt", "deploy", "--all"], cwd=ROOT, env=self.environment,
                capture_output=True, text=True,
            )  # fmt: skip
            self.deployments = {each["name"]: each for each in self.ask("POST", "/deployments/filter", {})}
            self.scheduled = self._scheduled() if self._scheduling else []
            for deployment in self.deployments.values():
                for schedule in deployment["schedules"]:  # what it starts would meet what a test starts
                    path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
                    self.ask("PATCH", path, {"active": False})
            self._processes = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def start_server(self, opened: contextlib.ExitStack) -> None:
        """It answers when this returns, and ends with ``opened``."""
        self._start(opened, "server", "start", "--host", "127.0.0.1", "--port", self.url.rpartition(":")[2])
        wait_until(lambda: self._answers("GET", "/health"))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"{self.url}/api{path}", data, {"content-type": "application/json"}, method=method
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)  # its SQLite is busy: it asks to be asked again
        raise AssertionError("the server stays busy")

    def begin(self, deployment: str = "update", **parameters: Any) -> str:
        body, its = {"parameters": parameters}, self.deployments[deployment]
        return str(self.ask("POST", f"/deployments/{its['id']}/create_flow_run", body)["id"])

    def ended(self, run: str) -> Any:
        wait_until(lambda: self.ask("GET", f"/flow_runs/{run}")["state"]["type"] in FINAL)
        return self.ask("GET", f"/flow_runs/{run}")

    def of_run(self, what: str, run: str) -> list[Any]:
        """Its ``artifacts``, ``task_runs`` or ``logs``."""
        only = {"logs": {"flow_run_id": {"any_": [run]}}} if what == "logs" else {"flow_runs": {"id": {"any_": [run]}}}
        return list(self.ask("POST", f"/{what}/filter", only))

    def page(self, path: str, picture: Path, shows: str, size: str = "1280,1250") -> str:
        """The text that a browser shows of a page of the UI once ``shows`` is in it; its picture goes to a file."""
        for _ in range(5):  # a server that is busy answers after the picture was taken
            text = self._page(path, picture, size)
            if shows in text:
                return text
        raise AssertionError(f"{shows!r} is not in {text!r}")

    def _page(self, path: str, picture: Path, size: str) -> str:
        assert BROWSER
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic",
            "--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--force-prefers-reduced-motion", f"--user-data-dir={self.home / 'browser'}", f"--window-size={size}",
            "--virtual-time-budget=10000", f"--screenshot={picture}", "--dump-dom", self.url + path,
        ]  # fmt: skip
        dom = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
        shown = re.sub(r"<(script|style|title).*?</\1>|<[^>]+>", " ", dom, flags=re.S)
        return " ".join(html.unescape(shown).split())

    def _scheduled(self) -> list[Any]:
        """The runs that the server's scheduler makes, once each deployment that has a schedule has some."""
        only = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        timed = {each["id"] for each in self.deployments.values() if each["schedules"]}
        wait_until(lambda: {run["deployment_id"] for run in self.ask("POST", "/flow_runs/filter", only)} >= timed)
        return list(self.ask("POST", "/flow_runs/filter", only))

    def _start(self, opened: contextlib.ExitStack, *command: str) -> None:
        with open(self.home / f"{command[0]}.log", "a") as log:
            process = subprocess.Popen(
                [*self._prefect(), *command], cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.started[command[0]] = process
        opened.callback(_end, process)

    def _prefect(self) -> list[str]:
        return [sys.executable, "-m", "prefect"]

    def _answers(self, method: str, path: str) -> bool:
        try:
            self.ask(method, path)
        except (urllib.error.URLError, OSError):
            return False
        return True


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    home = tmp_path_factory.mktemp("prefect")
    with ServerProcess(home, latency=0.2) as embeddings, Prefect(home, embeddings, scheduling=True) as prefect:
        yield prefect


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    workspace.settings(embedder="openai", collection="guide_{folder}", batch_texts=2, concurrency=1)
    workspace.write(*(f"{folder}/{number:02}.md" for folder in ("api", "howto", "news") for number in range(20)))
    return workspace


def test_deploys_all_without_a_question(prefect: Prefect) -> None:
    assert prefect.deployed.returncode == 0, prefect.deployed.stdout + prefect.deployed.stderr
    assert prefect.deployments.keys() == TIMETABLE.keys()


@pytest.mark.parametrize("name", TIMETABLE)
def test_deploys_with_schedules_and_limit(prefect: Prefect, name: str) -> None:
    deployment, written = prefect.deployments[name], DEPLOYMENTS[name]
    assert (deployment["tags"], deployment["parameters"]) == (written["tags"], written["parameters"])
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    for schedule in deployment["schedules"]:
        assert (schedule["schedule"]["timezone"], schedule["active"]) == ("UTC", True)
        assert written["schedules"][0].keys() <= {"slug", "cron", "timezone", "parameters"}
    assert {each["slug"]: each["schedule"]["cron"] for each in deployment["schedules"]} == TIMETABLE[name]


def test_the_scheduler_makes_the_coming_runs_at_their_times(prefect: Prefect) -> None:
    """With some versions of what Prefect stands on it makes none, and only its log says so."""
    names = {deployment["id"]: name for name, deployment in prefect.deployments.items()}
    times: dict[str, set[str]] = {}
    for run in prefect.scheduled:
        times.setdefault(names[run["deployment_id"]], set()).add(run["expected_start_time"][11:16])
    assert {when[3:] for when in times.pop("alerts")} == {"30"}
    assert times == {
        "update": {"03:00", "09:00", "15:00", "21:00"}, "backup": {"02:00"}, "prune": {"02:30"}, "verify": {"04:00"},
        "fix": {"05:00"}, "report": {"09:00"}, "deep": {"05:00"}, "drill": {"06:00"}, "offsite": {"07:00"},
    }  # fmt: skip


def test_a_schedule_fires(prefect: Prefect, workspace: Workspace) -> None:
    workspace.write("a.md")
    assert update(load_settings(workspace.root)).exit_code == 0
    schedules = f"/deployments/{prefect.deployments['deep']['id']}/schedules"
    cron = {"active": True, "schedule": {"cron": "* * * * *", "timezone": "UTC"}, "slug": "every-minute"}
    (made,) = prefect.ask("POST", schedules, [{**cron, "parameters": {"workspace": str(workspace.root)}}])
    only = {
        "deployments": {"id": {"any_": [prefect.deployments["deep"]["id"]]}},
        "flow_runs": {"state": {"type": {"any_": list(FINAL)}}},
    }
    try:
        wait_until(lambda: prefect.ask("POST", "/flow_runs/count", only), 150)
    finally:
        prefect.ask("DELETE", f"{schedules}/{made['id']}")
    run = prefect.ask("POST", "/flow_runs/filter", only)[-1]
    assert (run["auto_scheduled"], run["name"], run["state"]["name"]) == (True, "health deep", "Completed")


def test_two_at_once_do_not_overlap(prefect: Prefect, filled: Workspace) -> None:
    """A second run of one deployment is cancelled; one of another waits for the lock, and then does its work."""
    filled.settings(embedder="openai", collection="guide_{folder}", batch_texts=1, concurrency=1)
    paid = len(prefect.embeddings.bill.requests)
    first = prefect.begin(workspace=str(filled.root))
    wait_until(lambda: len(prefect.embeddings.bill.requests) >= paid + 2)
    second, other = prefect.begin(workspace=str(filled.root)), prefect.begin("backup", workspace=str(filled.root))
    assert prefect.ended(second)["state"]["name"] == "Cancelled"
    assert prefect.ended(first)["state"]["name"] == "Completed"
    backup = prefect.ended(other)
    assert backup["state"]["message"].endswith(" 60 rows, verified")
    logs = [line["message"] for line in prefect.of_run("logs", other)]
    assert "another run is writing; this one waits, an hour at most" in logs
    assert len(prefect.embeddings.bill.requests) == paid + 60


def test_a_restore_has_no_schedule_and_its_form_is_checked(prefect: Prefect) -> None:
    deployment = prefect.deployments["restore"]
    assert (deployment["schedules"], deployment["parameters"]) == ([], {"dry_run": True})
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    with pytest.raises(urllib.error.HTTPError) as refused:
        prefect.begin("restore", name="../elsewhere")
    assert refused.value.code in (409, 422)
    assert "does not match" in refused.value.read().decode()


@needs_browser
@pytest.mark.parametrize("flow", FORMS)
def test_the_form_explains_itself(prefect: Prefect, flow: str, tmp_path: Path) -> None:
    deployment = prefect.deployments[flow]
    text = prefect.page(f"/deployments/deployment/{deployment['id']}/run", tmp_path / "form.png", "(Optional)")
    for name, about in deployment["parameter_openapi_schema"]["properties"].items():
        assert f"{name} (Optional)" in text
        assert " ".join(about["description"].split()) in text
    assert (tmp_path / "form.png").stat().st_size > 20_000


def test_a_run_shows_what_it_did(prefect: Prefect, filled: Workspace, tmp_path: Path) -> None:
    run = prefect.ended(prefect.begin(workspace=str(filled.root)))
    assert (run["name"], run["state"]["name"]) == ("update changed", "Completed")
    assert run["state"]["message"].startswith("60 added; $0.0000")
    found = {artifact["key"]: artifact for artifact in prefect.of_run("artifacts", run["id"])}
    assert sorted(found) == [f"vectorkeep-{name}" for name in ("collections", "costs", "plan", "progress", "update")]
    assert found["vectorkeep-progress"]["data"] == 100
    wait_until(lambda: prefect.of_run("task_runs", run["id"]))
    assert [task["name"].partition("-")[0] for task in prefect.of_run("task_runs", run["id"])] == ["update"]
    if BROWSER:
        picture, logged = tmp_path / "run.png", "completed: 60 added in"
        text = prefect.page(f"/runs/flow-run/{run['id']}", picture, logged, "1280,1150")
        assert "Runs update changed vectorkeep writes" in text
        path, picture = f"/artifacts/artifact/{found['vectorkeep-update']['id']}", tmp_path / "report.png"
        text = prefect.page(path, picture, "Completed: 60 added")
        assert "guide_howto 20" in text  # a table's row: the Markdown was rendered


def test_a_health_check_fails_and_shows_why(prefect: Prefect, workspace: Workspace, tmp_path: Path) -> None:
    workspace.settings(embedder="hash", collection="docs_{folder}")
    workspace.write("x/a.md", "y/b.md", "y/c.md")
    assert update(load_settings(workspace.root)).exit_code == 0
    with file_limit(), open_client(workspace.root / "chroma") as client:
        client.get_collection("docs_y").delete(ids=["y/b.md#00000"])
        collection = client.get_collection("docs_x")
        vectors = collection.get(include=["embeddings"])["embeddings"]
        collection.add(ids=[HOSTILE], documents=["text"], embeddings=vectors)
    run = prefect.ended(prefect.begin("health", workspace=str(workspace.root), fix=True, depth="deep"))
    assert (run["name"], run["state"]["name"]) == ("fix plan deep", "Completed")
    assert run["state"]["message"].startswith("would do 2 actions; now FAIL: 2 checks failed, ")
    run = prefect.ended(prefect.begin("health", workspace=str(workspace.root)))
    assert (run["name"], run["state"]["type"], run["state"]["name"]) == ("health standard", "FAILED", "Failed")
    assert run["state"]["message"].startswith("2 checks failed, ")
    assert "Next: run `vectorkeep health --fix`" in run["state"]["message"]
    found = {artifact["key"]: artifact for artifact in prefect.of_run("artifacts", run["id"])}
    assert found["vectorkeep-health"]["data"].startswith("## FAIL: 2 checks failed, ")
    assert json.loads(found["vectorkeep-coverage"]["data"])[0]["coverage"] == "50.0 %"
    assert not any("Traceback" in line["message"] for line in prefect.of_run("logs", run["id"]))
    if BROWSER:
        path, lost = f"/artifacts/artifact/{found['vectorkeep-health']['id']}", "1 chunks of the ledger are not in"
        text = prefect.page(path, tmp_path / "health.png", lost)
        assert f"missing · docs_y : {lost} the store" in text
        path = f"/artifacts/artifact/{found['vectorkeep-findings']['id']}"
        text = prefect.page(path, tmp_path / "findings.png", "who|")
        assert HOSTILE in text.replace(" ", "")  # as it is, where the UI takes cells for Markdown


def test_a_backup_shows_what_there_is(prefect: Prefect, workspace: Workspace, tmp_path: Path) -> None:
    workspace.settings(embedder="hash", collection="docs_{folder}")
    workspace.write("x/a.md", "y/b.md", "y/c.md")
    assert update(load_settings(workspace.root)).exit_code == 0
    run = prefect.ended(prefect.begin("backup", workspace=str(workspace.root)))
    assert (run["name"], run["state"]["name"]) == ("backup", "Completed")
    assert run["state"]["message"].endswith(" kB, 3 rows, verified")
    found = {artifact["key"]: artifact for artifact in prefect.of_run("artifacts", run["id"])}
    assert sorted(found) == [
        "vectorkeep-backup", "vectorkeep-backup-contents", "vectorkeep-backups", "vectorkeep-progress",
    ]  # fmt: skip
    (row,) = json.loads(found["vectorkeep-backups"]["data"])
    assert row["backup"] == run["state"]["message"].partition(":")[0]
    if BROWSER:
        path = f"/artifacts/artifact/{found['vectorkeep-backup']['id']}"
        text = prefect.page(path, tmp_path / "backup.png", f"Done: {row['backup']}")
        assert "docs_y 2" in text  # a table's row: the Markdown was rendered


def test_a_refused_run_logs_no_traceback(prefect: Prefect, workspace: Workspace) -> None:
    run = prefect.ended(prefect.begin(workspace=str(workspace.root / "elsewhere")))
    assert run["state"]["name"] == "Failed"
    assert "is not a folder. Next: make it, or run `vectorkeep init` in it" in run["state"]["message"]
    wait_until(lambda: any("Finished in state" in line["message"] for line in prefect.of_run("logs", run["id"])))
    assert not any("Traceback" in line["message"] for line in prefect.of_run("logs", run["id"]))


def test_a_cancelled_run_keeps_what_was_paid(
    prefect: Prefect, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = len(prefect.embeddings.bill.requests)
    run = prefect.begin(workspace=str(filled.root))
    wait_until(lambda: len(prefect.embeddings.bill.requests) >= paid + 4)
    prefect.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert prefect.ended(run)["state"]["name"] == "Cancelled"
    assert runs_of(filled) == ["interrupted"]
    assert len(prefect.embeddings.bill.requests) < paid + 30
    monkeypatch.setenv("OPENAI_API_KEY", prefect.embeddings.key)
    monkeypatch.setenv("OPENAI_BASE_URL", prefect.embeddings.url)
    assert update(load_settings(filled.root)).state == "completed"
    assert len(prefect.embeddings.bill.requests) == paid + 30  # 60 documents, two a request: each was paid once


def runs_of(workspace: Workspace) -> list[str]:
    with contextlib.closing(sqlite3.connect(workspace.root / ".hashes" / "ledger.sqlite3")) as ledger:
        return [state for (state,) in ledger.execute("SELECT state FROM runs ORDER BY started")]
