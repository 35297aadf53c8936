"""Chroma stores as other tools write them, row for row: LangChain, LlamaIndex, and a script of somebody's own."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support.chroma_helpers import open_client
from vectorstore.embedders.hash import hash_vectors

Embed = Callable[[list[str]], np.ndarray]


class Row(NamedTuple):
    id: str
    text: str | None
    metadata: dict[str, Any] | None
    embedded: str  # what the vector is made of


def hash_embed(dimension: int) -> Embed:
    """The vectors of the ``hash`` embedder."""
    return lambda texts: hash_vectors(texts, dimension)


def put(store: Path | str, name: str, rows: Sequence[Row], embed: Embed, *, batch: int = 500, **hnsw: Any) -> None:
    """Rows into a collection of the store, which may be a folder or a client; in Chroma's default space unless told."""
    if isinstance(store, Path):
        with open_client(store) as client:
            _put(client, name, rows, embed, batch, hnsw)
    else:
        import chromadb

        host, _, port = store.removeprefix("http://").partition(":")
        _put(chromadb.HttpClient(host=host, port=int(port)), name, rows, embed, batch, hnsw)


def _put(client: Any, name: str, rows: Sequence[Row], embed: Embed, batch: int, hnsw: dict[str, Any]) -> None:
    collection = client.get_or_create_collection(name, configuration={"hnsw": hnsw} if hnsw else None)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        collection.upsert(
            ids=[row.id for row in part], embeddings=embed([row.embedded for row in part]),
            documents=[row.text for row in part], metadatas=[row.metadata for row in part],
        )  # fmt: skip


def documents(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(root.rglob("*.md")):
        yield path, path.read_text()


def cut(text: str, size: int = 260) -> list[tuple[int, str]]:
    """Paragraphs, joined up to ``size`` characters and stripped; a short last one is repeated: (start, text)."""
    paragraphs, chunks, current = text.split("\n\n"), [], []
    for paragraph in paragraphs:
        if current and len("\n\n".join([*current, paragraph])) > size:
            chunks.append("\n\n".join(current).strip())
            current = current[-1:] if len(current) > 1 and len(current[-1]) < size // 4 else []
        current.append(paragraph)
    chunks.append("\n\n".join(current).strip())
    starts, at = [], 0
    for chunk in chunks:
        at = text.index(chunk, at)
        starts.append(at)
    return [(start, chunk) for start, chunk in zip(starts, chunks, strict=True) if chunk]


def langchain_rows(root: Path, source: Callable[[Path], str] = str, *, start_index: bool = False) -> list[Row]:
    """What ``Chroma.from_documents(splitter.split_documents(DirectoryLoader(...).load()))`` stores."""
    rows = []
    for path, text in documents(root):
        for start, chunk in cut(text):
            metadata: dict[str, Any] = {"source": source(path)}
            if start_index:
                metadata["start_index"] = start
            rows.append(
                Row(str(uuid.UUID(int=random.Random(f"{path}{start}").getrandbits(128))), chunk, metadata, chunk)
            )
    return rows


_HIDDEN = ["file_name", "file_type", "file_size", "creation_date", "last_modified_date", "last_accessed_date"]


def llamaindex_rows(root: Path, *, hide_path: bool = False) -> list[Row]:
    """What ``VectorStoreIndex.from_documents(SimpleDirectoryReader(...).load_data())`` stores."""
    rows = []
    for path, text in documents(root):
        about = {
            "file_path": str(path.absolute()), "file_name": path.name, "file_type": "text/markdown",
            "file_size": path.stat().st_size, "creation_date": "2025-01-02", "last_modified_date": "2025-01-02",
        }  # fmt: skip
        hidden = [*_HIDDEN, "file_path"] if hide_path else _HIDDEN
        document = str(uuid.uuid5(uuid.NAMESPACE_URL, str(path)))
        for start, chunk in cut(text):
            id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{path}{start}"))
            source = {"node_id": document, "node_type": "4", "metadata": about, "class_name": "RelatedNodeInfo"}
            node = {
                "id_": id_, "embedding": None, "metadata": about, "excluded_embed_metadata_keys": hidden,
                "excluded_llm_metadata_keys": hidden, "relationships": {"1": source},
                "metadata_template": "{key}: {value}", "metadata_separator": "\n", "text": "",
                "mimetype": "text/plain", "start_char_idx": start, "end_char_idx": start + len(chunk),
                "metadata_seperator": "\n", "text_template": "{metadata_str}\n\n{content}", "class_name": "TextNode",
            }  # fmt: skip
            metadata = {
                **about, "_node_content": json.dumps(node), "_node_type": "TextNode", "document_id": document,
                "doc_id": document, "ref_doc_id": document,
            }  # fmt: skip
            embedded = chunk if hide_path else f"file_path: {about['file_path']}\n\n{chunk}"
            rows.append(Row(id_, chunk, metadata, embedded))
    return rows


def script_rows(root: Path, **more: Any) -> list[Row]:
    """What a home-made script might store: ids that count, the path as the script saw it, in no good order."""
    rows = []
    for path, text in documents(root):
        for number, (_, chunk) in enumerate(cut(text)):
            key = path.relative_to(root).as_posix()
            metadata = {"path": f"./{root.name}/{key}", "chunk_index": str(number), "team": "docs", **more}
            rows.append(Row(f"{key}#{number}", chunk, metadata, chunk))
    random.Random(7).shuffle(rows)
    return rows
