"""The preview: a plan with what it would cost, exact by default: it reads what an update would read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vectorstore.errors import DocumentError
from vectorstore.ledger import Ledger
from vectorstore.pipeline import Pipeline
from vectorstore.plan import Plan
from vectorstore.planning import make_plan
from vectorstore.progress import Progress
from vectorstore.settings import Settings


@dataclass(frozen=True)
class Preview:
    """What an update would do.

    Attributes:
        exact: the documents were read; otherwise tokens, cost and time are estimates, and moved or merely touched
            documents count as added or changed.
        kinds: documents by kind.
        chunks, chunks_cached: to write; of them those whose vector is there already.
        tokens, cost_usd: to pay for, by tiktoken's count.
        seconds: roughly, at the limits of the settings; ``None`` when nothing is known.
        refusals: what would refuse the update.
    """

    pipeline: str
    exact: bool
    kinds: dict[str, int]
    collections: dict[str, dict[str, int]]
    chunks: int
    chunks_cached: int
    tokens: int
    cost_usd: float
    seconds: float | None
    max_cost_usd: float | None
    damage: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nothing_to_do: bool = False
    exit_code: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class _Count:
    kinds: dict[str, int]
    failures: dict[str, str]
    chunks: int = 0
    cached: int = 0
    tokens: int = 0


def preview(
    settings: Settings,
    *,
    exact: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **choice: Any,
) -> Preview:
    """Make a plan and count what it costs; changes nothing.

    Args:
        choice: as for ``planning.make_plan``.
    """
    pipeline = Pipeline.of(settings)
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    try:
        with make_plan(settings, ledger, pipeline.id, **choice) as plan:
            return preview_plan(settings, pipeline, plan, ledger, exact=exact, on_progress=on_progress)
    finally:
        ledger.close()


def preview_plan(
    settings: Settings,
    pipeline: Pipeline,
    plan: Plan,
    ledger: Ledger,
    *,
    exact: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    cached: Callable[[Sequence[bytes]], set[bytes]] = lambda hashes: set(),
) -> Preview:
    """Count what a plan costs; changes nothing.

    Args:
        cached: which hashes count as paid, beside those in the vector cache.
    """
    from vectorstore.reading import find_untouched

    if exact and not plan.refusals:
        for _ in find_untouched(plan, ledger):
            pass
    kinds = {kind: count for kind, count in plan.counts.items() if count}
    count = _Count(kinds, {problem.doc_key: problem.reason for problem in plan.problems})
    if not exact or plan.refusals:
        count.tokens = plan.estimated_tokens
    elif plan.to_read:
        _read(settings, pipeline, plan, ledger, count, on_progress, cached)
    return _preview(settings, pipeline, plan, count, exact)


def _read(
    settings: Settings,
    pipeline: Pipeline,
    plan: Plan,
    ledger: Ledger,
    count: _Count,
    on_progress: Callable[[Progress], None],
    cached: Callable[[Sequence[bytes]], set[bytes]],
) -> None:
    from vectorstore.cache import VectorCache
    from vectorstore.documents.chunks import Chunker
    from vectorstore.reading import Reader

    path = settings.hashes / "cache.sqlite3"
    cache = VectorCache(path, pipeline.embedding, settings.dimension, readonly=True) if path.exists() else None
    reader = Reader(
        plan.source, Chunker(settings.chunk_tokens, settings.encoding), ledger, plan.generation.id, plan.is_deleted
    )
    progress = Progress("", "plan", 0, documents_total=plan.to_read)
    seen: set[bytes] = set()
    for kind in ("added", "changed", "missing", "stale", "all"):
        count.kinds.pop(kind, None)
    for work in plan.work():
        progress.add(documents_done=1)
        on_progress(progress)
        try:
            reading = reader.read(work)
        except DocumentError as error:
            count.failures[work.doc_key] = error.reason
            continue
        count.kinds[reading.kind] = count.kinds.get(reading.kind, 0) + 1
        count.kinds["deleted"] = count.kinds.get("deleted", 0) - bool(reading.moved_from)
        wanted = [reading.hashes[number] for number in reading.write]
        known = (cache.known(wanted) if cache else set()) | cached(wanted) | seen
        count.chunks += len(wanted)
        count.cached += sum(hash_ in known for hash_ in wanted)
        for number in reading.write:
            if reading.hashes[number] not in known:
                count.tokens += reading.chunks[number].tokens
                known.add(reading.hashes[number])
                seen.add(reading.hashes[number])
    if cache:
        cache.close()


def _preview(settings: Settings, pipeline: Pipeline, plan: Plan, count: _Count, exact: bool) -> Preview:
    from vectorstore.prices import price_per_token, usd

    billable = settings.is_billable
    price = price_per_token(settings.model_name, settings.prices, billable=billable)
    exit_code = plan.refusals[0].exit_code if plan.refusals else int(bool(count.failures))
    return Preview(
        pipeline=pipeline.id,
        exact=exact,
        kinds={kind: number for kind, number in count.kinds.items() if number},
        collections=plan.by_collection,
        chunks=count.chunks,
        chunks_cached=count.cached,
        tokens=count.tokens,
        cost_usd=usd(count.tokens * price),
        seconds=count.tokens / settings.tokens_per_minute * 60 if billable else None,
        max_cost_usd=settings.max_cost_usd if billable else None,
        damage=plan.damage,
        failures=count.failures,
        refusals=[str(refusal) for refusal in plan.refusals],
        notes=plan.notes,
        nothing_to_do=plan.nothing_to_do,
        exit_code=exit_code,
    )
