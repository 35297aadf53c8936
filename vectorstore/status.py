"""Status: what the ledger knows, without opening the store. Changes nothing."""

from __future__ import annotations

from typing import Any

from vectorstore.budget import spending
from vectorstore.ledger import Ledger
from vectorstore.lock import held_by, lock_files
from vectorstore.progress import read_checkpoint
from vectorstore.redaction import redacted
from vectorstore.settings import Settings


def status(settings: Settings, *, patience_s: float = 60.0) -> dict[str, Any]:
    """A summary: collections, failures, the last run, what runs now, and what was spent by day.

    Args:
        settings: of the workspace.
        patience_s: how long to wait for a run that writes to the ledger.
    """
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True, patience_s=patience_s)
    try:
        generation = ledger.generation(settings.collection)
        collections = ledger.collections(generation.id) if generation else {}
        failures = ledger.failures(generation.id) if generation else []
        last = ledger.last_run("update")
    finally:
        ledger.close()
    running = next((who for path in lock_files(settings) if (who := held_by(path))), None)
    return {
        "workspace": str(settings.workspace),
        "source": str(settings.path(settings.source)),
        "store": redacted(settings.chroma_url) or str(settings.path(settings.chroma_path)),
        "pipeline": generation.pipeline if generation else None,
        "collections": {name: {"documents": d, "chunks": c} for name, (d, c) in collections.items()},
        "documents": sum(documents for documents, _ in collections.values()),
        "chunks": sum(chunks for _, chunks in collections.values()),
        "failures": [{"doc_key": key, "reason": reason, "runs": runs} for key, reason, runs in failures],
        "last_update": last,
        "running": running,
        "checkpoint": read_checkpoint(settings.hashes) if running else None,
        "spent_usd": dict(list(spending(settings.path(settings.spend_ledger)).items())[-31:]),
    }
