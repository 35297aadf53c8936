"""Update: bring the vector store in step with its documents; ``python flows/update.py --help`` for a run by hand."""

import sys
from typing import Annotated, Literal

from prefect import State, flow
from pydantic import Field

from tasks.alerts import HOOKS
from tasks.by_hand import run_by_hand
from tasks.health import check_store
from tasks.states import own
from tasks.steps import summed_up
from tasks.update import plan_documents, run_name, update_documents


@flow(
    name="update",
    description="Brings the vector store in step with its documents: embeds what changed, deletes what is gone,"
    " never spends past a cap. With `dry_run` it only shows what it would do and cost.",
    flow_run_name=run_name,
    persist_result=False,
    **HOOKS,
)
def update(
    dry_run: bool = False,
    mode: Literal["changed", "missing", "stale", "all"] = "changed",
    collections: tuple[str, ...] = (),
    doc_keys: tuple[str, ...] = (),
    max_cost_usd: Annotated[float, Field(ge=-1)] = -1,
    max_deletes: Annotated[int, Field(ge=-1)] = -1,
    verify_content: bool = False,
    then_health: Literal["no", "quick", "standard", "deep"] = "no",
    workspace: str = "",
) -> State:
    """Bring the vector store in step with its documents.

    Args:
        dry_run: Only show the plan and what it would cost. Nothing is changed, nothing is paid.
        mode: "changed": whatever is out of step, as every night. "missing": only what the store has lost. "stale": only
            what another model or chunker made, built anew beside the old, which serves until all is there. "all":
            every document again; vectors that were paid for are not paid for twice.
        collections: Only these collections, by name. None given: all.
        doc_keys: Only these documents, by their path relative to the source folder. None given: all.
        max_cost_usd: The cap of this run, in US dollars. The run stops before it passes the cap, and the next run goes
            on. 0: pay nothing. -1: the cap set in vectorkeep.toml.
        max_deletes: Refuse the run if more documents than this would be deleted. -1: the share set in vectorkeep.toml.
        verify_content: Read every document, even where size and times say that it is unchanged.
        then_health: After an update, however it ended, check the store's health this far; the run ends in the worse
            state of the two. Not after a dry run.
        workspace: The folder that holds vectorkeep.toml. Empty: the folder that the run starts in.
    """
    run = plan_documents if dry_run else update_documents
    done = run(
        workspace=workspace, max_cost_usd=max_cost_usd, max_deletes=max_deletes, mode=mode,
        collections=collections, doc_keys=doc_keys, verify_content=verify_content, return_state=True,
    )  # fmt: skip
    if dry_run or then_health == "no":
        return own(done)
    checked = check_store(workspace=workspace, depth=then_health, probe="auto", verify_content=False, return_state=True)
    return summed_up({"update": done, "health": checked})


if __name__ == "__main__":
    sys.exit(run_by_hand(update))
