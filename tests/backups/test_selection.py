"""What the setting `sensitive` leaves out: in doubt, more."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from vectorstore.backups.selection import SensitiveRule
from vectorstore.errors import ConfigurationError
from vectorstore.settings import load_settings


def allowed(rule: str | list[str], metadata: dict[str, Any] | None = None, id: str = "row") -> bool:
    rules = [rule] if isinstance(rule, str) else rule
    return SensitiveRule(rules).allows(metadata or {}, "a text", id)


@pytest.mark.parametrize("pattern", ["private", "private/", "private/**", "**/private", "{hr,private}/**", "[p]rivate"])
@pytest.mark.parametrize("key", ["private/a.md", "private/deep/er/a.md"])
def test_a_path_takes_a_folder_and_all_below(pattern: str, key: str) -> None:
    assert not allowed(pattern, {"doc_key": key})
    assert not allowed(pattern, id=f"{key}#00012"), "the id says it as well"
    assert allowed(pattern, {"doc_key": "open/a.md"}, "open/a.md#00012")
    assert allowed(pattern, {"doc_key": "privateer/a.md"})


def test_id_and_metadata_that_disagree_leave_the_row_out() -> None:
    assert not allowed("private/**", {"doc_key": "open/a.md"}, "private/a.md#00001")
    assert not allowed("private/**", {"doc_key": "private/a.md"}, "open/a.md#00001")


@pytest.mark.parametrize(
    "metadata", [{}, {"source": "open/a.md"}, {"doc_key": ""}, {"doc_key": 7}, {"doc_key": ["open/a.md"]}]
)
def test_a_row_of_no_known_document_is_left_out_where_paths_count(metadata: dict[str, Any]) -> None:
    assert not allowed("private/**", metadata, "7f0c-11")
    assert allowed("visibility=private", metadata, "7f0c-11")


@pytest.mark.parametrize("key", ["/home/me/open/a.md", "../open/a.md", "C:/open/a.md", "C:\\open\\a.md", "https://x/a"])
def test_a_path_from_elsewhere_is_not_compared_but_left_out(key: str) -> None:
    assert not allowed("private/**", {"doc_key": key})


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("k=private", "private"), ("k = private", "private"), ("k=priv*", "private"), ("k=*/hr/*", "/a/hr/b.md"),
        ("k=*", ""), ("k=*", 0), ("k=*", "two\nlines"), ("k=3", 3), ("k=3", 3.0), ("k=3.0", 3), ("k=1e3", 1000),
        ("k=3", "3"), ("k=true", True), ("k=True", True), ("k=false", False), ("k=b", ["a", "b"]), ("k=2", [1, 2]),
        ("k=a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_term_matches(term: str, value: Any) -> None:
    assert not allowed(term, {"k": value})
    assert allowed(term, {"other": value}), "the key is not there"


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("k=private", "Private"),
        ("k=private", "private "),
        ("k=3", 33),
        ("k=1", True),
        ("k=true", 1),
        ("k=b", ["a", "bb"]),
    ],
)
def test_a_term_does_not_match(term: str, value: Any) -> None:
    assert allowed(term, {"k": value})


def test_one_rule_of_many_is_enough() -> None:
    rules = ["private/**", "visibility=private", "level=3"]
    row = {"doc_key": "open/a.md", "visibility": "public", "level": 1}
    assert allowed(rules, row)
    for change in ({"doc_key": "private/a.md"}, {"visibility": "private"}, {"level": 3}):
        assert not allowed(rules, row | change), change


def test_letters_with_marks_are_the_same_in_both_spellings() -> None:
    composed, apart = (unicodedata.normalize(form, "Gehälter") for form in ("NFC", "NFD"))
    assert composed != apart
    for rule, stored in ((composed, apart), (apart, composed)):
        assert not allowed(f"{rule}/**", {"doc_key": f"{stored}/a.md"})
        assert not allowed(f"{rule}=x", {stored: "x"})
        assert not allowed(f"folder={rule}", {"folder": stored})


def test_an_equals_sign_in_a_path_is_written_in_brackets() -> None:
    assert not allowed("a[=]b/**", {"doc_key": "a=b/c.md"})
    assert allowed("a=b/**", {"doc_key": "a=b/c.md"})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("", "relative"), ("/private/**", "relative"), ("../private", "relative"), ("=private", "no key"),
        ("visibility=", "no value"), ("a\\b", "backslash"), ("x{a,b", "brace"), ("a[b", "never closed"),
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_stops_every_command(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match="sensitive") as caught:
        load_settings(tmp_path, sensitive=["open/**", rule])
    assert said in str(caught.value)


def test_no_rule_is_no_selective_backup() -> None:
    with pytest.raises(ConfigurationError, match="no rule"):
        SensitiveRule([])


def test_the_setting_comes_from_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vectorkeep.toml").write_text('sensitive = ["private/**", "level=3"]\n')
    assert load_settings(tmp_path).sensitive == ("private/**", "level=3")
    monkeypatch.setenv("VECTORKEEP_SENSITIVE", "hr/**, level=4")
    assert load_settings(tmp_path).sensitive == ("hr/**", "level=4")
    (tmp_path / "vectorkeep.toml").write_text('sensitive = "private/**"\n')
    monkeypatch.delenv("VECTORKEEP_SENSITIVE")
    with pytest.raises(ConfigurationError, match="sensitive = 'private/\\*\\*' is not a list"):
        load_settings(tmp_path)
