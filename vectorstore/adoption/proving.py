"""Are the vectors of a foreign collection those of the settings' model? As far as that can be told without paying."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from vectorstore.adoption.foreign import ForeignRows
from vectorstore.adoption.llamaindex import embedded_text, read_node
from vectorstore.cache import VectorCache
from vectorstore.chroma.rows import StoredCollection
from vectorstore.errors import PipelineMismatch
from vectorstore.pipeline import Pipeline
from vectorstore.reading import chunk_hash
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 64  # texts a collection, evenly spread
# Cosines. The free embedders answer the same again and again; a provider's answers differ a little.
SAME, SAME_FROM_PROVIDER = 0.9999, 0.99
UNIT = 1e-5  # how far from 1 the norm of a unit vector may be

Known = Callable[[str], "NDArray[np.float32] | None"]


def unit_vector(vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The vector made unit length, bit for bit if it has that already; ``None`` for one without a direction."""
    import numpy as np

    exact = np.asarray(vector, np.float64)
    norm = float(np.sqrt(exact @ exact))
    if not np.isfinite(norm) or norm < 1e-9:
        return None
    return np.asarray(vector if abs(norm - 1) <= UNIT else exact / norm, np.float32)


class Proof(NamedTuple):
    """What a sample showed: the rows' metadata keys, and whether any vector could be compared."""

    keys: set[str]
    compared: bool


def prove(settings: Settings, reader: ForeignRows, collection: StoredCollection, cache: VectorCache | None) -> Proof:
    """Compare a sample with what the embedder answers, where it is free, or with what the cache holds.

    Raises:
        PipelineMismatch: a vector is not the one of its text.
    """
    known, least = _known(settings, cache)
    keys: set[str] = set()
    compared = wrong = 0
    for page in reader.pages(collection, max(1, collection.count // SAMPLE)):
        for row in page:
            keys.update(row.metadata)
            vector = unit_vector(row.vector)
            text = embedded_text(read_node(row.metadata), row.document or "")
            if vector is None or not text.strip() or (expected := known(text)) is None:
                continue
            compared += 1
            wrong += bool(vector @ expected < least)
    if wrong:
        raise PipelineMismatch(
            f"{wrong} of {compared} vectors of {collection.name!r} that were looked at are not what"
            f" {Pipeline.of(settings).embedding} makes of their texts",
            "name the embedder, model and dimensions that made them in vectorkeep.toml; or leave the collection out:"
            " name the others with --collection",
        )
    return Proof(keys, bool(compared))


def _known(settings: Settings, cache: VectorCache | None) -> tuple[Known, float]:
    """What tells a text's true vector, and from which cosine on another is taken for the same."""
    if settings.is_billable:
        return lambda text: _cached(cache, text), SAME_FROM_PROVIDER
    from vectorstore.embedders import make_embedder
    from vectorstore.embedders.base import AttemptFailed

    embedder = make_embedder(settings)

    def ask(text: str) -> NDArray[np.float32] | None:
        try:
            return embedder.embed([text]).vectors[0]  # type: ignore[no-any-return]
        except AttemptFailed:
            return None

    return ask, SAME


def _cached(cache: VectorCache | None, text: str) -> NDArray[np.float32] | None:
    hash_ = chunk_hash(text)
    return cache.get_many([hash_]).get(hash_) if cache else None
