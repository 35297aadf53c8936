"""A workspace as a person keeps one: its settings lie in ``vectorkeep.toml``, and its backups are made by commands."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.workbench import KEEP, ROOT, Result, Row, Workspace, document, read_store

OPEN, PRIVATE = 6, 2  # documents
Facts = dict[str, tuple[int, int, bytes]]


class Kept(Workspace):
    """A workspace whose runs are told nothing but their arguments.

    Args:
        root: the folder; made.
        settings: over the small defaults; written to ``vectorkeep.toml``.
    """

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(root, None, **{"probe_max_mb": 0, **settings})  # a probe takes longer than all else
        self.set()

    def set(self, **settings: Any) -> None:
        """Change settings; ``None`` takes one away."""
        self.values |= settings
        for name in [name for name, value in self.values.items() if value is None]:
            del self.values[name]
        lines = [f"{name} = {json.dumps(value, default=str)}\n" for name, value in self.values.items()]
        (self.root / "vectorkeep.toml").write_text("".join(lines))

    def copy(self, root: Path, **settings: Any) -> Kept:
        """A copy of all of it in another place, with some settings changed."""
        shutil.copytree(self.root, root, symlinks=True)
        return Kept(root, **{**self.values, **settings})

    def env(self, **over: Any) -> dict[str, str]:
        """The environment of a run: only what is named in capitals."""
        env = {name: os.environ[name] for name in KEEP if name in os.environ} | {"PYTHONPATH": str(ROOT)}
        return env | {name: str(value) for name, value in over.items()}

    def say(self, *argv: str, code: int = 0, **env: Any) -> str:
        """What a person reads of a command."""
        result = self.start(*argv, **env).wait()
        assert result.code == code, (result.code, result.out, result.err)
        return result.out + result.err

    def report(self, *argv: str, code: int = 0, **env: Any) -> dict[str, Any]:
        """What a program reads of it."""
        return self.run(*argv, code=code, **env).report

    def refused(self, *argv: str, code: int, **env: Any) -> str:
        """What a person reads of a command that changes no file, but for the history and the locks."""
        before = self.files()
        result: Result = self.start(*argv, **env).wait()
        assert result.code == code, (result.code, result.out, result.err)
        assert self.files() == before
        return result.out + result.err

    def fill_small(self) -> None:
        """Some documents in three folders, one of them private."""
        for n in range(OPEN):
            self.write(f"{'ab'[n % 2]}/page-{n}.md", document(f"open {n}", 2))
        for n in range(PRIVATE):
            self.write(f"private/page-{n}.md", document(f"private {n}", 2))

    # what there is

    @property
    def store(self) -> Path:
        return Path(os.path.realpath(self.root / self.values.get("chroma_path", "chroma")))

    @property
    def backups(self) -> Path:
        return self.root / str(self.values.get("backups_path", "backups"))

    def rows(self) -> dict[str, Row]:
        return super().rows() if self.store.is_dir() else {}

    def store_files(self) -> Facts:
        """Mode, modification time and bytes of the store's files."""
        return facts(self.store)

    def files(self) -> Facts:
        """The same of all files of the workspace and its store, but for history and locks."""
        found = facts(self.root) | {f"store/{name}": about for name, about in facts(self.store).items()}
        return {name: about for name, about in found.items() if not name.endswith((".lock", "history.jsonl"))}

    def events(self) -> list[dict[str, Any]]:
        """The history of its backups."""
        return [json.loads(line) for line in (self.backups / "history.jsonl").read_text().splitlines()]

    def archive(self, name: str) -> Path:
        """A backup's archive."""
        (found,) = self.backups.glob(f"{name}.tar.gz*")
        return found

    def names(self) -> list[str]:
        """All backups, the newest first."""
        return [each["name"] for each in self.report("backups")["backups"]]

    def assert_settled(self, documents: int = OPEN + PRIVATE) -> None:
        """An update finds nothing to do: it pays nothing and writes nothing."""
        report = self.update()
        assert report["kinds"] == {"unchanged": documents}, report
        done = ("chunks_written", "chunks_embedded", "chunks_deleted", "chunks_repaired", "tokens_embedded")
        assert {name: report[name] for name in done} == dict.fromkeys(done, 0), report

    def assert_tidy(self) -> None:
        """Nothing of a restore or of a backup is left lying about."""
        left = [path for path in self.root.rglob("*") if path.name.startswith((".partial-", ".restore-", ".drill-"))]
        left += list(self.root.rglob("*.restored"))
        assert not left, left


def facts(folder: Path) -> Facts:
    """Mode, modification time in ns and bytes of each file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def members(archive: Path) -> Mapping[str, bytes]:
    """What is in an archive that is not encrypted, by name."""
    with tarfile.open(archive) as tar:
        return {each.name: file.read() for each in tar if (file := tar.extractfile(each))}


def rows_of(store: Path, scratch: Path) -> dict[str, Row]:
    """Everything a store answers for, from a copy."""
    return read_store(Path(shutil.copytree(store, scratch / f"copy of {store.parent.name}")))
