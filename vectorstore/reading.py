"""The reading stage: what the content of one document asks of the store. Shared by plan and update."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

from vectorstore.documents.chunks import Chunk, Chunker
from vectorstore.documents.source import Document, FileSource
from vectorstore.errors import DocumentError
from vectorstore.ledger import ChunkRecord, DocumentRow, Ledger
from vectorstore.plan import Plan, Work


class Reading(NamedTuple):
    """A document that was read.

    Attributes:
        work: what the plan said of it.
        document: as read; its times may be newer than the plan's.
        kind: what it turned out to be: added, moved, changed, missing, stale, all.
        chunks: its chunks; empty for a document without text.
        hashes: 16 bytes of each chunk's text.
        metadatas: what the store keeps beside each chunk.
        write: numbers of the chunks that the store lacks or holds differently.
        old: the ledger's row, if it has one.
        moved_from: where a moved document was.
    """

    work: Work
    document: Document
    kind: str
    chunks: Sequence[Chunk]
    hashes: Sequence[bytes]
    metadatas: Sequence[dict[str, str | int]]
    write: Sequence[int]
    old: DocumentRow | None
    moved_from: str = ""


def find_untouched(plan: Plan, ledger: Ledger) -> Iterator[Document]:
    """Documents whose times changed and whose content did not; they leave the plan as they come.

    What can't be read stays in the plan, for the update to say so.
    """
    for work in plan.work("changed"):
        try:
            document = plan.source.read(work.entry)
        except DocumentError:
            continue
        old = ledger.document(plan.generation.id, work.doc_key)
        if old and old.content_hash == document.content_hash:
            plan.drop(work)
            yield document


class Reader:
    """Reads documents of a plan.

    Args:
        is_deleted: tells of a document whether the plan deletes it; an added one with its content was moved.
    """

    def __init__(
        self,
        source: FileSource,
        chunker: Chunker,
        ledger: Ledger,
        generation: int,
        is_deleted: Callable[[str], bool],
    ) -> None:
        self._source, self._chunker, self._ledger, self._generation = source, chunker, ledger, generation
        self._is_deleted = is_deleted
        self._moved_from: set[str] = set()

    def read(self, work: Work) -> Reading:
        """One document.

        Raises:
            DocumentError: it can't be read.
        """
        document = self._source.read(work.entry)
        old = None if work.kind == "added" else self._ledger.document(self._generation, work.doc_key)
        rewrite = work.kind in ("all", "stale", "missing")  # the rows in the store can't be trusted
        chunks = self._chunker.split(document.text)
        hashes = [chunk_hash(chunk.text) for chunk in chunks]
        metadatas = [metadata(work.doc_key, number, chunk) for number, chunk in enumerate(chunks)]
        known = old.chunks if old and not rewrite else ()
        write = [n for n in range(len(chunks)) if n >= len(known) or not _same(known[n], hashes[n], metadatas[n])]
        moved_from = self._find_old_place(document) if work.kind == "added" else ""
        kind = "moved" if moved_from else work.kind
        return Reading(work, document, kind, chunks, hashes, metadatas, write, old, moved_from)

    def _find_old_place(self, document: Document) -> str:
        for key in self._ledger.keys_of_content(self._generation, document.content_hash):
            if key not in self._moved_from and self._is_deleted(key):
                self._moved_from.add(key)
                return key
        return ""


def chunk_hash(text: str) -> bytes:
    """16 bytes that stand for a chunk's text."""
    return blake2b(text.encode(), digest_size=16).digest()


def metadata(doc_key: str, number: int, chunk: Chunk) -> dict[str, str | int]:
    """What the store keeps beside a chunk."""
    return {"doc_key": doc_key, "chunk": number, "heading": chunk.heading, "tokens": chunk.tokens}


def metadata_crc(values: dict[str, str | int]) -> int:
    """A checksum of a chunk's metadata."""
    return zlib.crc32("\x00".join(f"{key}={value}" for key, value in values.items()).encode())


def _same(record: ChunkRecord, hash_: bytes, values: dict[str, str | int]) -> bool:
    return record.hash == hash_ and record.metadata_crc == metadata_crc(values)
