"""The demo: several hundred real documents, five collections, offline, without a key.

It starts clean each time: ``demo/`` is removed and made anew, and stays for you to look at. The documents are what is
installed beside this file: the project's own pages, the read-me and licence of every installed distribution, the guides
that some of them ship, and the docstrings of Python's standard library. Every line after a ``$`` is the real command,
run as you would run it. The progress bar needs a terminal; elsewhere the demo reads the checkpoint file instead.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MARK = ".made-by-demo"  # only a folder with this file is ever removed
OWN = ("*.md", "docs/*.md", ".hashes/*.md", "backups/*.md", "benchmarks/*.md", "tests/*.md")
LICENCE = re.compile(r"(LICEN[SC]E|COPYING|NOTICE)", re.IGNORECASE)
NOT_PROSE = re.compile(r"(^|/)(tests?|data|templates?|schemas|\.\w+)/|dist-info/|/(?!README)[A-Z]+\.")
DECORATION = re.compile(r"^\s*(\[?!\[.*|</?\w[^>]*>(<.*>)?|\.\. (image|\|).*|:(target|alt|width|height|align):.*)\s*$")
SHORTEST = 300  # characters: less is a placeholder


def main() -> int:
    """Run the demo in the folder given, ``demo`` by default."""
    workspace = Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / "demo").absolute()
    start_clean(workspace)
    counts = collect(workspace / "docs")
    folders = ", ".join(f"{folder} {count}" for folder, count in counts.items())
    print(f"# {sum(counts.values())} documents in {len(counts)} folders: {folders}")
    session = Session(workspace)
    session.run("vectorkeep init --source docs")
    session.set("collection", "demo_{folder}")
    session.run("vectorkeep plan")
    session.run("vectorkeep update")
    session.run("vectorkeep search --limit 2 parse dates written in other languages")
    session.run("vectorkeep search --limit 2 undo a database migration")
    session.run("vectorkeep update")
    session.edit("docs/project/backups-README.md", "\nOn the first Monday of each month one backup is restored.\n")
    session.run("vectorkeep plan")
    session.run("vectorkeep update")
    session.run("vectorkeep search --limit 1 on which day is a backup restored")
    session.run("vectorkeep status")
    session.run("vectorkeep backup")
    session.run("vectorkeep drill")
    session.run("vectorkeep health --depth deep")
    where = workspace.relative_to(PROJECT) if workspace.is_relative_to(PROJECT) else workspace
    print(f"\n# {where}/ is yours now: .venv/bin/vectorkeep --help, then for example")
    print(f"# .venv/bin/vectorkeep search --workspace {where} what you like")
    return 0


class Session:
    """Commands in a workspace, shown as they would look on a terminal. The first one that fails ends the demo."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VECTORKEEP_", "OPENAI_", "MAX_EMBEDDING"))}
        self._environment = kept | {"ANONYMIZED_TELEMETRY": "False", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}

    def run(self, line: str) -> None:
        """Run one ``vectorkeep`` command."""
        print(f"\n$ {line}", flush=True)
        command = [str(Path(sys.executable).with_name("vectorkeep")), *shlex.split(line)[1:]]
        process = subprocess.Popen(command, cwd=self._workspace, env=self._environment)
        shown = ""
        while process.poll() is None:
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                shown = self._show_progress(process.pid, shown)
        if process.returncode:
            raise SystemExit(f"the command ended with exit code {process.returncode}")

    def set(self, name: str, value: str) -> None:
        """Change one line of the settings file."""
        path = self._workspace / "vectorkeep.toml"
        line = f'{name} = "{value}"'
        path.write_text(re.sub(rf"(?m)^{name} = .*$", line, path.read_text("utf-8")), "utf-8")
        print(f"# in vectorkeep.toml: {line}")

    def edit(self, document: str, text: str) -> None:
        """Append to a document."""
        with (self._workspace / document).open("a", encoding="utf-8") as file:
            file.write(text)
        print(f"\n# a paragraph is added to {document}")

    def _show_progress(self, pid: int, shown: str) -> str:
        """A line from the checkpoint file when no bar is drawn and something has changed."""
        if sys.stderr.isatty():
            return shown
        try:
            picture = json.loads((self._workspace / ".hashes" / "embedding_checkpoint.json").read_text("utf-8"))
        except (OSError, ValueError):
            return shown
        line = (
            f"  …  {picture['documents_done']:,} of {picture['documents_total']:,} documents,"
            f" {picture['chunks_written']:,} chunks written"
        )
        if picture["pid"] == pid and picture["state"] == "running" and picture["documents_done"] and line != shown:
            print(line, flush=True)
            return line
        return shown


