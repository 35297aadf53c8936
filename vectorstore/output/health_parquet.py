"""The file of the history of health checks: Parquet, for any tool, with a digest of itself inside.

The digest is looked at before the file is given to a parser: Parquet's own checksums leave out its footer, and a parser
of a damaged one may say anything.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
COLUMNS: Mapping[str, str] = {
    "time": "timestamp[ms, tz=UTC]", "run": "string", "depth": "string", "kind": "string", "severity": "string",
    "check": "string", "collection": "string", "count": "int64", "total": "int64", "value": "double",
    "documents": "int64", "chunks": "int64", "stored": "int64", "coverage": "double", "seconds": "double",
    "passed": "int64", "info": "int64", "warn": "int64", "fail": "int64",
}  # fmt: skip
_VERSION_KEY, _DIGEST_KEY = b"vectorkeep.health_history", b"vectorkeep.digest"
_DIGEST = re.compile(rb"blake2b:[0-9a-f]{64}")
_NO_DIGEST = b"blake2b:" + b"0" * 64


class Unreadable(Exception):
    """A history that is damaged, or of a newer Vectorkeep; the message says which."""


def schema() -> pa.Schema:
    """The columns as Arrow knows them; without the digest."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64()}
    types["timestamp[ms, tz=UTC]"] = pa.timestamp("ms", tz="UTC")
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; ``time`` in milliseconds, what a row lacks is null.

    Raises:
        Unreadable: a value of the wrong type.
    """
    import pyarrow as pa

    try:
        data = "\n".join(json.dumps(row, allow_nan=False) for row in rows).encode()
        return _parsed(data) if data else pa.Table.from_batches([], schema())
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"damaged: {error}") from None


def _parsed(data: bytes) -> pa.Table:
    """Rows in JSON. Not by ``from_pylist``: that imports pandas, which costs as much as the check of a small store."""
    import pyarrow as pa
    from pyarrow.json import ParseOptions, ReadOptions, read_json

    plain = pa.schema([(spec.name, pa.int64() if spec.name == "time" else spec.type) for spec in schema()])
    parse = ParseOptions(explicit_schema=plain, unexpected_field_behavior="error")
    read = ReadOptions(use_threads=False, block_size=max(1 << 20, len(data) + 1))
    return read_json(io.BytesIO(data), read_options=read, parse_options=parse).cast(schema())


def load(path: Path) -> pa.Table:
    """The history in a file; no rows if there is none.

    Raises:
        Unreadable: it is not as it was written, or a newer Vectorkeep wrote it.
        OSError: it can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return table_of([])
    if not data or _sealed(data) != data:
        raise Unreadable("damaged, or written by another program")
    try:
        # Not by `read_table`: that, too, imports pandas.
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        if (table.schema.metadata or {}).get(_VERSION_KEY) != str(VERSION).encode():
            raise Unreadable("of another version of Vectorkeep")
        return table.cast(schema())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Unreadable(f"damaged: {error}") from None


def save(path: Path, table: pa.Table) -> None:
    """Write a history, whole or not at all. One writer at a time: the caller holds the lock.

    Raises:
        OSError: it can't be written; the file before it stays.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    marked = table.replace_schema_metadata({_VERSION_KEY: str(VERSION).encode(), _DIGEST_KEY: _NO_DIGEST})
    pq.write_table(marked, buffer, compression="zstd")
    temporary = path.with_suffix(".parquet.new")
    with open(temporary, "wb") as handle:
        handle.write(_sealed(buffer.getvalue().to_pybytes()))
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def _sealed(data: bytes) -> bytes:
    """The file with the digest that it should have: of all its bytes, with zeros for the digest. Empty without one."""
    found = _DIGEST.search(data, max(0, data.rfind(_DIGEST_KEY)))  # in the footer, the last part of the file
    if not found:
        return b""
    start, end = found.span()
    digest = hashlib.blake2b(data[:start] + _NO_DIGEST + data[end:], digest_size=32).hexdigest().encode()
    return data[:start] + b"blake2b:" + digest + data[end:]
