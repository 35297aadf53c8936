"""Runs whose process is gone are ended, and no others; against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from tasks import zombies
from tasks.prefect_api import PrefectApi
from tasks.zombies import run_processes, settle_zombies

Begin = Callable[..., str]


@pytest.fixture
def api(prefect_server: None) -> PrefectApi:
    return PrefectApi(str(get_current_settings().api.url))


@flow
def nothing() -> None:
    """For its name."""


@pytest.fixture
def begin(api: PrefectApi) -> Begin:
    """Makes a run in a state, of a deployment or not; returns its id."""
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        deployment = client.create_deployment(flow_id=flow_id, name="d", entrypoint="d.py:nothing")

    def made(kind: str, of_deployment: bool = True) -> str:
        body: dict[str, Any] = {"flow_id": str(flow_id), "state": {"type": kind, "name": kind.capitalize()}}
        if of_deployment:
            body["deployment_id"] = str(deployment)
        return str(api.ask("POST", "/flow_runs/", body)["id"])

    return made


def state(api: PrefectApi, run: str) -> str:
    return str(api.ask("GET", f"/flow_runs/{run}")["state"]["name"])


def test_a_running_one_without_a_process_is_crashed(api: PrefectApi, begin: Begin) -> None:
    run = begin("RUNNING")
    assert len(settle_zombies(api)) == 1
    assert state(api, run) == "Crashed"
    assert settle_zombies(api) == []


def test_one_that_was_being_cancelled_is_cancelled(api: PrefectApi, begin: Begin) -> None:
    run = begin("CANCELLING")
    settle_zombies(api)
    assert state(api, run) == "Cancelled"


def test_one_whose_process_lives_is_left_alone(api: PrefectApi, begin: Begin) -> None:
    run = begin("RUNNING")
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": run, "VECTORKEEP_WORKSPACE": "/somewhere"}
    waits = [sys.executable, "-c", "print(flush=True); input()", "prefect.engine"]
    with subprocess.Popen(waits, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        assert settle_zombies(api) == []
        assert state(api, run) == "Running"
        assert run_processes("/somewhere")[run] == [process.pid]
        assert run not in run_processes("/some")
        with subprocess.Popen([*waits[:-1], "a child"], env=environment, stdin=subprocess.PIPE) as child:
            assert run_processes("/somewhere")[run] == [process.pid], "what a run started is not the run"
            child.kill()
        process.stdin.close()
    settle_zombies(api)
    assert state(api, run) == "Crashed"


def test_one_that_a_worker_is_starting_gets_a_minute(
    api: PrefectApi, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin("PENDING")
    assert settle_zombies(api) == []
    monkeypatch.setattr(zombies, "PENDING_S", -1.0)
    settle_zombies(api)
    assert state(api, run) == "Crashed"


def test_one_by_hand_is_left_alone(api: PrefectApi, begin: Begin) -> None:
    run = begin("RUNNING", of_deployment=False)
    settle_zombies(api)
    assert state(api, run) == "Running"


def test_on_a_server_for_others_too_nothing_is_touched(api: PrefectApi, begin: Begin) -> None:
    begin("RUNNING")
    assert settle_zombies(PrefectApi("http://prefect.internal:4200/api")) == []
    assert settle_zombies(api)
