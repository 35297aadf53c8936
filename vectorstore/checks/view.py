"""What one health check knows and has found so far: shared by its parts, which fill it in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorstore.checks.faults import Faults
from vectorstore.checks.source import SourceView
from vectorstore.findings import CollectionHealth, Depth, Findings
from vectorstore.ledger import Generation, Ledger
from vectorstore.progress import Progress
from vectorstore.settings import Settings


@dataclass(frozen=True)
class Choice:
    """How to look; see `health.health`. ``writer``: the caller holds the writer's lock."""

    depth: Depth
    way: str = ""
    probe: bool | None = None
    verify_content: bool = False
    part: int = 0
    writer: bool = False

    @property
    def standard(self) -> bool:
        """Whether to look at the source, the files, and some rows."""
        return self.depth >= Depth.STANDARD

    @property
    def deep(self) -> bool:
        """Whether to look at everything."""
        return self.depth >= Depth.DEEP


@dataclass
class View:
    """The check as it grows.

    Attributes:
        ledger: ``None`` where there is none that can be read.
        serving: the generation that the settings' template names.
        generations: by collection.
        counted: by generation id, documents and chunks by collection, counted anew.
        source: what the source holds, where it was looked at.
        ids: Chroma's ids of collections, by name.
        copies: rows whose text another row has too.
    """

    settings: Settings
    choice: Choice
    progress: Progress
    on_progress: Callable[[Progress], None]
    found: Findings = field(default_factory=Findings)
    faults: Faults = field(default_factory=Faults)
    ledger: Ledger | None = None
    serving: Generation | None = None
    generations: dict[str, Generation] = field(default_factory=dict)
    counted: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)
    source: SourceView | None = None
    collections: list[CollectionHealth] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    norms: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    way: str = "none"
    notes: list[str] = field(default_factory=list)

    def chunks_due(self, collection: str) -> tuple[int, int]:
        """Documents and chunks that the ledger has in a collection; counted, since its own sums can be wrong."""
        generation = self.generations.get(collection)
        return self.counted[generation.id].get(collection, (0, 0)) if generation else (0, 0)


def dimension_of(generation: Generation) -> int:
    """The length of a generation's vectors, which its pipeline's name tells."""
    return int(generation.pipeline.split("/")[-2])
