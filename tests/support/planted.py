"""A search for planted secrets: in any file, archive, database or table, in any usual form."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

import pyarrow.parquet as parquet

Piece = tuple[str, bytes]  # where, what
SQLITE = b"SQLite format 3\x00"


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may be written, by the name of the form."""
    plain = unquote(secret)
    encoded = {f"base64, {cut} before it": _within_base64(plain, cut) for cut in range(3)}
    return {
        "plain": plain.encode(), "percent": quote(plain, safe="").encode(), "path": quote(plain).encode(),
        "form": quote_plus(plain).encode(), "repr": repr(plain)[1:-1].encode(),
        "json": json.dumps(plain)[1:-1].encode(),
        "hex": plain.encode().hex().encode(), "utf-16": plain.encode("utf-16-le"), "given": secret.encode(), **encoded,
    }  # fmt: skip


def search(secrets: Iterable[str], roots: Iterable[Path], leave_out: Iterable[Path] = ()) -> list[str]:
    """Where which secret is, in which form; files of ``leave_out`` are not looked into."""
    names: dict[bytes, str] = {}
    for secret in secrets:
        for form, value in forms(secret).items():
            names.setdefault(value, f"{secret}, {form}")
    pattern = re.compile(b"|".join(map(re.escape, sorted(names, key=len, reverse=True))))
    left = set(leave_out)
    files = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and path not in left]
    found = {(where, names[hit]) for path in files for where, data in _pieces(path) for hit in pattern.findall(data)}
    return [f"{where}: {what}" for where, what in sorted(found)]


def _within_base64(plain: str, cut: int) -> bytes:
    """What base64 makes of it after ``cut`` other bytes, such as ``user:``, without the ends that neighbours change."""
    whole = base64.b64encode(b"\0" * cut + plain.encode()).rstrip(b"=")
    return whole[(0, 2, 3)[cut] : len(whole) - 1]


def _pieces(path: Path) -> Iterator[Piece]:
    with contextlib.suppress(FileNotFoundError):  # a database's journal may go while we look
        yield from _of(str(path), path.read_bytes())
        if path.open("rb").read(16) == SQLITE:  # a long value does not lie in one place of the file
            yield f"{path} (rows)", _rows(path)


def _of(where: str, data: bytes) -> Iterator[Piece]:
    yield where, data
    if data.startswith(b"\x1f\x8b"):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if handle := archive.extractfile(member):
                    yield from _of(f"{where}!{member.name}", handle.read())
    elif data.startswith(b"PAR1"):
        table = parquet.read_table(io.BytesIO(data))
        yield f"{where} (rows)", repr(table.to_pylist()).encode() + json.dumps(table.to_pylist(), default=str).encode()
    elif data.startswith(SQLITE) and "!" in where:
        with tempfile.TemporaryDirectory() as folder:
            (copy := Path(folder) / "db").write_bytes(data)
            yield f"{where} (rows)", _rows(copy)


def _rows(path: Path) -> bytes:
    lines = []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in tables:
            with contextlib.suppress(sqlite3.OperationalError):  # a table of a module that is not loaded here
                for row in db.execute(f'SELECT * FROM "{name}"'):
                    lines += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(lines)
