"""Real disks that run full: a tmpfs of a size that can be changed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNT_OPTIONS = "size={}k,mode=755"


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """An empty tmpfs of 1 MB at ``path``, which is made; skips the test without the permission to mount."""
    path.mkdir()
    options = MOUNT_OPTIONS.format(1024)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no permission to mount a small disk: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    options = f"remount,{MOUNT_OPTIONS.format(kilobytes)}"
    subprocess.run(["mount", "-o", options, str(disk)], check=True)
