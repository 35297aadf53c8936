"""`vectorkeep health`, as people and programs use it: output, files, history, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.support.chroma_helpers import open_client
from tests.support.workbench import ROOT, Workspace, document
from vectorstore.output.health_history import read


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "w")
    for n in range(20):
        workspace.write(f"page-{n}.md", document(n, 3))
    workspace.update()
    return workspace


def test_a_healthy_store_is_said_to_be_healthy(workspace: Workspace) -> None:
    result = workspace.cli("health")
    assert result.code == 0
    assert "PASS" in result.out and "WARN" not in result.out and "FAIL" not in result.out


def test_files_json_and_history_say_the_same(workspace: Workspace, tmp_path: Path) -> None:
    page, saved = tmp_path / "out" / "r.html", tmp_path / "out" / "health_report.json"
    result = workspace.run("health", "--depth", "quick", "--output", str(page), "--output", str(saved))
    assert result.report == json.loads(saved.read_text())
    schema = json.loads((ROOT / "docs" / "health_report.schema.json").read_text())
    Draft202012Validator(schema).validate(result.report)
    assert result.report["run"] in page.read_text()
    assert [run.run for run in read(workspace.root / ".hashes").runs()] == [result.report["run"]]


def test_a_fault_fails_and_a_fix_mends_it(workspace: Workspace) -> None:
    with open_client(workspace.store) as client:
        client.get_collection("docs").delete(ids=["page-3.md#00001"])
    found = workspace.run("health")
    assert found.code == 1
    planned = workspace.run("health", "--fix", "--dry-run")
    assert planned.code == 0 and planned.report["state"] == "planned"
    assert [step["check"] for step in planned.report["steps"]] == ["missing"]
    assert workspace.run("health").code == 1
    fixed = workspace.run("health", "--fix")
    assert fixed.code == 0 and fixed.report["state"] == "fixed"
    assert workspace.run("health", "--depth", "deep").code == 0
    workspace.assert_in_step()


@pytest.mark.parametrize(
    "arguments", [["--depth", "deeper"], ["--output", "report.txt"], ["--output", "docs"], ["--seed", "x"]]
)
def test_what_can_not_be_meant_is_refused(workspace: Workspace, arguments: list[str]) -> None:
    assert workspace.run("health", *arguments).code == 2


def test_a_folder_without_anything(tmp_path: Path) -> None:
    """Nothing was ever stored: there is nothing to find fault with but a source that is not there."""
    workspace = Workspace(tmp_path / "w")
    assert workspace.run("health", "--depth", "deep").code == 0


def test_a_standard_check_comes_to_every_row(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectorstore.checks import all_rows
    from vectorstore.findings import Depth
    from vectorstore.health import health

    monkeypatch.setattr(all_rows, "SAMPLE", 10)
    stored = len(workspace.rows())
    parts = all_rows.parts_of(stored)
    reports = [health(workspace.settings(), depth=Depth.STANDARD, seed=24 * day) for day in range(parts)]
    looked = [report.collections[0].checked for report in reports]
    assert parts > 2 and max(looked) < stored / 2
    assert sum(looked) == stored


@pytest.mark.parametrize("rows", [1, 1_999, 2_001, 9_000, 14_001, 30_000, 100_000, 999_999])
def test_any_regular_schedule_comes_to_every_part(rows: int) -> None:
    from vectorstore.checks.all_rows import parts_of

    parts = parts_of(rows)
    for hours in (1, 6, 8, 12, 24, 48, 7 * 24):
        assert len({hours * run % parts for run in range(parts)}) == parts
