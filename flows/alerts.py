"""Alerts: what should a person know of? ``python flows/alerts.py --help`` for a run by hand."""

import sys

from prefect import State, flow

from tasks.alerts import check_alerts
from tasks.by_hand import run_by_hand
from tasks.states import own


@flow(
    name="alerts",
    description="Judges what a person should know of, such as a backup that is too old, and tells it: once, again when"
    " it lasts a day, and once when it is over. It fails only if the check itself does.",
    flow_run_name="alerts",
    persist_result=False,
)
def alerts(workspace: str = "") -> State:
    """Judge what a person should know of, and tell.

    Args:
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(check_alerts(workspace=workspace, return_state=True))


if __name__ == "__main__":
    sys.exit(run_by_hand(alerts))
