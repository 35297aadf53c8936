"""Health reports for tests, as a check of a store would make them: through the register and its rules."""

from __future__ import annotations

from typing import Any

from vectorstore.findings import CHECKS, CollectionHealth, Findings, HealthReport

STARTED = 1_794_300_000.0  # 2026-11-10 08:40 UTC
HOSTILE = (
    "notes/<script>alert(1)</script>.md#00000",
    "notes/\u202egpj.exe.md#00001",
    "notes/\x1b[31mred\x07\r\n.md#00002",
    "notes/" + "long " * 400 + ".md#00003",
    "notes/&quot;\"'`--><style>.md#00004",
    "notes/\udcff\udcfe.md#00005",
)


def make_report(found: Findings | None = None, **values: Any) -> HealthReport:
    """A report of ``found``; without it, of a store in which every check passes."""
    if found is None:
        found = Findings()
        for check in CHECKS:
            found.looked(check)
    defaults: dict[str, Any] = {
        "run": "20261110T084000-000001", "started": STARTED, "seconds": 4.2, "depth": "standard", "way": "files",
        "workspace": "/home/you/notes", "store": "/home/you/notes/chroma", "source": "/home/you/notes/docs",
        "pipeline": "openai/text-embedding-3-small/1536/md1-400-cl100k_base", "collections": make_collections(3),
        "norms": {"0.90": 3, "0.95": 40, "1.00": 900, "10+": 5},
    }  # fmt: skip
    return HealthReport(findings=found.result(), **defaults | values)


def make_collections(number: int, worst: int = 0) -> list[CollectionHealth]:
    """``number`` collections of 100 documents and 400 chunks; the first ``worst`` lack ever less."""
    return [
        CollectionHealth(
            f"docs_{position:03d}", "serving", documents=100, chunks=400,
            stored=400 - max(0, 5 * (worst - position)), source_documents=100 + max(0, worst - position),
            checked=40, dimension=1536, slots=410,
        )
        for position in range(number)
    ]  # fmt: skip


def many_faults(collections: int = 341) -> HealthReport:
    """Everything that makes a report hard to show: many places, hostile names, each severity, notes."""
    found = Findings()
    for check in CHECKS:
        found.looked(check)
    for position in range(collections):
        ids = [f"docs_{position:03d}/page-{n}.md#0000{n}" for n in range(5)]
        found.add("missing", f"{position + 1} of 400 chunks are not stored", collection=f"docs_{position:03d}",
                  count=position + 1, total=400, ids=ids)  # fmt: skip
    found.add("vectors", "6 of 400 vectors differ from what was embedded", collection="docs_007", count=6, total=400,
              ids=HOSTILE, value=0.015)  # fmt: skip
    found.add("orphans", "2 of 400 stored chunks are not known", collection="docs_001", count=2, total=400)
    found.add("backup", "the last verified backup is 9 days old", value=9 * 86_400.0)
    found.add("journal", "chroma.sqlite3-journal is left behind")
    notes = ["The sample began at row 1,204.", f"A document's name is odd: {HOSTILE[2]}"]
    return make_report(found, collections=make_collections(collections, worst=40), notes=notes)
