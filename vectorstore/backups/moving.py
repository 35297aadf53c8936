"""A workspace that was restored into a folder of its own: its settings must name this folder's store, not the old one.

What they say of the store is of the workspace that was backed up: an absolute path or a server's address would make
the first update there write into the original.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from vectorstore.backups.snapshot import STORE
from vectorstore.settings import SETTINGS_FILE

_TABLE = re.compile(r"\s*\[")


def settle_settings(root: Path, source: Path) -> list[str]:
    """Make the settings file of a restored workspace name the store beside it, and documents that are there.

    Args:
        root: the restored workspace.
        source: where the documents were, absolute.

    Returns:
        What a person should know.
    """
    path = root / SETTINGS_FILE
    if not path.is_file():
        return [f"the backup holds no settings: copy {SETTINGS_FILE} there before you update it"]
    text = path.read_text(encoding="utf-8")
    due = _due(root, tomllib.loads(text), source)
    if not due:
        return []
    changed = _changed(text, due)
    if {name: tomllib.loads(changed).get(name) for name in due} != due:
        return [f"look through its {SETTINGS_FILE} before you update: {', '.join(due)} are of the old workspace"]
    path.write_text(changed, encoding="utf-8")
    return [f"in its {SETTINGS_FILE} {name} is now {value!r}" for name, value in due.items()]


def _due(root: Path, values: dict[str, object], source: Path) -> dict[str, str]:
    """The settings that must change, with their new values."""
    due = {}
    if values.get("chroma_url"):
        due["chroma_url"] = ""
    if Path(str(values.get("chroma_path", STORE))) != Path(STORE):
        due["chroma_path"] = STORE
    if not (root / Path(str(values.get("source", "docs"))).expanduser()).exists() and source.exists():
        due["source"] = str(source)
    return due


def _changed(text: str, due: dict[str, str]) -> str:
    """The text with new lines at its top, and the old ones as comments."""
    lines = text.splitlines(keepends=True)
    tables = next((number for number, line in enumerate(lines) if _TABLE.match(line)), len(lines))
    old = re.compile(rf"\s*(?:{'|'.join(due)})\s*=")
    kept = ["# " + line if number < tables and old.match(line) else line for number, line in enumerate(lines)]
    new = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in due.items()]
    return "".join(["# set by `vectorkeep restore` for this folder\n", *new, "\n", *kept])
