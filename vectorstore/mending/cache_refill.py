"""Puts vectors that the store holds, and the ledger's checksums vouch for, back into the cache."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack

from vectorstore.cache import VectorCache, vector_crc
from vectorstore.chroma.rows import PAGE, RowReader, StoredCollection
from vectorstore.ledger import Generation, Ledger
from vectorstore.mending.known_vectors import record_of
from vectorstore.settings import Settings


def refill_cache(settings: Settings, ledger: Ledger, cache: VectorCache, embedding: str) -> int:
    """Read the store's vectors of one embedding; how many were put into the cache.

    Raises:
        StoreUnreachable: a server that does not answer.
    """
    generations = ledger.generations_by_collection()
    put = 0
    with ExitStack() as stack:
        reader = _reader(settings, stack)
        for each in reader.collections() if reader else ():
            generation = generations.get(each.name)
            if reader and generation and generation.pipeline.rpartition("/")[0] == embedding:
                put += _refill(reader, each, ledger, generation, cache)
    return put


def _reader(settings: Settings, stack: ExitStack) -> RowReader | None:
    if settings.chroma_url:
        from vectorstore.chroma.api_rows import ApiRows
        from vectorstore.chroma.store import Store

        server = ApiRows(Store(settings))
        stack.callback(server.close)
        return server
    from vectorstore.chroma import files
    from vectorstore.chroma.audit import audit
    from vectorstore.chroma.file_rows import FileRows

    store = settings.path(settings.chroma_path)
    if not files.sqlite_path(store).is_file() or not all(damage.safe_to_open for damage in audit(store)):
        return None
    db: sqlite3.Connection = stack.enter_context(files.open_snapshot(store))
    return FileRows(store, db) if files.read_layout(db).known else None


def _refill(
    reader: RowReader, each: StoredCollection, ledger: Ledger, generation: Generation, cache: VectorCache
) -> int:
    import numpy as np

    put = 0
    for listed in reader.ids(each):
        for start in range(0, len(listed), PAGE):
            ids = listed[start : start + PAGE]
            records = {id_: record for id_ in ids if (record := record_of(ledger, generation, each.name, id_))}
            sound = cache.get_many([record.hash for record in records.values()])
            lacking = [id_ for id_, record in records.items() if record.hash not in sound]
            page = reader.read(each, lacking) if lacking else None
            if page is None or page.vectors is None:
                continue
            good = [
                row for row, id_ in enumerate(page.ids)
                if page.has_vector[row] and vector_crc(page.vectors[row]) == records[id_].vector_crc
            ]  # fmt: skip
            if good:
                cache.put_many([records[page.ids[row]].hash for row in good], np.asarray(page.vectors[good]))
                put += len(good)
    return put
