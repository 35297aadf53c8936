"""``vectorkeep alerts``, and what every other command does at its end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.receivers import Webhook
from tests.support.workspaces import write
from vectorstore.alerting import URLS
from vectorstore.cli import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a document that can't be read, because it is too large."""
    (tmp_path / "vectorkeep.toml").write_text('embedder = "hash"\nmax_document_mb = 0.01\nalert_memory_share = 0\n')
    write(tmp_path / "docs", "good.md", "# Good\n")
    write(tmp_path / "docs", "large.md", "word " * 4000)
    return tmp_path


def vectorkeep(root: Path, *command: str) -> int:
    return main(["--workspace", str(root), *command])


def test_a_run_that_fails_is_told_at_its_end_and_so_is_the_next_good_one(
    root: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    assert vectorkeep(root, "update") == 1
    assert vectorkeep(root, "update") == 1
    (root / "docs" / "large.md").unlink()
    assert vectorkeep(root, "update") == 0
    assert webhook.titles == ["Vectorkeep FAIL: error rate", "Vectorkeep resolved: error rate"]
    assert "1 of 2 documents failed" in webhook.received[0]["message"]


@pytest.mark.slow
def test_a_webhook_that_never_answers_changes_neither_the_exit_code_nor_much_of_the_time(
    root: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    webhook.status = 0
    began = time.monotonic()
    assert vectorkeep(root, "update") == 1
    assert time.monotonic() - began < 20
    assert "1 not sent" in capsys.readouterr().err


def test_the_command_says_what_holds(
    root: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vectorkeep(root, "update") == 1
    assert vectorkeep(root, "alerts") == 1
    shown = capsys.readouterr().out
    assert "FAIL  error_rate, since" in shown
    assert "nobody: VECTORKEEP_ALERT_URLS is not set" in shown
    monkeypatch.setenv(URLS, f"json://{webhook.place}")
    assert vectorkeep(root, "--json", "alerts", "--dry-run") == 1
    found = json.loads(capsys.readouterr().out)
    assert [alert["key"] for alert in found["fired"]] == ["error_rate"]
    assert (found["dry_run"], webhook.received) == (True, [])
    assert vectorkeep(root, "alerts") == 1
    assert "told fired: error_rate" in capsys.readouterr().out
    (root / "docs" / "large.md").unlink()
    monkeypatch.delenv(URLS)
    assert vectorkeep(root, "update") == 0
    assert vectorkeep(root, "alerts") == 0
    assert capsys.readouterr().out.splitlines()[-2] == "no alerts"


def test_the_test_message(
    root: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vectorkeep(root, "alerts", "--test") == 2
    assert "VECTORKEEP_ALERT_URLS is not set" in capsys.readouterr().err
    monkeypatch.setenv(URLS, f"json://{webhook.place}\nslack://no")
    assert vectorkeep(root, "alerts", "--test") == 1
    assert capsys.readouterr().out.splitlines() == [
        "json://127.0.0.1  took it",
        "slack://…         not sent: Apprise knows no such address",
    ]
    assert webhook.titles == ["Vectorkeep test alert"]
