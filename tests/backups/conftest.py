"""A disk that runs full; workspaces with backups, built once and copied for each test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kept import Kept
from tests.support.workbench import document


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty tmpfs of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1024k,mode=755", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no permission to mount a small disk: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    workspace = Kept(tmp_path_factory.mktemp("small") / "ws", collection="docs_{folder}", max_delete_share=1.0)
    workspace.fill_small()
    workspace.update()
    workspace.ledger.chmod(0o600)
    return workspace


@pytest.fixture(scope="session")
def _backed_up(_small: Kept, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, str, str]:
    workspace = _small.copy(tmp_path_factory.mktemp("backed-up") / "ws")
    full = workspace.report("backup")["name"]
    return workspace, full, workspace.report("backup", "--kind", "portable")["name"]


@pytest.fixture
def small(_small: Kept, tmp_path: Path) -> Kept:
    """A workspace of three collections, in step, without a backup."""
    return _small.copy(tmp_path / "ws")


@pytest.fixture
def backed_up(_backed_up: tuple[Kept, str, str], tmp_path: Path) -> tuple[Kept, str, str]:
    """The same with a full backup and a portable one, the newer: workspace and their names."""
    workspace, full, portable = _backed_up
    return workspace.copy(tmp_path / "ws"), full, portable


@pytest.fixture(scope="session")
def _indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, str]:
    workspace = Kept(tmp_path_factory.mktemp("indexed") / "ws", dimensions=16, store_batch=500, probe_max_mb=16)
    for n in range(24):
        workspace.write(f"a/page-{n}.md", document(n, 50))
    workspace.update()
    assert list(workspace.store.glob("*/index_metadata.pickle"))
    return workspace, str(workspace.report("backup")["name"])


@pytest.fixture
def indexed(_indexed: tuple[Kept, str], tmp_path: Path) -> tuple[Kept, str]:
    """A workspace whose store is large enough for index files of its own, and the name of its full backup."""
    workspace, name = _indexed
    return workspace.copy(tmp_path / "ws"), name
