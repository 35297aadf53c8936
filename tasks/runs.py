"""What all tasks share: how long they may take, what is tried again, and what a parameter left out means."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from tasks import states
from vectorstore.backups.encryption import PASSWORD
from vectorstore.errors import EmbeddingFailed, Locked, QuotaExhausted, VectorkeepError
from vectorstore.runs.recording import recorded
from vectorstore.settings import Settings

_Report = TypeVar("_Report")
HOUR = 3600.0
BACKUP = r"backup_\d{8}_\d{6}(\.tar\.gz(\.age)?)?"  # a backup's name or its file's, for a form's pattern


def is_transient(_task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help, and is not tried too often yet.

    A provider that failed although each request was tried several times: twice more. Another run's lock: until
    ``TRIED_AGAIN`` has no more tries, but only in a deployment's run; a person is told at once, and decides.
    """
    error = state.data
    if isinstance(error, Locked):
        if deployment.id is None:
            return False
        get_run_logger().warning("another run is writing; this one waits, an hour at most")
        return True
    if not isinstance(error, EmbeddingFailed) or isinstance(error, QuotaExhausted) or run.run_count > PROVIDER_TRIES:
        return False
    get_run_logger().warning("the provider fails; what was paid is kept, the rest will be tried again")
    return True


PROVIDER_TRIES = 2
TRIED_AGAIN: dict[str, Any] = {
    "retries": 7,
    "retry_delay_seconds": [60, *6 * [600]],  # for another run's lock: an hour in all
    "retry_condition_fn": is_transient,
}
"""Of a task: what is tried again, and when."""


def kept(settings: Settings, verb: str, call: Callable[[], _Report], *, dry_run: bool = False) -> _Report:
    """What ``call`` returns, with the run in Vectorkeep's own history; called in the thread that does the work."""
    return recorded(settings, verb, call, by="prefect", dry_run=dry_run, note=get_run_logger().warning)


def given(value: float) -> Any:
    """``None``, which the library takes for "as in the settings", for -1."""
    return None if value == -1 else value


def backup_password() -> str | None:
    """Of the key of encrypted backups: from the environment only, for a parameter would be stored and shown."""
    return os.environ.get(PASSWORD) or None


def stopped_by(error: VectorkeepError) -> State[Any]:
    """The state for an error before there was a report; the log has it, too."""
    get_run_logger().error(str(error))
    return states.failed(error)
