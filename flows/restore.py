"""Restore: a backup takes the place of what is there; ``python flows/restore.py --help`` for a run by hand."""

import sys
from typing import Annotated

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.restore import restore_backup, run_name
from tasks.runs import BACKUP
from tasks.states import own


@flow(
    name="restore",
    description="Brings a backup back: it is verified, unpacked beside the store and looked at there, what is there is"
    " backed up, and then the two change places. With `dry_run` it only verifies, and shows what it would replace.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def restore(
    name: Annotated[str, Field(pattern=f"^(latest|{BACKUP})$")] = "latest",
    dry_run: bool = True,
    into: str = "",
    collections: tuple[str, ...] = (),
    undo: bool = False,
    offsite: bool = False,
    safety_backup: bool = True,
    include_sensitive: bool = False,
    accept_findings: bool = False,
    workspace: str = "",
) -> State:
    """Bring a backup back.

    Args:
        name: Which one: "latest", or a name such as backup_20261121_020000.
        dry_run: Only verify the backup, and show what it would replace. Nothing is changed.
        into: An empty or new folder to restore into; a relative path is one in the workspace. Empty: the workspace
            itself, in place of what is there.
        collections: Only these collections, of a portable backup. None given: all.
        undo: Bring back what the last restore replaced. The name is left aside.
        offsite: Fetch the backup from offsite_url if it is not here.
        safety_backup: Back up what is there first; that backup is kept until the next restore makes its own, and undo
            needs it.
        include_sensitive: The confirmation that the backup of what is there may hold the rows that "sensitive" in
            vectorkeep.toml names.
        accept_findings: Restore even if a deep check finds faults in what the backup holds: better than nothing.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(
        restore_backup(
            workspace=workspace, name=name, dry_run=dry_run, into=into, collections=collections, undo=undo,
            offsite=offsite, safety=safety_backup, include_sensitive=include_sensitive,
            accept_findings=accept_findings, return_state=True,
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_by_hand(restore))
