"""A store that others write to as well: what is theirs is neither mended nor in an update's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chroma_helpers import create, file_limit, fill, open_client, unit_vectors
from tests.support.workspaces import contents, digests, make_settings, write_corpus
from vectorstore.preview import preview
from vectorstore.update import update


@pytest.mark.parametrize("damage", ["zero vector", "torn header", "wrong links"])
def test_somebody_elses_damaged_index_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    settings = make_settings(tmp_path, trust_ctime=False)
    write_corpus(settings.path(settings.source), 5)
    store = settings.path(settings.chroma_path)
    vectors = unit_vectors(200)
    if damage == "zero vector":
        vectors[7] = 0
    with open_client(store) as client:
        fill(create(client, "theirs", sync_threshold=50), vectors)
    segment = next(path for path in store.iterdir() if path.is_dir())
    if damage == "torn header":
        (segment / "header.bin").write_bytes(b"torn")
    if damage == "wrong links":
        slots = bytearray((segment / "data_level0.bin").read_bytes())
        slots[4:40] = b"\xff" * 36
        (segment / "data_level0.bin").write_bytes(slots)
    before = digests(segment)
    with file_limit():
        report = update(settings)
        assert (report.state, report.notes) == ("completed", [])
        assert len(contents(settings)) == report.chunks_written > 5
        assert preview(settings).nothing_to_do
        (settings.hashes / "ledger.sqlite3").unlink()
        assert preview(settings).notes == [], "theirs have ids like ours"
    assert digests(segment) == before
