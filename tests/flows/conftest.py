"""One Prefect server for all tests of flows: starting it costs 12 s. Its folder is a temporary one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")  # read when Prefect is imported
os.environ["DO_NOT_TRACK"] = "1"

from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED,
    PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED,
    PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    quiet = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # its thread's join would cost a second a run
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED: False,
        PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED: False,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED: False,
    }
    with temporary_settings(quiet), prefect_test_harness(server_startup_timeout=120):
        yield


class Workspace:
    """A folder of documents with its settings.

    Attributes:
        root: of the workspace; the documents are in ``docs``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "docs").mkdir()
        self.settings(embedder="hash")

    def settings(self, **settings: Any) -> None:
        values = {"source": "docs", **settings}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]  # TOML, for plain values
        (self.root / "vectorkeep.toml").write_text("".join(lines))

    def write(self, *names: str, text: str = "") -> None:
        for name in names:
            path = self.root / "docs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {name}\n\n{text or f'What {name} is about.'}\n")

    def remove(self, *names: str) -> None:
        for name in names:
            (self.root / "docs" / name).unlink()

    def bytes(self) -> dict[str, bytes]:
        """Every file, but for the lock's, and its content."""
        return {str(path): path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root)


class Shown:
    """What Prefect's server knows of the newest flow run."""

    def __init__(self, state: State[Any]) -> None:
        with get_client(sync_client=True) as client:
            self.run = client.read_flow_run(state.state_details.flow_run_id)
            only = {"flow_runs": FlowRunFilter(id={"any_": [self.run.id]}).model_dump(mode="json")}
            self.artifacts = client.request("POST", "/artifacts/filter", json=only).json()
        self.state = self.run.state

    def artifact(self, key: str) -> Any:
        """The data of the run's only artifact with this key; ``None`` if there is none."""
        found = [artifact["data"] for artifact in self.artifacts if artifact["key"] == key]
        assert len(found) < 2
        return found[0] if found else None
