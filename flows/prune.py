"""Prune: backups that retention no longer wants go; ``python flows/prune.py --help`` for a run by hand."""

import sys

from prefect import State, flow

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.prune import prune_backups, run_name
from tasks.states import own


@flow(
    name="prune",
    description="Deletes the backups that the rules of retention in vectorkeep.toml no longer want, and says why each"
    " is kept or not. With `dry_run` it only says so.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def prune(dry_run: bool = True, workspace: str = "") -> State:
    """Delete the backups that retention no longer wants.

    Args:
        dry_run: Only show what would be deleted, and why. Nothing is changed.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(prune_backups(workspace=workspace, dry_run=dry_run, return_state=True))


if __name__ == "__main__":
    sys.exit(run_by_hand(prune))
