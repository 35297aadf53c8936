"""The task of the prune flow: backups that retention no longer wants go, or are only shown."""

from __future__ import annotations

from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import backup_pages, states
from tasks.runs import HOUR, TRIED_AGAIN, kept, stopped_by
from tasks.watching import watched
from vectorstore.errors import VectorkeepError
from vectorstore.output.backup_text import prune_text
from vectorstore.prune import PruneReport, prune
from vectorstore.settings import load_settings


@task(name="prune", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=HOUR, **TRIED_AGAIN)
def prune_backups(workspace: str, dry_run: bool) -> State[Any]:
    """Delete what retention no longer wants; with ``dry_run`` only say what that is, and why."""
    try:
        settings = load_settings(workspace or None)

        def ended(report: PruneReport) -> None:
            get_run_logger().info(prune_text(report))
            backup_pages.publish_prune(settings, report)

        report = watched(
            lambda stop: kept(settings, "prune", lambda: prune(settings, dry_run=dry_run), dry_run=dry_run),
            lambda: None,
            ended,
        )
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_prune(report)


def run_name() -> str:
    """A run's name in lists."""
    return "prune plan" if flow_run.parameters.get("dry_run", True) else "prune"
