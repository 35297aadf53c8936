"""The file of a history: Parquet, for any tool, with a digest of itself inside.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_DIGEST_KEY = b"vectorkeep.digest"
_DIGEST = re.compile(rb"blake2b:[0-9a-f]{64}")
_NO_DIGEST = b"blake2b:" + b"0" * 64


class Unreadable(Exception):
    """A history that is damaged, or of a newer Vectorkeep; the message says which."""


@dataclass(frozen=True)
class Format:
    """How a history is kept.

    Attributes:
        name: of its files.
        version: another one's files are not read.
        columns: by name their types: ``timestamp[ms, tz=UTC]``, ``string``, ``int64``, ``double``. A column that a file
            lacks is null.
    """

    name: str
    version: int
    columns: Mapping[str, str]

    def schema(self) -> pa.Schema:
        """The columns as Arrow knows them; without the digest."""
        import pyarrow as pa

        types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64()}
        types["timestamp[ms, tz=UTC]"] = pa.timestamp("ms", tz="UTC")
        return pa.schema([(name, types[kind]) for name, kind in self.columns.items()])

    def table_of(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as a table; timestamps in milliseconds, what a row lacks is null.

        Raises:
            Unreadable: a value of the wrong type.
        """
        import pyarrow as pa

        try:
            data = "\n".join(json.dumps(row, allow_nan=False) for row in rows).encode()
            return self._parsed(data) if data else pa.Table.from_batches([], self.schema())
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise Unreadable(f"damaged: {error}") from None

    def _parsed(self, data: bytes) -> pa.Table:
        """Rows in JSON. Not by ``from_pylist``: that imports pandas, which costs as much as a small health check."""
        import pyarrow as pa
        from pyarrow.json import ParseOptions, ReadOptions, read_json

        schema = self.schema()
        plain = pa.schema([(s.name, pa.int64() if pa.types.is_timestamp(s.type) else s.type) for s in schema])
        parse = ParseOptions(explicit_schema=plain, unexpected_field_behavior="error")
        read = ReadOptions(use_threads=False, block_size=max(1 << 20, len(data) + 1))
        return read_json(io.BytesIO(data), read_options=read, parse_options=parse).cast(schema)

    def load(self, path: Path) -> pa.Table:
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
            return self.table_of([])
        if not data or _sealed(data) != data:
            raise Unreadable("damaged, or written by another program")
        try:
            # Not by `read_table`: that, too, imports pandas.
            table = pq.ParquetFile(pa.BufferReader(data)).read()
            if (table.schema.metadata or {}).get(self._version_key) != str(self.version).encode():
                raise Unreadable("of another version of Vectorkeep")
            return self._with_all_columns(table).cast(self.schema())
        except (OSError, ValueError, pa.ArrowException) as error:
            raise Unreadable(f"damaged: {error}") from None

    def _with_all_columns(self, table: pa.Table) -> pa.Table:
        """A table from before some columns were added, with these."""
        import pyarrow as pa

        for spec in self.schema():
            if spec.name not in table.column_names:
                table = table.append_column(spec, pa.nulls(table.num_rows, spec.type))
        if len(table.column_names) > len(self.columns):
            raise Unreadable("of another version of Vectorkeep")
        return table.select(list(self.columns))

    def save(self, path: Path, table: pa.Table) -> None:
        """Write a history, whole or not at all. One writer at a time: the caller holds the lock.

        Raises:
            OSError: it can't be written; the file before it stays.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = pa.BufferOutputStream()
        marked = table.replace_schema_metadata({self._version_key: str(self.version).encode(), _DIGEST_KEY: _NO_DIGEST})
        pq.write_table(marked, buffer, compression="zstd")
        temporary = path.with_suffix(".parquet.new")
        with open(temporary, "wb") as handle:
            handle.write(_sealed(buffer.getvalue().to_pybytes()))
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)

    @property
    def _version_key(self) -> bytes:
        return b"vectorkeep." + self.name.encode()


def _sealed(data: bytes) -> bytes:
    """The file with the digest that it should have: of all its bytes, with zeros for the digest. Empty without one."""
    found = _DIGEST.search(data, max(0, data.rfind(_DIGEST_KEY)))  # in the footer, the last part of the file
    if not found:
        return b""
    start, end = found.span()
    digest = hashlib.blake2b(data[:start] + _NO_DIGEST + data[end:], digest_size=32).hexdigest().encode()
    return data[:start] + b"blake2b:" + digest + data[end:]
