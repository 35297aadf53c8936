"""The task of the backup flow: an archive, verified before it gets its name."""

from __future__ import annotations

from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import backup_pages, states
from tasks.runs import HOUR, TRIED_AGAIN, kept, stopped_by
from tasks.step_view import StepView
from tasks.watching import watched
from vectorstore.backup import BackupReport, backup
from vectorstore.errors import VectorkeepError
from vectorstore.output.backup_text import backup_text
from vectorstore.settings import load_settings

KINDS = {"auto": "", "full": "full", "portable": "portable"}


@task(name="backup", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def back_up(workspace: str, kind: str, **choice: Any) -> State[Any]:
    """Make a backup; one that was stopped leaves nothing behind."""
    view = StepView("backup")
    try:
        settings = load_settings(workspace or None)

        def made(report: BackupReport) -> None:
            view.end()
            get_run_logger().info(backup_text(report))
            backup_pages.publish_backup(settings, report)

        report = watched(
            lambda stop: kept(
                settings, "backup", lambda: backup(settings, kind=KINDS[kind], on_step=view.noted(stop), **choice)
            ),
            view.look,
            made,
        )
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_backup(report)


def run_name() -> str:
    """A run's name in lists: what it makes, and where to."""
    asked = flow_run.parameters
    kind = asked.get("kind", "auto")
    parts = ["backup", "" if kind == "auto" else kind, "selective" if asked.get("selective") else ""]
    return " ".join(filter(None, [*parts, "off-site" if asked.get("offsite") else ""]))
