"""The health flow: the form, the states, what it shows and keeps, and what a stop leaves. Real Chroma, real Prefect."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from flows.health import health
from tasks import artifacts, health_pages
from tasks.by_hand import run_by_hand
from tasks.health import PROBES, _View
from tasks.states import exit_code
from tasks.watching import watched
from tests.flows.conftest import Shown, Workspace
from tests.support.chroma_helpers import file_limit, open_client
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.health_reports import make_report, many_faults
from vectorstore import fix as fixes
from vectorstore import health as checks
from vectorstore.chroma.store import PIPELINE_KEY
from vectorstore.errors import Interrupted
from vectorstore.findings import Depth, Findings, HealthReport
from vectorstore.lock import WriterLock
from vectorstore.output.health_history import read
from vectorstore.progress import Progress
from vectorstore.settings import load_settings
from vectorstore.update import update

HOSTILE = "who|`![x](http://example.test/x.png)<img>#00000"


@pytest.fixture(autouse=True)
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    if "workspace" in request.fixturenames:
        request.getfixturevalue("prefect_server")
    with file_limit():
        yield


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Three documents of a chunk each, in two collections."""
    workspace.settings(embedder="hash", collection="docs_{folder}")
    workspace.write("x/a.md", "y/b.md", "y/c.md")
    assert update(load_settings(workspace.root)).exit_code == 0
    return workspace


def run(workspace: Workspace, **parameters: Any) -> tuple[Any, Shown]:
    """The final state, and what the server knows of the run."""
    state = health(workspace=str(workspace.root), **parameters, return_state=True)
    return state, Shown(state)


def lose(workspace: Workspace, collection: str = "docs_y", chunk: str = "y/b.md#00000") -> None:
    """Another program deletes a chunk from the store."""
    with open_client(workspace.root / "chroma") as client:
        client.get_collection(collection).delete(ids=[chunk])


def add_orphans(workspace: Workspace, *ids: str) -> None:
    """Another program writes chunks to the store."""
    with open_client(workspace.root / "chroma") as client:
        collection = client.get_collection("docs_x")
        vector = collection.peek(1)["embeddings"][0]
        collection.upsert(ids=list(ids), documents=["text"] * len(ids), embeddings=[vector] * len(ids))


class TestForm:
    """What the UI makes its form of."""

    properties = health.parameters.properties

    def test_order(self) -> None:
        shown = sorted(self.properties, key=lambda name: self.properties[name]["position"])
        assert shown == [
            "depth", "fix", "dry_run", "max_deletes", "max_cost_usd", "probe", "verify_content", "workspace",
        ]  # fmt: skip

    def test_every_parameter_is_described_and_has_a_default(self) -> None:
        assert not health.parameters.required
        for name, about in self.properties.items():
            assert len(about["description"]) > 30, name
            assert "default" in about
            assert "anyOf" not in about, "an optional value makes an ugly switch"

    def test_it_changes_nothing_unless_told_to_twice(self) -> None:
        assert self.properties["fix"]["default"] is False
        assert self.properties["dry_run"]["default"] is True

    def test_drop_downs(self) -> None:
        assert self.properties["depth"]["enum"] == [depth.name.lower() for depth in Depth]
        assert self.properties["probe"]["enum"] == list(PROBES)

    def test_numbers_are_bounded(self) -> None:
        for name in ("max_cost_usd", "max_deletes"):
            assert self.properties[name]["minimum"] == self.properties[name]["default"] == -1
        with pytest.raises(ParameterTypeError, match="max_deletes: Input should be greater than or equal to -1"):
            health.validate_parameters({"max_deletes": -2})


