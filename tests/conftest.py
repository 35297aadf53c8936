"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chroma_server import chroma_server
from tests.support.disks import mounted
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.receivers import MailServer, Webhook, serving

# Side by side, a file's tests stay together; these files take minutes, and begin first.
LONG = (
    "flows/test_server.py", "health/test_fix.py", "backups/test_offsite.py", "flows/test_stops.py",
    "vectorstore/test_probe.py", "flows/test_secrets.py", "health/test_fault_matrix.py", "flows/test_newcomer.py",
    "flows/test_serve.py", "backups/test_kill_in_restore.py", "flows/test_update.py", "flows/test_automations.py",
    "accidents/test_kill_in_update.py", "accidents/test_kill.py", "backups/test_kill_in_backup.py",
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        here = Path(__file__).parent
        rank = {str(here / name): place for place, name in enumerate(LONG)}
        items.sort(key=lambda item: rank.get(str(item.path), len(LONG)))


@pytest.fixture(scope="session")
def _embeddings_server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as server:
        yield server


@pytest.fixture
def embeddings_server(_embeddings_server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch) -> EmbeddingsServer:
    """A fresh embeddings API over HTTP; the environment holds its key and its address."""
    _embeddings_server.reset()
    monkeypatch.setenv("OPENAI_API_KEY", _embeddings_server.key)
    monkeypatch.setenv("OPENAI_BASE_URL", _embeddings_server.url)
    return _embeddings_server


@pytest.fixture(scope="session")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Chroma server for the session; tests use collections of their own."""
    with chroma_server(tmp_path_factory.mktemp("chroma-server")) as url:
        yield url


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty tmpfs of 1 MB; ``disks.resize`` gives it another size."""
    with mounted(tmp_path / "disk") as path:
        yield path


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving(Webhook()) as server:
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with serving(MailServer()) as server:
        yield server
