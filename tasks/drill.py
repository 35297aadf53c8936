"""The task of the drill flow: the proof that a backup restores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import backup_pages, states
from tasks.runs import HOUR, TRIED_AGAIN, backup_password, kept, stopped_by
from tasks.watching import watched
from vectorstore.drill import DrillReport, drill
from vectorstore.errors import VectorkeepError
from vectorstore.output.backup_text import drill_text
from vectorstore.settings import load_settings


@task(name="drill", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def drill_backup(workspace: str, name: str, scratch: str) -> State[Any]:
    """Restore a backup into a scratch folder and look at every row of it; its process tells nothing for a bar."""
    try:
        settings = load_settings(workspace or None)
        folder = settings.path(Path(scratch)) if scratch else None

        def ended(report: DrillReport) -> None:
            get_run_logger().info(drill_text(report))
            backup_pages.publish_drill(settings, report)

        report = watched(
            lambda stop: kept(
                settings, "drill",
                lambda: drill(settings, name, scratch=folder, password=backup_password(), stop=stop),
            ),
            lambda: None,
            ended,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_drill(report)


def run_name() -> str:
    """A run's name in lists: what it drills."""
    return f"drill {flow_run.parameters.get('name') or 'next in turn'}"
