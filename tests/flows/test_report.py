"""The report flow: a page with pictures in the UI, and a file."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from prefect.exceptions import ParameterTypeError

from flows.report import report
from flows.update import update
from tasks.report import REPORT
from tasks.states import exit_code
from tests.flows.conftest import Shown, Workspace


@pytest.fixture
def filled(workspace: Workspace, prefect_server: None) -> Workspace:
    workspace.write("a.md")
    assert update(workspace=str(workspace.root), return_state=True).is_completed()
    workspace.write("b.md")
    assert update(workspace=str(workspace.root), return_state=True).is_completed()
    return workspace


def run(workspace: Workspace, **parameters: Any) -> Shown:
    return Shown(report(workspace=str(workspace.root), **parameters, return_state=True))


def test_tells_the_week_as_a_page_and_as_a_file(filled: Workspace) -> None:
    shown = run(filled)
    (file,) = (filled.root / "reports").iterdir()
    assert re.fullmatch(r"report_\d{8}\.html", file.name)
    assert "<title>" in file.read_text()
    assert (shown.run.name, shown.state.name) == ("report 30 days", "Completed")
    assert shown.state.message.endswith(str(file))
    text = shown.artifact(REPORT)
    assert "### The week to " in text
    assert "| update | 2: 2 completed |" in text
    assert f"`{file.as_uri()}`" in text


def test_its_pictures_are_inside_and_whole(filled: Workspace) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", run(filled).artifact(REPORT))
    assert len(pictures) >= 3
    for picture in pictures:
        root = ElementTree.fromstring(base64.b64decode(picture))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        used = {name for each in root.iter() for name in each.get("class", "").split()}
        styled = set(re.findall(r"\.([\w-]+)", next(root.iter("{http://www.w3.org/2000/svg}style")).text or ""))
        assert used - {"chart"} <= styled  # the page's own class


def test_a_new_workspace_has_a_report_too(workspace: Workspace, prefect_server: None) -> None:
    shown = run(workspace, days=7)
    assert (shown.run.name, shown.state.name) == ("report 7 days", "Completed")


def test_a_wrong_workspace_is_a_usage_error(workspace: Workspace, prefect_server: None) -> None:
    state = report(workspace=str(workspace.root / "nowhere"), return_state=True)
    assert (state.name, exit_code(state)) == ("Failed", 2)


def test_days_are_bounded() -> None:
    for wrong in (0, 733):
        with pytest.raises(ParameterTypeError, match="days"):
            report.validate_parameters({"days": wrong})
