"""The tasks of the health flow: the check alone, or the fix with a check before and after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import health_pages, states
from tasks.artifacts import ProgressBar
from tasks.cost_pages import publish_costs
from tasks.runs import HOUR, TRIED_AGAIN, given, kept, stopped_by
from tasks.watching import watched
from vectorstore.errors import Interrupted, VectorkeepError
from vectorstore.findings import Depth, HealthReport
from vectorstore.fix import FixReport, fix
from vectorstore.health import health
from vectorstore.output.fix_text import fix_text
from vectorstore.output.health_files import keep_report
from vectorstore.output.health_text import health_text
from vectorstore.progress import Progress
from vectorstore.settings import Settings, load_settings

PROBES = {"auto": None, "always": True, "never": False}
REPORTS = ("health_report.json", "health_report.html")  # in .hashes, of the last check; the history has the others


@task(name="health", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def check_store(workspace: str, depth: str, probe: str, verify_content: bool, **_: Any) -> State[Any]:
    """What is wrong, and why; changes nothing."""
    try:
        settings = load_settings(workspace or None)
        view = _View(settings)
        report = watched(
            lambda stop: kept(
                settings, "health",
                lambda: health(
                    settings, depth=Depth[depth.upper()], probe=PROBES[probe], verify_content=verify_content,
                    on_progress=view.advanced(stop),
                ),
            ),
            view.look,
            view.checked,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_health(report)


@task(name="fix", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def fix_store(
    workspace: str, max_cost_usd: float, max_deletes: int, dry_run: bool, depth: str, probe: str, verify_content: bool
) -> State[Any]:
    """Mend what is wrong, and look again; with ``dry_run`` only say what would be done."""
    try:
        settings = load_settings(workspace or None, max_cost_usd=given(max_cost_usd))
        view = _View(settings)
        report = watched(
            lambda stop: kept(
                settings, "fix",
                lambda: fix(
                    settings, depth=Depth[depth.upper()], probe=PROBES[probe], verify_content=verify_content,
                    dry_run=dry_run, max_deletes=given(max_deletes), stop=stop, on_progress=view.advanced(stop),
                ),
                dry_run=dry_run,
            ),
            view.look,
            view.mended,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_fix(report)


class _View:
    """What a health check or a fix shows: noted by the library's thread, sent by the task's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._bar = settings, ProgressBar()
        self._progress: Progress | None = None

    def advanced(self, stop: threading.Event) -> Callable[[Progress], None]:
        """Notes the counters; ends a look that was asked to stop. What changes something sees to ``stop`` itself."""

        def note(progress: Progress) -> None:
            self._progress = progress
            if stop.is_set() and progress.command == "health":
                raise Interrupted("stopped before everything was looked at; nothing was changed", "run again")

        return note

    def look(self) -> None:
        self._bar.show(self._progress)

    def checked(self, report: HealthReport) -> None:
        get_run_logger().info(health_text(report))
        self._conclude(report)
        health_pages.publish_health(report)

    def mended(self, report: FixReport) -> None:
        get_run_logger().info(fix_text(report))
        last = report.after or report.before
        self._conclude(last)
        health_pages.publish_fix(report)
        if report.updated:
            publish_costs(self._settings, report.updated.cost_usd)
        health_pages.publish_health(last)

    def _conclude(self, report: HealthReport) -> None:
        self._bar.show(self._progress, now=True)
        try:
            notes = keep_report(self._settings, report, [self._settings.hashes / name for name in REPORTS])
        except VectorkeepError as error:  # the run's state and its artifacts still tell
            notes = [str(error)]
        for note in notes:
            get_run_logger().warning(note)


def run_name() -> str:
    """A run's name in lists: what it does, and how far it looks."""
    asked = flow_run.parameters
    what = "health" if not asked.get("fix") else "fix plan" if asked.get("dry_run", True) else "fix"
    return f"{what} {asked.get('depth', 'standard')}"
