"""Steps of a process at which a test does something: calls of one function, by their number."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any


def act_at(step: str, act: Callable[[], object]) -> None:
    """Have this process ``act`` at a step.

    Args:
        step: ``before vectorstore.ledger:Ledger.commit``, or ``after ... 3`` for the third call.
    """
    when, place, nth = [*step.split(), "1"][:3]
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), count(1)

    @functools.wraps(original)
    def acting(*args: Any, **options: Any) -> Any:
        now = next(calls) == int(nth)
        if now and when == "before":
            act()
        result = original(*args, **options)
        if now and when == "after":
            act()
        return result

    setattr(owner, name, acting)


def die_at(step: str) -> None:
    """Have this process killed at a step: the kernel asks nobody either."""
    act_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
