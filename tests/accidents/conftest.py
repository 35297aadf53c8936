"""Fixtures for accidents: nothing here writes a file past 2 GiB, and the provider outlives whoever it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import limit_files


@pytest.fixture(scope="session", autouse=True)
def _limited_files() -> Iterator[None]:
    import resource

    before = limit_files()
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(_server: ServerProcess) -> ServerProcess:
    """An embeddings API in a process of its own, with an empty bill."""
    _server.control(reset=True)
    return _server
