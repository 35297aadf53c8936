"""The task of the restore flow: a backup takes the place of what is there, or is only shown."""

from __future__ import annotations

from pathlib import Path
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
from vectorstore.output.backup_text import restore_text
from vectorstore.restore import RestoreReport, restore
from vectorstore.settings import load_settings


@task(name="restore", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def restore_backup(workspace: str, name: str, into: str, **choice: Any) -> State[Any]:
    """Bring a backup back; with ``dry_run`` only verify it and say what it would replace."""
    view = StepView("restore")
    try:
        settings = load_settings(workspace or None)
        folder = settings.path(Path(into)) if into else None

        def ended(report: RestoreReport) -> None:
            view.end()
            get_run_logger().info(restore_text(report))
            backup_pages.publish_restore(settings, report)

        report = watched(
            lambda stop: kept(
                settings, "restore",
                lambda: restore(
                    settings, name, into=folder, password=backup_password(), on_step=view.noted(stop), **choice
                ),
                dry_run=choice.get("dry_run", False) or bool(folder),  # into another folder: no run of this workspace
            ),
            view.look,
            ended,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_restore(report)


def run_name() -> str:
    """A run's name in lists: what it brings back, and where to."""
    asked = flow_run.parameters
    parts = ["restore plan" if asked.get("dry_run", True) else "restore"]
    parts.append("undo" if asked.get("undo") else asked.get("name", "latest"))
    named = list(asked.get("collections") or ())
    parts += named if len(named) == 1 else [f"{len(named)} collections"] if named else []
    return " ".join(parts) + (f" into {asked['into']}" if asked.get("into") else "")
