"""Maintain: a whole day's work in one run; ``python flows/maintain.py --help`` for a run by hand."""

import sys
from typing import Annotated, Literal

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.backup import back_up
from tasks.by_hand import run_by_hand
from tasks.drill import drill_backup
from tasks.health import check_store, fix_store
from tasks.maintain import run_name
from tasks.prune import prune_backups
from tasks.steps import MAINTENANCE, summed_up, well
from tasks.update import plan_documents, update_documents
from tasks.verify import verify_backups


@flow(
    name="maintain",
    description="A whole day's work, one step after the other: backup, prune, update, health, and on request verify,"
    " fix and drill. It goes on past a step that failed, and ends with one summary and the worst state. With `dry_run`"
    " it only shows what it would do.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def maintain(
    dry_run: bool = True,
    depth: Literal["quick", "standard", "deep"] = "standard",
    verify: bool = False,
    fix: bool = False,
    drill: bool = False,
    offsite: bool = False,
    selective: bool = False,
    include_sensitive: bool = False,
    max_cost_usd: Annotated[float, Field(ge=-1)] = -1,
    max_deletes: Annotated[int, Field(ge=-1)] = -1,
    workspace: str = "",
) -> State:
    """Do a whole day's work, one step after the other.

    Args:
        dry_run: Only show what update, prune and fix would do; no backup is made. Nothing is changed or paid.
        depth: How far the health check looks: "quick", "standard" or "deep".
        verify: As every week: look at every byte of all backups, before any is pruned.
        fix: As every week: mend what the health check finds, after a backup of its own, and look again.
        drill: As every month: restore the backup whose turn it is into a scratch folder, and look at every row.
        offsite: As every month: copy the backup to offsite_url as well, and read the copy back.
        selective: Leave out of the backup the rows that "sensitive" in vectorkeep.toml names.
        include_sensitive: The confirmation that the backup may hold the rows that "sensitive" names.
        max_cost_usd: The cap of the update, and of the fix, in US dollars. 0: pay nothing. -1: as in vectorkeep.toml.
        max_deletes: Refuse an update or a fix that would delete more than this. -1: the share set in vectorkeep.toml.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    backed_up = "a dry run makes none" if dry_run else back_up(
        workspace=workspace, kind="auto", cache=False, selective=selective, include_sensitive=include_sensitive,
        offsite=offsite, return_state=True,
    )  # fmt: skip
    verified = "" if not verify else verify_backups(
        workspace=workspace, name="all", level="deep", offsite=False, return_state=True
    )  # fmt: skip
    pruned = "the old backups stay until there is a new one, and all verify" if not well(backed_up, verified) else (
        prune_backups(workspace=workspace, dry_run=dry_run, return_state=True)
    )  # fmt: skip
    run = plan_documents if dry_run else update_documents
    updated = run(
        workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, mode="changed", collections=(),
        doc_keys=(), verify_content=False, return_state=True,
    )  # fmt: skip
    look = fix_store if fix else check_store
    checked = look(
        workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, dry_run=dry_run, depth=depth,
        probe="auto", verify_content=False, return_state=True,
    )  # fmt: skip
    drilled = "" if not drill else drill_backup(workspace=workspace, name="", scratch="", return_state=True)
    return summed_up(
        {
            "backup": backed_up, "verify": verified, "prune": pruned, "update": updated,
            "fix" if fix else "health": checked, "drill": drilled,
        },
        MAINTENANCE,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_by_hand(maintain))
