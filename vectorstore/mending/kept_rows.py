"""Rows that a fix deletes are kept first, in Parquet, so that a delete can be taken back by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from vectorstore.chroma.rows import Page


class KeptRows:
    """A Parquet file of deleted rows: collection, id, document, metadata as JSON, vector. Made with the first page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def add(self, collection: str, page: Page) -> None:
        """Write a page of rows onto the disk."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema(
            [("collection", pa.string()), ("id", pa.string()), ("document", pa.string()), ("metadata", pa.string()),
             ("vector", pa.list_(pa.float32()))]
        )  # fmt: skip
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd")
        vectors = [None] * len(page.ids) if page.vectors is None else [
            vector if there else None for vector, there in zip(page.vectors, page.has_vector, strict=True)
        ]  # fmt: skip
        columns = [
            [collection] * len(page.ids), page.ids, page.documents,
            [json.dumps(each, sort_keys=True) for each in page.metadatas], vectors,
        ]  # fmt: skip
        self._writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))

    def close(self) -> None:
        """Finish the file: it is on the disk, under its name, when this returns."""
        if self._writer is None:
            return
        self._writer.close()
        handle = os.open(self._temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self._temporary.replace(self.path)
        self._writer = None

    @property
    def _temporary(self) -> Path:
        return self.path.with_suffix(".new")

    def __enter__(self) -> KeptRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.close()
            self._temporary.unlink(missing_ok=True)
