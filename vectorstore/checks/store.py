"""The checks of the store: of an embedded one's files, of a server, or of a copy where neither can be read."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.checks import sqlite as sqlite_checks
from vectorstore.checks import workspace as workspace_checks
from vectorstore.checks.all_rows import AllRows
from vectorstore.checks.view import View
from vectorstore.chroma.fingerprint import SQLITE_NAME
from vectorstore.chroma.rows import RowReader, StoredCollection
from vectorstore.errors import StoreUnreachable, VectorkeepError
from vectorstore.findings import Severity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectorstore.checks.index import IndexChecks
    from vectorstore.chroma.audit import Damage
    from vectorstore.chroma.probe import ProbeResult
    from vectorstore.chroma.store import Store

Answers = dict[str, list[str]]
"""Canary text -> ids, nearest first."""


class StoreChecks:
    """Checks the store.

    Args:
        stack: closes what is opened here.
        at_work: a writer is at it, so that its index files are in between.

    Attributes:
        damages: what the audit of the index files found.
        leaked: folders that no index uses.
    """

    def __init__(self, view: View, stack: ExitStack, *, at_work: bool) -> None:
        self._view, self._stack, self._at_work = view, stack, at_work
        self._store = view.settings.path(view.settings.chroma_path)
        self.damages: Sequence[Damage] = ()
        self.leaked: list[Path] = []

    def run(self) -> None:
        """Look at it, wherever it is."""
        self._view.found.looked("store")
        if self._view.settings.chroma_url:
            self._check_server()
        elif not (self._store / SQLITE_NAME).is_file():
            self._say_missing()
        elif not (self._store / SQLITE_NAME).stat().st_size:
            self._view.found.add("store", f"{SQLITE_NAME} is empty")
        else:
            workspace_checks.check_machine(self._store, self._view.found)
            self._check_files()

    def _say_missing(self) -> None:
        serving, found = self._view.serving, self._view.found
        due = sum(chunks for _, chunks in self._view.counted[serving.id].values()) if serving else 0
        if due:
            found.add("store", f"there is no store at {self._store}, and it should hold {due:,} chunks")
        else:
            found.looked("store", f"there is no store at {self._store} yet")

    def _check_server(self) -> None:
        from vectorstore.chroma.store import Store

        try:
            store = Store(self._view.settings)
        except StoreUnreachable as error:
            self._view.found.add("store", error.message, remedy=error.hint)
            return
        self._stack.callback(store.close)
        self._check_through(store)

    def _check_through(self, store: Store) -> None:
        """Everything that can be seen through Chroma."""
        from vectorstore.checks.search import ask_store
        from vectorstore.chroma.api_rows import ApiRows

        AllRows(self._view, ApiRows(store)).run()
        self._check_canaries(lambda names, queries, k: ask_store(store, names, queries, k))

    def _check_files(self) -> None:
        from vectorstore.chroma import files

        try:
            db = self._stack.enter_context(files.open_snapshot(self._store))
            layout = files.read_layout(db)
            self._view.found.looked("layout")
            if layout.missing:
                self._view.found.add("sqlite", f"tables or columns are missing: {', '.join(layout.missing)}")
            elif not layout.known and not layout.migrations:
                self._view.found.add("sqlite", f"{SQLITE_NAME} is not a store of Chroma's")
            elif not layout.known or self._view.choice.way == "api":
                self._check_copy("" if layout.known else f"Chroma migrations {layout.migrations} are not known here")
            else:
                self._check_known(db)
        except sqlite3.DatabaseError as error:
            sqlite_checks.say_unreadable("SQLite", error, self._view.found)

    def _check_known(self, db: sqlite3.Connection) -> None:
        """The files of a layout that is known."""
        self._check_sqlite(db)
        index = self._check_index(db)
        self.damages = index.damages
        from vectorstore.chroma.file_rows import FileRows

        reader = FileRows(self._store, db, index.unreadable, index.facts)
        self._stack.callback(reader.close)
        AllRows(self._view, reader, {str(each.collection_id) for each in self.damages}).run()
        if self._view.choice.deep and not self._at_work:
            self._check_search(db, index)
            self._probe(reader)

    def _check_sqlite(self, db: sqlite3.Connection) -> None:
        from vectorstore.chroma.files import pending_journals

        found, choice = self._view.found, self._view.choice
        found.looked("journal")
        if journals := pending_journals(self._store):
            found.add("journal", f"{journals[0].name} is left behind")
        sqlite_checks.check_queue(db, found)
        self.leaked = sqlite_checks.check_folders(db, self._store, found)
        sqlite_checks.check_schemas(db, found)
        if choice.standard:
            sqlite_checks.check_integrity(db, found)
            sqlite_checks.check_relations(db, found)
            for name, ids in sqlite_checks.check_fulltext(db, found, texts=choice.deep).items():
                self._view.faults.add("fulltext", name, ids)

    def _check_index(self, db: sqlite3.Connection) -> IndexChecks:
        """Audit the index files."""
        from vectorstore.checks.index import IndexChecks, check_index
        from vectorstore.checks.search import queries_each
        from vectorstore.chroma.files import list_collections

        if not self._view.choice.standard:
            return IndexChecks()
        if self._at_work:
            self._view.notes.append("a writer is at work: index files and vectors were not looked at")
            return IndexChecks(unreadable=frozenset(each.id for each in list_collections(db, self._store)))
        deep = self._view.choice.deep
        queries = queries_each(db, self._store) if deep else 0
        return check_index(
            self._store, db, self._view.found, vectors=deep, queries=queries, seed=self._view.choice.part
        )

    # -- what search answers -------------------------------------------------------------------------------------

    def _check_search(self, db: sqlite3.Connection, index: IndexChecks) -> None:
        from vectorstore.checks.search import ask_files, check_search
        from vectorstore.chroma.files import list_collections

        readable = [each for each in list_collections(db, self._store) if each.id not in index.unreadable]
        check_search(readable, index.quality, self._view.found)
        self._check_canaries(lambda names, queries, k: ask_files(db, self._store, names, queries, k))

    def _check_canaries(self, ask: Callable[[list[str], dict[str, NDArray[np.float32]], int], Answers]) -> None:
        from vectorstore.checks.search import check_canaries, embed_canaries

        view = self._view
        if not view.choice.deep or view.serving is None:
            return
        queries = embed_canaries(view.settings, view.serving.pipeline, view.found)
        names = [each.name for each in view.collections if each.state == "serving" and each.stored]
        if queries:
            check_canaries(view.settings, ask(names, queries, view.settings.canary_k), view.found)

    # -- through Chroma, on a copy -------------------------------------------------------------------------------

    def _probe(self, reader: RowReader) -> None:
        """Have Chroma open a copy, when it is small, its files are doubtful, or it was asked for."""
        doubtful = {str(each.collection) for each in self.damages if each.collection}
        size = sum(path.stat().st_size for path in self._store.rglob("*") if path.is_file())
        wanted = self._view.choice.probe
        if wanted or (wanted is None and (doubtful or size <= self._view.settings.probe_max_mb * 1_000_000)):
            result = self._probe_copy(None if wanted or not doubtful else doubtful)
            for each in reader.collections():
                self._cross_check(reader, each, result.read.get(each.name, {}))

    def _cross_check(self, reader: RowReader, each: StoredCollection, read: Mapping[str, Sequence[int]]) -> None:
        """Hold what Chroma gave against what was read from the files: then the rest of that can be believed as well."""
        page = reader.read(each, list(read))
        for row, id_ in enumerate(page.ids):
            vector = None if page.vectors is None or not page.has_vector[row] else zlib.crc32(page.vectors[row])
            text = zlib.crc32((page.documents[row] or "").encode(errors="surrogatepass"))
            if vector is None or each.space == "cosine":
                vector = read[id_][0]  # which the files have not, or at another length
            if [vector, text] != list(read[id_]):
                message = "Chroma gives another row than its files hold: they may be of a version that is not known"
                self._view.found.add("probe", message, collection=each.name, ids=[id_])

    def _probe_copy(self, names: set[str] | None) -> ProbeResult:
        from vectorstore.chroma.probe import probe

        found = self._view.found
        result = probe(self._store, collections=names, scratch=self._scratch(), seed=self._view.choice.part)
        if result.ok:
            asked, answered = sum(result.asked.values()), sum(result.answered.values())
            found.looked("probe", f"Chroma opened a copy: {answered} of {asked} vectors found themselves")
        elif result.outcome == "not_run":
            found.add("probe", f"Chroma was not tried: {result.detail}", severity=Severity.INFO)
        else:
            found.add("probe", f"Chroma {_OUTCOMES[result.outcome]}: {result.detail}", collection=result.collection)
        return result

    def _scratch(self) -> Path:
        """Beside the store rather than in the system's folder, which may be memory; unless that can't be written."""
        hashes = self._view.settings.hashes
        return hashes if os.access(hashes, os.W_OK) else Path(tempfile.gettempdir())

    def _check_copy(self, unknown: str) -> None:
        """Through Chroma, in a copy: opening the store itself would change it."""
        if unknown:
            self._view.found.add("layout", f"{unknown}: the store was looked at through Chroma, in a copy")
        if not self._probe_copy(None).ok:
            return
        from vectorstore.chroma.probe_copy import Changed, NotCopied, copy_store, throwaway_folder
        from vectorstore.chroma.store import Store

        folder = self._stack.enter_context(throwaway_folder(self._scratch()))
        try:
            copy = copy_store(self._store, folder / "store", None)
            store = Store(replace(self._view.settings, chroma_path=copy.path, chroma_url=""))
        except (Changed, NotCopied, VectorkeepError, OSError) as error:
            self._view.found.add("probe", f"a copy could not be opened: {error}")
            return
        self._stack.callback(store.close)
        self._check_through(store)


_OUTCOMES = {"crashed": "crashed", "hung": "hung", "grew": "let a file grow without bound", "error": "failed"}
