"""The task of the verify flow: are the backups what they were?"""

from __future__ import annotations

from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import backup_pages, states
from tasks.runs import HOUR, TRIED_AGAIN, backup_password, kept, stopped_by
from tasks.step_view import StepView
from tasks.watching import watched
from vectorstore.errors import VectorkeepError
from vectorstore.output.backup_text import verify_text
from vectorstore.settings import load_settings
from vectorstore.verify import VerifyReport, verify


@task(name="verify", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def verify_backups(workspace: str, name: str, level: str, offsite: bool) -> State[Any]:
    """Look at one backup or at all; changes none."""
    view = StepView("verify")
    try:
        settings = load_settings(workspace or None)

        def looked(report: VerifyReport) -> None:
            view.end()
            get_run_logger().info(verify_text(report))
            backup_pages.publish_verify(settings, report)

        report = watched(
            lambda stop: kept(
                settings, "verify",
                lambda: verify(
                    settings, name, level=level, offsite=offsite, password=backup_password(), stop=stop,
                    on_step=view.noted(stop),
                ),
            ),
            view.look,
            looked,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_verify(report)


def run_name() -> str:
    """A run's name in lists: what it looks at, and how far."""
    asked = flow_run.parameters
    if asked.get("offsite"):
        return f"verify {asked.get('name', 'latest')} off-site"
    return f"verify {asked.get('name', 'latest')} {asked.get('level', 'deep')}"
