"""Damage to rows: what other programs do to a store, by SQL or through Chroma."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.chroma_helpers import open_client, unit_vectors
from tests.support.damage.register import Apply, damage, register
from tests.support.damage.scene import API, DIMENSION, GUIDE, NOTES, Scene
from vectorstore.findings import Depth

SEARCH = "self_query recall"
# Rows of the index of docs_guide, of its queue, and of docs_api, which has nothing but its queue.
SOME = "SELECT id FROM embeddings WHERE segment_id = :m AND seq_id % 97 = 5"


def _sql(*statements: str, collection: str = GUIDE) -> Apply:
    def apply(scene: Scene) -> None:
        for statement in statements:
            scene.sql(statement, collection)

    return apply


# -- one side only ---------------------------------------------------------------------------------------------------

register(
    _sql("DELETE FROM embeddings WHERE segment_id = :m AND seq_id % 97 = 5"), "ids_removed",
    "Rows of embeddings are gone, what belongs to them is there", expect="missing",
    also="relations fulltext index_ids text metadata", api="missing", mends=False,
)  # fmt: skip
register(
    _sql(
        f"DELETE FROM embedding_fulltext_search WHERE rowid IN ({SOME})",
        f"DELETE FROM embedding_metadata WHERE id IN ({SOME})",
        "DELETE FROM embeddings WHERE segment_id = :m AND seq_id % 97 = 5",
    ),
    "rows_removed_from_sqlite", "Rows are gone from all of SQLite, their vectors are in the index",
    expect="missing", also="index_ids", api="=",
)  # fmt: skip
register(
    _sql("INSERT INTO embedding_metadata (id, key, string_value) VALUES (9999999, 'heading', 'of nothing')"),
    "metadata_of_nothing", "Metadata of a row that is not there", expect="relations", mends=False,
)  # fmt: skip
register(
    _sql(
        "INSERT INTO embeddings (segment_id, embedding_id, seq_id) VALUES"
        " ('00000000-1111-2222-3333-444444444444', 'a', 1)"
    ),
    "row_of_no_collection", "A row of a segment that is not there", expect="relations", mends=False,
)  # fmt: skip
for _key in ("doc_key", "chunk", "heading", "tokens"):
    register(
        _sql(f"DELETE FROM embedding_metadata WHERE key = '{_key}' AND id IN ({SOME})"), f"{_key}_removed",
        f"Some chunks have no {_key} any more", expect="metadata", api="=",
    )  # fmt: skip
register(
    _sql(f"DELETE FROM embedding_metadata WHERE key != 'chroma:document' AND id IN ({SOME})"), "metadata_removed",
    "Some chunks have no metadata any more", expect="metadata", api="=",
)  # fmt: skip
register(
    _sql(f"DELETE FROM embedding_metadata WHERE key = 'chroma:document' AND id IN ({SOME})"), "texts_removed",
    "Some chunks have no text any more", expect="text", also="fulltext", api="=",
)  # fmt: skip
register(
    _sql(f"DELETE FROM embedding_metadata WHERE id IN ({SOME})"), "metadata_and_texts_removed",
    "Some chunks have neither text nor metadata", expect="text metadata", also="fulltext", api="=",
)  # fmt: skip
register(
    _sql(f"DELETE FROM embedding_fulltext_search WHERE rowid IN ({SOME})"), "fulltext_rows_removed",
    "Some texts are not in the full-text index", expect="fulltext",
)  # fmt: skip
register(
    _sql("INSERT INTO embedding_fulltext_search (rowid, string_value) VALUES (9999999, 'of nothing')"),
    "fulltext_row_of_nothing", "The full-text index has a text that no chunk has", expect="fulltext",
    mends=False,
)  # fmt: skip
register(
    _sql(f"UPDATE embedding_fulltext_search SET string_value = 'something else' WHERE rowid IN ({SOME})"),
    "fulltext_rows_changed", "Some texts of the full-text index are others", expect="fulltext", depth=Depth.DEEP,
)  # fmt: skip
register(
    _sql(
        "UPDATE embedding_metadata SET string_value = upper(string_value) WHERE key = 'chroma:document'"
        f" AND id IN ({SOME})", collection=API,
    ),
    "texts_changed_in_sqlite", "Some texts are in capitals, in one of their two places", expect="text",
    also="fulltext", api="=",
)  # fmt: skip
register(
    _sql(
        "UPDATE embedding_metadata SET string_value = int_value, int_value = NULL WHERE key = 'tokens'"
        f" AND id IN ({SOME})"
    ),
    "tokens_as_text_in_sqlite", "The tokens of some chunks are text", expect="metadata", api="=",
)  # fmt: skip
register(
    _sql(
        "UPDATE embedding_metadata SET string_value = CAST(x'41ff42' AS TEXT) WHERE key = 'heading'"
        f" AND id IN ({SOME})"
    ),
    "headings_not_utf8", "The headings of some chunks are no valid UTF-8", expect="metadata sqlite",
)  # fmt: skip


# -- through Chroma --------------------------------------------------------------------------------------------------


def _through(change: Callable[[Any], None], collection: str = GUIDE) -> Apply:
    def apply(scene: Scene) -> None:
        with scene.chroma(collection) as found:
            change(found)

    return apply


def _ids(collection: Any, count: int = 6) -> list[str]:
    ids = sorted(collection.get(include=[])["ids"])
    return [str(id_) for id_ in ids[:: len(ids) // count][:count]]


def _put(*ids: str, seed: int = 3) -> Callable[[Any], None]:
    def change(collection: Any) -> None:
        metadatas = [{"doc_key": id_.partition("#")[0], "chunk": 0, "heading": "", "tokens": 3} for id_ in ids]
        collection.upsert(
            ids=list(ids), embeddings=unit_vectors(len(ids), DIMENSION, seed), metadatas=metadatas,
            documents=[f"text of {id_}" for id_ in ids],
        )  # fmt: skip

    return change


for _name, _text, _change in (
    ("unknown_document", "Another program wrote chunks of a document that nobody knows", _put("guide/alien.md#00000")),
    ("unknown_id", "Another program wrote rows whose ids are no chunk's", _put("note-17", "note-18")),
    (
        "chunk_beyond", "A chunk has a number that its document does not have",
        _put("guide/page-050.md#00099", "guide/page-051.md#00777"),
    ),
    ("deleted_document", "A chunk of a document that was deleted is back", _put("guide/page-010.md#00000")),
    ("many", "Another program wrote 1,000 rows", _put(*(f"guide/alien.md#{n:05d}" for n in range(1_000)))),
):  # fmt: skip
    # A thousand are more than the guard of deletes lets go without being asked.
    register(_through(_change), f"orphans_{_name}", _text, expect="orphans", api="=", mends=_name != "many")
register(
    _through(_put("guide/page-050.md#00000"), NOTES), "chunk_in_another_collection",
    "A chunk of a document is in a second collection", expect="two_places orphans", api="=",
)  # fmt: skip


def _metadata(values: dict[str, Any]) -> Apply:
    return _through(lambda found: found.update(ids=_ids(found), metadatas=[values] * 6))


for _name, _text, _values in (
    ("tokens_as_text", "The tokens of some chunks are text", {"tokens": "12"}),
    ("chunk_as_float", "The number of some chunks is no whole one", {"chunk": 3.5}),
    ("heading_as_number", "The heading of some chunks is a number", {"heading": 7}),
    ("key_taken_away", "Some chunks have no heading any more", {"heading": None}),
    ("wrong_document", "Some chunks name another document", {"doc_key": "guide/page-099.md"}),
    ("chunk_as_truth", "The number of some chunks is a truth value", {"chunk": True}),
    ("extra_list", "Some chunks have a list that Vectorkeep did not write", {"colours": ["blue", "red"]}),
    ("extra_key", "Some chunks have a key that Vectorkeep did not write", {"colour": "blue"}),
):
    register(_metadata(_values), f"metadata_{_name}", _text, expect="metadata", api="=")


@damage("metadata", api="=")
def metadata_exchanged(scene: Scene) -> None:
    """Two chunks have each other's metadata."""
    with scene.chroma() as found:
        rows = found.get(ids=_ids(found, 2), include=["metadatas"])
        found.update(ids=rows["ids"], metadatas=rows["metadatas"][::-1])


