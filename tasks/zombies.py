"""Runs that a server takes for running although their process is gone: with their worker killed, nobody told it.

Each would keep its deployment's only slot for ever. Prefect gives a worker's run its id in the environment, so whether
its process lives can be seen, on this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.prefect_api import PrefectApi

PROC = Path("/proc")
PENDING_S = 60.0  # a worker may take so long from taking a run to starting its process
ENDED = {"CANCELLING": ("CANCELLED", "Cancelled")}
_RUN_ID = re.compile(rb"(?:^|\0)PREFECT__FLOW_RUN_ID=([0-9a-f-]{36})")


def settle_zombies(api: PrefectApi) -> list[str]:
    """End runs whose process is gone; their names.

    Only on a server that nobody but this machine reaches: elsewhere another machine's worker may have them.
    """
    if not api.local:
        return []
    types = ["RUNNING", "PENDING", "CANCELLING"]
    only = {"flow_runs": {"state": {"type": {"any_": types}}, "deployment_id": {"is_null_": False}}}
    found = api.ask("POST", "/flow_runs/filter", only)
    alive = run_processes()
    settled = []
    for run in found:
        now = api.ask("GET", f"/flow_runs/{run['id']}")  # it may have ended since
        if now and now["state"]["id"] == run["state"]["id"] and _is_dead(run, alive):
            kind, name = ENDED.get(run["state"]["type"], ("CRASHED", "Crashed"))
            state = {"type": kind, "name": name, "message": "Its process was killed, and its worker with it."}
            api.ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
            settled.append(run["name"])
    return settled


def run_processes(workspace: str = "") -> dict[str, list[int]]:
    """Flow run's id -> its processes on this machine; with ``workspace`` only of runs that were started for that."""
    mark = f"\0VECTORKEEP_WORKSPACE={workspace}\0".encode()
    found: dict[str, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"prefect." not in (folder / "cmdline").read_bytes():
                continue  # what a run started itself, which may outlive it
            environment = (folder / "environ").read_bytes()
            if (run := _RUN_ID.search(environment)) and (not workspace or mark in b"\0" + environment):
                found.setdefault(run[1].decode(), []).append(int(folder.name))
    return found


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_dead(run: dict[str, Any], alive: dict[str, list[int]]) -> bool:
    if run["id"] in alive:
        return False
    if run["state"]["type"] == "PENDING":
        since = datetime.fromisoformat(run["state"]["timestamp"].replace("Z", "+00:00")).timestamp()
        return time.time() - since > PENDING_S
    return not _may_be_alive(str(run.get("infrastructure_pid") or ""))


def _may_be_alive(infrastructure: str) -> bool:
    """Whether a process of that number lives that does not say what it is: another user's, or not on Linux."""
    pid = infrastructure.rpartition(":")[2]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not PROC.is_dir()