def start_clean(workspace: Path) -> None:
    """An empty folder; one that the demo did not make is left alone."""
    if workspace.exists():
        if not (workspace / MARK).is_file():
            raise SystemExit(f"{workspace} was not made by the demo: move it away, then run the demo again")
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True)
    (workspace / MARK).touch()


def collect(docs: Path) -> dict[str, int]:
    """Write the documents, ``docs/<folder>/<name>.md``; how many there are by folder."""
    installed = sorted((d for d in distributions() if d.name != "vectorkeep"), key=lambda d: d.name.lower())
    kinds = {
        "project": project_pages(),
        "readmes": (page for each in installed for page in readme(each)),
        "licences": (page for each in installed for page in licences(each)),
        "guides": (page for each in installed for page in guides(each)),
        "python": standard_library(),
    }
    counts = {}
    for folder, pages in kinds.items():
        (docs / folder).mkdir(parents=True)
        for name, text in pages:
            (docs / folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.md").write_text(text, "utf-8")
        counts[folder] = len(list((docs / folder).iterdir()))
    return counts


def project_pages() -> Iterator[tuple[str, str]]:
    """This project's own pages."""
    for path in (path for pattern in OWN for path in PROJECT.glob(pattern)):
        relative = path.relative_to(PROJECT)
        yield "-".join(relative.with_suffix("").parts).lstrip("."), path.read_text("utf-8")


def readme(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """A distribution's description, as its project wrote it, less badges."""
    metadata = distribution.metadata
    body = str(metadata.get_payload() or metadata.get("Description") or "")
    text = "\n".join(line for line in body.splitlines() if not DECORATION.match(line)).strip()
    if len(text) >= SHORTEST:
        yield distribution.name.lower(), f"# {distribution.name}\n\n{metadata.get('Summary') or ''}\n\n{text}\n"


def licences(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """The licence files of a distribution; many of them are alike, and are embedded once."""
    for path in distribution.files or ():
        if LICENCE.match(path.name) and "dist-info" in str(path) and (text := read(Path(str(path.locate())))):
            yield f"{distribution.name.lower()}-{path.stem}", text


def guides(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """Pages of prose that a distribution ships among its code."""
    for path in distribution.files or ():
        prose = path.suffix.lower() in (".md", ".rst") and not NOT_PROSE.search(str(path))
        if prose and (text := read(Path(str(path.locate())))):
            yield "-".join(path.with_suffix("").parts), text


def standard_library() -> Iterator[tuple[str, str]]:
    """The docstrings of Python's own modules: a page for a module, a section for a class or function."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in [*root.glob("[a-z]*.py"), *root.glob("[a-z]*/__init__.py")]:
        name = path.parent.name if path.stem == "__init__" else path.stem
        module = ast.parse(path.read_bytes())
        if len(about := ast.get_docstring(module) or "") < SHORTEST:
            continue
        parts = [f"# {name}", about]
        for node in module.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                parts += [f"## {node.name}", text]
        yield name, "\n\n".join(parts) + "\n"


def read(path: Path) -> str:
    """A file's text; nothing for one that is short or no text."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if len(text) >= SHORTEST else ""


if __name__ == "__main__":
    sys.exit(main())
