"""LangChain's indexing API: ``index()`` with a SQLite record manager into Chroma, ``cleanup="full"``.

``python -m benchmarks.peers.langchain_index CORPUS STATE DIMENSION``: one run; prints what it did as JSON.

Everything is streamed. ``full`` is the only clean-up that notices deleted files. The splitter counts characters
(2,000, about the 400 tokens of the others): one chunk a file, without paying for a tokenizer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from langchain_chroma import Chroma
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_text_splitters import RecursiveCharacterTextSplitter

from benchmarks import corpus
from benchmarks.vectors import hash_vectors

BATCH = 1_000


class InstantEmbeddings(Embeddings):
    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.texts = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += len(texts)
        return hash_vectors(texts, self.dimension).tolist()

    def embed_query(self, text: str) -> list[float]:
        return hash_vectors([text], self.dimension)[0].tolist()


def chunks(root: str) -> Iterator[Document]:
    splitter = RecursiveCharacterTextSplitter(chunk_size=2_000, chunk_overlap=0)
    for key, text in corpus.documents(root):
        yield from splitter.split_documents([Document(page_content=text, metadata={"source": key})])


def main(root: str, state: str, dimension: int) -> None:
    os.makedirs(state, exist_ok=True)
    embeddings = InstantEmbeddings(dimension)
    store = Chroma("docs", embeddings, persist_directory=os.path.join(state, "chroma"))
    records = SQLRecordManager("chroma/docs", db_url=f"sqlite:///{os.path.abspath(state)}/records.sqlite3")
    records.create_schema()
    result = index(
        chunks(root), records, store, batch_size=BATCH, cleanup="full", source_id_key="source", key_encoder="blake2b"
    )
    print(json.dumps({"embedded": embeddings.texts, **result}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
