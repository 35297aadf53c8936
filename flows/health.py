"""Health: see every fault, name its cause, mend it; ``python flows/health.py --help`` for a run by hand."""

import sys
from typing import Annotated, Literal

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.health import check_store, fix_store, run_name
from tasks.states import own


@flow(
    name="health",
    description="Finds what is wrong between documents, ledger and store, says why and what to do, and changes nothing."
    " With `fix` it shows what it would mend; with `fix` and without `dry_run` it mends it and looks again.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def health(
    depth: Literal["quick", "standard", "deep"] = "standard",
    fix: bool = False,
    dry_run: bool = True,
    max_deletes: Annotated[int, Field(ge=-1)] = -1,
    max_cost_usd: Annotated[float, Field(ge=-1)] = -1,
    probe: Literal["auto", "always", "never"] = "auto",
    verify_content: bool = False,
    workspace: str = "",
) -> State:
    """Find what is wrong between documents, ledger and store, and mend it.

    Args:
        depth: How far to look. "quick": ledger and the SQLite side. "standard": and the source, the index files and a
            part of the rows, another one every hour. "deep": and every row and vector, and what search answers.
        fix: Mend what is found, then look again. Only with dry_run off; else show what would be done.
        dry_run: With fix, only show what would be done. Nothing is changed, nothing is paid.
        max_deletes: With fix, refuse if more chunks than this would be deleted. -1: the share set in vectorkeep.toml.
        max_cost_usd: With fix, the cap in US dollars on what the cache lacks and must be embedded again. 0: pay
            nothing. -1: the cap set in vectorkeep.toml.
        probe: At depth deep, whether Chroma itself opens a throwaway copy of the store and answers. "auto": if the
            store is small, or its index files are doubtful.
        verify_content: Read every document of the source and every vector of the cache, whatever the times say.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    run = fix_store if fix else check_store
    return own(
        run(
            workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, dry_run=dry_run, depth=depth,
            probe=probe, verify_content=verify_content, return_state=True,
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_by_hand(health))
