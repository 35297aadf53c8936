"""What the lists call a run of the maintain flow; its steps are the tasks of the other flows."""

from __future__ import annotations

from prefect.runtime import flow_run

EXTRAS = ("verify", "fix", "drill", "offsite")


def run_name() -> str:
    """A run's name in lists: what it does beside the work of every day."""
    asked = flow_run.parameters
    what = "maintain plan" if asked.get("dry_run", True) else "maintain"
    return " ".join([what, *(extra for extra in EXTRAS if asked.get(extra))])
