"""Checks of the store's SQLite file and of the folders beside it; read-only.

Foreign keys are checked by queries of our own: Chroma declares one on a table that does not exist, and SQLite's own
`foreign_key_check` stops there.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from vectorstore.chroma import files
from vectorstore.findings import RESTORE, Action, Findings, Severity
from vectorstore.sqlite_errors import is_held

QUEUE_ALLOWED = 1_000  # rows that are of no use any more; with purging on, one a collection stays
_ROWS_SHOWN = 20
_RELATIONS = {
    "segments of no collection": "SELECT count(*) FROM segments WHERE collection NOT IN (SELECT id FROM collections)",
    "collections without their two segments": """
        SELECT count(*) FROM collections c WHERE 2 <>
        (SELECT count(DISTINCT scope) FROM segments s WHERE s.collection = c.id AND s.scope IN ('VECTOR', 'METADATA'))
        """,
    "rows of no segment": """
        SELECT coalesce(sum(n), 0) FROM
        (SELECT segment_id, count(*) AS n FROM embeddings GROUP BY segment_id)
        WHERE segment_id NOT IN (SELECT id FROM segments)
        """,
    "metadata of no row": """
        SELECT count(*) FROM embedding_metadata WHERE id IS NULL OR id NOT IN (SELECT id FROM embeddings)
        """,
    "databases of no tenant": "SELECT count(*) FROM databases WHERE tenant_id NOT IN (SELECT id FROM tenants)",
    "collections of no database": """
        SELECT count(*) FROM collections WHERE database_id NOT IN (SELECT id FROM databases)
        """,
}
_TAKEN_IN = """
    SELECT count(*) FROM embeddings_queue q
    JOIN segments s ON s.collection = substr(q.topic, -36) AND s.scope = 'VECTOR'
    JOIN max_seq_id m ON m.segment_id = s.id WHERE q.seq_id < m.seq_id
    """
_WITHOUT_FULLTEXT = """
    SELECT c.name, e.embedding_id FROM embeddings e
    JOIN embedding_metadata m ON m.id = e.id AND m.key = 'chroma:document'
    JOIN segments s ON s.id = e.segment_id JOIN collections c ON c.id = s.collection
    WHERE NOT EXISTS (SELECT 1 FROM embedding_fulltext_search_content f WHERE f.id = e.id)
    """
_DOCUMENTS = "SELECT count(*) FROM embedding_metadata WHERE key = 'chroma:document'"
_TALLY = """
    SELECT count(*), count(m.id), count(CASE WHEN ? AND m.id IS NOT NULL AND f.c0 IS NOT m.string_value THEN 1 END)
    FROM embedding_fulltext_search_content f
    LEFT JOIN embedding_metadata m ON m.id = f.id AND m.key = 'chroma:document'
    """
_OTHER_TEXT = """
    SELECT c.name, e.embedding_id FROM embedding_fulltext_search_content f
    JOIN embedding_metadata m ON m.id = f.id AND m.key = 'chroma:document'
    JOIN embeddings e ON e.id = f.id JOIN segments s ON s.id = e.segment_id JOIN collections c ON c.id = s.collection
    WHERE f.c0 IS NOT m.string_value
    """


def say_unreadable(what: str, error: sqlite3.DatabaseError, found: Findings, collection: str = "") -> None:
    """Tell that reading came to an end: the file is damaged, or somebody holds it, which is no fault of the store's."""
    if is_held(error):
        message = f"another process holds the store's SQLite file ({error}): the rest of it was not looked at"
        found.add("lock", message, collection=collection, severity=Severity.WARN)
    else:
        found.add("sqlite", f"{what} can't be read: {error}", collection=collection)


def check_integrity(db: sqlite3.Connection, found: Findings) -> None:
    """SQLite's own check of every page and index."""
    said = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({_ROWS_SHOWN})") if row[0] != "ok"]
    found.looked("sqlite", "SQLite: integrity_check says ok")
    if said:
        more = " and more" if len(said) >= _ROWS_SHOWN else ""
        found.add("sqlite", f"integrity_check: {said[0]}{more}", count=len(said))


