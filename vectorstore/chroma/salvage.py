"""Read vectors out of a segment folder that Chroma can't be trusted with.

Nothing here says that a vector is right: every pair is a candidate, which the caller holds against its
checksum.
"""

from __future__ import annotations

import pickletools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.chroma import files, hnsw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DEFAULT_LINKS = 16
_MAP_NAMES = {"id_to_label", "label_to_id", "id_to_seq_id"}


def salvage(
    store: Path, collection: files.StoredCollection, folder: Path | None = None, scratch: Path | None = None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Candidate vectors of a collection: those in the segment folder, then those in the queue, oldest first.

    `folder` replaces the segment folder, when that was moved away. A pair is an id and a copy of its
    vector, shape (dimension,). An id can come several times, the newest last. What can't be read is left
    out; vectors with NaN or infinity too. Raises nothing for damage in the segment folder, sqlite3.Error
    for damage in SQLite.
    """
    if collection.dimension is None:
        return
    yield from _from_slots(folder or store / collection.vector_segment, collection.dimension)
    yield from _from_queue(store, collection, scratch)


def _from_slots(folder: Path, dimension: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import numpy as np

    ids = {label: identifier for identifier, label in read_labels(folder).items()}
    if not ids or not (folder / "data_level0.bin").is_file():
        return
    for _, block in hnsw.iter_slots(folder, _geometry(folder, dimension)):
        finite = np.isfinite(block["vector"]).all(axis=1)
        for slot, label in enumerate(block["label"].tolist()):
            if label in ids and finite[slot]:
                yield ids[label], np.array(block["vector"][slot])


def _from_queue(
    store: Path, collection: files.StoredCollection, scratch: Path | None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import numpy as np

    with files.open_snapshot(store, scratch) as db:
        try:
            for write in files.iter_queue(db, collection, after=0, vectors=True):
                if write.vector and len(write.vector) == 4 * (collection.dimension or 0):
                    yield write.id, np.frombuffer(write.vector, "<f4")
        except sqlite3.DatabaseError:
            return


def read_labels(folder: Path) -> dict[str, int]:
    """Labels by id, from a whole `index_metadata.pickle` or from what is left of a torn one."""
    try:
        id_map = hnsw.read_id_map(folder)
        return id_map.labels if id_map else {}
    except hnsw.TornFileError:
        return _labels_before_cut((folder / "index_metadata.pickle").read_bytes())


def _labels_before_cut(raw: bytes) -> dict[str, int]:
    """Both maps are written as alternating keys and values: pair them up until the file ends."""
    labels: dict[str, int] = {}
    section, key = "", None
    try:
        for _, value, _ in pickletools.genops(raw):
            if isinstance(value, str) and value in _MAP_NAMES:
                section, key = value, None
            elif section in ("id_to_label", "label_to_id") and isinstance(value, str | int):
                if key is None:
                    key = value
                    continue
                identifier, label = (key, value) if section == "id_to_label" else (value, key)
                if isinstance(identifier, str) and isinstance(label, int):
                    labels[identifier] = label
                key = None
    except Exception:  # the cut: what came before it stands
        pass
    return labels


def _geometry(folder: Path, dimension: int) -> hnsw.Header:
    """The header, or what it must have been; the slot count is the file's, which may be ahead."""
    try:
        header = hnsw.read_header(folder, dimension)
    except (hnsw.TornFileError, OSError):
        vector = 4 * (2 * _DEFAULT_LINKS + 1)
        label = vector + 4 * dimension
        header = hnsw.Header(1, 0, 0, 0, label + 8, label, vector, 0, 0, _DEFAULT_LINKS, 2 * _DEFAULT_LINKS, 16, 0.0, 0)
    return header._replace(slots=hnsw.file_size(folder, "data_level0.bin") // header.slot_size)
