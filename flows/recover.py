"""Recover: from a backup to a store that is whole again; ``python flows/recover.py --help`` for a run by hand."""

import sys
from typing import Annotated, Literal

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.health import check_store, fix_store
from tasks.recover import run_name
from tasks.restore import restore_backup
from tasks.runs import BACKUP
from tasks.steps import RECOVERY, summed_up, usable, well
from tasks.update import update_documents


@flow(
    name="recover",
    description="Brings a backup back, mends what it lacks, embeds the documents that came after it, and looks at the"
    " whole. It stops where going on makes no sense. With `dry_run` it only verifies the backup, and shows what it"
    " would replace.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def recover(
    name: Annotated[str, Field(pattern=f"^(latest|{BACKUP})$")] = "latest",
    dry_run: bool = True,
    depth: Literal["quick", "standard", "deep"] = "deep",
    offsite: bool = False,
    safety_backup: bool = True,
    include_sensitive: bool = False,
    max_cost_usd: Annotated[float, Field(ge=-1)] = -1,
    max_deletes: Annotated[int, Field(ge=-1)] = -1,
    workspace: str = "",
) -> State:
    """Bring a backup back, and make the store whole again.

    Args:
        name: Which one: "latest", or a name such as backup_20261121_020000.
        dry_run: Only verify the backup, and show what it would replace. Nothing is changed or paid.
        depth: How far the last health check looks: "quick", "standard" or "deep".
        offsite: Fetch the backup from offsite_url if it is not here.
        safety_backup: Back up what is there first; that backup is kept until the next restore makes its own, and undo
            needs it.
        include_sensitive: The confirmation that the backup of what is there may hold the rows that "sensitive" in
            vectorkeep.toml names.
        max_cost_usd: The cap in US dollars of the fix, and of the refill. 0: pay nothing. -1: as in vectorkeep.toml.
        max_deletes: Refuse a fix or a refill that would delete more than this. -1: the share set in vectorkeep.toml.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    restored = restore_backup(
        workspace=workspace, name=name, dry_run=dry_run, into="", collections=(), undo=False, offsite=offsite,
        safety=safety_backup, include_sensitive=include_sensitive, accept_findings=False, return_state=True,
    )  # fmt: skip
    if dry_run or not well(restored):
        why = "a dry run restores nothing" if dry_run else "nothing was restored"
        return summed_up({"restore": restored, "fix": why, "refill": why, "health": why}, RECOVERY)
    fixed = fix_store(
        workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, dry_run=False, depth="standard",
        probe="auto", verify_content=False, return_state=True,
    )  # fmt: skip
    refilled = "the store was not mended" if not usable(fixed) else update_documents(
        workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, mode="missing", collections=(),
        doc_keys=(), verify_content=False, return_state=True,
    )  # fmt: skip
    checked = check_store(workspace=workspace, depth=depth, probe="auto", verify_content=False, return_state=True)
    return summed_up({"restore": restored, "fix": fixed, "refill": refilled, "health": checked}, RECOVERY)


if __name__ == "__main__":
    sys.exit(run_by_hand(recover))