class TestStates:
    def test_nothing_is_wrong(self, filled: Workspace) -> None:
        state, shown = run(filled)
        assert (shown.run.name, shown.state.name) == ("health standard", "Completed")
        assert shown.state.message.startswith("INFO: 2 checks noted, ")  # there is no backup, no drill
        assert exit_code(state) == 0
        assert isinstance(state.result(), HealthReport)

    def test_a_fail_is_failed_and_names_the_next_step(self, filled: Workspace) -> None:
        lose(filled)
        state, shown = run(filled, depth="quick")
        assert (shown.run.name, shown.state.type.value, shown.state.name) == ("health quick", "FAILED", "Failed")
        assert shown.state.message.startswith("1 check failed, ")
        assert "missing: docs_y: 1 chunks of the ledger are not in the store. Next: run `vec" in shown.state.message
        assert exit_code(state) == 1

    def test_a_warning_completes_and_is_named(self, filled: Workspace) -> None:
        (filled.root / "chroma" / "01234567-89ab-cdef-0123-456789abcdef").mkdir()
        state, shown = run(filled)
        assert shown.state.name == "Completed"
        assert shown.state.message.startswith("WARN: 1 check warned, ")
        assert "leaked_folders: " in shown.state.message and ". Next: " in shown.state.message
        assert exit_code(state) == 0

    def test_an_unmounted_source_makes_no_orphans(self, filled: Workspace) -> None:
        (filled.root / "docs").rename(filled.root / "unmounted")
        before = stored(filled)
        for parameters in ({}, {"fix": True, "dry_run": False}):
            state, shown = run(filled, **parameters)
            assert exit_code(state) == 1
            assert "source: " in shown.state.message
            assert "orphans" not in shown.artifact(health_pages.HEALTH)
        assert stored(filled) == before

    def test_a_wrong_workspace_is_a_usage_error(self, filled: Workspace) -> None:
        for fix in (False, True):
            state = health(workspace=str(filled.root / "nowhere"), fix=fix, return_state=True)
            assert (state.name, exit_code(state)) == ("Failed", 2)
            assert ". Next: make it, or run" in str(state.message)

    def test_a_writer_keeps_a_fix_out_but_no_look(self, filled: Workspace) -> None:
        with WriterLock([filled.root / ".hashes" / "writer.lock"], "a test"):
            state, shown = run(filled, fix=True, dry_run=False)
            assert (shown.state.name, exit_code(state)) == ("Locked", 4)
            assert "another run is writing: `a test`" in shown.state.message
            _, shown = run(filled)
        assert shown.state.name == "Completed"
        assert "lock" in shown.artifact(health_pages.HEALTH)


class TestFix:
    def test_a_dry_run_shows_what_it_would_do_and_changes_nothing(self, filled: Workspace) -> None:
        lose(filled)
        before = stored(filled)
        state, shown = run(filled, fix=True)
        assert stored(filled) == before
        assert (shown.run.name, shown.state.name) == ("fix plan standard", "Completed")
        assert shown.state.message.startswith("would do 1 action; now FAIL: 1 check failed, ")
        assert exit_code(state) == 0
        page = shown.artifact(health_pages.FIX)
        assert page.startswith("## Would mend: 1 action\n")
        assert "### What would be done\n" in page
        assert "| rewrite | **docs\\_y** | 1 chunks of the ledger are not in the store |" in page

    def test_it_mends_unpaid_and_a_second_check_says_so(
        self, workspace: Workspace, embeddings_server: EmbeddingsServer
    ) -> None:
        workspace.settings(embedder="openai", collection="docs_{folder}")
        workspace.write("x/a.md", "y/b.md")
        update(load_settings(workspace.root))
        lose(workspace)
        add_orphans(workspace, HOSTILE)
        requests = embeddings_server.requests
        state, shown = run(workspace, fix=True, dry_run=False, depth="deep", probe="never")
        assert embeddings_server.requests == requests
        assert (shown.run.name, shown.state.name) == ("fix deep", "Completed")
        assert shown.state.message.startswith("did 2 actions; now INFO: ")
        assert exit_code(state) == 0
        page = shown.artifact(health_pages.FIX)
        assert page.startswith("## Mended: 2 actions\n")
        assert "- before: **FAIL**: 2 checks failed, " in page
        assert "- second check: **INFO**: " in page
        assert "$0.000000" in page
        assert "set-aside/deleted-" in page
        _, shown = run(workspace, fix=True, dry_run=False)
        assert shown.state.message.startswith("nothing to do; now INFO: ")
        assert shown.artifact(health_pages.FIX).startswith("## Nothing to mend\n")

    def test_many_deletes_are_refused_until_they_are_allowed(self, filled: Workspace) -> None:
        add_orphans(filled, *(f"z/{number}.md#00000" for number in range(11)))
        for dry_run in (True, False):
            state, shown = run(filled, fix=True, dry_run=dry_run)
            assert (shown.state.type.value, shown.state.name) == ("FAILED", "Refused")
            assert exit_code(state) == 5
            assert "run again with --max-deletes 11" in shown.state.message
            page = shown.artifact(health_pages.FIX)
            assert "> **Refused:** 11 of 14 chunks" in page
            assert "### What was done" not in page
        _, shown = run(filled, fix=True, dry_run=False, max_deletes=11)
        assert shown.state.message.startswith("did 1 action; now INFO: ")

    def test_what_must_be_paid_is_capped(self, workspace: Workspace, embeddings_server: EmbeddingsServer) -> None:
        workspace.settings(embedder="openai", collection="docs_{folder}")
        workspace.write("y/b.md")
        update(load_settings(workspace.root))
        lose(workspace)
        (workspace.root / ".hashes" / "cache.sqlite3").unlink()
        requests = embeddings_server.requests
        state, shown = run(workspace, fix=True, dry_run=False, max_cost_usd=0)
        assert (shown.state.type.value, shown.state.name) == ("FAILED", "Capped")
        assert exit_code(state) == 3
        assert embeddings_server.requests == requests
        assert shown.artifact(health_pages.FIX).startswith("## Capped: ")

    def test_what_is_left_fails(self, filled: Workspace) -> None:
        lose(filled)
        with open_client(filled.root / "chroma") as client:
            client.get_collection("docs_x").modify(metadata={PIPELINE_KEY: "another/model/256/md1"})
        state, shown = run(filled, fix=True, dry_run=False)
        assert shown.state.name == "Failed"
        assert "pipeline_mark: docs_x: " in shown.state.message
        assert exit_code(state) == 1
        assert "### Left to a person\n- FAIL · pipeline\\_mark · **docs\\_x**: " in shown.artifact(health_pages.FIX)


