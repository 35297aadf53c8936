"""Nothing destructive by surprise: each guard refuses before anything is touched, and names what would allow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.workspaces import contents, digests, make_settings, write, write_corpus
from vectorstore.settings import Settings
from vectorstore.update import UpdateReport, update


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = make_settings(tmp_path, trust_ctime=False)
    write_corpus(found.path(found.source), 40)
    assert update(found).exit_code == 0
    return found


def documents(settings: Settings) -> list[Path]:
    return sorted(settings.path(settings.source).rglob("*.md"))


def remove(settings: Settings, count: int) -> None:
    for path in documents(settings)[:count]:
        path.unlink()


def assert_refused(settings: Settings, words: str, hint: str, **choice: Any) -> UpdateReport:
    before = digests(settings.path(settings.chroma_path))
    report = update(settings, **choice)
    assert (report.state, report.exit_code) == ("refused", 5)
    assert words in report.message
    assert hint in report.hint
    assert digests(settings.path(settings.chroma_path)) == before
    return report


def test_deletes_beyond_the_share_need_a_flag(settings: Settings) -> None:
    remove(settings, 11)
    assert_refused(settings, "11 of 40", "--max-deletes 11")
    assert_refused(settings, "11 of 40", "--max-deletes 11", max_deletes=10)
    report = update(settings, max_deletes=11)
    assert (report.exit_code, report.kinds["deleted"]) == (0, 11)
    assert len({row[1]["doc_key"] for row in contents(settings).values()}) == 29


def test_few_deletes_and_a_share_need_none(settings: Settings) -> None:
    remove(settings, 10)
    assert update(settings).kinds["deleted"] == 10
    remove(settings, 11)
    assert update(replace(settings, max_delete_share=0.5)).kinds["deleted"] == 11


def test_emptied_documents_count_as_deleted(settings: Settings) -> None:
    for path in documents(settings)[:11]:
        path.write_bytes(b"")
    assert_refused(settings, "11 of 40", "--max-deletes 11")


def test_a_moved_folder_is_no_delete(settings: Settings) -> None:
    root = settings.path(settings.source)
    (root / "f0").rename(root / "elsewhere")
    report = update(settings)
    assert (report.exit_code, report.chunks_embedded) == (0, 0)
    assert report.kinds == {"moved": 14, "unchanged": 26}
    assert not any(key.startswith("f0/") for key in contents(settings))


def test_an_empty_source_needs_a_flag(settings: Settings) -> None:
    remove(settings, 40)
    assert_refused(settings, "none of the 40", "--max-deletes 40")
    assert update(settings, max_deletes=40).kinds["deleted"] == 40
    assert contents(settings) == {}


def test_an_emptied_collection_in_scope_is_an_empty_source(settings: Settings) -> None:
    remove(settings, 14)
    assert_refused(settings, "14", "--max-deletes 14", doc_keys=[f"f0/d{n:04d}.md" for n in range(0, 40, 3)])


def test_a_protected_store_loses_nothing(settings: Settings) -> None:
    remove(settings, 1)
    write(settings.path(settings.source), "f0/new.md", "# New\n\nwords")
    assert_refused(replace(settings, protected=True), "protected", "protected = false")


def test_a_paused_workspace_is_not_written(settings: Settings) -> None:
    write(settings.path(settings.source), "f0/new.md", "# New\n\nwords")
    assert_refused(replace(settings, paused=True), "paused", "paused = false")


def test_no_document_at_all_is_said(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, include=("**/*.rst",))
    write_corpus(settings.path(settings.source), 2)
    report = update(settings)
    assert report.exit_code == 0
    assert "matches include" in report.notes[0]
