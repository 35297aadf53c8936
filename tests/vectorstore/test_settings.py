"""Settings: parameter > environment > file > default, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectorstore.errors import ConfigurationError
from vectorstore.init import write_settings
from vectorstore.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "MAX_EMBEDDING_COST", "VECTORKEEP_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


def test_the_nearest_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vectorkeep.toml").write_text('chunk_tokens = 100\nmax_cost_usd = 1\nsource = "a"\n')
    assert load_settings(tmp_path).max_cost_usd == 1
    monkeypatch.setenv("MAX_EMBEDDING_COST", "2")
    assert load_settings(tmp_path).max_cost_usd == 2
    monkeypatch.setenv("VECTORKEEP_MAX_COST_USD", "3")
    assert load_settings(tmp_path).max_cost_usd == 3
    monkeypatch.setenv("VECTORKEEP_MAX_COST_USD", "none")
    assert load_settings(tmp_path).max_cost_usd is None
    found = load_settings(tmp_path, max_cost_usd=4, chunk_tokens=None)
    assert (found.max_cost_usd, found.chunk_tokens, found.source, found.space) == (4, 100, Path("a"), "ip")


def test_the_environment_speaks_every_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"INCLUDE": "**/*.md, *.txt", "PAUSED": "yes", "PRICES": '{"m": 0.5}', "CONCURRENCY": "4", "SPACE": "l2"}
    for name, text in texts.items():
        monkeypatch.setenv(f"VECTORKEEP_{name}", text)
    found = load_settings(tmp_path)
    assert found.include == ("**/*.md", "*.txt")
    assert (found.paused, found.prices, found.concurrency, found.space) == (True, {"m": 0.5}, 4, "l2")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chunk_token = 5", "did you mean 'chunk_tokens'"),
        ("chunk_tokens = 1", "below 16"),
        ("chunk_tokens = 1.5", "whole number"),
        ("chunk_tokens = true", "whole number"),
        ('embedder = "gpt"', "local, openai, hash"),
        ('include = "**"', "list of texts"),
        ("paused = 1", "true or false"),
        ("max_cost_usd = nan", "number"),
        ("max_cost_usd = -1", "below 0"),
        ('prices = { m = "x" }', "table of numbers"),
        ("canaries = { q = 1 }", "table of texts"),
        ("= nonsense", "vectorkeep.toml"),
    ],
)
def test_a_wrong_setting_says_what_and_where(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "vectorkeep.toml").write_text(line)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path)
    assert words in str(caught.value)


def test_the_workspace_is_found_upwards_and_the_template_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_settings(tmp_path, 'a "quoted" \\ name')
    inner = tmp_path / "x" / "y"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    found = load_settings()
    assert (found.workspace, found.source) == (tmp_path, Path('a "quoted" \\ name'))
    assert path.read_text().count("\n") > 20
    with pytest.raises(ConfigurationError, match="already"):
        write_settings(tmp_path)
    with pytest.raises(ConfigurationError, match="not a folder"):
        load_settings(tmp_path / "missing")


def test_the_written_file_holds_the_defaults(tmp_path: Path) -> None:
    write_settings(tmp_path)
    found, default = load_settings(tmp_path), Settings(workspace=tmp_path)
    assert found == default
