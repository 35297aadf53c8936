"""Documents whose chunks are there already: rows of the spool that make up a document, as the writer takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vectorstore.adoption.fitting import Misfit, Piece, fit
from vectorstore.adoption.importing import NO_VECTOR
from vectorstore.adoption.spool import Naming, Spool, SpooledRow
from vectorstore.cache import VectorCache
from vectorstore.chroma.store import chunk_id
from vectorstore.documents.chunks import Chunk, Chunker
from vectorstore.documents.source import Document
from vectorstore.embedding import Job
from vectorstore.errors import DocumentError
from vectorstore.ledger import Ledger
from vectorstore.plan import Plan, Work
from vectorstore.reading import Reading, metadata

UNNAMED, UNREADABLE = "no row names it", "it can't be read"


class Origin(NamedTuple):
    """A collection that documents may be taken from; ``own``: ours, so that its rows may be in their place already."""

    name: str
    naming: Naming
    order_key: str
    own: bool


class Matcher:
    """Finds the rows of documents.

    Args:
        cache: holds the rows' vectors; ``None`` to leave the jobs without vectors.
    """

    def __init__(
        self,
        chunker: Chunker,
        plan: Plan,
        ledger: Ledger,
        spool: Spool,
        origins: Sequence[Origin],
        cache: VectorCache | None,
    ) -> None:
        self._chunker, self._plan, self._ledger, self._spool = chunker, plan, ledger, spool
        self._origins, self._cache = origins, cache

    def job(self, work: Work) -> Job | str:
        """A document with its chunks and vectors, ready to be written, or why it has to be cut anew."""
        nearest = sorted(self._origins, key=lambda origin: origin.name != work.collection)
        found = [
            (origin, rows)
            for origin in nearest
            if (rows := self._spool.rows_of(origin.name, origin.naming, work.doc_key))
        ]
        if not found:
            return UNNAMED
        try:
            document = self._plan.source.read(work.entry)
        except DocumentError:
            return UNREADABLE
        reason = ""
        for origin, rows in found:
            answer = self._try(work, document, origin, rows)
            if isinstance(answer, Job):
                return answer
            reason = reason or answer
        return reason

    def _try(self, work: Work, document: Document, origin: Origin, rows: list[SpooledRow]) -> Job | str:
        for row in rows:
            if row.fault:
                return row.fault
        rows.sort(key=lambda row: row.numbers.get(origin.order_key, 0.0))  # stable: else as they came
        pieces = fit(document.text, [row.text for row in rows])
        if isinstance(pieces, Misfit):
            return str(pieces)
        in_place = origin.own and origin.name == work.collection
        return self._make_job(work, document, [rows[piece.number] for piece in pieces], pieces, in_place)

    def _make_job(
        self, work: Work, document: Document, rows: Sequence[SpooledRow], pieces: Sequence[Piece], in_place: bool
    ) -> Job | str:
        chunks: list[Chunk] = []
        write: list[int] = []
        for number, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
            if in_place and row.kept and _is_right(row.id, row.kept, work.doc_key, number):
                chunks.append(Chunk(row.text, row.kept["heading"], row.kept["tokens"]))
            else:
                chunks.append(Chunk(row.text, piece.heading, self._chunker.count(row.text)))
                write.append(number)
        hashes = [row.hash for row in rows]
        metadatas = [metadata(work.doc_key, number, chunk) for number, chunk in enumerate(chunks)]
        old = self._ledger.document(self._plan.generation.id, work.doc_key)
        job = Job(Reading(work, document, "adopted", chunks, hashes, metadatas, write, old))
        if self._cache:
            vectors = self._cache.get_many(hashes)
            if not vectors.keys() >= set(hashes):
                return NO_VECTOR
            job.vectors = {number: vectors[hash_] for number, hash_ in enumerate(hashes)}
        return job


def _is_right(id_: str, kept: Mapping[str, Any], doc_key: str, number: int) -> bool:
    """Whether id and metadata are what we write for a document's chunk of this number."""
    heading, tokens = kept.get("heading"), kept.get("tokens")
    if not isinstance(heading, str) or not isinstance(tokens, int) or id_ != chunk_id(doc_key, number):
        return False
    return dict(kept) == metadata(doc_key, number, Chunk("", heading, tokens))
