"""SIGKILL at every step: before, within and after each call that asks the operating system to change something."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

CHANGES = ("open", "write", "fsync", "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate")
MOST = 500


def kill_everywhere(action: Callable[[], object]) -> Iterator[str]:
    """Run ``action`` in a forked process again and again, each time killed one step later, until it comes to its end.

    Yields where it was killed, after each kill; what follows is the caller's, who sets the scene anew. The last run is
    not killed and yields nothing.
    """
    for step in range(1, MOST):
        where = _killed(action, step, "before")
        if where is None:
            return
        yield where
        for when in ("within", "after") if where.startswith("before write") else ("after",):
            where = _killed(action, step, when)
            assert where, f"no such step {step} any more"
            yield where
    raise AssertionError(f"no end after {MOST} steps")


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """The changes that are asked of the operating system meanwhile, each with the name of its file, if it gives one."""
    calls: list[str] = []
    originals = {name: getattr(os, name) for name in CHANGES}

    def recording(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "open" or args[1] & os.O_CREAT:
                calls.append(name if isinstance(args[0], int) else f"{name} {os.path.basename(args[0])}")
            return original(*args, **options)

        return call

    for name, original in originals.items():
        setattr(os, name, recording(name, original))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _killed(action: Callable[[], object], step: int, when: str) -> str | None:
    """Where it was killed; ``None``: it came to its end."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(here)
            _arm(step, when, there)
            action()
            os._exit(0)
        except BaseException as error:
            os.write(there, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(there)
    with open(here, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return said
    assert not said and os.waitstatus_to_exitcode(status) == 0, said
    return None


def _arm(step: int, when: str, pipe: int) -> None:
    """Let this process die at its nth change."""
    calls, write = count(1), os.write

    def armed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if (name == "open" and not args[1] & os.O_CREAT) or next(calls) != step:
                return original(*args, **options)
            write(pipe, f"{when} {name} {args[0]}, step {step}".encode())
            try:
                if when == "within":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                elif when == "after":
                    original(*args, **options)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CHANGES:
        setattr(os, name, armed(name, getattr(os, name)))
