"""A key is tested over HTTP, without a bill and without being shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.embeddings_server import EmbeddingsServer
from tests.support.receivers import free_port
from vectorstore.check_key import KeyReport, check_key
from vectorstore.cli import main
from vectorstore.errors import ConfigurationError
from vectorstore.settings import Settings

WRONG = "sk-wrong-0123456789"


def asked(server: EmbeddingsServer, tmp_path: Path, **settings: Any) -> KeyReport:
    values: dict[str, Any] = {"embedder": "openai", "openai_base_url": server.url, **settings}
    return check_key(Settings(tmp_path, **values))


def test_a_good_key_is_accepted_and_nothing_is_billed(embeddings_server: EmbeddingsServer, tmp_path: Path) -> None:
    report = asked(embeddings_server, tmp_path)
    assert (report.state, report.exit_code, report.address, report.model) == ("accepted", 0, "127.0.0.1", True)
    assert (embeddings_server.requests, embeddings_server.bill.tokens) == (0, 0)


def test_a_model_that_the_key_has_not_is_told(embeddings_server: EmbeddingsServer, tmp_path: Path) -> None:
    report = asked(embeddings_server, tmp_path, model="other", dimensions=8)
    assert (report.state, report.exit_code, report.model) == ("accepted", 0, False)
    assert "other is not in the list" in report.message


@pytest.mark.parametrize(
    ("fault", "state", "code"),
    [
        ({"kind": "status", "status": 403}, "no_permission", 2),
        ({"kind": "quota"}, "quota", 1),
        ({"kind": "status", "status": 503}, "unreachable", 1),
        ({"kind": "status", "status": 429}, "unreachable", 1),
        ({"kind": "html"}, "unreachable", 1),
    ],
)
def test_what_else_the_provider_may_say(
    embeddings_server: EmbeddingsServer, tmp_path: Path, fault: dict[str, Any], state: str, code: int
) -> None:
    embeddings_server.fail(**fault)
    report = asked(embeddings_server, tmp_path)
    assert (report.state, report.exit_code) == (state, code)
    assert report.message
    assert report.hint


def test_a_wrong_key_is_rejected_and_never_shown(
    embeddings_server: EmbeddingsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", WRONG)
    report = asked(embeddings_server, tmp_path)
    assert (report.state, report.exit_code) == ("rejected", 2)
    assert WRONG not in repr(report)
    assert "Incorrect API key provided: <key>" in report.message
    assert main(["--workspace", str(tmp_path), "check-key"]) == 2
    assert main(["--workspace", str(tmp_path), "--json", "check-key"]) == 2
    shown = capfd.readouterr()
    assert "127.0.0.1: rejected: HTTP 401" in shown.out
    assert WRONG not in shown.out + shown.err


def test_nobody_there_and_no_key(
    embeddings_server: EmbeddingsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = asked(embeddings_server, tmp_path, openai_base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert (report.state, report.exit_code) == ("unreachable", 1)
    monkeypatch.delenv("OPENAI_API_KEY")
    report = asked(embeddings_server, tmp_path, openai_base_url="")
    assert (report.state, report.exit_code, report.address) == ("missing", 2, "api.openai.com")
    with pytest.raises(ConfigurationError, match="not an http"):
        asked(embeddings_server, tmp_path, openai_base_url="nonsense")


def test_the_command_speaks_json(
    embeddings_server: EmbeddingsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--workspace", str(tmp_path), "--json", "check-key"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "accepted"
