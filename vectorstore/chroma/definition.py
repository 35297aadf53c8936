"""What it takes to make a collection anew: its own metadata, the settings of its index, its embedding function."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPACES = ("cosine", "ip", "l2")
INDEX_SETTINGS: Mapping[str, type] = {
    "space": str, "ef_construction": int, "ef_search": int, "max_neighbors": int, "num_threads": int,
    "batch_size": int, "sync_threshold": int, "resize_factor": float,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmbeddingFunction:
    """What Chroma itself embeds texts with, by the name that its clients know; it holds no key."""

    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """A collection without its rows.

    Attributes:
        metadata: its own, the pipeline's mark among them.
        index: of ``INDEX_SETTINGS`` what is set; empty where Chroma takes it from ``hnsw:`` metadata.
        embedding_function: ``None`` if its vectors always come from outside, as Vectorkeep's do.
    """

    metadata: Mapping[str, str | int | float | bool]
    index: Mapping[str, str | int | float]
    embedding_function: EmbeddingFunction | None = None


def definition_of(metadata: Mapping[str, Any] | None, schema: object, configuration: object) -> Definition:
    """What Chroma says of a collection, by its schema or, where it has none, by the older configuration."""
    index = _vector_index(schema)
    if not index:
        older = configuration if isinstance(configuration, Mapping) else {}
        index = {"hnsw": older.get("hnsw"), "embedding_function": older.get("embedding_function")}
    hnsw = index.get("hnsw")
    found = {"space": index.get("space"), **(hnsw if isinstance(hnsw, Mapping) else {})}
    kept = {name: found[name] for name in INDEX_SETTINGS if found.get(name) is not None}
    return Definition(dict(metadata or {}), kept, _function(index.get("embedding_function")))


def read_definition(db: sqlite3.Connection, collection: str) -> Definition:
    """The same from an embedded store's SQLite file; ``collection`` is an id."""
    sql = "SELECT key, str_value, coalesce(int_value, float_value), bool_value FROM collection_metadata"
    metadata: dict[str, Any] = {}
    for key, text, number, truth in db.execute(f"{sql} WHERE collection_id = ?", (collection,)):
        value = number if text is None else text
        metadata[key] = bool(truth) if value is None and truth is not None else value
    sql = "SELECT schema_str, config_json_str FROM collections WHERE id = ?"
    schema, configuration = map(_parsed, db.execute(sql, (collection,)).fetchone())
    return definition_of({key: value for key, value in metadata.items() if value is not None}, schema, configuration)


def function_for_chroma(function: EmbeddingFunction) -> Any:
    """An object from which Chroma takes name and configuration, so that no model or key is needed to write them down.

    Its class is registered under the name when Chroma makes the collection: take it out again.
    """

    class Named:
        @staticmethod
        def name() -> str:
            return function.name

        def get_config(self) -> dict[str, Any]:
            return dict(function.config)

        def is_legacy(self) -> bool:
            return False

        def validate_config(self, _config: Any) -> None:
            """Chroma wrote it once, so it was valid."""

        def default_space(self) -> str:
            return "l2"

        def supported_spaces(self) -> list[str]:
            return list(SPACES)

    return Named()


def _vector_index(schema: object) -> Mapping[str, Any]:
    found = schema
    for step in ("keys", "#embedding", "float_list", "vector_index", "config"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _function(found: object) -> EmbeddingFunction | None:
    if not isinstance(found, Mapping) or found.get("type") != "known" or not isinstance(found.get("name"), str):
        return None
    config = found.get("config")
    return EmbeddingFunction(found["name"], dict(config) if isinstance(config, Mapping) else {})


def _parsed(text: str | None) -> object:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}
