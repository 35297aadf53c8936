"""The floors: the least that any tool must do for the same result. Each is one fresh process.

``scan ROOT``             list every folder, stat every file
``read ROOT``             the same, and read and hash every file
``prepare ROOT OUT DIM``  (not measured) write the rows of a corpus and their vectors to a file, for the two below;
                          ``--mutation FILE`` takes the changed and added documents only, and the ids to delete
``upsert ROWS STORE``     a cold run: the prepared rows into a default-configured Chroma
``write ROWS STORE``      an update: the prepared upserts and deletes into an existing Chroma
``ids STORE``             ids and two metadata keys of every row, straight from Chroma's SQLite file
``get STORE``             everything of every row, in pages through Chroma; it writes into the store that it opens
``labels STORE``          Chroma's id maps, all in memory
``integrity STORE``       SQLite's integrity_check; prints the CPU seconds of it alone
``pack WORKSPACE OUT``    what a full backup holds, as a tar in one gzip stream of ISA-L's level 1
``unpack ARCHIVE OUT``    a backup's archive unpacked by tarfile and ISA-L into a new folder

With ``hashed`` after them the last two also compute the digests that a backup records: MD5 and SHA-256 of the archive
(SHA-256 only when it is unpacked) and SHA-256 of each file in it.

The two Chroma floors that write compute nothing: ids, texts, metadata and vectors are read from a prepared file, a
batch at a time, so neither chunking, hashing nor embedding is in them. Nothing is imported that a floor does not need.
"""

from __future__ import annotations

import os
import sys
from typing import Any

BATCH = 2_000
BUFFER = 1 << 17  # bytes at a time into and out of an archive
COLLECTION = "docs"


def scan(root: str) -> int:
    """How many files there are; every one is looked at."""
    files = 0
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                files += scan(entry.path)
            else:
                entry.stat(follow_symlinks=False)
                files += 1
    return files


def read(root: str) -> int:
    """How many files there are; every one is looked at, read and hashed."""
    from hashlib import blake2b

    files = 0
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                files += read(entry.path)
                continue
            entry.stat(follow_symlinks=False)
            with open(entry.path, "rb") as file:
                blake2b(file.read(), digest_size=16).digest()
            files += 1
    return files


def prepare(root: str, out: str, dimension: int, mutation: str | None = None) -> int:
    """Write ``rows.jsonl``, ``vectors.f32`` and ``deletes.json`` into ``out``; how many rows."""
    import json

    from benchmarks import corpus
    from benchmarks.vectors import hash_vectors

    os.makedirs(out)
    touched: dict[str, list[str]] = {"deleted": []}
    documents: Any = corpus.documents(root)
    if mutation:
        with open(mutation, encoding="utf-8") as file:
            touched = json.load(file)
        documents = ((key, corpus.read(root, key)) for key in (*touched["changed"], *touched["added"]))
    with open(os.path.join(out, "deletes.json"), "w", encoding="utf-8") as file:
        json.dump([chunk_id(key) for key in touched["deleted"]], file)
    rows = 0
    with (
        open(os.path.join(out, "rows.jsonl"), "w", encoding="utf-8") as lines,
        open(os.path.join(out, "vectors.f32"), "wb") as vectors,
    ):
        for batch in _batches(documents, BATCH):
            lines.writelines(json.dumps(row(key, text)) + "\n" for key, text in batch)
            vectors.write(hash_vectors([text for _, text in batch], dimension).tobytes())
            rows += len(batch)
    with open(os.path.join(out, "dimension"), "w", encoding="utf-8") as file:
        file.write(str(dimension))
    return rows


def chunk_id(key: str) -> str:
    """The id of a document's only chunk."""
    return f"{key}#00000"


