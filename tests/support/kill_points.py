"""SIGKILL at the nth step of a verb, in a process of its own: a call of the operating system, of SQLite, of Chroma.

Unlike ``killing`` this forks nothing that has threads or an open store; a scene is set anew by the caller.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.support.looking import Call
from tests.support.workbench import Workspace
from vectorstore.settings import Settings

CALLS = (
    "open", "write", "fsync", "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate", "utime",
    "fchmod", "sendfile",
)  # fmt: skip
# What happens within the libraries' own code, out of Python's sight: the exchange, SQLite's writes, Chroma's.
STEPS = (
    "vectorstore.backups.exchange:_exchange", "vectorstore.backups.snapshot:_copied",
    "vectorstore.ledger:Ledger.store_opened", "vectorstore.ledger:Ledger.store_closed",
    "vectorstore.ledger:Ledger.take_collections", "vectorstore.ledger:Ledger.recount",
    "vectorstore.ledger:Ledger.close", "vectorstore.chroma.store:Store.create", "vectorstore.chroma.store:Store.upsert",
    "vectorstore.chroma.store:Store.rename", "vectorstore.chroma.store:Store.drop",
    "vectorstore.chroma.store:Store.close", "vectorstore.restore:faults_of", "vectorstore.drill:_restore",
)  # fmt: skip
AT_ONCE = 2


class Point(NamedTuple):
    """Where to kill: ``when`` is ``before``, ``within`` (half of a write) or ``after``."""

    step: int
    when: str
    what: str


def points_of(verb: str, workspace: Workspace, **options: Any) -> list[Point]:
    """All points of a call, which comes to its end."""
    steps = Call("tests.support.kill_points:recorded", workspace, verb=verb, **options).result()
    return [
        Point(step, when, what)
        for step, what in enumerate(steps, 1)
        for when in (("before", "within", "after") if what.startswith("write") else ("before", "after"))
        if when != "before" or step == 1 or when == "within"  # before one step is after the one before
    ]


def spread(points: Sequence[Point], most: int) -> list[Point]:
    """All of them, or ``most``, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


def kill(verb: str, workspace: Workspace, point: Point, **options: Any) -> bool:
    """Whether it died there; if not, it came to its end before."""
    call = Call("tests.support.kill_points:die", workspace, verb=verb, step=point.step, when=point.when, **options)
    return call.killed()


def at_each(points: Sequence[Point], one: Callable[[Point], object]) -> None:
    """Do something at each point, two at a time; all that failed are told."""

    def guarded(point: Point) -> str:
        try:
            one(point)
        except Exception as error:
            said = str(error).splitlines()[0]
            return f"{point.when} step {point.step}, {point.what}: {type(error).__name__}: {said}"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = list(filter(None, pool.map(guarded, points)))
    if failed:
        pytest.fail(f"{len(failed)} of {len(points)} points:\n" + "\n".join(failed), pytrace=False)


def recorded(settings: Settings, verb: str, exchange: bool = True, **options: Any) -> list[str]:
    """In the process: every step of a call that comes to its end."""
    calls: list[str] = []
    _hook(lambda what, do, half: (calls.append(what), do())[1])
    _call(settings, verb, exchange, options)
    return list(calls)


def die(settings: Settings, verb: str, step: int, when: str, exchange: bool = True, **options: Any) -> None:
    """In the process: the end of it, before, within or after a step."""
    done = 0
    lock = threading.Lock()

    def deadly(what: str, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
        nonlocal done
        with lock:
            done += 1
            now = done == step
        if not now:
            return do()
        try:
            if when != "before":
                return do() if when == "after" else half()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    _hook(deadly)
    _call(settings, verb, exchange, options)


def _call(settings: Settings, verb: str, exchange: bool, options: dict[str, Any]) -> None:
    if not exchange:
        _take_exchange_away()
    module, _, name = verb.partition(":")
    getattr(importlib.import_module(module), name)(settings, **options)


def _take_exchange_away() -> None:
    """A system that can't exchange two folders at once."""
    from types import SimpleNamespace

    from vectorstore.backups import exchange

    exchange.ctypes = SimpleNamespace(CDLL=lambda *_, **__: object())  # type: ignore[attr-defined]


def _hook(hook: Callable[[str, Callable[[], Any], Callable[[], Any]], Any]) -> None:
    for name in CALLS:
        setattr(os, name, _hooked(name, getattr(os, name), hook))
    for step in STEPS:
        module, _, path = step.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, _hooked(path, getattr(owner, name), hook))


def _hooked(name: str, original: Callable[..., Any], hook: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if name == "open" and not args[1] & os.O_CREAT:
            return original(*args, **options)
        where = args[0] if args and name in CALLS else ""
        what = name if not where or isinstance(where, int) else f"{name} {os.path.basename(where)}"
        half = (lambda: original(args[0], bytes(args[1])[: len(args[1]) // 2])) if name == "write" else None
        return hook(what, lambda: original(*args, **options), half)

    return call
