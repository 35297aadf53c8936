"""The Chroma store, embedded or behind a server: beside `probe_child` the one module that imports chromadb.

Every write is split to what Chroma takes at once and is read back. Nothing here decides what to write.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from vectorstore.chroma.definition import Definition, definition_of, function_for_chroma
from vectorstore.chroma.files import list_collections, present_ids, read_layout
from vectorstore.chroma.fingerprint import SQLITE_NAME
from vectorstore.chroma.rows import Page, StoredCollection
from vectorstore.errors import Damaged, PipelineMismatch, Refused, StoreUnreachable
from vectorstore.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIPELINE_KEY = "vectorkeep_pipeline"  # in a collection's metadata: what made its vectors
SERVER_BATCH = 1000  # 1,536-dimension vectors as JSON come to about 30 kB each; a server takes 40 MB a request
ID_PAGE = 10_000
URI_KEY = "chroma:uri"  # Chroma keeps a row's URI among its metadata, and hides it from those who ask for these
OPEN_FILES = 1024  # measured: enough for several hundred collections


class Rows(NamedTuple):
    """Rows to write: equal lengths; ``vectors`` is float32 of shape ``(len(ids), dimension)``.

    ``None`` stands for no document, no metadata (Chroma refuses empty ones) and no URI.
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    documents: Sequence[str | None]
    metadatas: Sequence[Mapping[str, Any] | None]
    uris: Sequence[str | None] | None = None


class Hit(NamedTuple):
    """A search result; ``distance`` is Chroma's, smaller is nearer."""

    id: str
    distance: float
    document: str
    metadata: Mapping[str, Any]
    collection: str