class TestShown:
    def test_page_and_tables(self, filled: Workspace) -> None:
        lose(filled)
        add_orphans(filled, HOSTILE)
        _, shown = run(filled)
        page = shown.artifact(health_pages.HEALTH)
        assert page.startswith("## FAIL: 2 checks failed, 2 noted, ")
        assert "> **To mend it:** run this flow with `fix`" in page
        assert (
            "### FAIL · missing · **docs\\_y**: 1 chunks of the ledger are not in the store\n- likely cause: " in page
        )
        assert "- **next step: run `vectorkeep health --fix`, which writes them again" in page
        assert "\n- for example: y/b.md\\#00000\n" in page
        assert "- INFO · backup · no backup is on record\n" in page
        assert (
            "- coverage **66.6 %**: 3 chunks are stored in 2 collections, the ledger has 3 chunks of 3 documents;"
            in page
        )
        assert "who\\|\\`\\!\\[x\\]\\(http\\://" in page
        rows = json.loads(shown.artifact(health_pages.FINDINGS))
        assert [row["severity"] for row in rows[:4]] == ["FAIL", "FAIL", "INFO", "INFO"]
        assert {row["severity"] for row in rows[4:]} == {"PASS"}
        assert (rows[0]["check"], rows[0]["collection"], rows[0]["a fix"]) == ("missing", "docs_y", "rewrite")
        assert rows[0]["for example"] == "y/b.md#00000"
        first, second = json.loads(shown.artifact(health_pages.COVERAGE))
        assert (first["collection"], first["coverage"], first["stored"], first["chunks"]) == ("docs_y", "50.0 %", 1, 2)
        assert (second["collection"], second["coverage"]) == ("docs_x", "100.0 %")
        assert shown.artifact(artifacts.PROGRESS) == 100
        (described,) = [each["description"] for each in shown.artifacts if each["key"] == artifacts.PROGRESS]
        assert described == "health: 3 of 3 chunks"

    def test_the_probe_runs_when_it_is_asked_for(self, filled: Workspace) -> None:
        filled.settings(embedder="hash", collection="docs_{folder}", probe_max_mb=0)
        for probe in ("auto", "always"):
            _, shown = run(filled, depth="deep", probe=probe)
            rows = {row["check"]: row["finding"] for row in json.loads(shown.artifact(health_pages.FINDINGS))}
            assert ("Chroma opened a copy: 3 of 3" in rows.get("probe", "")) == (probe == "always")

    def test_contents_are_read_when_that_is_asked_for(self, filled: Workspace) -> None:
        with sqlite3.connect(filled.root / ".hashes" / "cache.sqlite3") as db:
            db.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
        for fix in (False, True):
            _, shown = run(filled, fix=fix)
            assert "WARN" not in shown.artifact(health_pages.HEALTH)
            _, shown = run(filled, fix=fix, verify_content=True)
            assert "WARN · cache\\_coverage · " in shown.artifact(health_pages.HEALTH)

    def test_reports_and_history_are_kept(self, filled: Workspace) -> None:
        run(filled, depth="quick")
        lose(filled)
        state, _ = run(filled)
        hashes = filled.root / ".hashes"
        report = json.loads((hashes / "health_report.json").read_text())
        assert (report["depth"], report["severity"], report["exit_code"]) == ("standard", "FAIL", exit_code(state))
        assert "<!DOCTYPE html>" in (hashes / "health_report.html").read_text()
        assert [(each.depth, each.severity) for each in read(hashes).runs()] == [
            ("quick", "INFO"),
            ("standard", "FAIL"),
        ]

    def test_a_report_that_cannot_be_written_stops_nothing(
        self, filled: Workspace, caplog: pytest.LogCaptureFixture
    ) -> None:
        (filled.root / ".hashes" / "health_report.json").mkdir()
        state, _ = run(filled)
        assert exit_code(state) == 0
        assert "health_report.json is a folder" in caplog.text

    def test_many_faults_stay_readable(self) -> None:
        report = many_faults()
        page = health_pages.health_page(report)
        assert len(page) < 20_000
        assert "… and 333 more: see the artifact `vectorkeep-findings`" in page
        assert not any(sign in page for sign in ("\u202e", "\x1b"))
        assert not re.search(r"(?<!\\)<", page)
        page.encode()  # no halves of characters: a server would not take them

    def test_a_table_is_bounded_and_can_be_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: dict[str, tuple[Any, str]] = {}
        monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda *_: None)
        monkeypatch.setattr(
            artifacts, "create_table_artifact", lambda rows, key, text: sent.update({key: (rows, text)})
        )
        health_pages.publish_health(many_faults(1500))
        rows, described = sent[health_pages.FINDINGS]
        assert len(rows) == artifacts.TABLE_ROWS
        assert "the first 1,000 of 1,5" in described
        json.dumps(rows, ensure_ascii=False).encode()
        rows, _ = sent[health_pages.COVERAGE]
        assert [row["coverage"] for row in rows[:2]] == ["50.0 %", "51.2 %"]

    def test_code_in_a_sentence_stays_code(self) -> None:
        found = Findings()
        found.add("disk", "`a` and *b*", severity=None)
        assert "**next step: make room on the disk**" in health_pages.health_page(make_report(found))
        assert "`a` and \\*b\\*" in health_pages.health_page(make_report(found))


