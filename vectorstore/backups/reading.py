"""Opens a store to read its rows for a portable backup."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vectorstore.chroma.rows import RowReader
from vectorstore.errors import ConfigurationError
from vectorstore.settings import Settings


@contextlib.contextmanager
def open_reader(settings: Settings) -> Iterator[RowReader]:
    """A reader of the store that the settings name: its files, or a server.

    Raises:
        ConfigurationError: there is no store, or it is of a Chroma whose files are not known.
        StoreUnreachable: a server that does not answer.
    """
    if settings.chroma_url:
        from vectorstore.chroma.api_rows import ApiRows
        from vectorstore.chroma.store import Store

        with contextlib.closing(ApiRows(Store(settings))) as server:
            yield server
        return
    from vectorstore.chroma import files
    from vectorstore.chroma.file_rows import FileRows

    store = settings.path(settings.chroma_path)
    if not files.sqlite_path(store).is_file():
        raise ConfigurationError(f"there is no store at {store}", "run `vectorkeep update`, which makes one")
    with files.open_snapshot(store) as db:
        if not files.read_layout(db).known:
            raise ConfigurationError(
                f"the store {store} is of a Chroma that is not known here", "choose kind full, which copies its files"
            )
        with contextlib.closing(FileRows(store, db)) as rows:
            yield rows
