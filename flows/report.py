"""Report: what happened, what it cost, where figures go; ``python flows/report.py --help`` for a run by hand."""

import sys
from typing import Annotated

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.report import run_name, write_report
from tasks.states import own


@flow(
    name="report",
    description="Tells what happened in the last seven days, what it cost, and where figures go: as a page with"
    " pictures here, and as a file in the workspace's folder `reports`. It changes nothing else.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def report(days: Annotated[int, Field(ge=1, le=732)] = 30, workspace: str = "") -> State:
    """Tell what happened, what it cost, and where figures go.

    Args:
        days: How far back lines and trends are drawn; troubles are those of the last seven days.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(write_report(workspace=workspace, days=days, return_state=True))


if __name__ == "__main__":
    sys.exit(run_by_hand(report))
