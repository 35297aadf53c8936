"""The task of the alerts flow, and what every other flow does when it ends: judge alerts, tell, and emit events.

The library sends to the addresses itself. The events are for automations, which tell of what no run can tell of; see
docs/alerts.md.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any, cast

from prefect import Flow, State, task
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.logging import get_logger, get_run_logger
from prefect.settings import get_current_settings
from prefect.states import Completed

from tasks.artifacts import publish_page
from tasks.pages import escaped, facts, page, prose, section, table
from tasks.runs import TRIED_AGAIN, stopped_by
from vectorstore.alerting.addresses import from_environment
from vectorstore.alerting.notice import Notice
from vectorstore.alerts import AlertsReport, alerts
from vectorstore.errors import VectorkeepError
from vectorstore.output.alert_text import alerts_text
from vectorstore.settings import Settings, load_settings

PAGE = "vectorkeep-alerts"
SECRET_BLOCK = "vectorkeep-alert-urls"
FIRED, RESOLVED, CHECKED = "vectorkeep.alert.fired", "vectorkeep.alert.resolved", "vectorkeep.alert.checked"
JUDGED = "vectorkeep.run.judged"
SINK = "prefect events"
TAG = {"prefect.resource.id": "prefect.tag.vectorkeep", "prefect.resource.role": "tag"}
HOOK_S, SENDING_S = 10.0, 7.0
_log = get_logger("tasks.alerts")


@task(name="alerts", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=300, **TRIED_AGAIN)
def check_alerts(workspace: str) -> State[Any]:
    """Judge now and tell; it fails only if the check itself does."""
    try:
        settings = load_settings(workspace or None)
        report = _judged(settings)
    except VectorkeepError as error:
        return stopped_by(error)
    get_run_logger().info(alerts_text(report))
    publish_page(alerts_page(report), PAGE, "what a person should know of")
    _emit(settings, CHECKED, {"active": [alert.key for alert in report.active]})
    told = f"; told {len(report.fired):,} fired, {len(report.resolved):,} resolved"
    return Completed(message=_count(report) + (told if report.fired or report.resolved else ""), data=report)


def judge_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for the end of a flow: alerts are judged and told. It never raises, and takes ten seconds at most.

    A worker calls it by the names of its parameters, which are Prefect's.
    """
    thread = threading.Thread(target=copy_context().run, args=(_judge_run, flow_run), daemon=True, name="alerts")
    thread.start()
    thread.join(HOOK_S)
    if thread.is_alive():
        _log.warning("alerts were not judged in %.0f s; the next check does it", HOOK_S)


HOOKS: Any = {
    name: [judge_run] for name in ("on_completion", "on_failure", "on_crashed", "on_cancellation")
}  # for every flow but alerts itself


def alerts_page(report: AlertsReport) -> str:
    """Markdown."""
    rows = ([each.severity, escaped(each.key), prose(each.message), prose(each.hint)] for each in report.active)
    told = {
        "told fired": escaped(", ".join(each.key for each in report.fired)),
        "told resolved": escaped(", ".join(each.key for each in report.resolved)),
        "to": escaped(", ".join(report.addresses)) or "nobody: there is no address",
    }
    return page(
        _count(report).capitalize(),
        table(["severity", "alert", "what", "next"], rows) if report.active else "",
        facts(told),
        section("Notes", map(escaped, report.notes)),
    )


def addresses() -> tuple[str, ...]:
    """Where alerts go: the environment, else the Secret block ``vectorkeep-alert-urls``; never a parameter."""
    if given := from_environment():
        return given
    try:
        return tuple(str(cast(Any, Secret.load(SECRET_BLOCK)).get()).split())
    except ValueError:  # there is no such block
        return ()


def _judge_run(run: FlowRun) -> None:
    try:
        settings = load_settings(str((run.parameters or {}).get("workspace") or "") or None)
        for note in _judged(settings).notes:
            _log.warning(note)
        about = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
        emit_event(JUDGED, resource=about, related=[TAG])
    except Exception as error:  # whatever it is: the run has ended and must stay as it is
        _log.warning("alerts could not be judged: %s: %s", type(error).__name__, error)


def _judged(settings: Settings) -> AlertsReport:
    given = addresses()
    has_server = bool(get_current_settings().api.url)  # else events would go to a server that ends with this run

    def emit(notice: Notice) -> None:
        assert notice.alert
        name = FIRED if notice.what == "fired" else RESOLVED
        payload = notice.alert.to_dict() | {"title": notice.title, "text": notice.body}
        more = {"vectorkeep.alert": notice.alert.name, "vectorkeep.sent": "yes" if given else "no"}
        _emit(settings, name, payload, **more)

    return alerts(settings, addresses=given, sinks={SINK: emit} if has_server else {}, seconds=SENDING_S)


def _emit(settings: Settings, name: str, payload: dict[str, Any], **more: str) -> None:
    workspace = settings.workspace.name
    about = {"prefect.resource.id": f"vectorkeep.workspace.{workspace}", "prefect.resource.name": workspace}
    emit_event(name, resource=about | more, payload=payload | {"workspace": str(settings.workspace)})


def _count(report: AlertsReport) -> str:
    count = len(report.active)
    if not count:
        return "no alerts"
    return f"{'1 alert' if count == 1 else f'{count:,} alerts'}: {', '.join(alert.key for alert in report.active)}"
