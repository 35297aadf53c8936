"""Backup: an archive of store and ledger, verified; ``python flows/backup.py --help`` for a run by hand."""

import sys
from typing import Literal

from prefect import State, flow

from tasks.alerts import HOOKS
from tasks.backup import back_up, run_name
from tasks.by_hand import run_by_hand
from tasks.states import own


@flow(
    name="backup",
    description="Saves store, ledger and settings in one archive, and verifies it before it gets its name. Readers may"
    " go on meanwhile; writers wait.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def backup(
    kind: Literal["auto", "full", "portable"] = "auto",
    cache: bool = False,
    selective: bool = False,
    include_sensitive: bool = False,
    offsite: bool = False,
    workspace: str = "",
) -> State:
    """Save store, ledger and settings in one archive.

    Args:
        kind: "full": the store's files as they are. "portable": the rows as Parquet, smaller, for any version of
            Chroma, and for a server. "auto": full, but portable of a server and of a selection.
        cache: With the vector cache (full only): larger, and after a restore nothing is ever paid again.
        selective: Leave out the rows that "sensitive" in vectorkeep.toml names. Such a backup is always portable.
        include_sensitive: The confirmation that the backup may hold the rows that "sensitive" names. Without it and
            without selective a backup of such a store is refused.
        offsite: Copy it to offsite_url as well, and read the copy back.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(
        back_up(
            workspace=workspace, kind=kind, cache=cache, selective=selective, include_sensitive=include_sensitive,
            offsite=offsite, return_state=True,
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_by_hand(backup))