@damage("text", "fulltext", api="=")
def texts_edited(scene: Scene) -> None:
    """Another program wrote other texts, under the old vectors."""
    with scene.chroma() as found:
        rows = found.get(ids=_ids(found), include=["embeddings"])
        found.update(ids=rows["ids"], embeddings=rows["embeddings"], documents=["rewritten by hand"] * 6)


def _vectors(change: Callable[[Any], Any], collection: str = GUIDE) -> Apply:
    def apply(found: Any) -> None:
        rows = found.get(ids=_ids(found), include=["embeddings"])
        found.update(ids=rows["ids"], embeddings=change(np.asarray(rows["embeddings"], np.float32)))

    return _through(apply, collection)


for _name, _text, _to, _expect, _also in (
    ("zeroed", "Another program wrote zero vectors", np.zeros_like, "zero", "vectors norm duplicate_vectors"),
    ("doubled", "Another program wrote vectors twice as long", lambda old: 2 * old, "norm vectors", "norm"),
    ("random", "Another program wrote other unit vectors", lambda old: unit_vectors(*old.shape, 9), "vectors", ""),
    ("exchanged", "Another program has mixed up vectors", lambda old: old[::-1], "vectors", "duplicate_vectors"),
    (
        "copied", "Another program wrote one vector for several texts", lambda old: old[[0] * len(old)],
        "vectors duplicate_vectors", "",
    ),
):  # fmt: skip
    register(
        _vectors(_to), f"vectors_{_name}", _text, expect=_expect, also=f"{_also} vectors index {SEARCH}", api="=",
    )  # fmt: skip