def check_relations(db: sqlite3.Connection, found: Findings) -> None:
    """Rows that belong to nothing."""
    found.looked("relations")
    for what, sql in _RELATIONS.items():
        if count := int(db.execute(sql).fetchone()[0]):
            found.add("relations", f"{count:,} {what}", count=count)


def check_fulltext(db: sqlite3.Connection, found: Findings, *, texts: bool) -> dict[str, list[str]]:
    """Rows of the full-text index and of the documents; with ``texts`` their content too.

    Returns:
        Ids at fault, by collection.
    """
    found.looked("fulltext")
    at_fault: dict[str, list[str]] = {}
    # Counts come first: they cost one pass, and the rows by name one more each.
    indexed, matched, other = db.execute(_TALLY, (texts,)).fetchone()
    for sql, suspected, message in (
        (_WITHOUT_FULLTEXT, matched < db.execute(_DOCUMENTS).fetchone()[0], "are not in the full-text index"),
        (_OTHER_TEXT, other, "stand in the full-text index with another text"),
    ):
        rows = db.execute(sql).fetchall() if suspected else []
        for name, id_ in rows:
            at_fault.setdefault(name, []).append(id_)
        if rows:
            found.add("fulltext", f"{len(rows):,} documents {message}", count=len(rows), ids=[id_ for _, id_ in rows])
    if left := indexed - matched:
        message = f"{left:,} texts in the full-text index belong to no document"
        found.add("fulltext", message, count=left, action=Action.NONE, remedy=RESTORE)
    return at_fault


def check_queue(db: sqlite3.Connection, found: Findings) -> None:
    """Whether the write queue goes on where the segments are, and whether it is purged."""
    found.looked("queue")
    found.looked("queue_purged")
    sql = "SELECT (SELECT max(seq_id) FROM max_seq_id), (SELECT max(seq_id) FROM embeddings_queue)"
    applied, queued = db.execute(sql).fetchone()
    if applied and (queued or 0) < applied:
        found.add("queue", f"the queue ends at {queued or 0}, the segments have taken in {applied}")
    done = int(db.execute(_TAKEN_IN).fetchone()[0])
    if done > QUEUE_ALLOWED:
        found.add(
            "queue_purged", f"{done:,} writes that the index has taken in are kept", count=done, value=float(done)
        )


def check_folders(db: sqlite3.Connection, store: Path, found: Findings) -> list[Path]:
    """Index folders that are missing, and those that no segment names; the latter as paths."""
    found.looked("segments")
    found.looked("leaked_folders")
    for each in files.list_collections(db, store):
        if each.vector_seq and not each.has_folder:
            found.add("segments", f"the index folder {each.vector_segment} is missing", collection=each.name)
    named = {str(id_) for (id_,) in db.execute("SELECT id FROM segments")}
    leaked = [path for path in sorted(store.iterdir()) if _is_segment(path) and path.name not in named]
    if leaked:
        size = sum(part.stat().st_size for path in leaked for part in path.iterdir())
        found.add(
            "leaked_folders", f"{len(leaked)} folders, {size / 1e6:,.1f} MB, belong to no collection",
            count=len(leaked), ids=[path.name for path in leaked], value=float(size),
        )  # fmt: skip
    return leaked


def check_schemas(db: sqlite3.Connection, found: Findings) -> None:
    """Whether Chroma can read how collections are configured."""
    for name, *texts in db.execute("SELECT name, schema_str, config_json_str FROM collections"):
        for text in texts:
            try:
                json.loads(text or "{}")
            except ValueError:
                message = "its configuration in SQLite is torn: Chroma can't open the collection"
                found.add("layout", message, collection=name, severity=Severity.FAIL, remedy=RESTORE)


def _is_segment(path: Path) -> bool:
    """A folder named like a segment: 36 characters of a UUID."""
    return path.is_dir() and len(path.name) == 36 and path.name.count("-") == 4
