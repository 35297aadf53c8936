"""Checks of what search answers: vectors that find themselves, recall, and canary queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.graph_search import EF_SEARCH, SPACES, Graph
from vectorstore.errors import VectorkeepError
from vectorstore.findings import Findings, Severity
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectorstore.chroma.graph_search import Space
    from vectorstore.chroma.search_quality import SearchQuality
    from vectorstore.chroma.store import Store

QUERIES, FEWEST = 30, 3  # over all collections, and in each
SOUND_LINKS = 0.9  # of an index's links lead to near vectors; in a damaged one half of them do


def queries_each(db: sqlite3.Connection, store: Path) -> int:
    """How many of its own vectors every index is asked for."""
    return max(FEWEST, QUERIES // max(1, len(files.list_collections(db, store))))


def check_search(
    collections: Sequence[files.StoredCollection], quality: Mapping[str, SearchQuality], found: Findings
) -> None:
    """Judge what the indexes of some collections answered, by collection id, when asked as Chroma would."""
    found.looked("self_query")
    found.looked("recall")
    asked = [(each.name, quality[each.id]) for each in collections if each.id in quality]
    for name, answers in asked:
        _judge(name, answers, found)
    recalled, due = sum(each.recall_found for _, each in asked), sum(each.recall_total for _, each in asked)
    if due:
        found.looked("recall", f"recall@10 is {recalled / due:.1%} over {len(asked)} collections")


def _judge(name: str, quality: SearchQuality, found: Findings) -> None:
    """Data without neighbours to speak of lowers recall too: only an index with wrong or lost links is at fault."""
    stranded = 10 * quality.stranded > len(quality.probes)
    links = quality.links_near / quality.links_total if quality.links_total else 0.0
    mild = Severity.INFO if links >= SOUND_LINKS and not stranded else None
    fault = "searches run out of links" if stranded else f"{links:.0%} of its links lead to near vectors"
    why = "its links are sound: it is the data" if mild else fault
    if lost := quality.self_total - quality.self_found:
        found.add(
            "self_query", f"{lost} of {quality.self_total} vectors do not find themselves; {why}", collection=name,
            count=lost, total=quality.self_total, severity=mild, value=1 - lost / quality.self_total,
        )  # fmt: skip
    if missed := quality.recall_total - quality.recall_found:
        recall = quality.recall_found / quality.recall_total
        found.add(
            "recall", f"recall@10 is {recall:.1%}; {why}", collection=name, count=missed, total=quality.recall_total,
            severity=None if mild is None or recall >= 0.9 else mild, value=recall,
        )  # fmt: skip


def embed_canaries(settings: Settings, pipeline: str, found: Findings) -> dict[str, NDArray[np.float32]]:
    """The vectors of the canary texts, by text; what that costs counts against the caps."""
    if not settings.canaries:
        return {}
    from vectorstore.search import as_embedded, embed

    found.looked("canaries", f"{len(settings.canaries)} canary queries find their documents")
    try:
        return {text: embed(as_embedded(settings, pipeline), text) for text in settings.canaries}
    except VectorkeepError as error:
        message = f"the canary queries could not be embedded: {error.message}"
        found.add("canaries", message, severity=Severity.WARN, remedy=error.hint)
        return {}


def check_canaries(
    settings: Settings, answers: Mapping[str, Sequence[str]], found: Findings
) -> None:  # fmt: skip
    """Hold answers, text -> ids nearest first, against what the settings expect."""
    for text, ids in answers.items():
        expected = settings.canaries[text]
        keys = [id_.rpartition("#")[0] for id_ in ids]
        if expected not in keys:
            first = f", {keys[0]!r} first" if keys else ""
            message = f"{text!r} does not find {expected!r} among the first {settings.canary_k}{first}"
            found.add("canaries", message, ids=[expected])


def ask_files(
    db: sqlite3.Connection, store: Path, names: Iterable[str], queries: Mapping[str, NDArray[np.float32]], k: int
) -> dict[str, list[str]]:  # fmt: skip
    """The nearest ids to each query over some collections, from the files."""
    wanted = set(names)
    hits: dict[str, list[tuple[float, str]]] = {text: [] for text in queries}
    for each in files.list_collections(db, store):
        if each.name in wanted and each.space in SPACES:
            for text, vector in queries.items():
                hits[text] += _nearest(db, store, each, vector, k)
    return {text: [id_ for _, id_ in sorted(found)[:k]] for text, found in hits.items()}


def _nearest(
    db: sqlite3.Connection, store: Path, each: files.StoredCollection, vector: NDArray[np.float32], k: int
) -> list[tuple[float, str]]:
    """From the index, and, compared one by one, from the queue."""
    import numpy as np

    queued = {
        write.id: np.frombuffer(write.vector, "<f4") if write.vector else None
        for write in files.iter_queue(db, each, vectors=True)
        if write.vector or write.operation is files.Operation.DELETE  # metadata alone leave the vector as it is
    }
    found: list[tuple[float, str]] = []
    folder = store / each.vector_segment
    if each.vector_seq and each.has_folder:
        try:
            header = hnsw.read_header(folder, each.dimension)
            with Graph(folder, header, cast("Space", each.space), ef_search=each.ef_search or EF_SEARCH) as graph:
                found = [(distance, id_) for id_, distance in graph.nearest(vector, k) if id_ not in queued]
        except hnsw.TornFileError:
            pass  # the audit says it; the queue may still hold what is looked for
    found += [(_distance(vector, other, each.space), id_) for id_, other in queued.items() if other is not None]
    return found


def _distance(query: NDArray[np.float32], other: NDArray[np.float32], space: str | None) -> float:
    import numpy as np

    if space == "l2":
        return float(((query - other) ** 2).sum())
    scale = float(np.linalg.norm(query) * np.linalg.norm(other)) or 1.0
    return 1 - float(query @ other) / (scale if space == "cosine" else 1.0)


def ask_store(
    store: Store, names: Iterable[str], queries: Mapping[str, NDArray[np.float32]], k: int
) -> dict[str, list[str]]:
    """The same through Chroma."""
    names = list(names)
    answers = {}
    for text, vector in queries.items():
        hits = sorted((hit for name in names for hit in store.query(name, vector, k)), key=lambda hit: hit.distance)
        answers[text] = [hit.id for hit in hits[:k]]
    return answers
