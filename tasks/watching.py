"""A library call in a thread of its own, so that Prefect keeps the main one.

Prefect ends a run by raising in the main thread: a cancellation, SIGTERM, Ctrl-C, a time-out. (Its SIGTERM handler must
stay in place: a cancellation is only acknowledged while it is.) Here that exception meets a wait, never the middle of
a write, and the call is asked to stop at a batch's end. What is shown on the way is shown from the main thread too: a
server that answers slowly, or not at all, holds no embedding up.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

from prefect.logging import get_run_logger

from vectorstore.errors import VectorkeepError

_Result = TypeVar("_Result")
LOOK_EVERY_S = 1.0


def watched(
    call: Callable[[threading.Event], _Result], look: Callable[[], None], ended: Callable[[_Result], None]
) -> _Result:
    """``call(stop)``, looked at every few seconds.

    Args:
        call: the work; it ends soon after ``stop`` is set.
        look: called from this thread while the work goes on.
        ended: called from this thread with what the work returned, also when it was asked to stop.

    Raises:
        VectorkeepError: what the call raised; of any other exception its words, without secrets.
        BaseException: what this thread was hit by, once the call has ended.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="library") as pool:
        future = pool.submit(copy_context().run, _in_words, call, stop)
        try:
            while not wait([future], LOOK_EVERY_S).done:
                look()
            result = future.result()
        except BaseException:
            stop.set()
            with contextlib.suppress(Exception):  # what hit this thread matters more
                ended(future.result())
            raise
    ended(result)
    return result


def _in_words(call: Callable[[threading.Event], _Result], stop: threading.Event) -> _Result:
    """What the call returns. Prefect keeps the words of every exception in its database: these hold no secret."""
    try:
        return call(stop)
    except VectorkeepError:
        raise
    except Exception as error:
        get_run_logger().exception("not foreseen")
        raise VectorkeepError(f"stopped by {type(error).__name__}: {error}", "the log has the traceback") from error
