"""What the lists call a run of the recover flow; its steps are the tasks of the other flows."""

from __future__ import annotations

from prefect.runtime import flow_run


def run_name() -> str:
    """A run's name in lists: from what it recovers."""
    asked = flow_run.parameters
    return f"recover {'plan ' if asked.get('dry_run', True) else ''}{asked.get('name', 'latest')}"
