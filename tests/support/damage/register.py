"""The register of damages: what each does, which check has to find it, and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.damage.scene import Scene
from vectorstore.findings import CHECKS, Depth, Severity

Apply = Callable[[Scene], None]


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        name, text: what is done.
        apply: does it, to a workspace that is in step.
        expect: at least one of these checks has to report it, at ``severity`` or worse.
        also: checks that may report it as well; any other one is a wrong diagnosis.
        api: what reports it when the store is read through Chroma; empty where Chroma does not show it, or where
            Chroma must not be let near it.
        depth: the least depth at which it is found; by default that of the checks.
        contents: whether it is found only where the contents of documents and cache are looked at, too.
        mends: whether a fix leaves a clean store.
        may_cost: whether mending it may cost anything: the cache does not have what is needed.
    """

    name: str
    text: str
    apply: Apply
    expect: frozenset[str]
    also: frozenset[str]
    api: frozenset[str]
    severity: Severity
    depth: Depth
    contents: bool
    mends: bool
    may_cost: bool

    def __str__(self) -> str:
        return self.name


DAMAGES: dict[str, Damage] = {}


def register(
    apply: Apply, name: str, text: str, *, expect: str, also: str = "", api: str | None = None,
    severity: Severity = Severity.WARN, depth: Depth | None = None, contents: bool = False, mends: bool = True,
    may_cost: bool = False,
) -> None:  # fmt: skip
    """Add a damage; ``expect``, ``also`` and ``api`` are names of checks with blanks between. ``api`` is "" unless
    given, and "=" for the same as ``expect``."""
    names = {key: frozenset(value.split()) for key, value in (("expect", expect), ("also", also))}
    through = names["expect"] if api == "=" else frozenset((api or "").split())
    assert names["expect"] | names["also"] | through <= CHECKS.keys(), (name, names, through)
    assert name not in DAMAGES, name
    least = max(CHECKS[check].depth for check in names["expect"]) if depth is None else depth
    DAMAGES[name] = Damage(
        name, text, apply, names["expect"], names["also"], through, severity, least, contents, mends, may_cost
    )  # fmt: skip


def damage(expect: str, also: str = "", **options: Any) -> Callable[[Apply], Apply]:
    """The same for a function with a docstring."""

    def add(apply: Apply) -> Apply:
        text = " ".join((apply.__doc__ or "").split())
        assert text, apply
        register(apply, apply.__name__, text, expect=expect, also=also, **options)
        return apply

    return add