def row(key: str, text: str) -> tuple[str, str, dict[str, Any]]:
    """A row as Vectorkeep writes it: its id, its text, its metadata (the run compares their number with ours)."""
    metadata = {"doc_key": key, "chunk": 0, "heading": text.partition("\n")[0].strip("# "), "tokens": len(text) // 4}
    return chunk_id(key), text, metadata


def upsert(rows: str, store: str) -> int:
    """Prepared rows into a new store; how many it holds then."""
    collection = _collection(store)
    _upsert_rows(collection, rows)
    return int(collection.count())


def write(rows: str, store: str) -> int:
    """Prepared upserts and deletes into an existing store; how many rows it holds then."""
    import json

    collection = _collection(store)
    _upsert_rows(collection, rows)
    with open(os.path.join(rows, "deletes.json"), encoding="utf-8") as file:
        deletes = json.load(file)
    if deletes:
        collection.delete(ids=deletes)
    return int(collection.count())


def ids(store: str) -> int:
    """How many rows there are; of every one the id and two metadata keys are read."""
    sql = """
        SELECT e.embedding_id, k.string_value, n.int_value FROM embeddings e
        JOIN embedding_metadata k ON k.id = e.id AND k.key = 'doc_key'
        JOIN embedding_metadata n ON n.id = e.id AND n.key = 'chunk'
        """
    return sum(1 for _ in _sqlite(store).execute(sql))


def get(store: str) -> int:
    """How many rows there are; of every one the vector, the text and the metadata are read."""
    collection = _collection(store)
    rows = 0
    while page := collection.get(limit=BATCH, offset=rows, include=["embeddings", "documents", "metadatas"])["ids"]:
        rows += len(page)
    return rows


def labels(store: str) -> int:
    """How many vectors the indexes hold."""
    import pickle
    from pathlib import Path

    maps = [pickle.loads(path.read_bytes()) for path in Path(store).glob("*/index_metadata.pickle")]
    return sum(len(each["id_to_label"]) for each in maps)


def integrity(store: str) -> float:
    """CPU seconds that SQLite takes to check its file."""
    import time

    base = _sqlite(store)
    start = time.process_time()
    said = base.execute("PRAGMA integrity_check").fetchall()
    assert said == [("ok",)], said
    return time.process_time() - start


def pack(workspace: str, out: str, hashed: str = "") -> int:
    """How many bytes the archive has; nothing is brought to the disk."""
    import tarfile

    from isal import igzip

    with (
        igzip.open(out, "wb", compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w", copybufsize=BUFFER) as archive,
    ):
        for name in ("chroma", ".hashes/ledger.sqlite3", "vectorkeep.toml"):
            archive.add(os.path.join(workspace, name), name)
        files = [os.path.join(workspace, member.name) for member in archive.getmembers() if member.isfile()]
    if hashed:
        _hash([out], "md5", "sha256")
        _hash(files, "sha256")
    return os.path.getsize(out)


def unpack(archive: str, out: str, hashed: str = "") -> int:
    """How many files were unpacked; nothing is compared."""
    import tarfile

    from isal import igzip

    # As a stream: tarfile would otherwise unpack everything twice, the first time for a list of its members.
    with (
        igzip.open(archive, "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER, copybufsize=BUFFER) as source,
    ):
        source.extractall(out, filter="data")
        files = [os.path.join(out, member.name) for member in source.getmembers() if member.isfile()]
    if hashed:
        _hash([archive, *files], "sha256")
    return len(files)


def _hash(paths: list[str], *names: str) -> None:
    import hashlib

    for path in paths:
        for name in names:
            with open(path, "rb") as file:
                hashlib.file_digest(file, name)


def _sqlite(store: str) -> Any:
    import sqlite3

    return sqlite3.connect(f"file:{os.path.abspath(store)}/chroma.sqlite3?mode=ro", uri=True)


def _collection(store: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(store, Settings(anonymized_telemetry=False))
    # The space that Vectorkeep uses, so that the index works as hard.
    return client.get_or_create_collection(COLLECTION, configuration={"hnsw": {"space": "ip"}}, embedding_function=None)


def _upsert_rows(collection: Any, rows: str) -> None:
    import json

    import numpy as np

    with open(os.path.join(rows, "dimension"), encoding="utf-8") as file:
        dimension = int(file.read())
    with (
        open(os.path.join(rows, "rows.jsonl"), encoding="utf-8") as lines,
        open(os.path.join(rows, "vectors.f32"), "rb") as vectors,
    ):
        for batch in _batches(map(json.loads, lines), BATCH):
            ids, texts, metadatas = zip(*batch, strict=True)
            # Read, not mapped: mapped pages would count as this process's memory.
            embeddings = np.fromfile(vectors, np.float32, len(batch) * dimension).reshape(len(batch), dimension)
            collection.upsert(ids=list(ids), documents=list(texts), metadatas=list(metadatas), embeddings=embeddings)


def _batches(items: Any, size: int) -> Any:
    from itertools import islice

    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def main(argv: list[str]) -> None:
    verb, rest = argv[0], argv[1:]
    if verb == "prepare":
        mutation = rest[rest.index("--mutation") + 1] if "--mutation" in rest else None
        print(prepare(rest[0], rest[1], int(rest[2]), mutation))
    else:
        floors: dict[str, Any] = {
            "scan": scan, "read": read, "upsert": upsert, "write": write, "ids": ids, "get": get, "labels": labels,
            "integrity": integrity, "pack": pack, "unpack": unpack,
        }  # fmt: skip
        print(floors[verb](*rest))


if __name__ == "__main__":
    main(sys.argv[1:])
