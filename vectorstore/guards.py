"""The guards: what an update refuses to do, and the flag that would allow it."""

from __future__ import annotations

import contextlib

from vectorstore.errors import DocumentError, EmptySource, PipelineMismatch, Refused, TooManyDeletes
from vectorstore.ledger import Generation, Ledger
from vectorstore.plan import Plan
from vectorstore.settings import Settings

FEW = 10  # deletes that need no permission, whatever the share


def pipeline_mismatch(generation: Generation, pipeline: str, documents: int) -> PipelineMismatch:
    """The refusal for a store that holds another pipeline's vectors."""
    return PipelineMismatch(
        f"{documents} documents of {generation.template!r} were embedded by {generation.pipeline};"
        f" the settings now ask for {pipeline}. Their vectors must not be mixed",
        "put the old settings back; or run `vectorkeep update --mode stale`: it builds the new vectors beside the old"
        " ones, which serve until all is there (`vectorkeep plan --mode stale` tells the cost)",
    )


def check_guards(
    plan: Plan, settings: Settings, ledger: Ledger, seen: int, known: int, max_deletes: int | None
) -> None:
    """Add the plan's refusals to it.

    Args:
        seen: documents of the source, in scope.
        known: documents of the ledger, in scope.
        max_deletes: allow this many deletes, instead of the settings' share.
    """
    if settings.paused:
        plan.refusals.insert(0, Refused("Vectorkeep is paused by its settings", "set paused = false to go on"))
    deletes = plan.counts["deleted"] + plan.emptied
    if not deletes:
        return
    if not seen and max_deletes is None:
        plan.refusals.append(
            EmptySource(
                f"the source {plan.source.root} has none of the {known} documents that the store holds",
                f"see whether it is mounted; if they are really gone, run again with --max-deletes {deletes}",
            )
        )
        return
    if settings.protected:
        plan.refusals.append(
            Refused(f"the store is protected and {deletes} documents would be deleted", "set protected = false")
        )
    allowed = max(FEW, int(known * settings.max_delete_share)) if max_deletes is None else max_deletes
    if deletes > allowed:
        deletes -= _moves(plan, ledger)
    if deletes > allowed:
        plan.refusals.append(
            TooManyDeletes(
                f"{deletes} of {known} documents would be deleted or emptied; {allowed} are allowed",
                f"look at the source; if they are really gone, run again with --max-deletes {deletes}",
            )
        )


def _moves(plan: Plan, ledger: Ledger) -> int:
    """How many deletes are moves. Reads the added documents, so only when it matters."""
    moved: set[str] = set()
    for work in plan.work():
        if work.kind != "added":
            continue
        with contextlib.suppress(DocumentError):
            content = plan.source.read(work.entry).content_hash
            twins = ledger.keys_of_content(plan.generation.id, content)
            moved.update([key for key in twins if key not in moved and plan.is_deleted(key)][:1])
    return len(moved)
