"""Several steps in one run: how each ended on one page, and one state, the worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import State
from prefect.states import Completed

from tasks.artifacts import publish_page
from tasks.pages import escaped, page, prose, table
from tasks.states import exit_code

Step = State[Any] | str
"""How a step ended, or why it was left out; no reason: it was not asked for."""
WORST_FIRST = ("Crashed", "Cancelled", "Failed", "Refused", "Capped", "Locked")
MAINTENANCE, RECOVERY = "vectorkeep-maintenance", "vectorkeep-recovery"
FINDINGS = 1  # the exit code of findings and of single documents that failed: the rest is done


def summed_up(steps: Mapping[str, Step], key: str = "") -> State[Any]:
    """The state of a run of several steps: the worst, which names the step; with ``key`` a page of all is stored."""
    ended = {name: step for name, step in steps.items() if isinstance(step, State)}
    bad = sorted((name for name, state in ended.items() if not state.is_completed()), key=lambda n: _rank(ended[n]))
    if key:
        publish_page(_page(steps, bad), key, "how each step ended")
    if not bad:
        return Completed(message="; ".join(f"{name}: {state.message}" for name, state in ended.items()))
    first, others = ended[bad[0]], bad[1:]
    message = f"{bad[0]}: {first.message}" + (f" Also not well: {', '.join(others)}" if others else "")
    return State(type=first.type, name=first.name, message=message, data=first.result(raise_on_failure=False))


def well(*steps: Step) -> bool:
    """Whether none of the steps ended badly; one that was left out did not."""
    return all(isinstance(step, str) or step.is_completed() for step in steps)


def usable(step: Step) -> bool:
    """Whether the next step makes sense: this one ended well, or with findings that the next may mend."""
    return well(step) or (isinstance(step, State) and exit_code(step) == FINDINGS)


def _rank(state: State[Any]) -> int:
    name = state.name or ""
    return WORST_FIRST.index(name) if name in WORST_FIRST else 0


def _page(steps: Mapping[str, Step], bad: list[str]) -> str:
    asked = {name: step for name, step in steps.items() if step}
    title = (
        f"{len(bad):,} of {len(asked):,} steps did not end well: {', '.join(bad)}" if bad else "All steps ended well"
    )
    return page(title, table(["step", "state", "what it says"], [_row(name, step) for name, step in asked.items()]))


def _row(name: str, step: Step) -> list[str]:
    if isinstance(step, str):
        return [name, "left out", escaped(step)]
    state = escaped(step.name or "")
    return [name, state if step.is_completed() else f"**{state}**", prose(step.message or "")]
