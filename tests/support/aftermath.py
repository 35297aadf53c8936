"""What there is after a kill, and how the next run carries on; all of it in a process of its own."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.looking import Call, _rows
from tests.support.workbench import Row, Workspace, read_store
from vectorstore.settings import Settings

LITTER = (
    ".partial-*", ".gone-*", ".restore-*", "*.restored", "*.old", ".drill-*", ".into-*", "restore.new", "*.part",
)  # fmt: skip
Rows = dict[str, Row]


@dataclass(frozen=True)
class After:
    """What was found.

    Attributes:
        rows: of the store as the kill left it; ``None``: there was none at its place.
        settled: rows after the next run; ``None`` if that was an update: it goes on to the end.
        litter: what the next run left of the killed one.
        kinds: what the update found to do, by kind; without those that are as they were.
        embedded: chunks that it had embedded anew.
        end: rows after it.
        plan: what there was to do still.
        bad: backups that do not verify to the last byte, and why.
        backups: how many there are.
    """

    rows: Rows | None
    settled: Rows | None
    litter: list[str]
    kinds: dict[str, int]
    embedded: int
    end: Rows
    plan: bool
    bad: list[str]
    backups: int


def aftermath(workspace: Workspace, verb: str, **options: Any) -> After:
    """Run ``update``, ``backup``, ``restore`` or ``drill`` next, an update after it, and look at everything."""
    found = Call("tests.support.aftermath:_aftermath", workspace, verb=verb, choice=options).result()
    assert isinstance(found, After)
    return found


def _aftermath(settings: Settings, verb: str, choice: dict[str, Any]) -> After:
    import importlib

    from vectorstore.preview import preview
    from vectorstore.update import update

    store = settings.path(settings.chroma_path)
    rows = _rows(settings) if store.is_dir() else None
    bad = _bad(settings)
    settled = None
    if verb != "update":
        getattr(importlib.import_module(f"vectorstore.{verb}"), verb)(settings, **choice)
        settled = _rows(settings)
        litter = _litter(settings)
        report = update(settings)
    else:
        report = update(settings)
        litter = _litter(settings)
    assert report.exit_code == 0, report
    return After(
        rows, settled, litter, {kind: n for kind, n in report.kinds.items() if kind != "unchanged"},
        report.chunks_embedded, _rows(settings), preview(settings).nothing_to_do, bad + _bad(settings),
        len(list(settings.backups.glob("backup_*.tar.gz"))),
    )  # fmt: skip


def _litter(settings: Settings) -> list[str]:
    folders = {settings.workspace, settings.hashes, settings.backups, settings.path(settings.chroma_path).parent}
    return sorted(path.name for folder in folders for pattern in LITTER for path in folder.glob(pattern))


def _bad(settings: Settings) -> list[str]:
    from vectorstore.backups.archive import check_archive
    from vectorstore.backups.catalog import list_backups
    from vectorstore.errors import VectorkeepError

    bad = []
    for each in list_backups(settings.backups):
        try:
            assert not each.problem, each.problem
            check_archive(each.archive, each.sidecar)
        except (VectorkeepError, AssertionError) as error:
            bad.append(f"{each.name}: {error}")
    return bad


def rows_at(_: Settings, store: Path) -> Rows:
    """For a `Call`: rows of a store anywhere, from a copy."""
    with tempfile.TemporaryDirectory(dir=store.parent.parent.parent) as folder:
        return read_store(Path(shutil.copytree(store, Path(folder) / "chroma")))


def files_below(folder: Path) -> list[str]:
    """Everything below a folder, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
