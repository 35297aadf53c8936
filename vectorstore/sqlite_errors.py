"""Which of SQLite's errors mean that a file is damaged, and which that the machine is full, busy or not willing."""

from __future__ import annotations

import sqlite3
import struct

UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError, struct.error)  # what reading a damaged file can raise
_MACHINE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
}  # fmt: skip


def is_damage(error: Exception) -> bool:
    """Whether an error of ``UNREADABLE`` means that the file's content is wrong."""
    if isinstance(error, sqlite3.ProgrammingError):
        return False  # a mistake of ours
    # Without a code it is Python's own: text that is not UTF-8.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _MACHINE


def is_held(error: sqlite3.Error) -> bool:
    """Whether another process kept the file locked, so that a later try may succeed."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
