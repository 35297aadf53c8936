"""Folders that a drill works in: held while anybody works there, and taken away by the next run if that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vectorstore.backups.placing import disk_errors

SCRATCH = ".drill-"


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[tuple[Path, int]]:
    """A folder in ``parent``, removed at the end, and its handle: whoever inherits that holds the folder as well.

    Raises:
        VectorkeepError: the disk refused.
    """
    sweep_scratch(parent)
    with disk_errors("drilling"):
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel frees it when the last process that has it dies
        yield folder, handle
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(parent: Path) -> None:
    """Take away the folders that nobody holds."""
    for folder in parent.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):  # held, or gone meanwhile
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
