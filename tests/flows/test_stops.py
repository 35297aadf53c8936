"""A worker's run is stopped at any moment: Prefect and Vectorkeep both say so, and the next run pays for the rest only.

Thirty stops, ten a way. Everyday runs do every third, so that each moment has one; ``VECTORKEEP_ALL_STOPS=1`` does all.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.flows.test_server import FINAL, Prefect, wait_until
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.pausing import PAUSING
from tests.support.workbench import Row, Workspace, limit_files, paid, uncached
from vectorstore.runs.history import records

pytestmark = pytest.mark.slow
MOMENTS = (
    "before vectorstore.update:make_plan",
    "before vectorstore.run:Run.execute",
    "before vectorstore.embedders.openai:OpenAIEmbedder.embed",  # reserved, not sent
    "after vectorstore.embedders.openai:OpenAIEmbedder.embed 3",  # paid, and nowhere yet
    "before vectorstore.cache:VectorCache.put_many 4",
    "before vectorstore.chroma.store:Store.upsert",
    "after vectorstore.chroma.store:Store.upsert 2",  # stored, not in the ledger
    "after vectorstore.ledger:Ledger.commit 2",
    "before vectorstore.chroma.store:Store.close",  # all is paid and written
    "before vectorstore.ledger:Ledger.record_run",
)
ALL_DONE = MOMENTS[-2:]
WAYS = {"killed": "Crashed", "terminated": "Crashed", "cancelled": "Cancelled"}  # and the state that Prefect shows
AT_ONCE = 3
DOCUMENTS = 80


class Stop(NamedTuple):
    way: str
    moment: str


STOPS = [Stop(way, moment) for way in WAYS for moment in MOMENTS][:: 1 if os.environ.get("VECTORKEEP_ALL_STOPS") else 3]


class Ended(NamedTuple):
    """A stop, the seconds until its state was right, and the texts paid by those needed, after the next run."""

    stop: Stop
    seconds: float
    ratio: float


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    before = limit_files()
    with EmbeddingsServer() as unused, Prefect(tmp_path_factory.mktemp("prefect"), unused) as prefect:
        yield prefect
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def unlimited(prefect: Prefect) -> str:
    """A deployment of the update without its limit: here many run at once, each in a workspace of its own."""
    return deployed_anew(prefect, "unlimited")


@pytest.fixture(scope="module", autouse=True)
def missed(prefect: Prefect) -> str:
    """A run that is due, and that no worker takes."""
    prefect.ask("POST", "/work_pools/", {"name": "nobody", "type": "process"})
    deployment = deployed_anew(prefect, "missed", work_pool_name="nobody")
    return str(prefect.ask("POST", f"/deployments/{deployment}/create_flow_run", {})["id"])


def deployed_anew(prefect: Prefect, name: str, **other: str) -> str:
    """The update's deployment once more, without a limit."""
    update = prefect.ask("GET", f"/deployments/{prefect.deployments['update']['id']}")
    same = (
        "flow_id", "entrypoint", "path", "pull_steps", "parameter_openapi_schema", "work_pool_name", "tags",
        "enforce_parameter_schema",
    )  # fmt: skip
    made = prefect.ask("POST", "/deployments/", {key: update[key] for key in same} | {"name": name} | other)
    return str(made["id"])


def new_workspace(root: Path, server: EmbeddingsServer) -> Workspace:
    workspace = Workspace(root, server, concurrency=2, batch_texts=4, store_batch=8)
    workspace.fill(DOCUMENTS)
    return workspace


