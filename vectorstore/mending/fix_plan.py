"""From findings to a plan of actions; pure but for the count of ids. Nothing is done here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vectorstore.checks.faults import Faults
from vectorstore.errors import Refused, TooManyDeletes, VectorkeepError
from vectorstore.findings import Action, Finding, Severity
from vectorstore.guards import FEW
from vectorstore.settings import Settings

# In this order: what later steps stand on comes first.
ORDER = (
    Action.SAVE_CACHE, Action.RECOUNT, Action.FORGET, Action.REMOVE_FOLDERS, Action.REBUILD, Action.REFILL,
    Action.DELETE, Action.REWRITE, Action.UPDATE,
)  # fmt: skip
# With one of these at FAIL nobody may write to the store: what is wrong lies below what a fix can reach.
_FORBIDDING = {"store", "sqlite", "relations", "queue", "ledger"}
DELETES = ("orphans", "two_places")


@dataclass(frozen=True)
class Step:
    """One action for one finding.

    Attributes:
        action: what is done, by name.
        check: for which finding.
        message: what was found.
        collection: where; empty for the whole store.
        count: how many rows, documents or folders.
        ids: some of them.
    """

    action: Action
    check: str
    message: str
    collection: str
    count: int
    ids: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"ids": list(self.ids)}


def not_ours(findings: Sequence[Finding]) -> set[str]:
    """Collections that another program made under a name of ours: no row of them may be touched."""
    return {
        each.collection for each in findings
        if each.check in ("pipeline_mark", "dimension") and each.severity >= Severity.WARN
    }  # fmt: skip


def plan_steps(findings: Sequence[Finding]) -> list[Step]:
    """What to do about findings of WARN and FAIL, in the order it is to be done."""
    others = not_ours(findings)
    due = [
        each for each in findings
        if each.severity >= Severity.WARN and each.action is not Action.NONE and each.collection not in others
    ]  # fmt: skip
    steps = [Step(each.action, each.check, each.message, each.collection, each.count, each.ids) for each in due]
    return sorted(steps, key=lambda step: ORDER.index(step.action))


def left_over(findings: Sequence[Finding], *, all_of_it: bool) -> list[Finding]:
    """What a person has to see to: ``all_of_it`` after a fix, or where none is done; else what has no action."""
    return [
        each for each in findings if each.severity >= Severity.WARN and (all_of_it or each.action is Action.NONE)
    ]  # fmt: skip


def forbidding(findings: Sequence[Finding]) -> list[Finding]:
    """What must be seen to before anything may be written."""
    return [
        each for each in findings
        if (each.check in _FORBIDDING and each.severity is Severity.FAIL and each.action is Action.NONE)
        # Nobody knows what Chroma would make of these files: that it opened a copy says nothing of what it lost.
        or (each.check == "layout" and each.severity >= Severity.WARN)
    ]  # fmt: skip


def check_guards(
    settings: Settings, faults: Faults, stored: int, max_deletes: int | None
) -> VectorkeepError | None:  # fmt: skip
    """What the guards say to the deletes of a plan; ``stored`` is how many chunks the store holds."""
    if settings.paused:
        return Refused("Vectorkeep is paused by its settings", "set paused = false to go on")
    deletes = sum(faults.count(check) for check in DELETES)
    if not deletes:
        return None
    if settings.protected:
        return Refused(f"the store is protected and {deletes} chunks would be deleted", "set protected = false")
    allowed = max(FEW, int(settings.max_delete_share * stored)) if max_deletes is None else max_deletes
    if deletes > allowed:
        return TooManyDeletes(
            f"{deletes} of {stored} chunks are unknown to the ledger and would be deleted; {allowed} are allowed",
            f"see whether the ledger is this store's; if they are to go, run again with --max-deletes {deletes}",
        )
    return None
