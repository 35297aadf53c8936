"""Figures for Prometheus: valid, complete, and served to this machine without a secret and without waiting."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.runs.test_history import STARTED, record
from tests.support.workbench import Workspace, document
from tests.support.workspaces import digests, make_settings, write_corpus
from vectorstore.backups.history import Event
from vectorstore.backups.history import append as note_backup
from vectorstore.errors import ConfigurationError
from vectorstore.runs.history import append
from vectorstore.runs.metrics import metrics_text
from vectorstore.runs.metrics_server import MetricsServer
from vectorstore.runs.recording import recorded
from vectorstore.settings import Settings
from vectorstore.update import UpdateReport, update

Samples = dict[tuple[str, tuple[str, ...]], float]
NOW = STARTED + 10 * 86_400


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = make_settings(tmp_path)
    found.hashes.mkdir()
    return found


def samples(text: str) -> Samples:
    """By name and the values of the labels; every family has a help text and a type."""
    families = list(text_string_to_metric_families(text))
    assert all(each.documentation and each.type in ("gauge", "counter") for each in families)
    return {
        (each.name.removeprefix("vectorkeep_"), tuple(each.labels.values())): each.value
        for family in families for each in family.samples
    }  # fmt: skip


def test_a_workspace_without_runs_has_valid_metrics_too(settings: Settings) -> None:
    found = samples(metrics_text(settings))
    assert found["cost_usd_total", ()] == 0 and found["running", ()] == 0
    assert not any(name.startswith("last_run") for name, _ in found)


def test_figures_are_those_of_the_runs(settings: Settings) -> None:
    for each in (
        record(0, work=4, failures=1, chunks_embedded=30, seconds=10.0, requests=2, tokens=50, memory_mb=100.0),
        record(1, work=0, failures=0, chunks_embedded=0, requests=0, tokens=0, documents=7, chunks=70),
        record(2, verb="health", state="findings", exit_code=1, passed=40, info=3, warn=2, fail=1, coverage=0.5),
        record(3, verb="drill", state="crashed", exit_code=-9, seconds=0.0),
    ):  # fmt: skip
        assert append(settings.hashes, each) == []
    settings.backups.mkdir()
    note_backup(settings.backups, Event("verify", "b", NOW - 60, "deep"))
    note_backup(settings.backups, Event("verify", "b", NOW - 5, "deep", ok=False))
    note_backup(settings.backups, Event("drill", "b", NOW - 900, "drill"))
    found = samples(metrics_text(settings, clock=lambda: NOW))
    expected = {
        ("runs_total", ("completed", "update")): 2, ("runs_total", ("crashed", "drill")): 1,
        ("last_run_exit_code", ("drill",)): -9, ("last_run_exit_code", ("update",)): 0,
        ("last_run_timestamp_seconds", ("update",)): STARTED + 86_400 + 1.5,
        ("last_run_duration_seconds", ("update",)): 1.5,
        ("embedding_rate_chunks_per_second", ()): 3, ("error_ratio", ()): 0.25,
        ("documents", ()): 7, ("chunks", ()): 70, ("coverage_ratio", ()): 0.5,
        ("findings", ("FAIL",)): 1, ("findings", ("PASS",)): 40,
        ("api_requests_total", ()): 2, ("tokens_total", ()): 50,
        ("last_backup_verified_age_seconds", ()): 60, ("last_drill_age_seconds", ()): 900,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    assert ("last_success_timestamp_seconds", ("health",)) not in found
    assert 0 < found["memory_used_ratio", ()] <= 1


def test_a_run_that_goes_on_is_counted(settings: Settings) -> None:
    def look() -> UpdateReport:
        assert samples(metrics_text(settings))["running", ()] == 1
        return UpdateReport("r", "completed", 0, 1.0)

    recorded(settings, "update", look)
    assert samples(metrics_text(settings))["running", ()] == 0


def test_names_from_outside_stay_labels(settings: Settings) -> None:
    append(settings.hashes, record(0, verb='a"} 1\n# HELP evil', state="completed"))
    assert ("runs_total", ("completed", 'a"} 1\n# HELP evil')) in samples(metrics_text(settings))


def test_they_are_written_after_each_run_where_that_is_wished(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, metrics_file="out/vectorkeep.prom")
    write_corpus(settings.path(settings.source), 2)
    recorded(settings, "update", lambda: update(settings))
    path = settings.workspace / "out" / "vectorkeep.prom"
    assert samples(path.read_text())["last_run_exit_code", ("update",)] == 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    (tmp_path / "taken").write_text("no folder")
    notes: list[str] = []
    odd = make_settings(tmp_path, metrics_file=str(tmp_path / "taken" / "x.prom"))
    assert recorded(odd, "update", lambda: update(odd), note=notes.append).exit_code == 0
    assert len(notes) == 1 and "metrics are not written" in notes[0]


def test_the_command_prints_and_writes_them(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.write("a.md", document(1, 2))
    workspace.update()
    printed = workspace.cli("metrics")
    assert printed.code == 0 and samples(printed.out)["runs_total", ("completed", "update")] == 1
    assert workspace.cli("metrics", "--output", str(tmp_path / "m.prom")).code == 0
    assert samples((tmp_path / "m.prom").read_text())["documents", ()] == 1


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    server = MetricsServer(settings, port=0)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, kind and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_pages_are_served_and_nothing_else_is(settings: Settings) -> None:
    before = digests(settings.workspace)
    with served(settings) as url:
        code, kind, body = get(f"{url}/metrics?x=1")
        assert code == 200 and kind.startswith("text/plain; version=0.0.4") and samples(body)
        code, kind, body = get(f"{url}/report")
        assert code == 200 and kind.startswith("text/html") and "<svg" in body and "<script" not in body
        code, kind, body = get(f"{url}/status")
        assert code == 200 and kind.startswith("application/json")
        assert json.loads(body)["workspace"] == str(settings.workspace)
        assert get(f"{url}/metrics", "HEAD")[2] == ""
        assert get(f"{url}/../../etc/passwd")[0] == 404
        assert get(f"{url}/metrics", "POST")[0] == 501
    assert digests(settings.workspace) == before
    with pytest.raises(urllib.error.URLError):
        get(f"{url}/metrics")


def test_health_is_bad_until_the_run_is_made_good(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorstore.runs.metrics_server._FRESH_S", 0.0)
    with served(settings) as url:
        assert get(f"{url}/health")[0] == 200
        append(settings.hashes, record(0))
        append(settings.hashes, record(1, verb="backup", state="crashed", exit_code=-9, message="gone"))
        append(settings.hashes, record(2, state="interrupted", exit_code=130))
        code, _, body = get(f"{url}/health")
        told = json.loads(body)
        assert code == 503 and not told["well"]
        assert [(each["verb"], each["message"]) for each in told["problems"]] == [("backup", "gone")]
        assert "run again" in told["problems"][0]["next"]
        append(settings.hashes, record(3, verb="backup"))
        assert get(f"{url}/health")[0] == 200


def test_a_page_is_made_once_in_a_few_seconds(settings: Settings) -> None:
    with served(settings) as url:
        first = get(f"{url}/health")
        append(settings.hashes, record(0, state="failed", exit_code=1))
        assert get(f"{url}/health") == first


def test_a_locked_ledger_is_not_waited_for(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    write_corpus(settings.path(settings.source), 2)
    update(settings)
    holder = sqlite3.connect(settings.hashes / "ledger.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with served(settings) as url:
        started = time.monotonic()
        assert [get(f"{url}/{page}")[0] for page in ("metrics", "health")] == [200, 200]
        assert time.monotonic() - started < 1
        code, _, body = get(f"{url}/status")  # from a copy
        assert time.monotonic() - started < 4
        assert code == 200 and json.loads(body)["documents"] == 2
    holder.close()


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    settings = make_settings(tmp_path, chroma_url="http://user:word@127.0.0.1:9/x")
    settings.hashes.mkdir()
    append(settings.hashes, record(0, state="failed", exit_code=1, message="with sk-verysecret"))
    with served(settings) as url:
        said = "".join(get(f"{url}/{page}")[2] for page in ("metrics", "health", "status"))
    assert "***@127.0.0.1:9/x" in said
    assert "verysecret" not in said and "word" not in said


def test_a_damaged_history_is_an_answer_too(settings: Settings) -> None:
    (settings.hashes / "run_history.parquet").write_bytes(b"PAR1 no")
    (settings.hashes / "spend.sqlite3").write_bytes(b"no database at all, but long enough to be looked at")
    (settings.hashes / "ledger.sqlite3").write_bytes(b"no database at all, but long enough to be looked at")
    with served(settings) as url:
        assert get(f"{url}/metrics")[0] == 200
        code, _, body = get(f"{url}/status")
        assert code == 503 and "ledger" in json.loads(body)["error"]


def test_the_port_is_of_this_machine_only_and_0_turns_it_off(settings: Settings) -> None:
    off = MetricsServer(make_settings(settings.workspace.parent, metrics_port=0))
    off.start()
    assert off.port == 0
    off.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}"):
            MetricsServer(settings, port).start()
    with pytest.raises(ConfigurationError, match="port 70000"):
        MetricsServer(settings, 70_000).start()
    server = MetricsServer(settings, 0)
    server.start()
    assert server._server and server._server.server_address[0] == "127.0.0.1"
    server.stop()
    server.stop()
