"""Search: the chunks nearest in meaning to a text."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from vectorstore.errors import ConfigurationError, Damaged, EmbeddingFailed
from vectorstore.ledger import Generation, Ledger
from vectorstore.presence import unsafe_files
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectorstore.chroma.store import Hit, Store

OPEN_ATTEMPTS, OPEN_PAUSE_S = 5, 0.3


def search(settings: Settings, text: str, *, limit: int = 5, collections: Collection[str] = ()) -> list[Hit]:
    """The nearest chunks, nearest first, over all collections of the settings' template.

    The text is embedded by the pipeline that made the vectors; what that costs counts against the day's cap.

    Raises:
        ConfigurationError: nothing was embedded yet, an unknown collection, an empty text.
        Capped, EmbeddingFailed: the text could not be embedded.
    """
    if not text.strip() or limit < 1:
        raise ConfigurationError("nothing to search for", "give some words, and a limit of at least 1")
    generation, names = _serving(settings, collections)
    vector = embed(as_embedded(settings, generation.pipeline), text)
    store = _open(settings)
    try:
        hits = [hit for name in names for hit in store.query(name, vector, limit)]
    finally:
        store.close()
    return sorted(hits, key=lambda hit: hit.distance)[:limit]


def _open(settings: Settings) -> Store:
    """The store, once its files are fit to be opened: a write in progress makes them unfit for a moment."""
    from vectorstore.chroma.store import Store

    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    try:
        for attempt in range(OPEN_ATTEMPTS):
            time.sleep(OPEN_PAUSE_S * attempt)
            if not (damages := unsafe_files(settings, ledger)):
                return Store(settings)
    finally:
        ledger.close()
    raise Damaged(
        f"the store can't be opened safely: {damages[0].detail}",
        "wait for a running update to end; or run `vectorkeep update`, which mends the store",
    )


def _serving(settings: Settings, collections: Collection[str]) -> tuple[Generation, list[str]]:
    ledger = Ledger(settings.hashes / "ledger.sqlite3", readonly=True)
    try:
        generation = ledger.generation(settings.collection)
        known = ledger.collections(generation.id) if generation else {}
    finally:
        ledger.close()
    if generation is None or not known:
        raise ConfigurationError("the store holds nothing yet", "run `vectorkeep update` first")
    if unknown := set(collections) - set(known):
        raise ConfigurationError(f"no collection {min(unknown)!r}", f"there are: {', '.join(known)}")
    return generation, sorted(collections or known)


def as_embedded(settings: Settings, pipeline: str) -> Settings:
    """The settings that the serving vectors were made with, which may be about to change."""
    provider, *model, dimension, _ = pipeline.split("/")
    return replace(settings, embedder=provider, model="/".join(model), dimensions=int(dimension))


def embed(settings: Settings, text: str) -> NDArray[np.float32]:
    """The vector of a text, shape ``(dimension,)``; its cost counts against the caps.

    Raises:
        Capped, EmbeddingFailed, ConfigurationError: it could not be embedded.
    """
    from vectorstore.budget import Budget
    from vectorstore.documents.tokens import load_encoding
    from vectorstore.embedders import make_embedder
    from vectorstore.embedders.limiter import RateLimiter
    from vectorstore.embedders.requester import Requester
    from vectorstore.prices import price_per_token

    embedder = make_embedder(settings)
    price = price_per_token(embedder.model, settings.prices, billable=embedder.billable)
    run = time.strftime("search-%Y%m%dT%H%M%SZ-", time.gmtime()) + os.urandom(3).hex()
    budget = Budget(
        settings.path(settings.spend_ledger), run, embedder.model, price, settings.max_cost_usd,
        settings.max_cost_usd_per_day,
    )  # fmt: skip
    try:
        limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        tokens = len(load_encoding(settings.encoding).encode_ordinary(text))
        outcome = Requester(embedder, limiter, budget, max_attempts=settings.max_attempts).embed([text], [tokens])
    finally:
        budget.close()
        embedder.close()
    if outcome.failed:
        raise EmbeddingFailed(f"the text can't be embedded: {outcome.failed[0]}", "use other words")
    vector: NDArray[np.float32] = outcome.vectors[0]
    return vector
