"""Verify: are the backups what they were? ``python flows/verify.py --help`` for a run by hand."""

import sys
from typing import Annotated, Literal

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.runs import BACKUP
from tasks.states import own
from tasks.verify import run_name, verify_backups


@flow(
    name="verify",
    description="Sees whether backups are what they were when they were made. It changes none, and fails if one is"
    " bad.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def verify(
    name: Annotated[str, Field(pattern=f"^(latest|all|{BACKUP})$")] = "latest",
    level: Literal["digest", "deep", "drill"] = "deep",
    offsite: bool = False,
    workspace: str = "",
) -> State:
    """See whether backups are what they were.

    Args:
        name: Which one: "latest", "all", or a name such as backup_20261121_020000.
        level: How far to look. "digest": the archive's digest. "deep": every byte of every file in it. "drill": it is
            restored into a scratch folder, and every row is looked at. Of an encrypted one only the digest is looked
            at, unless the worker has the password of its key in its environment.
        offsite: Look at the copies at offsite_url instead, by digest: they are read back.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    return own(verify_backups(workspace=workspace, name=name, level=level, offsite=offsite, return_state=True))


if __name__ == "__main__":
    sys.exit(run_by_hand(verify))
