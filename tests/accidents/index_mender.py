"""Mend a store of the kill test as `vectorkeep` would: from kept vectors, in a process that can be killed."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.accidents.index_writer import all_vectors, row_ids
from tests.support.chroma_helpers import FILE_LIMIT, open_writer
from vectorstore.chroma.audit import audit
from vectorstore.chroma.repair import repair


def mend(store: Path, aside: Path) -> None:
    """Repair what an audit finds; nothing may be left over."""
    vectors = dict(zip(row_ids(0, len(all_vectors())), all_vectors(), strict=True))
    report = repair(
        store,
        audit(store),
        lambda: open_writer(store),
        lambda _, ids: {key: vectors[key] for key in ids},
        aside=aside,
        batch=250,
    )
    assert report.remaining == [] and not report.lost, report


def mend_limited(store: Path, aside: Path) -> None:
    """For a process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    mend(store, aside)
