"""An alert, and the facts that alerts are judged by besides the history of runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NAMES = (
    "error_rate", "storage", "cost", "memory", "deviation", "capped", "refused", "failed", "crashed", "late",
    "backup_age", "drill_age", "coverage", "key_rejected", "health",
)  # fmt: skip
SEVERITIES = ("WARN", "FAIL")


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that a person should know of.

    Attributes:
        name: one of ``NAMES``.
        severity: ``WARN``, or ``FAIL`` where something does not work.
        message, hint: for a person: what is the matter, and the next step; never a secret.
        value, threshold: what was measured and what is allowed, in the unit of the setting; ``None`` where there is no
            number.
        since: Unix time from which on it holds.
        subject: what it is about, where one name can have several alerts at once: a verb, or a verb and a figure.
    """

    name: str
    severity: str
    message: str
    hint: str
    value: float | None
    threshold: float | None
    since: float
    subject: str = ""

    @property
    def key(self) -> str:
        """What tells two alerts apart, whenever they were judged: ``failed:update``."""
        return f"{self.name}:{self.subject}" if self.subject else self.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"key": self.key}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known now, besides the runs. Times are Unix times.

    Attributes:
        first_run: when the workspace was first worked with: what never happened is counted from here. ``None``: never.
        updated: end of the newest update that no lock turned away; without one, when the ledger was first written;
            ``None``: there is no ledger either.
        backed_up: when the newest backup was made that is there and whose last look found it sound.
        drilled: the last drill that passed.
        spent_today: US dollars of this UTC day.
        store_bytes: of the embedded store on the disk; ``None`` of a server's.
        memory_share: of the machine's memory, or the container's, that is in use; 0 to 1.
    """

    now: float
    first_run: float | None = None
    updated: float | None = None
    backed_up: float | None = None
    drilled: float | None = None
    spent_today: float = 0.0
    store_bytes: int | None = None
    memory_share: float | None = None