def begin(prefect: Prefect, deployment: str, workspace: Workspace, **environment: str) -> str:
    settings = {name: value for name, value in workspace.env().items() if name.startswith("VECTORKEEP_")}
    body = {
        "parameters": {"workspace": str(workspace.root)},
        "job_variables": {"env": prefect_environment(prefect) | settings | environment},
    }
    return str(prefect.ask("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])


def prefect_environment(prefect: Prefect) -> dict[str, str]:
    return {name: prefect.environment[name] for name in ("OPENAI_API_KEY", "PYTHONPATH")}


def stopped(prefect: Prefect, deployment: str, workspace: Workspace, stop: Stop) -> float:
    """Begin a run and stop it at its moment; returns the seconds until Prefect showed the state that is due."""
    run, pid = paused(prefect, deployment, workspace, stop.moment)
    began = time.monotonic()
    if stop.way == "cancelled":
        cancelling = {"type": "CANCELLING", "name": "Cancelling"}
        prefect.ask("POST", f"/flow_runs/{run}/set_state", {"state": cancelling})  # as the UI does
    else:
        os.kill(pid, signal.SIGKILL if stop.way == "killed" else signal.SIGTERM)
    wait_until(lambda: state_of(prefect, run)["type"] in FINAL)
    assert state_of(prefect, run)["name"] == WAYS[stop.way], state_of(prefect, run)
    return time.monotonic() - began


def paused(prefect: Prefect, deployment: str, workspace: Workspace, moment: str) -> tuple[str, int]:
    """Begin a run that waits at a moment; returns it and its process."""
    pause = workspace.root.parent / f"{workspace.root.name}-paused"
    path = f"{PAUSING}{os.pathsep}{prefect.environment['PYTHONPATH']}"
    for _ in range(3):
        run = begin(prefect, deployment, workspace, PAUSE_AT=moment, PAUSE_FILE=str(pause), PYTHONPATH=path)
        wait_until(lambda run=run: pause.exists() or state_of(prefect, run)["type"] in FINAL, 150)
        if pause.exists():
            return run, int(pause.read_text())
        why = state_of(prefect, run)["message"]
        assert why.startswith("Failed to submit flow run"), (
            why
        )  # Prefect's SQLite was busy for too long: it never began
    raise AssertionError("the server stays busy")


def state_of(prefect: Prefect, run: str) -> Any:
    return prefect.ask("GET", f"/flow_runs/{run}")["state"]


def stop_and_go_on(prefect: Prefect, deployment: str, root: Path, stop: Stop, rows: dict[str, Row]) -> Ended:
    with EmbeddingsServer(latency_s=0.05) as server:
        workspace = new_workspace(root, server)
        seconds = stopped(prefect, deployment, workspace, stop)
        assert seconds < 60
        texts = workspace.texts()
        assert (paid(server) < len(texts)) == (stop.moment not in ALL_DONE)  # there is a rest to be done
        lost = uncached(workspace, texts) if stop.way == "killed" else set()
        assert len(lost) <= 8  # two requests in flight of four texts each
        workspace.update()  # at once: no lock is left
        done = [(record.by, record.state) for record in records(workspace.settings())]
        if stop.way == "killed":
            assert done == [("prefect", "crashed"), ("cli", "completed")]
        else:
            ends = ["completed", "interrupted"] if stop.moment in ALL_DONE else ["interrupted"]
            assert done in [[("prefect", end), ("cli", "completed")] for end in ends]
        assert workspace.assert_in_step() == rows
        assert paid(server) == len(texts) + len(lost)
        return Ended(stop, seconds, paid(server) / len(texts))


@pytest.mark.timeout(900)
def test_stopped_anywhere_the_next_run_does_the_rest(prefect: Prefect, unlimited: str, tmp_path: Path) -> None:
    """SIGKILL costs at most the requests in flight; SIGTERM and the UI's cancel cost nothing."""
    with EmbeddingsServer() as server:
        undisturbed = new_workspace(tmp_path / "undisturbed", server)
        undisturbed.update()
        rows = undisturbed.assert_in_step()

    def one(number: int) -> Ended | str:
        try:
            return stop_and_go_on(prefect, unlimited, tmp_path / f"stop-{number}", STOPS[number], rows)
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            return f"{STOPS[number].way} {STOPS[number].moment}: {type(error).__name__}: {said}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(one, range(len(STOPS))))
    failed = [each for each in ended if isinstance(each, str)]
    good = [each for each in ended if isinstance(each, Ended)]
    for way in WAYS:
        own = [each for each in good if each.stop.way == way]
        ratio, seconds = max((each.ratio for each in own), default=0), max((each.seconds for each in own), default=0)
        print(f"{len(own)} {way}: paid {ratio:.2f} at most, state right in {seconds:.1f} s at most")
    assert not failed, f"{len(failed)} of {len(STOPS)}:\n" + "\n".join(failed)
    assert {each.ratio for each in good if each.stop.way != "killed"} == {1.0}


def test_a_run_that_nobody_takes_is_late(prefect: Prefect, missed: str) -> None:
    """An automation tells of that state (see test_automations); the library's alert `late` needs no Prefect."""
    wait_until(lambda: state_of(prefect, missed)["name"] == "Late")


def test_the_server_is_gone_in_mid_run(prefect: Prefect, unlimited: str, tmp_path: Path) -> None:
    """The run goes on and its work is kept; the worker serves the next run as if nothing had been."""
    with EmbeddingsServer(latency_s=1.0) as server, contextlib.ExitStack() as opened:
        workspace = new_workspace(tmp_path / "workspace", server)
        texts = workspace.texts()
        run = begin(prefect, unlimited, workspace)
        wait_until(lambda: paid(server))
        prefect.started["server"].kill()
        prefect.started["server"].wait()
        wait_until(lambda: records(workspace.settings()))
        assert [record.state for record in records(workspace.settings())] == ["completed"]
        workspace.assert_in_step()
        prefect.start_server(opened)
        again = begin(prefect, unlimited, workspace)
        assert prefect.ended(again)["state"]["message"].startswith(f"{DOCUMENTS} unchanged; ")
        assert prefect.ended(run)["state"]["name"] == "Completed"
        assert paid(server) == len(texts)
