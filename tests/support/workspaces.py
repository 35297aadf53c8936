"""Workspaces for tests: documents, settings, and what a store holds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from vectorstore.chroma.store import Store
from vectorstore.ledger import Ledger
from vectorstore.settings import Settings


def write(root: Path, key: str, text: str, *, age_s: float = 60) -> Path:
    """A document that was last changed ``age_s`` seconds ago, so that its times are old enough to be trusted."""
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - int(age_s * 1e9)))
    return path


def write_corpus(root: Path, documents: int, folders: int = 3, sections: int = 1) -> None:
    """``documents`` documents of one chunk a section."""
    for number in range(documents):
        parts = [f"## Part {part}\n\n" + f"Words {number} {part} of it. " * 30 for part in range(sections)]
        write(root, f"f{number % folders}/d{number:04d}.md", f"# Document {number}\n\n" + "\n\n".join(parts))


def make_settings(folder: Path, **values: Any) -> Settings:
    """A workspace below ``folder`` with the instant embedder. The inode times of new files are no help in a test."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    (folder / "docs").mkdir(exist_ok=True)
    defaults = {"source": folder / "docs", "embedder": "hash", "dimensions": 32, "chunk_tokens": 120}
    return Settings(workspace=workspace, **defaults | values)


def contents(settings: Settings) -> dict[str, tuple[str, dict[str, Any], bytes]]:
    """Everything the store holds of the settings' documents: id -> document, metadata, vector bytes."""
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    generation = ledger.generation(settings.collection)
    names = list(ledger.collections(generation.id)) if generation else []
    ledger.close()
    store = Store(settings)
    try:
        return {id_: row for name in names for id_, row in _rows(store, name).items()}
    finally:
        store.close()


def _rows(store: Store, name: str) -> dict[str, tuple[str, dict[str, Any], bytes]]:
    collection = store._collection(name, make=False)
    if collection is None:
        return {}
    rows = collection.get(include=["documents", "metadatas", "embeddings"])
    columns = (rows[key] for key in ("ids", "documents", "metadatas", "embeddings"))
    return {
        id_: (text, dict(metadata), vector.astype("<f4").tobytes())
        for id_, text, metadata, vector in zip(*columns, strict=True)
    }


def digests(*roots: Path) -> dict[str, str]:
    """A digest of every file below ``roots``, by path."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
