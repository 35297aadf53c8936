"""Fixtures for health checks: a workspace in step, to be copied and damaged, and no file past 2 GiB."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import damage
from tests.support.damage import Scene
from tests.support.server_process import ServerProcess
from tests.support.workbench import limit_files

# One or two of every kind, for everyday; all others are slow.
QUICK = {
    f"test_found_at_deep[{name}]"
    for name in (
        "data_level0_cut_to_50%", "vectors_flipped_in_the_file", "page_of_embeddings_zeroed", "source_unmounted",
        "rows_removed_from_sqlite", "orphans_unknown_document", "ledger_of_another_day",
    )
} | {
    "test_as_built", "test_the_readme_counts_them", "test_looking_changes_nothing[deep]", "test_mended[vectors_zeroed]",
}  # fmt: skip


# These show only where there is much: in an index of 2,000 places, in a queue of 1,000 rows.
LARGE = ("index_full_of_the_dead", "links_shuffled", "queue_never_purged")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.name not in QUICK:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package", autouse=True)
def _limited_files() -> Iterator[None]:
    before = limit_files()
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """An embeddings API in a process of its own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, server: ServerProcess) -> Scene:
    """The workspace that is copied and damaged; nothing may change it."""
    return damage.build(tmp_path_factory.mktemp("base"), server)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, server: ServerProcess) -> Scene:
    """The same with fewer chunks, for what would take long to rebuild."""
    return damage.build(tmp_path_factory.mktemp("small"), server, small=True)


def copied(scene: Scene, server: ServerProcess, folder: Path) -> Iterator[Scene]:
    """For a fixture: a copy, and an empty bill. Removed afterwards: two hundred copies would fill a small disk."""
    server.control(reset=True)
    yield damage.copy(scene, folder / "workspace")
    shutil.rmtree(folder / "workspace")


@pytest.fixture
def scene(base: Scene, server: ServerProcess, tmp_path: Path) -> Iterator[Scene]:
    """A workspace to be damaged, and an empty bill."""
    yield from copied(base, server, tmp_path)


@pytest.fixture
def origin(request: pytest.FixtureRequest, small: Scene) -> Scene:
    """What a damage is done to a copy of."""
    callspec = getattr(request.node, "callspec", None)
    large = callspec and callspec.params.get("name") in LARGE
    return request.getfixturevalue("base") if large else small


@pytest.fixture
def slight(origin: Scene, server: ServerProcess, tmp_path: Path) -> Iterator[Scene]:
    """The same with fewer chunks where that is enough."""
    yield from copied(origin, server, tmp_path)
