"""Parts of a full backup and of its restore, each in a process of its own, made of what the commands themselves use.

``write WORKSPACE ARCHIVE``  hold the store still, write it, ledger and settings into an archive; nothing is read back
``extract WORKSPACE INTO``   unpack and verify the newest backup into an empty folder; nothing is looked at there
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from vectorstore.backups import catalog
from vectorstore.backups.archive import ArchiveWriter
from vectorstore.backups.extract import extract as unpack
from vectorstore.backups.manifest import Manifest
from vectorstore.backups.snapshot import copy_ledger, hold_store, settings_text
from vectorstore.settings import SETTINGS_FILE, load_settings


def write(workspace: str, archive: str) -> int:
    """How many bytes the archive has."""
    settings = load_settings(Path(workspace))
    made = Manifest("backup_20260301_020000", "full", 0.0, {}, "", {}, 0, 0, ("store", "ledger", "settings"))
    with (
        tempfile.TemporaryDirectory(dir=os.path.dirname(archive)) as scratch,
        ArchiveWriter(Path(archive)) as out,
        hold_store(settings, Path(scratch)) as files,
    ):
        for name, path, handle in sorted(files + copy_ledger(settings, Path(scratch))):
            out.add_file(name, path, opened=handle)
        out.add_bytes(SETTINGS_FILE, settings_text(settings) or b"")
        return out.close(made).size


def extract(workspace: str, into: str) -> int:
    """How many bytes were unpacked."""
    backup = catalog.find(load_settings(Path(workspace)).backups, "latest")
    os.mkdir(into)
    return unpack(backup.archive, backup.sidecar, Path(into)).size


if __name__ == "__main__":
    print({"write": write, "extract": extract}[sys.argv[1]](*sys.argv[2:]))
