"""LlamaIndex's ``IngestionPipeline`` with a document store (``upserts_and_delete``) into Chroma, then ``persist()``.

``python -m benchmarks.peers.llamaindex_pipeline CORPUS STATE DIMENSION``: one run; prints what it did as JSON.

Chosen in its favour: no transformation cache (with it everything costs more), and a first run in batches of 1,000 by
``upserts``, as there is nothing to delete yet: in one go it would need several times the memory, and fail at
Chroma's 5,461 rows a write. A later run must see every document at once, or it would delete those it does not see.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import chromadb
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.chroma import ChromaVectorStore

from benchmarks import corpus
from benchmarks.vectors import hash_vectors

BATCH = 1_000


class InstantEmbedding(BaseEmbedding):
    dimension: int
    texts: int = 0

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.texts += len(texts)
        return hash_vectors(texts, self.dimension).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def documents(root: str) -> Iterator[Document]:
    for key, text in corpus.documents(root):
        yield Document(text=text, id_=key, metadata={"source": key})


def pipeline(state: str, embedding: InstantEmbedding) -> IngestionPipeline:
    client = chromadb.PersistentClient(os.path.join(state, "chroma"))
    return IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=400, chunk_overlap=0), embedding],
        vector_store=ChromaVectorStore(chroma_collection=client.get_or_create_collection("docs")),
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=True,
    )


def first_run(ingestion: IngestionPipeline, items: Iterator[Document]) -> int:
    ingestion.docstore_strategy = DocstoreStrategy.UPSERTS
    nodes = 0
    while batch := list(islice(items, BATCH)):
        nodes += len(ingestion.run(documents=batch))
    return nodes


def main(root: str, state: str, dimension: int) -> None:
    storage = os.path.join(state, "pipeline_storage")
    embedding = InstantEmbedding(dimension=dimension, embed_batch_size=BATCH)
    ingestion = pipeline(state, embedding)
    if os.path.exists(storage):
        ingestion.load(storage)
        nodes: Any = len(ingestion.run(documents=list(documents(root))))
    else:
        nodes = first_run(ingestion, documents(root))
    ingestion.persist(storage)
    print(json.dumps({"embedded": embedding.texts, "nodes": nodes}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
