"""Planning: compare source, ledger and store. It changes nothing.

The scan and the ledger are both in ``doc_key`` order and are merged as they stream, so a plan over 280,000 unchanged
documents costs little more than looking at them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from vectorstore.comparison import Comparison
from vectorstore.documents.naming import building_suffix, collection_name
from vectorstore.documents.source import FileSource
from vectorstore.errors import ConfigurationError, DocumentError
from vectorstore.guards import check_guards, pipeline_mismatch
from vectorstore.ledger import Generation, Ledger
from vectorstore.plan import Plan
from vectorstore.presence import look_at_store
from vectorstore.prices import price_per_token, usd
from vectorstore.settings import Settings

MODES = ("changed", "missing", "stale", "all")
BYTES_PER_TOKEN = 4.0  # until the ledger knows this corpus better


def make_plan(
    settings: Settings,
    ledger: Ledger,
    pipeline: str,
    *,
    mode: str = "changed",
    collections: Collection[str] = (),
    doc_keys: Collection[str] = (),
    verify_content: bool = False,
    max_deletes: int | None = None,
) -> Plan:
    """Compare source, ledger and store.

    Args:
        settings: names source, template and guards.
        ledger: may be read-only.
        pipeline: the pipeline id that the settings stand for.
        mode: ``changed`` (whatever is out of step), ``missing`` (only what the store lacks), ``stale`` (only what
            another pipeline made: it is built anew beside it, and swapped in when all is there), ``all`` (every
            document again).
        collections: only these, by name; empty for all.
        doc_keys: only these; empty for all.
        verify_content: read every document, whatever its times say.
        max_deletes: allow this many deletes instead of the guard's share.

    Raises:
        ConfigurationError: an unknown mode, collection or document.
        EmptySource: the source root is missing or can't be read.
    """
    if mode not in MODES:
        raise ConfigurationError(f"mode {mode!r} is unknown", f"choose one of {', '.join(MODES)}")
    generation, mismatch = _choose_generation(settings, ledger, pipeline, mode)
    source = FileSource(
        settings.path(settings.source), settings.include, settings.exclude, int(settings.max_document_mb * 1_000_000)
    )
    intents = ledger.intents(generation.id)
    plan = Plan(generation, source, look_at_store(settings, ledger, generation), intents)
    plan.whole = not collections and not doc_keys and (mode in ("changed", "all") or generation.state == "building")
    scope = _scope(settings, collections, doc_keys)
    comparison = Comparison(plan, settings, mode, scope, verify_content, intents)
    seen = comparison.run(source, ledger)
    plan.abandoned = comparison.abandoned(source)
    if comparison.strays and plan.whole:
        plan.notes.append(
            f"the store holds chunks of {len(comparison.strays)} documents that neither source nor ledger knows,"
            f" {min(comparison.strays)!r} among them; they are left alone"
        )
    plan.problems = [p for p in source.problems if scope is None or _problem_in_scope(p, doc_keys)]
    _check_scope(plan, ledger, collections, doc_keys)
    if mismatch:
        plan.counts = dict.fromkeys(plan.counts, 0)
        plan.counts["stale"] = sum(documents for documents, _ in ledger.collections(generation.id).values())
        plan.refusals.append(pipeline_mismatch(generation, pipeline, plan.counts["stale"]))
    check_guards(plan, settings, ledger, seen, comparison.known, max_deletes)
    if not seen and not comparison.known and plan.whole:
        plan.notes.append(f"no document in {source.root} matches include = {list(settings.include)}")
    if plan.to_read:
        _estimate(plan, settings, ledger)
    return plan


def _estimate(plan: Plan, settings: Settings, ledger: Ledger) -> None:
    size, tokens = ledger.tokens(plan.generation.id)
    plan.tokens_per_byte = tokens / size if size and tokens else 1 / BYTES_PER_TOKEN
    plan.usd_per_token = usd(price_per_token(settings.model_name, settings.prices, billable=settings.is_billable))


def _choose_generation(settings: Settings, ledger: Ledger, pipeline: str, mode: str) -> tuple[Generation, bool]:
    """The generation to work on, and whether it holds vectors of another pipeline than the settings ask for."""
    serving = ledger.generation(settings.collection)
    if serving is None:
        return Generation(0, settings.collection, pipeline, "serving"), False  # an update writes it down
    if serving.pipeline == pipeline:
        return serving, False
    if ledger.is_empty(serving.id):
        return serving._replace(pipeline=pipeline), False
    if mode not in ("stale", "all"):
        return serving, True
    building = ledger.generation(settings.collection, "building")
    if building is None or building.pipeline != pipeline:
        building = Generation(0, settings.collection, pipeline, "building")
    return building, False


def _scope(settings: Settings, collections: Collection[str], doc_keys: Collection[str]) -> Callable[[str], bool] | None:
    if not collections and not doc_keys:
        return None
    names, keys = frozenset(collections), frozenset(doc_keys)
    return lambda key: (not keys or key in keys) and (not names or collection_name(settings.collection, key) in names)


def _problem_in_scope(problem: DocumentError, doc_keys: Collection[str]) -> bool:
    return not doc_keys or any(key.startswith(problem.doc_key) for key in doc_keys)


def _check_scope(plan: Plan, ledger: Ledger, collections: Collection[str], doc_keys: Collection[str]) -> None:
    suffix = building_suffix(plan.generation.pipeline) if plan.generation.state == "building" else ""
    known = {name.removesuffix(suffix) for name in (*plan.by_collection, *ledger.collections(plan.generation.id))}
    for name in collections:
        if name not in known:
            raise ConfigurationError(
                f"no document belongs to a collection {name!r}", f"there are: {', '.join(sorted(known)[:10]) or 'none'}"
            )
    found = sum(plan.counts.values())
    if doc_keys and found < len(set(doc_keys)) and not collections:
        raise ConfigurationError(
            f"{len(set(doc_keys)) - found} of the {len(set(doc_keys))} documents named are neither in the source nor"
            " in the ledger",
            "a doc_key is the path relative to the source root, with forward slashes",
        )
