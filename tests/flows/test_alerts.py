"""The alerts flow, and what every other flow does when it ends: events, a page, messages; it fails no run."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client

from flows.alerts import alerts
from flows.update import update
from tasks.alerts import CHECKED, FIRED, JUDGED, RESOLVED, SECRET_BLOCK, judge_run
from tests.flows.conftest import Shown, Workspace
from tests.support.receivers import Webhook
from vectorstore.alerting import URLS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _prefect(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URLS, raising=False)


@pytest.fixture
def failing(workspace: Workspace) -> Workspace:
    """One of its two documents is too large to be read."""
    workspace.settings(embedder="hash", max_document_mb=0.01, alert_memory_share=0)
    workspace.write("good.md")
    workspace.write("large.md", text="word " * 4000)
    return workspace


def run(flow: Flow[..., Any], workspace: Workspace, **parameters: Any) -> Any:
    return flow(workspace=str(workspace.root), **parameters, return_state=True)


def events_of(workspace: Workspace, *names: str, count: int) -> list[dict[str, Any]]:
    """Those of the workspace, the oldest first; they arrive a little later."""
    resource = f"vectorkeep.workspace.{workspace.root.name}"
    only = {"filter": {"event": {"name": list(names)}, "resource": {"id": [resource]}}, "limit": 50}
    for _ in range(100):
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json=only).json()["events"]
        found = [each for each in found if each["payload"]["workspace"] == str(workspace.root)]
        if len(found) >= count:
            return sorted(found, key=lambda each: each["occurred"])
        time.sleep(0.1)
    raise AssertionError(f"{len(found)} events, not {count}")


def test_every_flow_but_this_one_judges_when_it_ends() -> None:
    for path in (ROOT / "flows").glob("[a-z]*.py"):
        flow = getattr(importlib.import_module(f"flows.{path.stem}"), path.stem)
        hooks = [flow.on_completion_hooks, flow.on_failure_hooks, flow.on_crashed_hooks, flow.on_cancellation_hooks]
        assert hooks == [[] if path.stem == "alerts" else [judge_run]] * 4, path.name


def test_a_worker_can_call_the_hook_by_name(
    failing: Workspace, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does in a process of its own when a run was killed."""
    assert run(update, failing).is_failed()
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    killed = Shown(run(alerts, failing)).run
    webhook.received.clear()
    failing.remove("large.md")
    monkeypatch.delenv(URLS)
    assert run(update, failing).is_completed()
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    judge_run(flow=update, flow_run=killed, state=killed.state)
    assert webhook.titles == ["Vectorkeep resolved: error rate"]


def test_an_alert_becomes_an_event_a_page_and_a_message_and_so_does_its_end(
    failing: Workspace, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    assert run(update, failing).is_failed()
    shown = Shown(run(alerts, failing))
    assert (shown.state.type.value, shown.state.message) == ("COMPLETED", "1 alert: error_rate")  # the hook told it
    page = shown.artifact("vectorkeep-alerts")
    assert "## 1 alert: error" in page
    assert "1 of 2 documents failed" in page
    failing.remove("large.md")
    assert run(update, failing).is_completed()
    assert Shown(run(alerts, failing)).state.message == "no alerts"
    assert webhook.titles == ["Vectorkeep FAIL: error rate", "Vectorkeep resolved: error rate"]
    fired, resolved = events_of(failing, FIRED, RESOLVED, count=2)
    assert (fired["event"], resolved["event"]) == (FIRED, RESOLVED)
    assert fired["resource"]["vectorkeep.alert"] == "error_rate"
    assert fired["resource"]["vectorkeep.sent"] == "yes"
    assert fired["payload"].items() >= {
        "name": "error_rate", "key": "error_rate", "severity": "FAIL", "value": 0.5, "threshold": 0.01, "subject": "",
        "title": "Vectorkeep FAIL: error rate",
    }.items()  # fmt: skip
    assert [each["payload"]["active"] for each in events_of(failing, CHECKED, count=2)] == [["error_rate"], []]


def test_addresses_may_be_in_a_secret_block_and_show_nowhere(failing: Workspace, webhook: Webhook) -> None:
    Secret(value=f"json://{webhook.place}/s3cr3t-t0ken").save(SECRET_BLOCK, overwrite=True)
    try:
        assert run(update, failing).is_failed()
        shown = Shown(run(alerts, failing))
        assert webhook.titles == ["Vectorkeep FAIL: error rate"]
        assert "//127.0.0.1, prefect events" in shown.artifact("vectorkeep-alerts")
        (fired,) = events_of(failing, FIRED, count=1)
        assert "s3cr3t-t0ken" not in str([fired, shown.artifacts, shown.run])
    finally:
        Secret.delete(SECRET_BLOCK)


def test_a_webhook_that_never_answers_holds_no_flow_up(
    failing: Workspace, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    webhook.status = 0
    began = time.monotonic()
    state = run(update, failing)
    assert time.monotonic() - began < 25
    assert "1 document failed" in (state.message or "")
    webhook.status = 200
    assert "told 1 fired" in Shown(run(alerts, failing)).state.message


def test_only_a_check_that_fails_fails(workspace: Workspace) -> None:
    assert Shown(run(alerts, workspace)).state.message == "no alerts"
    workspace.settings(nonsense=1)
    state = run(alerts, workspace)
    assert state.is_failed()
    assert "unknown setting" in (state.message or "")
    state = run(update, workspace)  # its hook fails, too
    assert "unknown setting" in (state.message or "")


def test_a_run_that_was_judged_says_so(failing: Workspace) -> None:
    state = run(update, failing)
    resource = f"prefect.flow-run.{state.state_details.flow_run_id}"
    only = {"filter": {"event": {"name": [JUDGED]}, "resource": {"id": [resource]}}}
    for _ in range(100):
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json=only).json()["events"]
        if found:
            break
        time.sleep(0.1)
    (event,) = found
    assert {"prefect.resource.id": "prefect.tag.vectorkeep", "prefect.resource.role": "tag"} in event["related"]