class TestStop:
    def test_a_look_ends_and_shows_nothing(self, filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.watching.LOOK_EVERY_S", 0.01)
        settings = load_settings(filled.root)
        view, seen, before = _View(settings), [], filled.bytes()

        def interrupted() -> None:
            raise KeyboardInterrupt

        def look(stop: threading.Event) -> HealthReport:
            return checks.health(settings, on_progress=after(stop, view.advanced(stop)))

        with pytest.raises(KeyboardInterrupt):
            watched(look, interrupted, seen.append)
        assert not seen
        assert filled.bytes() == before
        stop = threading.Event()
        stop.set()
        with pytest.raises(Interrupted):
            look(stop)

    def test_a_fix_stops_at_a_pages_end_and_the_next_goes_on(self, filled: Workspace) -> None:
        lose(filled)
        stop = threading.Event()
        stop.set()
        report = fixes.fix(load_settings(filled.root), stop=stop)
        assert (report.state, report.exit_code) == ("interrupted", 130)
        assert stored(filled) == ["x/a.md#00000", "y/c.md#00000"]
        _, shown = run(filled, fix=True, dry_run=False)
        assert shown.state.message.startswith("did ")
        assert stored(filled) == ["x/a.md#00000", "y/b.md#00000", "y/c.md#00000"]


def after(stop: threading.Event, then: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """A look that takes until it is asked to stop."""

    def wait(progress: Progress) -> None:
        assert stop.wait(10)
        then(progress)

    return wait


class TestByHand:
    @pytest.fixture(autouse=True)
    def _as_before(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr("tasks.by_hand._quieten", lambda: None)  # it is for a process of its own
        handler = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, handler)

    def test_exit_codes(self, filled: Workspace) -> None:
        here = ["--param", f"workspace={filled.root}"]
        assert run_by_hand(health, here) == 0
        lose(filled)
        assert run_by_hand(health, here) == 1
        assert run_by_hand(health, [*here, "-p", "fix=true"]) == 0
        assert run_by_hand(health, [*here, "-p", "fix=true", "-p", "dry_run=false"]) == 0
        assert run_by_hand(health, here) == 0

    @pytest.mark.parametrize("wrong", ["depth=bottomless", "probe=true", "dry_run=perhaps", "max_cost_usd=-2"])
    def test_a_wrong_parameter_is_a_usage_error(self, wrong: str) -> None:
        with pytest.raises(SystemExit) as ended:
            run_by_hand(health, ["--param", wrong])
        assert ended.value.code == 2


def stored(workspace: Workspace) -> list[str]:
    """All ids in the store."""
    with sqlite3.connect(f"file:{workspace.root / 'chroma' / 'chroma.sqlite3'}?mode=ro", uri=True) as db:
        return sorted(id_ for (id_,) in db.execute("SELECT embedding_id FROM embeddings"))
