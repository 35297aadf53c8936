"""The state that a run ends in, from what the library returned or raised.

=============  ===========================================================================================
Completed      done, or nothing to do
Capped         a spending cap was reached; run again to go on. A kind of Failed, so that it alerts
Refused        a safety guard said no, nothing was changed. A kind of Failed
Failed         anything else, also when documents failed while the others were written
=============  ===========================================================================================

A failed state carries the library's error, and so its exit code; its message says the cause and the next step. Prefect
logs every failed run a second time, with a traceback through its engine: for the library's own errors that is left out.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect import State
from prefect.states import Completed, Failed

from vectorstore import errors
from vectorstore.errors import Capped, Refused, VectorkeepError
from vectorstore.preview import Preview
from vectorstore.render import counts_text
from vectorstore.update import UpdateReport


def failed(error: VectorkeepError) -> State[Any]:
    """The state for an error."""
    name = next((kind.__name__ for kind in (Capped, Refused) if isinstance(error, kind)), "Failed")
    next_step = f". Next: {error.hint}" if error.hint else ""
    return Failed(name=name, message=error.message.rstrip(".") + next_step, data=error)


def after_update(report: UpdateReport) -> State[Any]:
    """The state for an update's report."""
    if report.error:
        return failed(getattr(errors, report.error)(report.message, report.hint))
    if report.failures:
        return failed(_some_failed(report.failures, "the others were written; the next run tries these again"))
    return Completed(message=f"{counts_text(report.kinds)}; ${report.cost_usd:.6f}", data=report)


def after_preview(found: Preview) -> State[Any]:
    """The state for a plan."""
    if found.refusals:
        message, _, hint = found.refusals[0].partition("\n  next: ")
        return failed(Refused(message, hint))
    if found.failures:
        return failed(_some_failed(found.failures, "an update would write the others"))
    return Completed(message=f"{counts_text(found.kinds)}; would cost ${found.cost_usd:.6f}", data=found)


def own(state: State[Any]) -> State[Any]:
    """A task's final state as its flow's: returned as it is, Prefect would make "1/1 states failed" of it."""
    return State(type=state.type, name=state.name, message=state.message, data=state.result(raise_on_failure=False))


def exit_code(state: State[Any]) -> int:
    """The command line's exit code for a final state."""
    if state.is_completed():
        return 0
    return int(getattr(state.result(raise_on_failure=False), "exit_code", 1))


def _some_failed(failures: dict[str, str], hint: str) -> VectorkeepError:
    first, reason = next(iter(failures.items()))
    count = "1 document" if len(failures) == 1 else f"{len(failures):,} documents"
    return VectorkeepError(f"{count} failed, {first!r} first: {reason}", hint)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], VectorkeepError))


for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_is_news)
