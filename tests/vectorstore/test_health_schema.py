"""The published schema of the JSON report: every report keeps to it, and it says nothing that no report has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.health_reports import make_report, many_faults
from tests.support.workspaces import make_settings, write, write_corpus
from vectorstore.findings import (
    CHECKS,
    SAMPLE_IDS,
    SCHEMA_VERSION,
    Action,
    CollectionHealth,
    Depth,
    Finding,
    Findings,
    Severity,
)
from vectorstore.health import health
from vectorstore.output.health_files import write_report
from vectorstore.update import update

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "health_report.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FINDING = SCHEMA["$defs"]["finding"]
COLLECTION = SCHEMA["$defs"]["collection"]


def errors(report: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(report)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("depth", Depth)
def test_the_report_of_a_real_store_keeps_to_the_schema(tmp_path: Path, depth: Depth) -> None:
    settings = make_settings(tmp_path, collection="docs_{folder}")
    assert errors(health(settings, depth=depth).to_dict()) == []  # nothing there yet
    write_corpus(settings.path(settings.source), 12)
    assert update(settings).exit_code == 0
    write(settings.path(settings.source), "f0/new.md", "# New\n\nNot stored yet.")
    report = health(settings, depth=depth)
    write_report(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert errors(written) == []
    assert written["collections"]
    assert (written["severity"] == "FAIL") is (depth > Depth.QUICK)  # one of 13 documents is not stored


@pytest.mark.parametrize("check", CHECKS)
def test_every_finding_of_the_register_keeps_to_the_schema(check: str) -> None:
    found = Findings()
    found.add(check, "m", collection="c", count=3, total=10, ids=map(str, range(100)), value=float("nan"))
    assert errors(make_report(found).to_dict()) == []


def test_reports_of_all_kinds_keep_to_the_schema() -> None:
    foreign = CollectionHealth("theirs", "foreign", stored=7)
    empty = make_report(Findings(), collections=[], norms={})
    for report in (many_faults(5), empty, make_report(collections=[foreign])):
        assert errors(json.loads(json.dumps(report.to_dict()))) == []


@pytest.mark.parametrize(
    ("part", "known"),
    [
        (SCHEMA, make_report().to_dict().keys()),
        (SCHEMA["properties"]["counts"], {level.name for level in Severity}),
        (FINDING, {spec.name for spec in fields(Finding)}),
        (COLLECTION, {spec.name for spec in fields(CollectionHealth)} | {"coverage"}),
    ],
    ids=["report", "counts", "finding", "collection"],
)
def test_each_field_is_described_and_no_other(part: dict[str, Any], known: set[str]) -> None:
    assert set(part["properties"]) == set(part["required"]) == set(known)
    assert part["additionalProperties"] is False
    assert all(each["description"] for each in part["properties"].values())


def test_severities_actions_and_depths_are_the_codes() -> None:
    assert SCHEMA["$defs"]["severity"]["enum"] == [level.name for level in Severity]
    assert FINDING["properties"]["action"]["enum"] == [action.value for action in Action]
    assert SCHEMA["properties"]["depth"]["enum"] == [depth.name.lower() for depth in Depth]
    assert FINDING["properties"]["ids"]["maxItems"] == SAMPLE_IDS


def wrong_reports() -> Iterator[dict[str, Any]]:
    good = many_faults(1).to_dict()
    yield good | {"more": 1}
    yield {name: value for name, value in good.items() if name != "norms"}
    for change in (
        {"severity": "BAD"}, {"action": "burn"}, {"check": "No Name"}, {"count": -1}, {"value": "1"}, {"more": 1},
        {"ids": ["x"] * 21},
    ):  # fmt: skip
        yield good | {"findings": [good["findings"][0] | change]}
    for change in ({"state": "gone"}, {"coverage": 1.1}, {"slots": -1}, {"more": 1}):
        yield good | {"collections": [good["collections"][0] | change]}


def test_what_is_not_a_report_is_refused() -> None:
    assert errors(many_faults(1).to_dict()) == []
    assert all(errors(wrong) for wrong in wrong_reports())
