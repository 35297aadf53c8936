"""The update flow: the form, the states, what it shows, and that a stop loses nothing. Real Chroma, real Prefect."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import ParameterTypeError
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL

from flows.update import update
from tasks import artifacts, pages, update_pages
from tasks.by_hand import run_by_hand
from tasks.cost_pages import COSTS
from tasks.runs import is_transient
from tasks.states import exit_code
from tasks.update import update_documents
from tasks.watching import watched
from tests.flows.conftest import Shown, Workspace
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.server_process import ServerProcess
from vectorstore import errors
from vectorstore.lock import WriterLock
from vectorstore.planning import MODES
from vectorstore.runs.history import read

ROOT = Path(__file__).parents[2]
HOSTILE = "a|b![x](http://example.test/x.png)<img>`_*.md"


@pytest.fixture(autouse=True)
def _prefect(request: pytest.FixtureRequest) -> None:
    if "workspace" in request.fixturenames:
        request.getfixturevalue("prefect_server")


def run(workspace: Workspace, **parameters: Any) -> tuple[Any, Shown]:
    """The final state, and what the server knows of the run."""
    state = update(workspace=str(workspace.root), **parameters, return_state=True)
    return state, Shown(state)


class TestForm:
    """What the UI makes its form of."""

    properties = update.parameters.properties

    def test_order(self) -> None:
        shown = sorted(self.properties, key=lambda name: self.properties[name]["position"])
        assert shown == [
            "dry_run", "mode", "collections", "doc_keys", "max_cost_usd", "max_deletes", "verify_content",
            "then_health", "workspace",
        ]  # fmt: skip

    def test_every_parameter_is_described_and_has_a_default(self) -> None:
        assert not update.parameters.required
        for name, about in self.properties.items():
            assert len(about["description"]) > 30, name
            assert "default" in about
            assert "anyOf" not in about, "an optional value makes an ugly switch"

    def test_mode_is_a_drop_down_of_the_librarys_modes(self) -> None:
        assert tuple(self.properties["mode"]["enum"]) == MODES

    def test_numbers_are_bounded(self) -> None:
        for name in ("max_cost_usd", "max_deletes"):
            assert self.properties[name]["minimum"] == self.properties[name]["default"] == -1
        with pytest.raises(ParameterTypeError, match="max_deletes: Input should be greater than or equal to -1"):
            update.validate_parameters({"max_deletes": -2})

    def test_lists_hold_texts(self) -> None:
        for name in ("collections", "doc_keys"):
            assert self.properties[name]["type"] == "array"
            assert self.properties[name]["items"] == {"type": "string"}


class TestStates:
    def test_completed(self, workspace: Workspace) -> None:
        workspace.write("a.md", "b.md")
        state, shown = run(workspace)
        assert (shown.state.name, shown.state.message) == ("Completed", "2 added; $0.000000")
        assert shown.run.name == "update changed"
        assert exit_code(state) == 0
        assert state.result().chunks_written == 2
        (kept,) = read(workspace.root / ".hashes").records
        assert (kept.verb, kept.by, kept.state, kept.work) == ("update", "prefect", "completed", 2)

    def test_nothing_to_do(self, workspace: Workspace) -> None:
        workspace.write("a.md")
        run(workspace)
        time.sleep(2.1)
        run(workspace)  # the file was so new that it is read once more
        _, shown = run(workspace)
        assert (shown.state.name, shown.state.message) == ("Completed", "1 unchanged; $0.000000")
        assert shown.artifact(COSTS) is None
        assert "Plan: nothing to do, 1 unchanged" in shown.artifact(update_pages.PLAN)

    def test_capped_and_the_next_run_goes_on(self, workspace: Workspace, embeddings_server: EmbeddingsServer) -> None:
        workspace.settings(embedder="openai", batch_texts=2, concurrency=1)
        workspace.write(*(f"{number}.md" for number in range(8)), text="word " * 300)
        state, shown = run(workspace, max_cost_usd=0.00002)
        assert (shown.state.type.value, shown.state.name) == ("FAILED", "Capped")
        assert ". Next: " in shown.state.message
        assert exit_code(state) == 3
        page = shown.artifact(update_pages.UPDATE)
        assert page.startswith("## Capped: ")
        assert "> **Next:** " in page
        assert shown.artifact(COSTS).startswith("## Costs: $0.0000") and "█" * 20 in shown.artifact(COSTS)
        _, shown = run(workspace)
        bill = f"${embeddings_server.bill.tokens * 0.02e-6:.6f}"
        assert f"Costs: {bill} today" in shown.artifact(COSTS) and re.search(
            rf"in all\W+{re.escape(bill)}", shown.artifact(COSTS)
        )
        assert shown.state.name == "Completed"
        assert max(embeddings_server.bill.by_text.values()) == 1

    def test_zero_is_a_cap(self, workspace: Workspace, embeddings_server: EmbeddingsServer) -> None:
        workspace.settings(embedder="openai")
        workspace.write("a.md")
        _, shown = run(workspace, max_cost_usd=0)
        assert shown.state.name == "Capped"
        assert not embeddings_server.requests

    def test_refused_until_it_is_allowed(self, workspace: Workspace) -> None:
        names = [f"{number}.md" for number in range(30)]
        workspace.write(*names)
        run(workspace)
        workspace.remove(*names[:20])
        state, shown = run(workspace)
        assert (shown.state.type.value, shown.state.name) == ("FAILED", "Refused")
        assert "20 of 30 documents would be deleted" in shown.state.message
        assert exit_code(state) == 5
        assert "> **Refused:** 20 of 30" in shown.artifact(update_pages.PLAN)
        _, shown = run(workspace, dry_run=True)
        assert shown.state.name == "Refused"
        _, shown = run(workspace, max_deletes=20)
        assert shown.state.message.startswith("20 deleted, 10 unchanged")

    def test_refused_before_there_is_a_plan(self, workspace: Workspace) -> None:
        workspace.write("a.md")
        run(workspace)
        (workspace.root / "docs").rename(workspace.root / "unmounted")
        state, shown = run(workspace)
        assert shown.state.name == "Refused"
        assert isinstance(state.result(raise_on_failure=False), errors.EmptySource)

    def test_failed_documents(self, workspace: Workspace) -> None:
        workspace.write("a.md", "b.md")
        (workspace.root / "docs" / HOSTILE.replace("/", "")).write_bytes(b"\xff\xfe\xff\x00broken")
        state, shown = run(workspace)
        assert shown.state.name == "Failed"
        assert shown.state.message.startswith("1 document failed, ")
        assert shown.state.message.endswith("Next: the others were written; the next run tries these again")
        assert exit_code(state) == 1
        assert shown.artifact(update_pages.UPDATE).startswith("## Completed in part: 2 added\n")
        (row,) = json.loads(shown.artifact(update_pages.FAILURES))
        assert row["document"] == "a|b![x]\\(http:example.testx.png)\\<img>\\`\\_\\*.md"

    def test_locked_by_hand_is_not_tried_again(self, workspace: Workspace) -> None:
        workspace.write("a.md")
        with WriterLock([workspace.root / ".hashes" / "writer.lock"], "a test"):
            state, shown = run(workspace)
        assert (shown.state.type, shown.state.name) == ("FAILED", "Locked")
        assert "another run is writing: `a test`" in shown.state.message
        assert exit_code(state) == 4

    def test_a_wrong_parameter_names_what_there_is(self, workspace: Workspace) -> None:
        workspace.write("a.md")
        run(workspace)
        nope: dict[str, Any] = {"collections": ["nope"]}
        for parameters in ({"doc_keys": ["nope.md"]}, nope, {**nope, "dry_run": True}):
            state, shown = run(workspace, **parameters)
            assert shown.state.name == "Failed"
            assert exit_code(state) == 2
        assert shown.state.message.endswith("Next: there are: docs")

    def test_a_failing_provider_is_tried_again(
        self, workspace: Workspace, embeddings_server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(update_documents, "retry_delay_seconds", [0, 0])
        workspace.settings(embedder="openai", max_attempts=1, batch_texts=1, concurrency=1)
        workspace.write("a.md", "b.md", "c.md")
        embeddings_server.fail("status", status=500, nth=(2, 3))
        _, shown = run(workspace)
        assert shown.state.name == "Completed"
        assert embeddings_server.statuses == {200: 3, 500: 2}
        assert max(embeddings_server.bill.by_text.values()) == 1

    def test_only_a_failing_provider_is_tried_again(self) -> None:
        others = (errors.QuotaExhausted, errors.Locked, errors.Capped, errors.Refused)
        assert not any(asked(kind("why")) for kind in others)
        assert is_transient is update_documents.retry_condition_fn

    def test_a_deployments_run_waits_an_hour_for_a_lock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with disable_run_logger():
            monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-a-deployment")
            assert asked(errors.Locked("why"))
            assert not asked(errors.Capped("why"))
            assert asked(errors.EmbeddingFailed("why"), tries=2)
            assert not asked(errors.EmbeddingFailed("why"), tries=3), "the provider is tried twice more, no longer"
        delays = update_documents.retry_delay_seconds
        assert isinstance(delays, list) and len(delays) == update_documents.retries
        assert 3600 <= sum(delays) <= 3700

    def test_a_run_that_waited_does_its_work(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of-a-deployment")
        monkeypatch.setattr(update_documents, "retry_delay_seconds", [2])
        workspace.write("a.md")
        lock = WriterLock([workspace.root / ".hashes" / "writer.lock"], "a test")
        lock.__enter__()
        threading.Timer(1, lock.__exit__).start()
        _, shown = run(workspace)
        assert (shown.state.name, shown.state.message) == ("Completed", "1 added; $0.000000")


def asked(error: Exception, tries: int = 1) -> bool:
    """Whether a task that ended in this error is tried again."""
    condition: Any = update_documents.retry_condition_fn
    return bool(condition(update_documents, SimpleNamespace(run_count=tries), _Carrier(error)))


class _Carrier:
    def __init__(self, data: object) -> None:
        self.data = data


class TestShown:
    def test_dry_run_shows_the_cost_and_changes_nothing(
        self, workspace: Workspace, embeddings_server: EmbeddingsServer
    ) -> None:
        workspace.settings(embedder="openai", collection="docs_{folder}")
        workspace.write("x/a.md", "y/b.md")
        run(workspace)
        workspace.write("x/a.md", "z/c.md", text="Something else.")
        workspace.remove("y/b.md")
        before, requests = workspace.bytes(), embeddings_server.requests
        state, shown = run(workspace, dry_run=True)
        assert workspace.bytes() == before
        assert embeddings_server.requests == requests
        assert (shown.run.name, shown.state.name) == ("plan changed", "Completed")
        assert shown.state.message.startswith("1 added, 1 changed, 1 deleted; would cost $0.00000")
        page = shown.artifact(update_pages.PLAN)
        assert page.startswith("## Plan: 1 added, 1 changed, 1 deleted\n")
        assert f"| tokens to pay | {state.result().tokens} |" in page
        assert "(cap $5.00)" in page
        assert "| docs\\_x |  | 1 |  |" in page
        assert json.loads(shown.artifact(update_pages.COLLECTIONS))[2] == {
            "collection": "docs_z", "added": 1, "changed": 0, "deleted": 0,
        }  # fmt: skip
        assert shown.artifact(update_pages.UPDATE) is None

    def test_a_plan_dearer_than_the_cap_says_so(
        self, workspace: Workspace, embeddings_server: EmbeddingsServer
    ) -> None:
        workspace.settings(embedder="openai")
        workspace.write("a.md")
        _, shown = run(workspace, dry_run=True, max_cost_usd=0)
        assert "the update would end as Capped" in shown.artifact(update_pages.PLAN)

    def test_an_update_shows_plan_progress_report_and_tables(
        self, workspace: Workspace, embeddings_server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tasks.watching.LOOK_EVERY_S", 0.05)
        workspace.settings(embedder="openai", collection="docs_{folder}", batch_texts=1, concurrency=1)
        workspace.write("x/a.md", "y/b.md", "y/c.md")
        embeddings_server.configure({"latency_s": 0.1})
        _, shown = run(workspace)
        assert shown.artifact(update_pages.PLAN).startswith("## Plan: 3 added\n")
        page = shown.artifact(update_pages.UPDATE)
        assert page.startswith("## Completed: 3 added\n")
        assert "| chunks written | 3: 3 embedded, 0 without paying |" in page
        assert shown.artifact(artifacts.PROGRESS) == 100
        (described,) = [each["description"] for each in shown.artifacts if each["key"] == artifacts.PROGRESS]
        assert described.startswith("update: 3 of 3 documents · 3 chunks written · ")
        assert json.loads(shown.artifact(update_pages.COLLECTIONS)) == [
            {"collection": "docs_x", "added": 1}, {"collection": "docs_y", "added": 2},
        ]  # fmt: skip

    def test_a_server_that_takes_no_artifacts_stops_nothing(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise httpx.ConnectError("no server")

        monkeypatch.setattr(artifacts, "create_markdown_artifact", refuse)
        workspace.write("a.md")
        _, shown = run(workspace)
        assert shown.state.message.startswith("1 added")

    def test_the_key_is_nowhere(self, workspace: Workspace, embeddings_server: EmbeddingsServer) -> None:
        workspace.settings(embedder="openai")
        workspace.write("a.md")
        embeddings_server.fail("status", status=401, message=f"Incorrect API key provided: {embeddings_server.key}")
        _, shown = run(workspace)
        assert shown.state.name == "Failed"
        assert embeddings_server.key not in json.dumps(shown.artifacts) + str(shown.run)

    def test_names_cannot_inject_markdown(self) -> None:
        shown = pages.escaped(HOSTILE + "\n# heading")
        assert "\n" not in shown
        assert "\\!\\[x\\]\\(http\\:" in shown
        assert "\\<img\\>\\`" in shown
        assert "a\\|b" in shown
        assert pages.escaped("http://x.test www.x.test") == "http\\://x.test www\\.x.test"

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("guide/page_one.md#00000", "guide/page_one.md#00000"),
            ("![x](//y)", "![x]\\(//y)"),
            ("[x\\](//y)", "[x\\\\]\\(//y)"),
            ("http://x.test/)<img>", "http\\://x.test/)\\<img>"),  # a link would take the sign before the tag along
            ("<b>&lt;\n# no", "\\<b>\\&lt; # no"),
            ("__init__.py *", "\\_\\_init\\_\\_.py \\*"),
            ("# no", "\\# no"),
            ("run `vectorkeep update`, not `", "run `vectorkeep update`, not \\`"),
            ("half \udcff, turned \u202e", "half \\udcff, turned \\u202e"),
        ],
    )
    def test_cells_are_shown_as_they_are(self, name: str, shown: str) -> None:
        assert pages.cell(name) == shown


class TestStop:
    def test_what_hits_the_main_thread_stops_the_call_at_a_batchs_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.watching.LOOK_EVERY_S", 0.01)
        seen: list[str] = []

        def call(stop: threading.Event) -> str:
            assert stop.wait(10)
            time.sleep(0.05)
            return "what was kept"

        def look() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            watched(call, look, seen.append)
        assert seen == ["what was kept"]

    def test_sigterm_loses_nothing_that_was_paid(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace.settings(embedder="openai", batch_texts=1, concurrency=2, store_batch=5)
        workspace.write(*(f"{number:02}.md" for number in range(40)), text="word " * 50)
        with ServerProcess(tmp_path, latency=0.1) as server:
            environment = os.environ | {
                "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT),
                "OPENAI_API_KEY": server.key, "OPENAI_BASE_URL": server.url,
            }  # fmt: skip
            command = [sys.executable, str(ROOT / "flows" / "update.py"), "-p", f"workspace={workspace.root}"]
            with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
                wait_until(lambda: server.bill_file.exists() and len(server.bill.requests) >= 6)
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=30)
            assert process.returncode == 130, said
            assert "Traceback" not in said
            assert "interrupted; run again to go on" in said
            assert last_runs(workspace) == ["interrupted"]
            assert 6 <= len(server.bill.requests) < 40
            (kept,) = read(workspace.root / ".hashes").records
            assert (kept.state, kept.requests) == ("interrupted", len(server.bill.requests))
            monkeypatch.setenv("OPENAI_API_KEY", server.key)
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            _, shown = run(workspace)
            assert shown.state.name == "Completed"
            assert set(server.bill.by_text.values()) == {1}
            assert len(server.bill.by_text) == 40


class TestByHand:
    @pytest.fixture(autouse=True)
    def _as_loud_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.by_hand._quieten", lambda: None)  # it is for a process of its own

    def test_help_explains_every_parameter(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            run_by_hand(update, ["--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in update.parameters.properties)

    @pytest.mark.parametrize("wrong", ["nonsense", "unknown=1", "mode=often", "max_deletes=-2"])
    def test_a_wrong_parameter_is_a_usage_error(self, wrong: str) -> None:
        with pytest.raises(SystemExit) as ended:
            run_by_hand(update, ["--param", wrong])
        assert ended.value.code == 2


def wait_until(condition: Any, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def last_runs(workspace: Workspace) -> list[str]:
    ledger = sqlite3.connect(workspace.root / ".hashes" / "ledger.sqlite3")
    return [state for (state,) in ledger.execute("SELECT state FROM runs ORDER BY started")]