register(
    _vectors(np.zeros_like, API), "vectors_zeroed_in_the_queue", "The same where there is no index yet", expect="zero",
    also=f"vectors norm duplicate_vectors {SEARCH}", api="=",
)  # fmt: skip


@damage("missing", api="=")
def chunks_deleted(scene: Scene) -> None:
    """Another program deleted chunks."""
    with scene.chroma() as found:
        found.delete(ids=_ids(found, 30))


@damage("missing", api="=")
def document_deleted(scene: Scene) -> None:
    """Another program deleted all chunks of a document."""
    with scene.chroma(NOTES) as found:
        found.delete(where={"doc_key": "notes/page-011.md"})


@damage("missing", "leaked_folders", api="=")
def collection_deleted(scene: Scene) -> None:
    """Another program deleted a collection."""
    with open_client(scene.store) as client:
        client.delete_collection(GUIDE)


@damage("missing", "pipeline_mark orphans", api="=", mends=False)
def collection_renamed(scene: Scene) -> None:
    """Another program gave a collection another name."""
    with scene.chroma() as found:
        found.modify(name="something-else")


@damage("dimension", "missing pipeline_mark orphans leaked_folders no_vector", api="=", mends=False)
def collection_made_anew(scene: Scene) -> None:
    """Another program deleted a collection and made one with another dimension under its name."""
    with open_client(scene.store) as client:
        client.delete_collection(NOTES)
        made = client.create_collection(NOTES, embedding_function=None)
        made.upsert(ids=["a", "b"], embeddings=unit_vectors(2, 24), documents=["a", "b"])


@damage("pipeline_mark", api="=", mends=False)
def mark_of_another_pipeline(scene: Scene) -> None:
    """A collection says that another pipeline made its vectors."""
    with scene.chroma() as found:
        found.modify(metadata={"vectorkeep_pipeline": "openai/text-embedding-3-large/16/md1-64-cl100k_base"})


@damage("pipeline_mark", api="=", mends=False)
def mark_taken_away(scene: Scene) -> None:
    """A collection does not say any more what made its vectors."""
    with scene.chroma() as found:
        found.modify(metadata={"owner": "somebody"})


@damage("bloat")
def index_full_of_the_dead(scene: Scene) -> None:
    """Most documents were deleted, by updates: their slots are still in the index."""
    for n in range(14, 90):
        (scene.docs / f"guide/page-{n:03d}.md").unlink()
    scene.workspace.update("--max-deletes", "100")
