"""Drill: the proof that a backup restores; ``python flows/drill.py --help`` for a run by hand."""

import sys
from typing import Annotated

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.drill import drill_backup, run_name
from tasks.runs import BACKUP
from tasks.states import own


@flow(
    name="drill",
    description="Proves that a backup restores: it goes into a scratch folder, and every row is looked at there. The"
    " workspace is not touched.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def drill(
    name: Annotated[str, Field(pattern=f"^({BACKUP})?$")] = "",
    scratch: str = "",
    workspace: str = "",
) -> State:
    """Prove that a backup restores.

    Args:
        name: Which one, such as backup_20261121_020000. Empty: whose turn it is: of those never drilled the newest and
            the oldest in turn, else the one whose drill is longest ago. Encrypted ones have no turn unless the worker
            has the password of their key in its environment.
        scratch: A folder with room for the unpacked backup; a relative path is one in the workspace. Empty: the folder
            of the backups.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(drill_backup(workspace=workspace, name=name, scratch=scratch, return_state=True))


if __name__ == "__main__":
    sys.exit(run_by_hand(drill))
