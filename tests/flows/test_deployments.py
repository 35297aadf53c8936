"""``prefect.yaml``: each deployment keeps to its flow's form, and to the timetable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    each["name"]: each for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}
TIMETABLE: dict[str, dict[str, str]] = {
    "update": {"nightly": "0 3 * * *", "daytime": "0 9,15,21 * * *"},
    "health": {},
    "backup": {"nightly": "0 2 * * *"},
    "prune": {"nightly": "30 2 * * *"},
    "verify": {"weekly": "0 4 * * 0"},
    "fix": {"weekly": "0 5 * * 0"},
    "report": {"weekly": "0 9 * * 1"},
    "deep": {"monthly": "0 5 1 * *"},
    "drill": {"monthly": "0 6 1 * *"},
    "offsite": {"monthly": "0 7 1 * *"},
    "alerts": {"hourly": "30 * * * *"},
    "restore": {},
    "recover": {},
    "maintain": {},
}
CHANGES_NOTHING = {"restore", "recover", "health"}  # until somebody turns dry_run off


def flow_of(name: str) -> Flow[..., Any]:
    return load_flow_from_entrypoint(DEPLOYMENTS[name]["entrypoint"])


def test_the_timetable() -> None:
    assert list(DEPLOYMENTS) == list(TIMETABLE)
    for name, deployment in DEPLOYMENTS.items():
        schedules = deployment.get("schedules", [])
        assert {each["slug"]: each["cron"] for each in schedules} == TIMETABLE[name]
        assert all(each["timezone"] == "UTC" for each in schedules)


def test_the_page_has_the_timetable() -> None:
    page = (ROOT / "docs" / "prefect.md").read_text()
    described = dict(re.findall(r"(?m)^\| `(\w+/\w+)` \| (.*?) \|", page))
    expected = {
        f"{deployment['entrypoint'].partition(':')[2]}/{name}": ", ".join(
            f"`{cron}`" for cron in TIMETABLE[name].values()
        )
        for name, deployment in DEPLOYMENTS.items()
    }
    assert described == {name: crons or "never" for name, crons in expected.items()}


@pytest.mark.parametrize("name", DEPLOYMENTS)
class TestEach:
    def test_is_named_described_and_tagged(self, name: str) -> None:
        deployment = DEPLOYMENTS[name]
        assert re.fullmatch("[a-z]+", name)
        assert len(deployment["description"]) > 60
        assert deployment["tags"][0] == "vectorkeep" and len(deployment["tags"]) > 1

    def test_runs_one_at_a_time(self, name: str) -> None:
        deployment = DEPLOYMENTS[name]
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert deployment["work_pool"] == {"name": "vectorkeep"}

    def test_keeps_to_the_form(self, name: str) -> None:
        deployment, flow = DEPLOYMENTS[name], flow_of(name)
        assert deployment["enforce_parameter_schema"]
        for schedule in deployment.get("schedules", [{}]):
            parameters = deployment["parameters"] | schedule.get("parameters", {})
            assert parameters.keys() <= flow.parameters.properties.keys()
            flow.validate_parameters(parameters)

    def test_what_replaces_or_deletes_is_told_to_by_the_deployment(self, name: str) -> None:
        form = flow_of(name).parameters.properties
        if "dry_run" not in form or name == "update":  # an update is guarded, and capped
            return
        deployment = DEPLOYMENTS[name]
        assert form["dry_run"]["default"] is True
        if name == "deep":
            assert "dry_run" not in deployment["parameters"]
        else:
            assert deployment["parameters"]["dry_run"] is (name in CHANGES_NOTHING)

    def test_the_form_explains_itself_and_asks_for_no_secret(self, name: str) -> None:
        form = flow_of(name).parameters.properties
        for parameter, about in form.items():
            assert len(about["description"]) > 30, parameter
            assert "default" in about
            assert "anyOf" not in about, "an optional value makes an ugly switch"
            assert not re.search("password|secret|key$", parameter)
