"""What a portable backup says of its collections, in ``collections.json``, and the shape of their Parquet files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.backups.fields import Fields, parse, to_json
from vectorstore.chroma.definition import INDEX_SETTINGS, SPACES, Definition, EmbeddingFunction
from vectorstore.chroma.store import PIPELINE_KEY
from vectorstore.errors import BadBackup

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
FACTS_FILE = "collections.json"
FOLDER = "collections"
_FILE = re.compile(rf"{FOLDER}/\d{{5,9}}\.parquet", re.ASCII)
_LARGEST = 1 << 20  # dimensions


@dataclass(frozen=True, slots=True)
class PortableCollection:
    """A collection in a portable backup.

    Attributes:
        name: in Chroma.
        file: its Parquet file, relative to the backup's folder.
        rows: in the file.
        without_vector: how many of them have no vector, since the store had none that could be read.
        unread: rows that the store lists and does not give, or whose text is no text.
        left_out: rows that the selection did not allow.
        dimension: floats a vector, ``None`` in a collection that never had a row.
        definition: what it takes to make it anew.
    """

    name: str
    file: str
    rows: int
    without_vector: int
    unread: int
    left_out: int
    dimension: int | None
    definition: Definition

    @property
    def space(self) -> str | None:
        """The distance, ``None`` where Chroma takes it from the metadata or has its own."""
        space = self.definition.index.get("space")
        return None if space is None else str(space)

    @property
    def pipeline(self) -> str | None:
        """What made the vectors; ``None`` where Vectorkeep did not make them."""
        mark = self.definition.metadata.get(PIPELINE_KEY)
        return mark if isinstance(mark, str) else None


def file_name(number: int) -> str:
    """The Parquet file of the collection of that number."""
    return f"{FOLDER}/{number:05d}.parquet"


def write_facts(folder: Path, collections: Sequence[PortableCollection]) -> None:
    """Write ``collections.json``, which must not be there."""
    listed = [_to_dict(each) for each in collections]
    text = to_json({"schema_version": SCHEMA_VERSION, "collections": listed}, indent=2)
    with open(folder / FACTS_FILE, "x", encoding="utf-8", newline="\n") as handle:
        handle.write(text + "\n")


def read_facts(folder: Path) -> list[PortableCollection]:
    """Read ``collections.json`` strictly.

    Raises:
        BadBackup: it is missing, damaged, or of a newer Vectorkeep.
    """
    try:
        data = (folder / FACTS_FILE).read_bytes()
    except OSError as error:
        raise BadBackup(f"{FACTS_FILE} can't be read: {error}") from error
    fields = Fields(parse(data), FACTS_FILE)
    fields.whole("schema_version", low=SCHEMA_VERSION, high=SCHEMA_VERSION)
    found = [_from_fields(Fields(each, FACTS_FILE)) for each in fields.list("collections")]
    fields.done()
    if len({each.name for each in found}) < len(found) or len({each.file for each in found}) < len(found):
        fields.refuse("a collection is there twice")
    return found


def schema(dimension: int | None) -> pa.Schema:
    """The columns; ``metadata`` is JSON text, and null where a row has none."""
    import pyarrow as pa

    vector = pa.list_(pa.float32()) if dimension is None else pa.list_(pa.float32(), dimension)
    columns = [("id", pa.string(), False), ("document", pa.string(), True), ("metadata", pa.string(), True)]
    return pa.schema([pa.field(*column) for column in columns] + [pa.field("vector", vector)])


def _to_dict(each: PortableCollection) -> dict[str, Any]:
    function = each.definition.embedding_function
    return {
        "name": each.name, "file": each.file, "rows": each.rows, "without_vector": each.without_vector,
        "unread": each.unread, "left_out": each.left_out, "dimension": each.dimension,
        "metadata": dict(each.definition.metadata), "index": dict(each.definition.index),
        "embedding_function": function and {"name": function.name, "config": dict(function.config)},
    }  # fmt: skip


def _from_fields(fields: Fields) -> PortableCollection:
    name, file, dimension = fields.text("name"), fields.text("file"), fields.take("dimension")
    if not _FILE.fullmatch(file):
        fields.refuse(f"{file!r} is no name of a collection's file")
    if dimension is not None and (type(dimension) is not int or not 0 < dimension <= _LARGEST):
        fields.refuse(f"'dimension' is {dimension!r}")
    counts = {key: fields.whole(key) for key in ("rows", "without_vector", "unread", "left_out")}
    if counts["without_vector"] > counts["rows"] or (dimension is None and counts["rows"]):
        fields.refuse(f"the counts of {name!r} contradict one another")
    function = fields.take("embedding_function")
    definition = Definition(_metadata(fields), _index(fields), None if function is None else _function(function))
    fields.done()
    return PortableCollection(name=name, file=file, dimension=dimension, definition=definition, **counts)


def _metadata(fields: Fields) -> dict[str, str | int | float | bool]:
    found = fields.take("metadata")
    if not isinstance(found, Mapping) or not all(isinstance(value, str | int | float) for value in found.values()):
        fields.refuse("'metadata' is no object of plain values")
    return dict(found)


def _index(fields: Fields) -> dict[str, str | int | float]:
    found = fields.take("index")
    if not isinstance(found, Mapping) or found.keys() - INDEX_SETTINGS.keys():
        fields.refuse("'index' has settings that are not known")
    for name, value in found.items():
        kind = INDEX_SETTINGS[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            fields.refuse(f"{name!r} is {value!r}")
    if found.get("space", SPACES[0]) not in SPACES:
        fields.refuse(f"'space' is {found['space']!r}")
    return dict(found)


def _function(value: object) -> EmbeddingFunction:
    fields = Fields(value, f"{FACTS_FILE}: 'embedding_function'")
    name, config = fields.text("name"), fields.take("config")
    fields.done()
    if not isinstance(config, Mapping):
        fields.refuse("'config' is no object")
    return EmbeddingFunction(name, dict(config))
