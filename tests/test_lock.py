"""The locks: complete, hashed, without addresses, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")


def pins(name: str) -> dict[str, str]:
    """Version by distribution."""
    return dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text("utf-8")))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(name: str) -> None:
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^#]*?)?( +--hash=sha256:[0-9a-f]{64})+ *", line), line


def test_the_locks_agree() -> None:
    runtime, dev = (pins(name) for name in LOCKS)
    assert runtime.items() <= dev.items()


def test_the_locks_are_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    runtime, dev = (pins(name) for name in LOCKS)
    asked = [(runtime, text) for text in project["project"]["dependencies"] + project["build-system"]["requires"]]
    asked += [(dev, text) for text in project["project"]["optional-dependencies"]["dev"]]
    for locked, text in asked:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[wanted.name]), text
