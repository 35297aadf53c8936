"""``python -m tasks.automations``: the automations on a Prefect server, which tell of what no run can tell of itself.

===================  ===============================================================================================
vectorkeep: alert    an alert fired or is over, and the run that judged it had no address to send it to
vectorkeep: ended    a run ended badly and nobody judged it: its process, its machine or its worker was gone
vectorkeep: late     a scheduled run has not begun a quarter of an hour after its time
vectorkeep: silent   nobody checked alerts for 26 hours
vectorkeep: zombie   three heartbeats of a run are missing: it is set to Crashed, so that it blocks no other
===================  ===============================================================================================

All but the last send to the addresses of alerts, those that a Prefect server can send to: JSON webhooks and Slack. They
are kept as blocks. It may be run any number of times: what is there is found by its name, and changed if it differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings
from pydantic import SecretStr

from tasks.alerts import CHECKED, FIRED, JUDGED, RESOLVED, TAG, addresses
from vectorstore.alerting.addresses import labels

BLOCK = "vectorkeep-alert"
JUDGED_WITHIN, LATE_AFTER, SILENT_AFTER = timedelta(minutes=2), timedelta(minutes=15), timedelta(hours=26)
LEAST_HEARTBEATS = 3
RUNS, WORKSPACES = "prefect.flow-run.*", "vectorkeep.workspace.*"
_ENDED_BADLY = {f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "Capped", "Refused", "Locked", "TimedOut")}
_BEGUN = {
    f"prefect.flow-run.{name}"
    for name in ("Pending", "Running", "Cancelling", "Cancelled", "Completed", "Failed", "Crashed")
}
_RUN = "{{ event.resource['prefect.resource.name'] }}"


class Installed(NamedTuple):
    """What became of an automation: ``made``, ``changed`` or ``unchanged``."""

    name: str
    done: str


def install(given: Sequence[str], *, heartbeat_s: float | None) -> tuple[list[Installed], list[str]]:
    """Install the blocks and automations.

    Args:
        given: Apprise addresses.
        heartbeat_s: seconds between two heartbeats of a run; ``None``: there are none.

    Returns:
        What became of each automation, and notes for a person.
    """
    notes, blocks = [], []
    for number, (address, label) in enumerate(zip(given, labels(given), strict=True), 1):
        block = block_of(address)
        if block:
            blocks.append(UUID(str(block.save(f"{BLOCK}-{number}", overwrite=True))))
        else:
            notes.append(f"{label}: a Prefect server can't send to it; what runs tell goes there all the same")
    if not blocks:
        notes.append("no address that a Prefect server can send to: only the zombie automation is installed")
    if heartbeat_s is None:
        notes.append("runs send no heartbeats (flows.heartbeat_frequency): no zombie automation")
    with get_client(sync_client=True) as client:
        return [_put(client, wanted) for wanted in automations(blocks, heartbeat_s)], notes


def block_of(address: str) -> Block | None:
    """The notification block for an Apprise address; ``None`` where Prefect has none."""
    scheme, _, rest = address.partition("://")
    if scheme in ("json", "jsons"):
        url = f"http{'s' if scheme == 'jsons' else ''}://{rest.partition('?')[0]}"
        return CustomWebhookNotificationBlock(
            name="vectorkeep", url="{{address}}", secrets={"address": url},
            json_data={"version": "1.0", "title": "{{subject}}", "message": "{{body}}", "type": "warning"},
        )  # fmt: skip
    if scheme == "slack" and len(tokens := rest.partition("?")[0].strip("/").split("/")) >= 3:
        return SlackWebhook(url=SecretStr(f"https://hooks.slack.com/services/{'/'.join(tokens[:3])}"))
    if scheme == "https" and urlsplit(address).hostname == "hooks.slack.com":
        return SlackWebhook(url=SecretStr(address))
    return None


def automations(blocks: Sequence[UUID], heartbeat_s: float | None) -> list[AutomationCore]:
    """What is to be there; see the module."""
    found = []
    if blocks:
        found = [
            _alert(blocks),
            _proactive(
                "ended", blocks, _runs_where(_ENDED_BADLY, {JUDGED}, JUDGED_WITHIN),
                f"run {_RUN} ended badly", f"The run {_RUN} ended badly, and its process judged no alerts: it, the"
                " worker or the machine was gone.\nNext: look at the run, and see that server and worker are up.",
            ),
            _proactive(
                "late", blocks, _runs_where({"prefect.flow-run.Late"}, _BEGUN, LATE_AFTER),
                f"run {_RUN} is late", f"The run {_RUN} has not begun a quarter of an hour after its time.\nNext: see"
                " that a worker is up, and what else is running.",
            ),
            _proactive(
                "silent", blocks,
                EventTrigger(
                    expect={CHECKED}, match={"prefect.resource.id": WORKSPACES},
                    posture=Posture.Proactive, threshold=1, within=SILENT_AFTER,
                ),
                "nobody checks alerts", "No check of alerts ran for 26 hours.\nNext: see that the worker is up and"
                " that the deployment alerts has its schedule.",
            ),
        ]  # fmt: skip
    return [*found, _zombie(heartbeat_s)] if heartbeat_s else found


def _alert(blocks: Sequence[UUID]) -> AutomationCore:
    trigger = EventTrigger(
        expect={FIRED, RESOLVED}, posture=Posture.Reactive, threshold=1,
        match={"prefect.resource.id": WORKSPACES, "vectorkeep.sent": "no"},
    )  # fmt: skip
    subject, body = "{{ event.payload['title'] }}", "{{ event.payload['text'] }}"
    return _core("alert", "tells of alerts, where a run had no address to tell itself", trigger, blocks, subject, body)


def _proactive(name: str, blocks: Sequence[UUID], trigger: EventTrigger, title: str, text: str) -> AutomationCore:
    return _core(name, text.partition("\n")[0].replace(_RUN, "…"), trigger, blocks, f"Vectorkeep FAIL: {title}", text)


def _core(
    name: str, about: str, trigger: EventTrigger, blocks: Sequence[UUID], subject: str, body: str
) -> AutomationCore:
    actions: list[Any] = [SendNotification(block_document_id=each, subject=subject, body=body) for each in blocks]
    return AutomationCore(name=f"vectorkeep: {name}", description=about, trigger=trigger, actions=actions)


def _runs_where(after: set[str], expect: set[str], within: timedelta) -> EventTrigger:
    """Runs of Vectorkeep after whose one event none of the others comes in time."""
    return EventTrigger(
        after=after, expect=expect, match={"prefect.resource.id": RUNS}, match_related=TAG,
        for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=within,
    )  # fmt: skip


def _zombie(heartbeat_s: float) -> AutomationCore:
    within = timedelta(seconds=LEAST_HEARTBEATS * heartbeat_s + 15)
    beat = {"prefect.flow-run.heartbeat"}
    message = f"no heartbeat for {within.total_seconds():.0f} s: its process is gone"
    return AutomationCore(
        name="vectorkeep: zombie",
        description="sets runs to Crashed whose process is gone",
        trigger=_runs_where(beat, {RUNS}, within),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> Installed:
    """Make it what it should be; one of its name stays."""
    known = client.read_automations_by_name(wanted.name)
    for extra in known[1:]:
        client.delete_automation(extra.id)
    if not known:
        client.create_automation(wanted)
        return Installed(wanted.name, "made")
    if _essence(known[0]) == _essence(wanted):
        return Installed(wanted.name, "unchanged")
    client.update_automation(known[0].id, wanted)
    return Installed(wanted.name, "changed")


def _essence(automation: AutomationCore) -> dict[str, Any]:
    """What counts when two are compared."""
    found = automation.model_dump(mode="json", include={*AutomationCore.model_fields} - {"enabled"})
    for side in ("expect", "after", "for_each"):
        found["trigger"][side] = sorted(found["trigger"][side])
    found["trigger"].pop("id", None)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description="Installs Vectorkeep's automations on a Prefect server.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    current = get_current_settings()
    if not current.api.url:
        print("vectorkeep: PREFECT_API_URL is not set\n  next: start a server, and set its address", file=sys.stderr)
        return 2
    try:
        done, notes = install(addresses(), heartbeat_s=current.flows.heartbeat_frequency)
    except (httpx.HTTPError, PrefectException) as error:
        print(f"vectorkeep: the Prefect server said no: {type(error).__name__}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"automations": [each._asdict() for each in done], "notes": notes}, indent=2))
    else:
        lines = [f"{each.done:<9}  {each.name}" for each in done]
        print("\n".join([*lines, *(f"  note      {note}" for note in notes)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
