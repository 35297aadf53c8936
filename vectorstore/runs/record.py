"""One run of a command as the history of runs has it: what alerts are judged by, and what reports and metrics draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

VERBS = ("update", "health", "fix", "adopt", "backup", "verify", "restore", "drill", "prune")
STATES = (
    "completed", "incomplete", "findings", "failed", "capped", "refused", "locked", "interrupted", "crashed",
)  # fmt: skip
ENDED_WELL = ("completed",)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of one verb, by whatever started it.

    A figure that a verb does not have is ``None``, never 0.

    Attributes:
        run: a name of its own, sortable by time.
        verb: one of ``VERBS``.
        by: what started it: ``cli``, ``prefect`` or ``library``.
        started: Unix time.
        seconds, cpu_seconds: wall and CPU of the run.
        state: one of ``STATES``: ``incomplete`` is done but for some documents or rows, ``findings`` is a health check
            that found a FAIL, ``crashed`` is a run whose process went away without a word.
        exit_code: of the command line; -9 of a crashed one.
        error: the class of what ended it, of ``vectorstore.errors``; empty: nothing.
        message: for a person, why it did not end well; never a secret.
        documents, chunks: that the ledger knows after the run.
        work: documents that the run had to do with: added, changed, deleted and so on, without unchanged ones.
        failures: documents that failed.
        chunks_written, chunks_embedded, chunks_from_cache: see ``UpdateReport``.
        tokens, requests, cost_usd: that the provider billed.
        passed, info, warn, fail: findings of a health check.
        coverage: share of the ledger's chunks that the store holds, 0 to 1.
        store_bytes: size of the embedded store on the disk.
        backup_bytes: size of the archive that was made.
        memory_mb: the largest resident size of the process.
        memory_share: of the machine's memory (or the container's), used by everybody, at the end of the run; 0 to 1.
        name: of the backup it was about.
        detail: what sets it apart from others of its verb: a health check's depth, a backup's kind, a verification's
            level.
    """

    run: str
    verb: str
    by: str
    started: float
    seconds: float
    cpu_seconds: float
    state: str
    exit_code: int
    error: str = ""
    message: str = ""
    documents: int | None = None
    chunks: int | None = None
    work: int | None = None
    failures: int | None = None
    chunks_written: int | None = None
    chunks_embedded: int | None = None
    chunks_from_cache: int | None = None
    tokens: int | None = None
    requests: int | None = None
    cost_usd: float | None = None
    passed: int | None = None
    info: int | None = None
    warn: int | None = None
    fail: int | None = None
    coverage: float | None = None
    store_bytes: int | None = None
    backup_bytes: int | None = None
    memory_mb: float | None = None
    memory_share: float | None = None
    name: str = ""
    detail: str = ""

    @property
    def error_rate(self) -> float | None:
        """Failed documents by those that it had to do with; ``None`` of a run without any."""
        return self.failures / self.work if self.work and self.failures is not None else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
