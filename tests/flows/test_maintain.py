"""Several steps in one run: maintain, recover, and an update with a health check after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed

from flows.maintain import maintain
from flows.recover import recover
from flows.update import update
from tasks.states import exit_code, failed
from tasks.steps import MAINTENANCE, RECOVERY, summed_up
from tests.flows.conftest import Shown, Workspace
from tests.support.chroma_helpers import file_limit, open_client
from vectorstore import errors


def run(flow: Flow[..., Any], workspace: Workspace, **parameters: Any) -> tuple[Any, Shown]:
    """The final state, and what the server knows of the run."""
    state = flow(workspace=str(workspace.root), **parameters, return_state=True)
    return state, Shown(state)


@pytest.fixture
def filled(workspace: Workspace, prefect_server: None) -> Workspace:
    workspace.settings(embedder="hash", collection="docs_{folder}", probe_max_mb=0)
    workspace.write("x/a.md", "y/b.md", "y/c.md")
    return workspace


def lose(workspace: Workspace) -> None:
    """A row that the ledger knows."""
    with file_limit(), open_client(workspace.root / "chroma") as client:
        client.get_collection("docs_y").delete(ids=["y/b.md#00000"])


def backups(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / "backups").glob("*.tar.gz"))


def steps(shown: Shown, key: str) -> dict[str, str]:
    """Step -> state, from the page of a run."""
    rows = [line.split("|") for line in shown.artifact(key).splitlines() if line.startswith("| ")][2:]
    return {row[1].strip(): row[2].strip() for row in rows}


class TestState:
    """The state of a run is that of its worst step."""

    @staticmethod
    def crash() -> State[Any]:
        return State(type=StateType.CRASHED, name="Crashed", message="gone.")

    @pytest.mark.parametrize(
        ("ended", "name", "code"),
        [
            ([errors.Locked("l"), errors.Capped("c")], "Capped", 3),
            ([errors.Capped("c"), errors.Refused("r")], "Refused", 5),
            ([errors.Refused("r"), errors.Damaged("d")], "Failed", 6),
            ([errors.Locked("l")], "Locked", 4),
        ],
    )
    def test_the_worst_wins(self, ended: list[errors.VectorkeepError], name: str, code: int) -> None:
        for order in (ended, ended[::-1]):
            states = {f"step {number}": failed(error) for number, error in enumerate(order)}
            state = summed_up({"fine": Completed(message="done"), **states})
            assert (state.name, exit_code(state)) == (name, code)

    def test_the_message_names_the_worst_and_the_others(self) -> None:
        state = summed_up({"backup": failed(errors.Capped("no money")), "update": failed(errors.VectorkeepError("x"))})
        assert state.message == "update: x Also not well: backup"

    def test_all_well_says_what_each_says(self) -> None:
        done = {name: Completed(message=f"{name} done") for name in ("backup", "update")}
        state = summed_up({**done, "verify": "", "prune": "left out"})
        assert (state.is_completed(), state.message) == (True, "backup: backup done; update: update done")


class TestThenHealth:
    def test_the_check_follows_and_both_are_told(self, filled: Workspace) -> None:
        state, shown = run(update, filled, then_health="quick")
        assert (shown.run.name, shown.state.name) == ("update changed then health quick", "Completed")
        assert shown.state.message.startswith("update: 3 added; $0.000000; health: ")
        assert exit_code(state) == 0
        assert shown.artifact("vectorkeep-update")
        assert shown.artifact("vectorkeep-health")

    def test_the_run_ends_in_the_worse_state(self, filled: Workspace) -> None:
        run(update, filled)
        (filled.root / "docs" / "x" / "bad.md").write_bytes(b"\xff\xfe\xff\x00broken")
        state, shown = run(update, filled, then_health="quick")
        assert (shown.state.name, exit_code(state)) == ("Failed", 1)
        assert shown.state.message.startswith("update: 1 document failed, ")
        assert shown.artifact("vectorkeep-health")

    def test_no_check_follows_a_dry_run(self, filled: Workspace) -> None:
        _, shown = run(update, filled, then_health="deep", dry_run=True)
        assert shown.run.name == "plan changed"
        assert shown.artifact("vectorkeep-health") is None


class TestMaintain:
    def test_shows_only_until_it_is_told_to(self, filled: Workspace) -> None:
        before = filled.bytes()
        _, shown = run(maintain, filled)
        assert (shown.run.name, shown.artifact("vectorkeep-backup")) == ("maintain plan", None)
        assert steps(shown, MAINTENANCE)["backup"] == "left out"
        assert {path for path in filled.bytes() if ".hashes" not in path} == before.keys()

    def test_a_whole_day(self, filled: Workspace) -> None:
        state, shown = run(maintain, filled, dry_run=False, verify=True, fix=True, drill=True, depth="quick")
        assert shown.run.name == "maintain verify fix drill"
        assert exit_code(state) == 2, "there is nothing to back up yet"
        lose(filled)
        _, shown = run(maintain, filled, dry_run=False, fix=True, depth="quick")
        assert shown.state.name == "Completed"
        assert "1 missing, 2 unchanged" in shown.artifact(MAINTENANCE)
        state, shown = run(maintain, filled, dry_run=False, verify=True, fix=True, drill=True, depth="quick")
        assert (shown.state.name, exit_code(state)) == ("Completed", 0), shown.state.message
        assert list(steps(shown, MAINTENANCE).items()) == [
            (step, "Completed") for step in ("backup", "verify", "prune", "update", "fix", "drill")
        ]
        assert shown.artifact(MAINTENANCE).startswith("## All steps ended well\n")

    def test_goes_on_past_a_failed_step_and_prunes_nothing_after_a_failed_backup(self, filled: Workspace) -> None:
        run(update, filled)
        run(maintain, filled, dry_run=False, depth="quick")
        filled.settings(embedder="hash", collection="docs_{folder}", backup_keep=0, backup_days=0, sensitive=["x/**"])
        filled.write("y/d.md")
        state, shown = run(maintain, filled, dry_run=False, depth="quick")
        assert (shown.state.name, exit_code(state)) == ("Refused", 5)
        assert shown.state.message.startswith("backup: ")
        assert steps(shown, MAINTENANCE) == {
            "backup": "**Refused**", "prune": "left out", "update": "Completed", "health": "Completed",
        }  # fmt: skip
        assert shown.artifact(MAINTENANCE).startswith("## 1 of 4 steps did not end well: backup\n")
        assert len(backups(filled)) == 1


class TestRecover:
    @pytest.fixture
    def hurt(self, filled: Workspace) -> Workspace:
        """Backed up; then a row was lost, and a document came."""
        run(maintain, filled, dry_run=False, depth="quick")
        run(maintain, filled, dry_run=False, depth="quick")
        lose(filled)
        filled.write("y/new.md")
        return filled

    def test_shows_only_until_it_is_told_to(self, hurt: Workspace) -> None:
        _, shown = run(recover, hurt)
        assert (shown.run.name, shown.state.name) == ("recover plan latest", "Completed")
        assert steps(shown, RECOVERY) == {
            "restore": "Completed", "fix": "left out", "refill": "left out", "health": "left out",
        }  # fmt: skip
        assert len(backups(hurt)) == 1

    def test_brings_all_back(self, hurt: Workspace) -> None:
        state, shown = run(recover, hurt, dry_run=False)
        assert (shown.run.name, shown.state.name) == ("recover latest", "Completed"), shown.state.message
        assert set(steps(shown, RECOVERY).values()) == {"Completed"}
        assert exit_code(state) == 0
        tables = [artifact["data"] for artifact in shown.artifacts if artifact["key"] == "vectorkeep-coverage"]
        last = {row["collection"]: row["documents"] for row in json.loads(tables[-1])}
        assert (len(tables), last) == (2, {"docs_x": 1, "docs_y": 3})

    def test_stops_where_nothing_was_restored(self, hurt: Workspace) -> None:
        for path in backups(hurt):
            path.write_bytes(path.read_bytes()[:-100])
        before = {path: data for path, data in hurt.bytes().items() if "chroma/" in path}
        state, shown = run(recover, hurt, dry_run=False)
        assert (shown.state.name, exit_code(state)) == ("Failed", 2)
        assert list(steps(shown, RECOVERY).values()) == ["**Failed**", "left out", "left out", "left out"]
        assert {path: data for path, data in hurt.bytes().items() if "chroma/" in path} == before
