"""Reads vectors from the files: from the slots of an index or, where there is a newer one, from the queue."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.chroma import files, hnsw
from vectorstore.chroma.vector_facts import SlotFacts, VectorFacts, facts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLOTS = "data_level0.bin"


class FileVectors:
    """The vectors of one collection by id.

    Args:
        folder: the index's.
        db: a connection of ``files.open_snapshot``.
        queue: the collection's writes that the index has not taken in.
        dimension: floats a vector.
        facts: what is known of the slots already.

    Raises:
        TornFileError: from here and every method, when a file can't be what Chroma wrote.
    """

    def __init__(
        self,
        folder: Path,
        db: sqlite3.Connection,
        queue: Sequence[files.QueuedWrite],
        dimension: int,
        facts: SlotFacts | None = None,
    ) -> None:
        self._db, self._dimension = db, dimension
        self._labels = _labels_by_id(folder) if facts is None or facts.ids is None else facts.ids
        self._queued: dict[str, int] = {}  # id -> the queue's number of its newest vector
        self._gone: set[str] = set()
        for write in queue:
            self._replay(write)
        self._folder, self._header = folder, hnsw.read_header(folder, dimension) if self._labels else None
        self._facts = facts
        self._slot_of = self._slots_by_label()

    def _slots_by_label(self) -> NDArray[np.int64]:
        """The slot of every label; -1: none."""
        import numpy as np

        if not self._header:
            return np.zeros(0, np.int64)
        labels = self._facts.labels if self._facts else _read_labels(self._folder, self._header)
        slots = np.full(max(self._labels.values()) + 1, -1, np.int64)
        fits = np.flatnonzero(labels < len(slots))
        slots[labels[fits].astype(np.int64)] = fits
        return slots

    def _replay(self, write: files.QueuedWrite) -> None:
        there = write.id in self._queued or (write.id in self._labels and write.id not in self._gone)
        if write.operation is files.Operation.DELETE:
            self._queued.pop(write.id, None)
            self._gone.add(write.id)
        elif not write.vector_bytes:
            return
        elif write.operation is files.Operation.UPSERT or there is (write.operation is files.Operation.UPDATE):
            # Chroma ignores an ADD of an id that is there, and an UPDATE of one that is not.
            self._queued[write.id] = write.seq
            self._gone.discard(write.id)

    def read(
        self, ids: Sequence[str], *, at_full_length: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Vectors, float32 of shape ``(len(ids), dimension)``, and which of the ids have one.

        Under ``cosine`` the index has them at length 1, and their lengths beside; ``at_full_length`` gives the product,
        as Chroma does.
        """
        import numpy as np

        vectors = np.zeros((len(ids), self._dimension), np.float32)
        slots = self._slots_of(ids)
        has = slots >= 0
        if self._header and has.any():
            vectors[has] = self._from_slots(self._header, slots[has])
            if at_full_length:
                vectors[has] *= self._lengths[slots[has], None]
        for row, id_ in enumerate(ids) if self._queued or self._gone else ():
            if id_ in self._queued:
                queued = self._from_queue(self._queued[id_])
                has[row] = len(queued) == self._dimension
                vectors[row] = queued if has[row] else 0
            elif id_ in self._gone:
                has[row] = False
        return vectors, has

    def facts(self, ids: Sequence[str]) -> VectorFacts:
        """The facts of these ids' vectors."""
        if self._facts is None or not len(self._facts.digests):
            return facts_of(*self.read(ids))
        slots = self._slots_of(ids)
        facts = VectorFacts(slots >= 0, self._facts.squares[slots], self._facts.digests[slots])
        queued = [row for row, id_ in enumerate(ids) if id_ in self._queued or id_ in self._gone]
        if queued:
            there, squares, digests = facts_of(*self.read([ids[row] for row in queued]))
            facts.there[queued], facts.squares[queued], facts.digests[queued] = there, squares, digests
        return facts

    def _slots_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The slot of every id; -1: none."""
        import numpy as np

        labels = np.fromiter(map(self._labels.get, ids, repeat(-1)), np.int64, len(ids))
        return np.where(labels >= 0, self._slot_of[labels] if len(self._slot_of) else -1, -1)

    def _from_slots(self, header: hnsw.Header, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read one by one: a map would put into memory what lies between them, too."""
        import numpy as np

        found = np.empty((len(slots), header.dimension), np.float32)
        rows, size = found.data.cast("B"), header.dimension * 4
        with (self._folder / _SLOTS).open("rb", buffering=0) as file:
            for row in np.argsort(slots).tolist():  # on through the file, so that the system reads ahead
                part, at = rows[row * size : (row + 1) * size], int(slots[row]) * header.slot_size
                if os.preadv(file.fileno(), [part], at + header.vector_offset) != size:
                    raise hnsw.TornFileError(_SLOTS, "became shorter while it was read")
        return found

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        """Of the vector in every slot; 1 where the file has none."""
        import numpy as np

        slots = self._header.slots if self._header else 0
        with contextlib.suppress(FileNotFoundError):
            found = np.fromfile(self._folder / "length.bin", "<f4", slots)
            return np.concatenate([found, np.ones(slots - len(found), np.float32)])
        return np.ones(slots, np.float32)

    def _from_queue(self, seq: int) -> NDArray[np.float32]:
        import numpy as np

        blob = self._db.execute("SELECT vector FROM embeddings_queue WHERE seq_id = ?", (seq,)).fetchone()[0]
        return np.frombuffer(blob, "<f4")


def _read_labels(folder: Path, header: hnsw.Header) -> NDArray[np.uint64]:
    import numpy as np

    # Copies: a view would keep its block mapped, and so the whole file.
    labels = [block["label"].copy() for _, block in hnsw.iter_slots(folder, header)]
    return np.concatenate(labels) if labels else np.zeros(0, np.uint64)


def _labels_by_id(folder: Path) -> Mapping[str, int]:
    id_map = hnsw.read_id_map(folder)
    return id_map.labels if id_map else {}
