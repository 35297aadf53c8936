"""The state that a run ends in, from what the library returned or raised.

=============  ======================================================================================================
Completed      done, or nothing to do; a health check that found nothing worse than WARN; backups that verify
Capped         a spending cap was reached; run again to go on. A kind of Failed, so that it alerts
Refused        a safety guard said no, nothing was changed. A kind of Failed
Locked         another run was writing, in a deployment's run for an hour. A kind of Failed
Failed         anything else, also when documents failed while the others were written, a health check found a FAIL, or
               a backup does not verify or restore
=============  ======================================================================================================

A failed state carries the library's error, and so its exit code; its message says the cause and the next step. Prefect
logs every failed run a second time, with a traceback through its engine: for the library's own errors that is left out.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect import State
from prefect.states import Completed, Failed

from tasks.logs import keep_secrets_out
from tasks.pages import LONGEST, one_line
from vectorstore import errors
from vectorstore.backup import BackupReport
from vectorstore.drill import DrillReport
from vectorstore.errors import BadBackup, Capped, Locked, Refused, VectorkeepError
from vectorstore.findings import HealthReport, Severity
from vectorstore.fix import FixReport
from vectorstore.output.backup_text import size_text
from vectorstore.output.merged_findings import Fault, faults, verdict
from vectorstore.output.render import counts_text
from vectorstore.preview import Preview
from vectorstore.prune import PruneReport
from vectorstore.restore import RestoreReport
from vectorstore.update import UpdateReport
from vectorstore.verify import VerifyReport


def failed(error: VectorkeepError) -> State[Any]:
    """The state for an error."""
    name = next((kind.__name__ for kind in (Capped, Refused, Locked) if isinstance(error, kind)), "Failed")
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


def after_health(report: HealthReport) -> State[Any]:
    """The state for a health check."""
    if report.severity is Severity.FAIL:
        return failed(_worst(report))
    return Completed(message=_verdict_text(report), data=report)


def after_fix(report: FixReport) -> State[Any]:
    """The state for a fix, or for the plan of one."""
    updated, last = report.updated, report.after or report.before
    if kind := report.error or (updated.error if updated else ""):
        return failed(getattr(errors, kind)(report.message, report.hint))
    if report.state == "planned":
        return Completed(message=f"would do {_steps_text(report)}; now {_verdict_text(report.before)}", data=report)
    if last.severity is Severity.FAIL:
        return failed(_worst(last))
    if updated and updated.failures:
        return failed(_some_failed(updated.failures, "the rest is mended; the next update tries these again"))
    done = f"did {_steps_text(report)}" if report.steps else "nothing to do"
    return Completed(message=f"{done}; now {_verdict_text(last)}", data=report)


def after_backup(report: BackupReport) -> State[Any]:
    """The state for a backup's report."""
    if report.exit_code:
        what = f"{report.name} is kept, but is {report.state}: {one_line('; '.join(report.notes), LONGEST)}"
        return failed(VectorkeepError(what, "mend it with `vectorkeep health --fix`, then make another"))
    rows = f"{sum(report.collections.values()):,} rows"
    return Completed(message=f"{report.name}: {report.kind}, {size_text(report.size)}, {rows}, verified", data=report)


def after_verify(report: VerifyReport) -> State[Any]:
    """The state for a look at backups."""
    bad = [each for each in report.backups if not each.ok]
    if bad:
        what = f"{len(bad):,} of {len(report.backups):,} do not verify, {bad[0].name} first: {bad[0].message}"
        return failed(BadBackup(one_line(what, LONGEST), "make a new backup, and find out what happened to the disk"))
    return Completed(message=f"{_backups_text(len(report.backups))} verified", data=report)


def after_restore(report: RestoreReport) -> State[Any]:
    """The state for a restore, or for the plan of one."""
    rows = f"{report.name}, {sum(report.collections.values()):,} rows"
    if report.state == "planned":
        return Completed(message=f"verified; would restore {rows}", data=report)
    before = f"; what was there is {report.safety}" if report.safety else ""
    return Completed(message=f"restored {rows}{before}", data=report)


def after_drill(report: DrillReport) -> State[Any]:
    """The state for a drill."""
    if report.exit_code:
        what = f"{report.name} failed its drill: {one_line(report.message, LONGEST)}"
        return failed(BadBackup(what, "make a new backup, then drill that one"))
    rows = f"{sum(report.collections.values()):,} rows"
    return Completed(message=f"{report.name} restores: {rows}, every one was looked at", data=report)


def after_prune(report: PruneReport) -> State[Any]:
    """The state for what became of the backups."""
    kept = f"{len(report.decisions) - len(report.deleted):,} kept"
    if not report.deleted:
        return Completed(message=f"nothing to delete, {kept}", data=report)
    done = "would delete" if report.dry_run else "deleted"
    gone = f"{_backups_text(len(report.deleted))}, {size_text(report.freed)}"
    return Completed(message=f"{done} {gone}; {kept}", data=report)


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


def _worst(report: HealthReport) -> VectorkeepError:
    """The worst finding, with its next step."""
    fault = faults(report.findings)[0]
    return VectorkeepError(f"{verdict(report)}. {_fault_text(fault)}", one_line(fault.remedy, LONGEST))


def _verdict_text(report: HealthReport) -> str:
    """The verdict; at WARN and worse with the worst finding and its next step."""
    text = f"{report.severity.name}: {verdict(report)}"
    if report.severity < Severity.WARN:
        return text
    fault = faults(report.findings)[0]
    return f"{text}. {_fault_text(fault)}. Next: {one_line(fault.remedy, LONGEST)}"


def _fault_text(fault: Fault) -> str:
    worst, more = fault.findings[0], len(fault.findings) - 1
    where = f"{worst.collection}: " if worst.collection else ""
    return one_line(f"{fault.check}: {where}{worst.message}", LONGEST) + (f", and {more:,} more" if more else "")


def _steps_text(report: FixReport) -> str:
    count = len(report.steps)
    return "1 action" if count == 1 else f"{count:,} actions"


def _backups_text(count: int) -> str:
    return "1 backup" if count == 1 else f"{count:,} backups"


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], VectorkeepError))


keep_secrets_out()
for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_is_news)
