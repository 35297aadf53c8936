"""Runs that did not end well, and for each the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vectorstore.output.printable import printable
from vectorstore.runs.record import ENDED_WELL, RunRecord

_BY_ERROR = {
    "KeyRejected": "put a key into OPENAI_API_KEY that the provider accepts (see `vectorkeep check-key`)",
    "QuotaExhausted": "see to the provider's account, then run again: nothing that was paid is lost",
    "EmbeddingFailed": "see whether the provider answers, then run again: nothing that was paid is lost",
    "StoreUnreachable": "see whether the Chroma server runs and answers at chroma_url",
    "EmptySource": "see whether the folder of documents is mounted",
    "TooManyDeletes": "look at the source; if they are really gone, allow it with --max-deletes",
    "PipelineMismatch": "put the old settings back, or run `vectorkeep update --mode stale`",
    "BadBackup": "make a new backup, and drill it: `vectorkeep backup`, `vectorkeep drill`",
    "Damaged": "run `vectorkeep health`; it names what is damaged and how to mend it",
    "ConfigurationError": "mend the settings, then run again",
}
_BY_STATE = {
    "capped": "run again to go on, or raise the cap; `vectorkeep plan` tells the cost",
    "refused": "read why; the message of the run itself names the flag that allows it",
    "locked": "wait for the other run; if this happens daily, move one of the two schedules",
    "interrupted": "run again to go on",
    "crashed": "run again: nothing that was paid is lost; look into the system's log for a lack of memory",
    "findings": "run `vectorkeep health --fix`",
    "incomplete": "run again; `vectorkeep status` names the documents",
}
_INCOMPLETE_BACKUP = "mend the store with `vectorkeep health --fix`, then make another backup"


@dataclass(frozen=True)
class Trouble:
    """A run that did not end well.

    Attributes:
        time: Unix time of its start.
        message: why, for a person; may hold names from outside.
        remedy: the next step.
        mended: whether a later run of the same verb ended well; of a health check also a fix.
    """

    run: str
    verb: str
    state: str
    time: float
    message: str
    remedy: str
    mended: bool


def troubles(runs: Sequence[RunRecord], since: float) -> list[Trouble]:
    """Those that began at ``since`` (Unix time) or later, the newest first; ``runs`` are the oldest first."""
    found: list[Trouble] = []
    well: set[str] = set()
    for each in reversed(runs):
        if each.started < since:
            break
        if each.state in ENDED_WELL:
            well |= {each.verb, "health"} if each.verb == "fix" else {each.verb}
        else:
            verb, state = printable(each.verb, 40), printable(each.state, 40)
            message = printable(each.message) or state
            found.append(Trouble(each.run, verb, state, each.started, message, remedy_of(each), each.verb in well))
    return found


def remedy_of(run: RunRecord) -> str:
    """The next step after a run that did not end well."""
    if run.verb == "backup" and run.state == "incomplete":
        return _INCOMPLETE_BACKUP
    by_state = _BY_STATE.get(run.state, "see that the disk is not full and can be written, then run again")
    return _BY_ERROR.get(run.error, by_state)
