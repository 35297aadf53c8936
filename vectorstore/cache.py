"""The vector cache: every paid vector, by (embedding id, hash of the text), kept the moment its answer lands.

It is what makes "nothing is paid twice" true: a vector is here before it is in the store, and in the store before it is
in the ledger. A row whose checksum does not match counts as absent.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.errors import Damaged
from vectorstore.sqlite_errors import UNREADABLE, is_damage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE embeddings (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY, embedding INTEGER NOT NULL, hash BLOB NOT NULL, crc INTEGER NOT NULL,
    last_needed INTEGER NOT NULL, vector BLOB NOT NULL
);
CREATE UNIQUE INDEX vectors_by_hash ON vectors (embedding, hash);
"""
_DAY = 86_400
_PAGE = 10_000  # hashes
_SQL_VARIABLES = 500  # a statement; SQLite's own limit is higher, the statement cache likes few sizes


class VectorCache:
    """One embedding's vectors. Thread-safe; one writer process (the lock sees to that).

    Args:
        path: the SQLite file; made if it is missing, set aside and salvaged if it is damaged.
        embedding: the identity of what makes a vector: provider, model, dimension.
        dimension: length of a vector.
    """

    def __init__(
        self,
        path: Path,
        embedding: str,
        dimension: int,
        clock: Callable[[], float] = time.time,
        *,
        readonly: bool = False,
    ) -> None:
        self._dimension, self._clock, self._lock = dimension, clock, threading.Lock()
        self._readonly = readonly
        self._path, self._suspect = path, _suspect(path)
        self.damage = ""  # for a finding: what was wrong with the file
        if not readonly:
            self._db = self._open_or_salvage(path)
            self._embedding = self._embedding_id(embedding)
            return
        try:
            self._db = _connect_readonly(path)
            self._embedding = self._known_embedding(embedding)
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            raise self._damaged(error) from None

    def get_many(self, hashes: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are here, by hash; each float32 of shape ``(dimension,)``."""
        import numpy as np

        found: dict[bytes, NDArray[np.float32]] = {}
        for hash_, crc, blob in self._rows("hash, crc, vector", hashes):
            if len(blob) == 4 * self._dimension and zlib.crc32(blob) == crc:
                found[hash_] = np.frombuffer(blob, dtype="<f4")
        return found

    def known(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of ``hashes`` are here, without reading the vectors."""
        return {row[0] for row in self._rows("hash", hashes)}

    def hash_prefixes(self) -> Iterator[NDArray[np.uint64]]:
        """The first 64 bits of every hash that is here, in pages, shape ``(hashes,)``; no vector is read."""
        import numpy as np

        sql = "SELECT hash FROM vectors WHERE embedding = ? AND hash > ? AND length(hash) = 16 ORDER BY hash LIMIT ?"
        last = b""
        while True:
            with self._transaction():
                page = self._db.execute(sql, (self._embedding, last, _PAGE)).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield np.frombuffer(b"".join(hash_ for (hash_,) in page), "<u8")[::2]

    def put_many(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep ``vectors`` (float32, shape ``(len(hashes), dimension)``); durable against a kill on return."""
        day = int(self._clock() // _DAY)
        blobs = [row.astype("<f4", copy=False).tobytes() for row in vectors]
        rows = [
            (self._embedding, hash_, zlib.crc32(blob), day, blob) for hash_, blob in zip(hashes, blobs, strict=True)
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO vectors (embedding, hash, crc, last_needed, vector) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (embedding, hash) DO UPDATE SET crc = excluded.crc, vector = excluded.vector,"
                " last_needed = excluded.last_needed",
                rows,
            )

    def released(self, hashes: Iterable[bytes]) -> None:
        """Note that a document needed ``hashes`` until now."""
        day = int(self._clock() // _DAY)
        with self._transaction():
            self._db.executemany(
                "UPDATE vectors SET last_needed = ? WHERE embedding = ? AND hash = ? AND last_needed < ?",
                [(day, self._embedding, hash_, day) for hash_ in hashes],
            )

    def evict(self, needed: Iterable[bytes], keep_days: int, max_bytes: int = 0) -> int:
        """Drop what no document has needed for ``keep_days`` days, then the longest unneeded over ``max_bytes``.

        Args:
            needed: the hashes that the ledger's documents consist of, in any order; kept whatever their age.
            keep_days: 0 drops all that are not needed now.
            max_bytes: of vectors; 0 for no bound. Vectors in need are dropped last: the store still has them.

        Returns:
            How many were dropped.
        """
        cutoff = int(self._clock() // _DAY) - keep_days
        with self._transaction():
            self._db.execute("CREATE TEMP TABLE needed (hash BLOB PRIMARY KEY) WITHOUT ROWID")
            try:
                self._db.executemany("INSERT OR IGNORE INTO needed VALUES (?)", ((hash_,) for hash_ in needed))
                dropped = self._db.execute(
                    "DELETE FROM vectors WHERE last_needed <= ? AND hash NOT IN (SELECT hash FROM needed)", (cutoff,)
                ).rowcount
                return dropped + (self._shrink(max_bytes) if max_bytes else 0)
            finally:
                self._db.execute("DROP TABLE needed")

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):  # a reader is open: the log stays, nothing lost
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def _shrink(self, max_bytes: int) -> int:
        excess = self._db.execute("SELECT coalesce(sum(length(vector)), 0) FROM vectors").fetchone()[0] - max_bytes
        order = "SELECT id, length(vector) FROM vectors ORDER BY hash IN (SELECT hash FROM needed), last_needed, id"
        doomed: list[tuple[int]] = []
        for id_, size in self._db.execute(order):
            if excess <= 0:
                break
            doomed.append((id_,))
            excess -= size
        self._db.executemany("DELETE FROM vectors WHERE id = ?", doomed)
        return len(doomed)

    def _rows(self, columns: str, hashes: Sequence[bytes]) -> Iterable[tuple]:  # type: ignore[type-arg]
        for start in range(0, len(hashes), _SQL_VARIABLES):
            page = hashes[start : start + _SQL_VARIABLES]
            marks = ",".join("?" * len(page))
            sql = f"SELECT {columns} FROM vectors WHERE embedding = ? AND hash IN ({marks})"
            with self._transaction():
                rows = self._db.execute(sql, (self._embedding, *page)).fetchall()
            yield from rows

    def _embedding_id(self, name: str) -> int:
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO embeddings (name) VALUES (?)", (name,))
        return self._known_embedding(name)

    def _known_embedding(self, name: str) -> int:
        row = self._db.execute("SELECT id FROM embeddings WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else -1

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._lock, self._db:
                yield
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            if not self._readonly:
                self._suspect.touch()
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(
            f"the vector cache {self._path} is damaged: {error}",
            "run `vectorkeep update` again: what can be read of it is saved into a new one, and the file is kept",
        )

    def _open_or_salvage(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._suspect.exists():
                raise sqlite3.DatabaseError("found damaged by the last run")
            return _connect(path)
        except UNREADABLE as error:
            if not is_damage(error):
                raise
            aside = path.with_name(f"{path.name}.damaged-{int(self._clock())}")
            for suffix in ("", "-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
            self._suspect.unlink(missing_ok=True)
            db = _connect(path)
            kept = _salvage(aside, db)
            self.damage = (
                f"the vector cache was damaged ({error}): {kept} vectors were saved, the file is now {aside.name}"
            )
            return db


def distrust(path: Path) -> None:
    """Have the cache's next writer save what can be read of it into a new file."""
    _suspect(path).touch()


def _suspect(path: Path) -> Path:
    return path.with_name(path.name + ".suspect")


def _connect_readonly(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:  # its maker was killed: it holds nothing
        db.close()
        db = sqlite3.connect(":memory:", check_same_thread=False)
        db.executescript(_SCHEMA)
    return db


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")  # a commit is one append: cheap enough for every answer
        db.execute("PRAGMA synchronous = NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        db.execute("SELECT id, hash FROM vectors LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _salvage(damaged: Path, into: sqlite3.Connection) -> int:
    """Copy what can still be read, from both ends of the table towards the damage."""
    with contextlib.suppress(sqlite3.DatabaseError):
        source = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(source), contextlib.suppress(sqlite3.DatabaseError):
            into.executemany(
                "INSERT OR IGNORE INTO embeddings VALUES (?, ?)", source.execute("SELECT * FROM embeddings")
            )
            for order in ("ASC", "DESC"):
                _copy_rows(source.execute(f"SELECT * FROM vectors ORDER BY id {order}"), into)
    into.commit()
    return int(into.execute("SELECT count(*) FROM vectors").fetchone()[0])


def _copy_rows(rows: sqlite3.Cursor, into: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in rows:
            if isinstance(row[5], bytes) and zlib.crc32(row[5]) == row[3]:
                into.execute("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?, ?, ?)", row)


def embedding_id(provider: str, model: str, dimension: int) -> str:
    """The identity of what turns a text into a vector."""
    return f"{provider}/{model}/{dimension}"


def vector_crc(vector: NDArray[np.float32]) -> int:
    """CRC-32 of a vector's little-endian float32 bytes: what the ledger keeps of it."""
    return zlib.crc32(vector.astype("<f4", copy=False).tobytes())
