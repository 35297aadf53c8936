"""The tasks of the update flow: the plan alone, or the update with its plan made once, inside."""

from __future__ import annotations

from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import states, update_pages
from tasks.artifacts import ProgressBar
from tasks.cost_pages import publish_costs
from tasks.runs import HOUR, TRIED_AGAIN, given, kept, stopped_by
from tasks.watching import watched
from vectorstore.errors import VectorkeepError
from vectorstore.output.render import plan_text, preview_text, update_text
from vectorstore.plan import Plan
from vectorstore.preview import preview
from vectorstore.progress import Progress
from vectorstore.settings import Settings, load_settings
from vectorstore.update import UpdateReport, update


@task(name="plan", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=2 * HOUR, **TRIED_AGAIN)
def plan_documents(workspace: str, max_cost_usd: float, max_deletes: int, **choice: Any) -> State[Any]:
    """What an update would do and cost; changes nothing."""
    bar = ProgressBar()
    try:
        settings = load_settings(workspace or None, max_cost_usd=given(max_cost_usd))
        found = preview(settings, max_deletes=given(max_deletes), on_progress=bar.show, **choice)
    except VectorkeepError as error:
        return stopped_by(error)
    get_run_logger().info(preview_text(found))
    update_pages.publish_preview(found)
    return states.after_preview(found)


@task(name="update", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=24 * HOUR, **TRIED_AGAIN)
def update_documents(workspace: str, max_cost_usd: float, max_deletes: int, **choice: Any) -> State[Any]:
    """Bring the store in step; a second try pays only for what the first one did not."""
    try:
        settings = load_settings(workspace or None, max_cost_usd=given(max_cost_usd))
        view = _View(settings)
        report = watched(
            lambda stop: kept(
                settings, "update",
                lambda: update(
                    settings, max_deletes=given(max_deletes), stop=stop,
                    on_plan=view.planned, on_progress=view.advanced, **choice,
                ),
            ),
            view.look,
            view.ended,
        )  # fmt: skip
    except VectorkeepError as error:
        return stopped_by(error)
    return states.after_update(report)


class _View:
    """What an update shows: noted by the library's threads, sent by the task's own."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._bar = settings, ProgressBar()
        self._progress: Progress | None = None
        self._plan: tuple[str, str] | None = None

    def planned(self, plan: Plan) -> None:
        text = "" if plan.nothing_to_do else plan_text(plan)
        self._plan = text, update_pages.plan_page(plan)  # now: the plan is closed when the update ends

    def advanced(self, progress: Progress) -> None:
        self._progress = progress

    def look(self) -> None:
        if self._plan:
            text, page = self._plan
            self._plan = None
            if text:
                get_run_logger().info(text)
            update_pages.publish_plan(page)
        self._bar.show(self._progress)

    def ended(self, report: UpdateReport) -> None:
        self.look()
        self._bar.show(self._progress, now=True)
        get_run_logger().info(update_text(report))
        update_pages.publish_update(report)
        publish_costs(self._settings, report.cost_usd)


def run_name() -> str:
    """A run's name in lists: what it does, and to what."""
    asked = flow_run.parameters
    parts = ["plan" if asked.get("dry_run") else "update", asked.get("mode", "changed")]
    for name, word in (("collections", "collections"), ("doc_keys", "documents")):
        named = list(asked.get(name) or ())
        parts += named if len(named) == 1 else [f"{len(named)} {word}"] if named else []
    then = asked.get("then_health", "no")
    return " ".join([*parts, *(["then health", then] if then != "no" and not asked.get("dry_run") else [])])
