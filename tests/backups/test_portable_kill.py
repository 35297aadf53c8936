"""SIGKILL while a collection takes the place of another: the old one, or the new one, and the next load goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chroma_helpers import create, file_limit, fill, open_client, unit_vectors
from tests.support.chroma_server import chroma_server
from tests.support.forked import Forked
from tests.support.portable import export_store, opened
from vectorstore.backups.portable import load
from vectorstore.chroma.store import Store

OLD, NEW = 40, 90
# Calls of a store in a load that replaces one collection, and what is there when one is killed before the nth.
STEPS = [
    ("drop", 1, OLD), ("create", 1, OLD), ("upsert", 1, OLD), ("_present", 1, OLD), ("_present", 2, OLD),
    ("rename", 1, OLD), ("rename", 2, None), ("drop", 3, NEW),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def limited() -> Iterator[None]:
    with file_limit():
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    with open_client(folder / "chroma") as client:
        fill(create(client, "pages", 1000), unit_vectors(NEW))
    export_store(folder / "chroma", folder / "out")
    return folder / "out"


def replace_and_die(folder: Path, url: str, workspace: Path, name: str, nth: int) -> None:
    """Load, killed by itself before the nth call of a method."""
    os.chdir(workspace)
    original = getattr(Store, name)
    calls = 0

    def deadly(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(Store, name, deadly)
    with opened(workspace, chroma_url=url, store_batch=50) as store:
        load(folder, store, replace=True)


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["embedded", "server"])
def test_killed_at_every_step(exported: Path, tmp_path: Path, served: bool) -> None:
    """A server's one after the other: each leaves it empty."""
    (tmp_path / "served").mkdir()
    with chroma_server(tmp_path / "served") if served else contextlib.nullcontext("") as url:
        for number, (name, nth, due) in enumerate(STEPS):
            workspace = tmp_path / str(number)
            workspace.mkdir()
            one_kill(exported, url, workspace, name, nth, due)
            shutil.rmtree(workspace)


def one_kill(exported: Path, url: str, workspace: Path, name: str, nth: int, due: int | None) -> None:
    with opened(workspace, chroma_url=url) as store:
        load(exported, store)
        store.delete("pages", list(store.ids("pages"))[OLD:])
    process = Forked(target=replace_and_die, args=(exported, url, workspace, name, nth))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, (name, nth)
    with opened(workspace, chroma_url=url) as store:
        assert store.counts().get("pages") == due, (name, nth)
        if due is None:
            assert sorted(store.counts().values()) == [OLD, NEW], "neither is lost"
        load(exported, store, replace=True)
        assert store.counts() == {"pages": NEW}, "and nothing else is left"
        store.drop("pages")