class Store:
    """An open store. One writer at a time, which the writer's lock sees to.

    Raises:
        StoreUnreachable: a server that does not answer.
        Damaged: Chroma can't open the files.
    """

    def __init__(self, settings: Settings) -> None:
        from chromadb.config import Settings as ChromaSettings

        self._settings = settings
        options = ChromaSettings(anonymized_telemetry=False)
        if settings.chroma_url:
            self._client = _connect(settings.chroma_url, options)
        else:
            path = settings.path(settings.chroma_path)
            path.mkdir(parents=True, exist_ok=True)
            allow_open_files()
            self._client = _open_embedded(path, options)
        batch = min(settings.store_batch, SERVER_BATCH) if settings.chroma_url else settings.store_batch
        self.batch = min(batch, self._client.get_max_batch_size())
        self._collections: dict[str, Any] = {}
        self._ids = None if settings.chroma_url else _StoredIds(path)

    def prepare(self, name: str, pipeline: str) -> None:
        """Make the collection, or see that it holds this pipeline's vectors.

        Raises:
            PipelineMismatch: it holds another's.
            Refused: it is there and Vectorkeep did not make it.
        """
        if name in self._collections:
            return
        from chromadb.errors import NotFoundError

        try:
            found = self._client.get_collection(name, embedding_function=None)
        except NotFoundError:
            self._collections[name] = self._client.create_collection(
                name,
                metadata={PIPELINE_KEY: pipeline},
                configuration={"hnsw": {"space": self._settings.space}},
                embedding_function=None,
            )
            return
        refuse_others(name, (found.metadata or {}).get(PIPELINE_KEY), pipeline)
        self._collections[name] = found

    def create(self, name: str, definition: Definition) -> None:
        """Make a collection; its name must be free.

        Raises:
            Refused: this Chroma gives the index other settings than the definition's.
        """
        from chromadb.utils.embedding_functions import known_embedding_functions as known

        configuration: dict[str, Any] = {"hnsw": dict(definition.index)} if definition.index else {}
        if definition.embedding_function:
            configuration["embedding_function"] = function_for_chroma(definition.embedding_function)
        registered = dict(known)
        try:
            self._client.create_collection(
                name, metadata=dict(definition.metadata) or None, configuration=configuration, embedding_function=None
            )
        finally:
            known.clear()
            known.update(registered)
        made = self.definition(name).index
        other = {key: value for key, value in definition.index.items() if made.get(key, value) != value}
        if other or "space" not in made:
            self.drop(name)
            raise Refused(f"this Chroma can't make {name!r} as it was: it ignores {other or 'its settings'}")

    def definition(self, name: str) -> Definition:
        """What it takes to make a collection anew."""
        model = self._collection(name)._model  # the client gives the settings as written by no public name
        return definition_of(model.metadata, model.serialized_schema, model.configuration_json)

    def drop(self, name: str) -> None:
        """Delete a collection with all its rows; one that is not there is no error. Its index's folder may stay."""
        from chromadb.errors import NotFoundError

        self._collections.pop(name, None)
        with contextlib.suppress(NotFoundError):
            self._client.delete_collection(name)

    def upsert(self, name: str, rows: Rows) -> None:
        """Write chunks and read back that they are there.

        Raises:
            Damaged: Chroma took them and does not have them.
        """
        collection = self._collection(name)
        for start in range(0, len(rows.ids), self.batch):
            part = slice(start, start + self.batch)
            ids = rows.ids[part]
            uris = rows.uris and rows.uris[part]
            collection.upsert(
                ids=ids, embeddings=rows.vectors[part], documents=rows.documents[part], metadatas=rows.metadatas[part],
                uris=uris if uris and any(uris) else None,
            )  # fmt: skip
            lacking = set(ids) - self._present(collection, ids)
            if lacking:
                raise Damaged(
                    f"Chroma took {len(ids)} chunks of {name!r} and lacks {len(lacking)}, {min(lacking)!r} among them",
                    "see that the disk is not full, then run again: nothing was recorded as written",
                )

    def upsert_vectors(self, name: str, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Write vectors of chunks whose documents and metadata are there already."""
        collection = self._collection(name)
        for start in range(0, len(ids), self.batch):
            part = slice(start, start + self.batch)
            collection.upsert(ids=list(ids[part]), embeddings=vectors[part])

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete chunks and read back that they are gone. Ids that are not there are no error."""
        collection = self._collection(name, make=False)
        if collection is None:
            return
        for start in range(0, len(ids), self.batch):
            part = list(ids[start : start + self.batch])
            present = self._present(collection, part)
            if not present:
                continue
            collection.delete(ids=sorted(present))
            if left := self._present(collection, part):
                raise Damaged(f"Chroma did not delete {len(left)} chunks of {name!r}: {min(left)!r}", "run again")

    def drop_metadata(self, name: str, ids: Sequence[str], keys: Sequence[Sequence[str]]) -> None:
        """Take metadata keys off chunks, each its own; a plain upsert would merge and keep them."""
        collection = self._collection(name)
        for start in range(0, len(ids), self.batch):
            part = slice(start, start + self.batch)
            collection.update(ids=list(ids[part]), metadatas=[dict.fromkeys(some) for some in keys[part]])

    def delete_ids(self, name: str, ids: Sequence[str]) -> None:
        """Delete ids that only the index knows, so that there is nothing to read back."""
        collection = self._collection(name)
        for start in range(0, len(ids), self.batch):
            collection.delete(ids=list(ids[start : start + self.batch]))

    def counts(self) -> dict[str, int]:
        """Chunks by collection name."""
        return {collection.name: collection.count() for collection in self._client.list_collections()}

    def pipelines(self) -> dict[str, str | None]:
        """What made the vectors of each collection, by name; ``None`` where Vectorkeep did not make it."""
        return {each.name: (each.metadata or {}).get(PIPELINE_KEY) for each in self._client.list_collections()}

    def describe(self) -> list[StoredCollection]:
        """All collections, by name."""
        found = []
        for each in sorted(self._client.list_collections(), key=lambda each: str(each.name)):
            model = each._model  # the client gives a dimension by no public name
            space = definition_of(model.metadata, model.serialized_schema, model.configuration_json).index.get("space")
            made_by = (each.metadata or {}).get(PIPELINE_KEY)
            found.append(
                StoredCollection(
                    str(each.id),
                    each.name,
                    made_by,
                    model.dimension,
                    None if space is None else str(space),
                    each.count(),
                )
            )
        return found

    def present(self, name: str, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` a collection holds."""
        collection = self._collection(name)
        return {
            id_
            for start in range(0, len(ids), self.batch)
            for id_ in collection.get(ids=list(ids[start : start + self.batch]), include=[])["ids"]
        }

    def read(self, name: str, ids: Sequence[str], *, vectors: bool = True) -> Page:
        """The rows of these ids, ``rows.PAGE`` at most; ids that are not there are left out.

        Raises:
            Damaged: Chroma can't read them.
            StoreUnreachable: the server does not answer any more.
        """
        import numpy as np

        with self._reading(name):
            collection = self._collection(name)
            answer = collection.get(ids=list(ids), include=["documents", "metadatas", "uris"])
            found = answer["ids"]
            known = self._readable_vectors(collection, found) if vectors else {}
        metadatas = [dict(each or {}) for each in answer["metadatas"]]
        for metadata, uri in zip(metadatas, answer["uris"] or (), strict=False):
            if uri is not None:
                metadata[URI_KEY] = uri
        has = np.fromiter((id_ in known for id_ in found), np.bool_, len(found))
        embeddings = None
        if vectors and found:
            embeddings = np.zeros((len(found), collection._model.dimension), np.float32)
            if known:
                embeddings[has] = np.stack([known[id_] for id_ in found if id_ in known])
        return Page(found, list(answer["documents"]), metadatas, embeddings, has)

    def _readable_vectors(self, collection: Any, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Vectors by id. Chroma fails a whole call for one id without a vector: halve until that one is alone."""
        from chromadb.errors import ChromaError

        try:
            answer = collection.get(ids=list(ids), include=["embeddings"]) if ids else {"ids": [], "embeddings": []}
            return dict(zip(answer["ids"], answer["embeddings"], strict=True))
        except ChromaError:
            if len(ids) == 1:
                return {}
        half = len(ids) // 2
        return self._readable_vectors(collection, ids[:half]) | self._readable_vectors(collection, ids[half:])

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        from chromadb.errors import ChromaError

        try:
            yield
        except Exception as error:
            if self._settings.chroma_url and not isinstance(error, ChromaError):
                raise _unreachable(self._settings.chroma_url, error) from error
            raise Damaged(f"Chroma can't read rows of {name!r}: {error}", "restore it from a backup") from error

    def rename(self, name: str, new_name: str) -> None:
        """Give a collection another name, which must be free."""
        self._client.get_collection(name, embedding_function=None).modify(name=new_name)
        self._collections.pop(name, None)

    def ids(self, name: str) -> Iterator[str]:
        """Every id of a collection, a page at a time. Only while nobody writes."""
        collection = self._collection(name, make=False)
        offset = 0
        while collection is not None:
            page = collection.get(limit=ID_PAGE, offset=offset, include=[])["ids"]
            yield from page
            if len(page) < ID_PAGE:
                return
            offset += ID_PAGE

    def query(self, name: str, vector: NDArray[np.float32], limit: int) -> list[Hit]:
        """The ``limit`` nearest chunks to a vector of shape ``(dimension,)``."""
        collection = self._collection(name, make=False)
        if collection is None or not collection.count():
            return []
        answer = collection.query(
            query_embeddings=[vector],
            n_results=min(limit, collection.count()),
            include=["documents", "metadatas", "distances"],
        )
        columns = (answer[key][0] for key in ("ids", "distances", "documents", "metadatas"))
        return [Hit(id_, distance, text, meta or {}, name) for id_, distance, text, meta in zip(*columns, strict=True)]

    def close(self) -> None:
        """Let go of the files, so that they can be read, copied or swapped."""
        self._collections.clear()
        self._client.close()
        if self._ids:
            self._ids.close()

    def _present(self, collection: Any, ids: list[str]) -> set[str]:
        found = self._ids.present(str(collection.id), ids) if self._ids else None
        return set(collection.get(ids=ids, include=[])["ids"]) if found is None else found

    def _collection(self, name: str, *, make: bool = True) -> Any:
        if name not in self._collections:
            from chromadb.errors import NotFoundError

            try:
                self._collections[name] = self._client.get_collection(name, embedding_function=None)
            except NotFoundError:
                if make:
                    raise
                return None
        return self._collections[name]


class _StoredIds:
    """Reads ids back from the embedded store's SQLite file, by a connection of its own.

    Not by Chroma's ``get``: before the first index write that makes it load a second index, and the next upsert then
    takes ten times as long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._segments: dict[str, str] = {}

    def present(self, collection_id: str, ids: list[str]) -> set[str] | None:
        """Which of ``ids`` are committed; ``None`` where the file's layout is not known."""
        if self._db is None:
            self._db = sqlite3.connect(f"{(self._path / SQLITE_NAME).as_uri()}?mode=ro", uri=True, timeout=60)
        if collection_id not in self._segments:
            layout = read_layout(self._db)
            if not layout.known or layout.missing:
                return None
            self._segments = {each.id: each.metadata_segment for each in list_collections(self._db, self._path)}
        return present_ids(self._db, self._segments[collection_id], ids)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


def refuse_others(name: str, made_by: str | None, pipeline: str) -> None:
    """See that a collection that is there may be written to: ``made_by`` is its pipeline, ``None`` if it is not ours.

    Raises:
        PipelineMismatch, Refused: see ``Store.prepare``.
    """
    if made_by is None:
        raise Refused(
            f"the collection {name!r} is there and Vectorkeep did not make it",
            "give `collection` another name in vectorkeep.toml",
        )
    if made_by != pipeline:
        raise PipelineMismatch(
            f"the collection {name!r} holds vectors of {made_by}; the settings ask for {pipeline}",
            "put the old settings back, or give `collection` a new name",
        )


def chunk_id(doc_key: str, number: int) -> str:
    """A chunk's id in the store."""
    return f"{doc_key}#{number:05d}"


def chunk_ids(doc_key: str, numbers: Iterable[int]) -> list[str]:
    """The ids of some of a document's chunks."""
    return [chunk_id(doc_key, number) for number in numbers]


def allow_open_files() -> None:
    """Raise this process's limit where it is low: with too few, Chroma fails a write, or to open an index.

    It keeps the index files of a fifth as many collections open as a process may have open files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _connect(url: str, options: Any) -> Any:
    import chromadb

    parts = urlsplit(url)
    try:
        return chromadb.HttpClient(
            host=parts.hostname or "localhost",
            port=parts.port or (443 if parts.scheme == "https" else 8000),
            ssl=parts.scheme == "https",
            settings=options,
        )
    except Exception as error:
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> StoreUnreachable:
    return StoreUnreachable(
        f"the Chroma server at {url} does not answer: {error}",
        "start it (`chroma run --path ...`), or correct chroma_url",
    )


def _open_embedded(path: Path, options: Any) -> Any:
    import chromadb

    try:
        return chromadb.PersistentClient(str(path), settings=options)
    except Exception as error:
        raise Damaged(f"Chroma can't open the store {path}: {error}", "restore the newest backup") from error
