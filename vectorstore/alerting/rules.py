"""What is an alert: pure rules over the settings, the history of runs and a few facts.

A condition is about the newest state: a failed update that a good one followed is over. A run that found the writer's
lock taken, or that a person stopped, says nothing either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile

from vectorstore.alerting.alert import SEVERITIES, Alert, Facts
from vectorstore.alerting.deviation import RAN_THROUGH, deviations
from vectorstore.runs.record import ENDED_WELL, VERBS, RunRecord
from vectorstore.settings import Settings

Rule = Callable[[Settings, Sequence[RunRecord], Facts], Iterator[Alert]]
HOUR, DAY = 3600.0, 86_400.0
SILENT = ("locked", "interrupted")
BY_HAND = ("restore", "adopt", "fix")  # on no schedule: nobody repeats one only to make an alert go away
WRITERS = ("update", "adopt")
_RUN_AGAIN = "mend the cause, then run `vectorkeep {verb}` again: nothing paid is lost"
_ENDS = {  # state -> name, severity, words, next step
    "capped": ("capped", "WARN", "was capped", "run it again to go on, or raise the cap that it names"),
    "refused": ("refused", "FAIL", "was refused", "look at the cause, then allow it with the flag that it names"),
    "failed": ("failed", "FAIL", "failed", _RUN_AGAIN),
    "crashed": ("crashed", "FAIL", "went away without a word", "see whether memory ran out; " + _RUN_AGAIN),
    "incomplete": ("failed", "WARN", "left something out", "`vectorkeep health --fix`, then `vectorkeep {verb}` again"),
}


def judge(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> list[Alert]:
    """The alerts of now, the worst first, each ``key`` once.

    Args:
        runs: in the order of time.
    """
    found = [alert for rule in RULES for alert in rule(settings, runs, facts)]
    return sorted(found, key=lambda each: (-SEVERITIES.index(each.severity), each.key))


def _error_rate(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit = settings.alert_error_rate
    last = _last(run for run in runs if run.verb in WRITERS and run.state in RAN_THROUGH and run.failures is not None)
    if limit and last and last.error_rate is not None and last.error_rate > limit:
        message = f"{last.failures:,} of {last.work:,} documents failed in the last {last.verb}, more than {limit:.2%}"
        hint = "see the reasons in `vectorkeep status`; mend the documents or exclude them"
        yield Alert("error_rate", "FAIL", message, hint, last.error_rate, limit, last.started)


def _storage(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit, size = settings.alert_storage_gb, (facts.store_bytes or 0) / 1e9
    if limit and size > limit:
        message = f"the store takes {size:.2f} GB, more than {limit:g} GB"
        hint = "see that the disk has room for it, a backup and a restore; then raise `alert_storage_gb`"
        yield Alert("storage", "WARN", message, hint, size, limit, facts.now)


def _cost(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit = settings.alert_cost_usd_per_day
    if limit and facts.spent_today > limit:
        message = f"${facts.spent_today:.2f} were spent today (UTC), more than ${limit:.2f}"
        hint = "see what ran in `vectorkeep status`; `max_cost_usd_per_day` would stop it, `paused = true` stops all"
        yield Alert("cost", "WARN", message, hint, facts.spent_today, limit, facts.now)


def _memory(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit, share = settings.alert_memory_share, facts.memory_share
    if limit and share is not None and share > limit:
        message = f"{share:.0%} of the memory are in use, more than {limit:.0%}"
        hint = "see what takes it; smaller `batch_texts`, `store_batch` and `concurrency` take less"
        yield Alert("memory", "WARN", message, hint, share, limit, facts.now)


def _deviation(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    if not settings.alert_sigma:
        return
    for found in deviations(runs, settings.alert_sigma, settings.alert_min_runs):
        run, figure = found.run, found.figure
        message = f"the last {run.verb} had {found.value:,.6g}{figure.unit}; {found.usual:,.4g}{figure.unit} are usual"
        hint = "compare it with the runs before; if it is meant to be so, it is usual after two more"
        subject = f"{run.verb}/{figure.name}"
        yield Alert("deviation", "WARN", message, hint, found.value, found.bound, run.started, subject)


def _ended_badly(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    for verb in VERBS:
        own = [run for run in runs if run.verb == verb and run.state not in SILENT]
        if not own or (own[-1].state == "incomplete" and verb in WRITERS):  # documents failed: that is error_rate
            continue
        last = own[-1]
        if last.state not in _ENDS or (verb in BY_HAND and _went_on(runs, last)):
            continue
        name, severity, words, hint = _ENDS[last.state]
        if last.error == "KeyRejected":
            name, hint = "key_rejected", "try it with `vectorkeep check-key`; put a valid key into OPENAI_API_KEY"
        message = f"the last {verb} {words}" + (f": {last.message}" if last.message else "")
        yield Alert(name, severity, message, hint.format(verb=verb), None, None, _since(own, _ends_as(last)), verb)


def _late(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit = settings.alert_update_hours
    if limit and facts.updated is not None and facts.now - facts.updated > limit * HOUR:
        hours = (facts.now - facts.updated) / HOUR
        message = f"no update has ended in {hours:,.0f} hours, more than {limit:g}"
        hint = "see whether the schedule runs, or what runs now: `vectorkeep status`"
        yield Alert("late", "FAIL", message, hint, hours, limit, facts.updated + limit * HOUR)


def _backup_age(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit, at = settings.alert_backup_hours, _either(facts.backed_up, facts.first_run)
    if limit and at is not None and facts.now - at > limit * HOUR:
        hours = (facts.now - at) / HOUR
        what = f"the newest verified backup is {hours:,.0f} hours old" if facts.backed_up else "there is none"
        message = f"no verified backup in {limit:g} hours: {what}"
        hint = "run `vectorkeep backup`, and see why its schedule did not"
        yield Alert("backup_age", "FAIL", message, hint, hours, limit, at + limit * HOUR)


def _drill_age(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    limit, at = settings.alert_drill_days, _either(facts.drilled, facts.first_run)
    if limit and at is not None and facts.now - at > limit * DAY:
        days = (facts.now - at) / DAY
        what = f"the last one that passed was {days:,.0f} days ago" if facts.drilled else "there was none"
        message, hint = f"no drill in {limit:g} days: {what}", "run `vectorkeep drill`"
        yield Alert("drill_age", "WARN", message, hint, days, limit, at + limit * DAY)


def _coverage(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    floor, last = settings.coverage_floor, _last(run for run in runs if run.coverage is not None)
    if last and last.coverage is not None and last.coverage < floor:
        message = f"the last {last.verb} found {last.coverage:.2%} of what should be stored, less than {floor:.2%}"
        hint = "run `vectorkeep update`, then `vectorkeep health`"
        yield Alert("coverage", "FAIL", message, hint, last.coverage, floor, last.started)


def _health(settings: Settings, runs: Sequence[RunRecord], facts: Facts) -> Iterator[Alert]:
    looks = [run for run in runs if run.verb in ("health", "fix") and run.fail is not None]
    if looks and looks[-1].fail:
        message = f"the last {looks[-1].verb} found {looks[-1].fail:,} at FAIL"
        hint = "see them with `vectorkeep health`, mend them with `vectorkeep health --fix`"
        yield Alert("health", "FAIL", message, hint, looks[-1].fail, 0, _since(looks, lambda run: bool(run.fail)))


def _last(runs: Iterable[RunRecord]) -> RunRecord | None:
    return next(reversed(list(runs)), None)


def _since(runs: Sequence[RunRecord], holds: Callable[[RunRecord], bool]) -> float:
    """When the unbroken row of runs began, at the end of ``runs``, of which it holds."""
    return list(takewhile(holds, reversed(runs)))[-1].started


def _ends_as(last: RunRecord) -> Callable[[RunRecord], bool]:
    return lambda run: run.state == last.state


def _went_on(runs: Sequence[RunRecord], failed: RunRecord) -> bool:
    later = (run for run in runs if run.started > failed.started)
    return any(run.verb in ("update", "health") and run.state in ENDED_WELL for run in later)


def _either(at: float | None, other: float | None) -> float | None:
    return other if at is None else at


RULES: tuple[Rule, ...] = (
    _error_rate, _storage, _cost, _memory, _deviation, _ended_badly, _late, _backup_age, _drill_age, _coverage, _health,
)  # fmt: skip
