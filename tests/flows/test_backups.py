"""The flows about backups: the forms, the states, what they show, and what a stop leaves. Real Chroma, real Prefect."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError

from flows.backup import backup
from flows.drill import drill
from flows.prune import prune
from flows.restore import restore
from flows.verify import verify
from tasks import artifacts, backup_pages, states
from tasks.by_hand import run_by_hand
from tasks.states import exit_code
from tasks.step_view import NOT_HALF, StepView
from tasks.watching import watched
from tests.flows.conftest import Shown, Workspace
from tests.support.backup_files import make_backup, name_at
from tests.support.chroma_helpers import file_limit, open_client
from tests.support.light_key import make_light_key
from vectorstore import backup as backups
from vectorstore import drill as drills
from vectorstore import restore as restores
from vectorstore import verify as verifies
from vectorstore.backup import BackupReport
from vectorstore.backups import catalog, history
from vectorstore.backups.manifest import KINDS
from vectorstore.backups.steps import Step
from vectorstore.drill import DrillReport
from vectorstore.errors import Interrupted
from vectorstore.lock import WriterLock
from vectorstore.settings import load_settings
from vectorstore.update import update
from vectorstore.verify import LEVELS, Verified, VerifyReport

FLOWS: dict[str, Flow[..., Any]] = {
    "backup": backup, "verify": verify, "restore": restore, "drill": drill, "prune": prune,
}  # fmt: skip
PASSWORD = "VECTORKEEP_BACKUP_PASSWORD"
HOSTILE = "who|`![x](http://example.test/x.png)<img>"
OLD = [name_at(f"2025-11-{day:02d} 03:00:00") for day in (9, 8, 7)]


@pytest.fixture(autouse=True)
def _limited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(PASSWORD, raising=False)
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


@pytest.fixture
def kept(filled: Workspace) -> Workspace:
    """And a backup of them."""
    backups.backup(load_settings(filled.root))
    return filled


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its file, and to whom to encrypt."""
    path = tmp_path_factory.mktemp("key") / "key.age"
    return path, make_light_key(path, "correct horse")


def run(flow: Flow[..., Any], workspace: Workspace, **parameters: Any) -> tuple[Any, Shown]:
    """The final state, and what the server knows of the run."""
    state = flow(workspace=str(workspace.root), **parameters, return_state=True)
    return state, Shown(state)


def names(workspace: Workspace) -> list[str]:
    return [each.name for each in catalog.list_backups(workspace.root / "backups")]


def stored(root: Path) -> dict[str, list[str]]:
    """Ids by collection in the store of a workspace."""
    with open_client(root / "chroma") as client:
        return {each.name: sorted(each.get()["ids"]) for each in client.list_collections()}


def spoil(workspace: Workspace) -> None:
    """A bit of the newest archive flips."""
    archive = catalog.find(workspace.root / "backups", "latest").archive
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)


@pytest.mark.parametrize("name", FLOWS)
class TestForm:
    """What the UI makes its forms of."""

    def test_every_parameter_is_described_and_has_a_default(self, name: str) -> None:
        assert not FLOWS[name].parameters.required
        for parameter, about in FLOWS[name].parameters.properties.items():
            assert len(about["description"]) > 30, parameter
            assert "default" in about
            assert "anyOf" not in about, "an optional value makes an ugly switch"

    def test_no_secret_is_a_parameter(self, name: str) -> None:
        assert not any(re.search("password|secret|key", each) for each in FLOWS[name].parameters.properties)

    def test_what_replaces_or_deletes_must_be_told_to(self, name: str) -> None:
        shows_only = FLOWS[name].parameters.properties.get("dry_run", {}).get("default")
        assert shows_only == (True if name in ("restore", "prune") else None)


class TestChoices:
    def test_drop_downs(self) -> None:
        assert backup.parameters.properties["kind"]["enum"] == ["auto", *KINDS]
        assert verify.parameters.properties["level"]["enum"] == list(LEVELS)

    @pytest.mark.parametrize("flow", [verify, restore, drill])
    def test_a_backups_name_must_be_one(self, flow: Flow[..., Any]) -> None:
        flow.validate_parameters({"name": OLD[0]})
        flow.validate_parameters({"name": f"{OLD[0]}.tar.gz.age"})
        for wrong in ("newest", f"../{OLD[0]}", f"{OLD[0]}.zip", f"{OLD[0]} "):
            with pytest.raises(ParameterTypeError, match="name: String should match pattern"):
                flow.validate_parameters({"name": wrong})

    def test_only_verify_takes_all(self) -> None:
        verify.validate_parameters({"name": "all"})
        for flow in (restore, drill):
            with pytest.raises(ParameterTypeError):
                flow.validate_parameters({"name": "all"})


class TestBackup:
    def test_it_shows_what_it_made_and_what_there_is(self, filled: Workspace) -> None:
        state, shown = run(backup, filled)
        (name,) = names(filled)
        assert (shown.run.name, shown.state.name) == ("backup", "Completed")
        assert re.fullmatch(rf"{name}: full, [\d.]+ kB, 3 rows, verified", shown.state.message)
        assert exit_code(state) == 0
        assert isinstance(state.result(), BackupReport)
        page = shown.artifact(backup_pages.BACKUP)
        assert page.startswith(f"## Done: {name}\n")
        assert "| holds | 3 rows in 2 collections; 3 documents and 3 chunks of the ledger |" in page
        assert "| verified | every byte was read back |" in page
        assert f"| SHA-256 | `{state.result().sha256}` |" in page
        assert "| docs\\_y | 2 |\n| docs\\_x | 1 |" in page
        assert json.loads(shown.artifact(backup_pages.CONTENTS)) == [
            {"collection": "docs_x", "rows": 1}, {"collection": "docs_y", "rows": 2},
        ]  # fmt: skip
        (row,) = json.loads(shown.artifact(backup_pages.BACKUPS))
        assert (row["backup"], row["kind"], row["problem"], row["last look"]) == (name, "full", "", "deep good")
        assert row["looked at"].endswith(" UTC") and row["last drill that passed"] == ""
        assert shown.artifact(artifacts.PROGRESS) == 100

    def test_portable_and_off_site(self, filled: Workspace) -> None:
        filled.settings(embedder="hash", collection="docs_{folder}", offsite_url="elsewhere")
        (filled.root / "elsewhere").mkdir()
        _, shown = run(backup, filled, kind="portable", offsite=True)
        assert shown.run.name == "backup portable off-site"
        assert ": portable, " in shown.state.message
        assert "| off-site | copied, and read back |" in shown.artifact(backup_pages.BACKUP)
        assert names(filled) == [each.name for each in catalog.list_backups(filled.root / "elsewhere")]

    def test_sensitive_rows_must_be_confirmed_or_left_out(self, filled: Workspace) -> None:
        filled.settings(embedder="hash", collection="docs_{folder}", sensitive=["y/**"])
        state, shown = run(backup, filled)
        assert (shown.state.type.value, shown.state.name, exit_code(state)) == ("FAILED", "Refused", 5)
        assert "confirm with --include-sensitive" in shown.state.message
        assert not names(filled)
        _, shown = run(backup, filled, selective=True)
        assert (shown.run.name, shown.state.name) == ("backup selective", "Completed")
        assert "| left out | 2 sensitive rows |" in shown.artifact(backup_pages.BACKUP)

    def test_a_writer_keeps_it_out(self, filled: Workspace) -> None:
        with WriterLock([filled.root / ".hashes" / "writer.lock"], "a test"):
            state, shown = run(backup, filled)
        assert (shown.state.name, exit_code(state)) == ("Locked", 4)
        assert "another run is writing: `a test`" in shown.state.message

    def test_a_wrong_workspace_is_a_usage_error(self, filled: Workspace) -> None:
        for flow in FLOWS.values():
            state = flow(workspace=str(filled.root / "nowhere"), return_state=True)
            assert (state.name, exit_code(state)) == ("Failed", 2)
            assert ". Next: make it, or run" in str(state.message)

    def test_one_that_lacks_rows_fails_and_is_kept(self) -> None:
        state = states.after_backup(replace(report_of({"docs": 3}), state="incomplete", exit_code=1, notes=["2 rows"]))
        assert (state.name, exit_code(state)) == ("Failed", 1)
        assert str(state.message).startswith(f"{OLD[0]} is kept, but is incomplete: 2 rows. Next: mend it")


class TestVerify:
    def test_all_are_good(self, kept: Workspace) -> None:
        backups.backup(load_settings(kept.root), kind="portable")
        state, shown = run(verify, kept, name="all", level="digest")
        assert (shown.run.name, shown.state.name) == ("verify all digest", "Completed")
        assert (shown.state.message, exit_code(state)) == ("2 backups verified", 0)
        assert shown.artifact(backup_pages.VERIFY).startswith("## Good: 2 backups\n")
        assert [row["last look"] for row in json.loads(shown.artifact(backup_pages.BACKUPS))] == ["digest good"] * 2

    def test_a_bad_one_fails_and_does_not_keep_the_others_from_being_looked_at(self, kept: Workspace) -> None:
        (older,) = names(kept)
        backups.backup(load_settings(kept.root))
        spoil(kept)
        state, shown = run(verify, kept, name="all")
        bad = names(kept)[0]
        assert (shown.state.type.value, shown.state.name, exit_code(state)) == ("FAILED", "Failed", 6)
        assert shown.state.message.startswith(f"1 of 2 do not verify, {bad} first: ")
        assert shown.state.message.endswith("Next: make a new backup, and find out what happened to the disk")
        page = shown.artifact(backup_pages.VERIFY)
        assert page.startswith("## Bad: 1 of 2 backups\n")
        assert page.index(f"| {bad} | BAD | deep |") < page.index(f"| {older} | good | deep |")
        rows = json.loads(shown.artifact(backup_pages.VERIFIED))
        assert [(row["backup"], row["state"]) for row in rows] == [(bad, "BAD"), (older, "good")]
        assert json.loads(shown.artifact(backup_pages.BACKUPS))[0]["last look"] == "deep BAD"

    def test_where_there_is_none(self, filled: Workspace) -> None:
        for name in ("all", "latest"):
            state, shown = run(verify, filled, name=name)
            assert (shown.state.name, exit_code(state)) == ("Failed", 2)
            assert shown.state.message.endswith("Next: run `vectorkeep backup`")

    def test_the_copies_off_site(self, filled: Workspace) -> None:
        filled.settings(embedder="hash", collection="docs_{folder}", offsite_url="elsewhere")
        (filled.root / "elsewhere").mkdir()
        run(backup, filled, offsite=True)
        _, shown = run(verify, filled, name="all", offsite=True)
        assert (shown.run.name, shown.state.name) == ("verify all off-site", "Completed")
        archive = filled.root / "elsewhere" / f"{names(filled)[0]}.tar.gz"
        archive.write_bytes(archive.read_bytes()[:-1] + b"?")
        state, shown = run(verify, filled, name="all", offsite=True)
        assert (shown.state.name, exit_code(state)) == ("Failed", 6)


class TestRestore:
    def test_a_dry_run_shows_what_it_would_replace_and_changes_nothing(self, kept: Workspace) -> None:
        kept.write("z/d.md")
        update(load_settings(kept.root))
        before = kept.bytes()
        state, shown = run(restore, kept)
        assert kept.bytes() == before
        (name,) = names(kept)
        assert (shown.run.name, shown.state.name) == ("restore plan latest", "Completed")
        assert shown.state.message == f"verified; would restore {name}, 3 rows"
        assert exit_code(state) == 0
        page = shown.artifact(backup_pages.RESTORE)
        assert page.startswith(f"## Would restore: {name}\n")
        assert "> **To restore it:** run this flow with `dry_run` turned off" in page
        assert "| would replace | 4 rows in 3 collections |" in page
        assert "| docs\\_z |  | 1 |" in page

    def test_it_brings_back_what_was_there_and_undoes_that(self, kept: Workspace) -> None:
        was = stored(kept.root)
        kept.write("z/d.md")
        update(load_settings(kept.root))
        now = stored(kept.root)
        (name,) = names(kept)
        state, shown = run(restore, kept, dry_run=False)
        safety = state.result().safety
        assert stored(kept.root) == was
        assert (shown.run.name, shown.state.name) == ("restore latest", "Completed")
        assert shown.state.message == f"restored {name}, 3 rows; what was there is {safety}"
        page = shown.artifact(backup_pages.RESTORE)
        assert page.startswith(f"## Restored: {name}\n")
        assert f"| what was there | is {safety}; this flow with `undo` brings it back |" in page
        rows = {row["backup"]: row for row in json.loads(shown.artifact(backup_pages.BACKUPS))}
        assert rows[safety]["pinned"] == f"what was there before {name} was restored"
        assert shown.artifact(artifacts.PROGRESS) == 100
        _, shown = run(restore, kept, dry_run=False, undo=True)
        assert shown.run.name == "restore undo"
        assert stored(kept.root) == now

    def test_into_a_folder_of_the_workspace(self, kept: Workspace) -> None:
        was = stored(kept.root)
        _, shown = run(restore, kept, dry_run=False, into="copy")
        assert (shown.run.name, shown.state.name) == ("restore latest into copy", "Completed")
        page = shown.artifact(backup_pages.RESTORE)
        assert "| into | " in page and "replaced" not in page
        assert stored(kept.root / "copy") == was

    def test_a_protected_store_is_refused(self, kept: Workspace) -> None:
        kept.settings(embedder="hash", collection="docs_{folder}", protected=True)
        state, shown = run(restore, kept, dry_run=False)
        assert (shown.state.type.value, shown.state.name, exit_code(state)) == ("FAILED", "Refused", 5)

    def test_a_bad_backup_is_not_restored(self, kept: Workspace) -> None:
        was = stored(kept.root)
        spoil(kept)
        for dry_run in (True, False):
            state, shown = run(restore, kept, dry_run=dry_run)
            assert (shown.state.name, exit_code(state)) == ("Failed", 6)
        assert stored(kept.root) == was
        assert not list(kept.root.glob(".restore-*"))


class TestDrill:
    def test_it_proves_that_a_backup_restores(self, kept: Workspace) -> None:
        state, shown = run(drill, kept)
        (name,) = names(kept)
        assert (shown.run.name, shown.state.name) == ("drill next in turn", "Completed")
        assert shown.state.message == f"{name} restores: 3 rows, every one was looked at"
        assert exit_code(state) == 0
        assert shown.artifact(backup_pages.DRILL).startswith(f"## Passed: drill of {name}\n")
        (row,) = json.loads(shown.artifact(backup_pages.BACKUPS))
        assert row["last look"] == "drill good" and row["last drill that passed"].endswith(" UTC")

    def test_one_that_does_not_restore_fails(self, kept: Workspace) -> None:
        spoil(kept)
        (name,) = names(kept)
        state, shown = run(drill, kept, name=name)
        assert (shown.run.name, shown.state.name, exit_code(state)) == (f"drill {name}", "Failed", 6)
        assert shown.state.message.startswith(f"{name} failed its drill: ")
        page = shown.artifact(backup_pages.DRILL)
        assert page.startswith(f"## Failed: drill of {name}\n\n> **Failed:** ")
        assert json.loads(shown.artifact(backup_pages.BACKUPS))[0]["last look"] == "drill BAD"

    @pytest.mark.parametrize("level", ["drill", "verify"])
    def test_what_ends_the_run_ends_its_process_and_leaves_nothing(
        self, kept: Workspace, level: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tasks.watching.LOOK_EVERY_S", 0.01)
        settings, before = load_settings(kept.root), sorted((kept.root / "backups").iterdir())
        seen: list[object] = []
        others = set(psutil.Process().children())

        def look() -> None:
            if any((kept.root / "backups").glob(".drill-*")):  # it is at work
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            if level == "drill":
                watched(lambda stop: drills.drill(settings, stop=stop), look, seen.append)
            else:
                watched(lambda stop: verifies.verify(settings, level="drill", stop=stop), look, seen.append)
        assert not seen
        assert set(psutil.Process().children()) <= others
        assert sorted((kept.root / "backups").iterdir()) == before


class TestPrune:
    @pytest.fixture
    def pruned(self, filled: Workspace) -> Workspace:
        """Three old backups, of which one is to stay, and one that is pinned."""
        filled.settings(embedder="hash", collection="docs_{folder}", backup_keep=1, backup_days=0)
        for name in OLD:
            make_backup(filled.root / "backups", name, size=1_000)
        catalog.pin(filled.root / "backups", OLD[2], HOSTILE)
        return filled

    def test_a_dry_run_says_why_and_changes_nothing(self, pruned: Workspace) -> None:
        before = pruned.bytes()
        state, shown = run(prune, pruned)
        assert pruned.bytes() == before
        assert (shown.run.name, shown.state.name) == ("prune plan", "Completed")
        assert (shown.state.message, exit_code(state)) == ("would delete 1 backup, 1.0 kB; 2 kept", 0)
        page = shown.artifact(backup_pages.PRUNE)
        assert page.startswith("## Would delete: 1 backup, 1.0 kB\n")
        assert f"| delete | {OLD[1]} | not one of the newest 1, 1.0 days before the newest |" in page
        assert f"| keep | {OLD[0]} | one of the newest 1 |" in page
        decisions = json.loads(shown.artifact(backup_pages.RETENTION))
        assert [each["decision"] for each in decisions] == ["keep", "delete", "keep"]

    def test_it_deletes_what_it_said(self, pruned: Workspace) -> None:
        _, shown = run(prune, pruned, dry_run=False)
        assert (shown.run.name, shown.state.message) == ("prune", "deleted 1 backup, 1.0 kB; 2 kept")
        assert names(pruned) == [OLD[0], OLD[2]]
        assert [row["backup"] for row in json.loads(shown.artifact(backup_pages.BACKUPS))] == [OLD[0], OLD[2]]
        _, shown = run(prune, pruned, dry_run=False)
        assert shown.state.message == "nothing to delete, 2 kept"

    def test_an_empty_policy_is_refused(self, pruned: Workspace) -> None:
        pruned.settings(embedder="hash", backup_keep=0, backup_days=0)
        for dry_run in (True, False):
            state, shown = run(prune, pruned, dry_run=dry_run)
            assert (shown.state.name, exit_code(state)) == ("Refused", 5)
        assert names(pruned) == OLD

    def test_a_pins_reason_is_text(self, pruned: Workspace) -> None:
        _, shown = run(prune, pruned)
        assert "pinned: who\\|\\`\\!\\[x\\]\\(http\\://" in shown.artifact(backup_pages.PRUNE)
        (row,) = [row for row in json.loads(shown.artifact(backup_pages.BACKUPS)) if row["backup"] == OLD[2]]
        assert "![x]\\(http" in row["pinned"] and "\\<img>" in row["pinned"]


class TestPassword:
    @pytest.fixture
    def encrypted(self, filled: Workspace, key: tuple[Path, str]) -> Workspace:
        path, recipient = key
        shutil.copy(path, filled.root)
        filled.settings(embedder="hash", collection="docs_{folder}", backup_recipients=[recipient])
        backups.backup(load_settings(filled.root))
        return filled

    def test_without_it_nothing_is_touched(self, encrypted: Workspace) -> None:
        before = encrypted.bytes()
        state, shown = run(restore, encrypted)
        assert (shown.state.name, exit_code(state)) == ("Failed", 2)
        assert f"Next: set {PASSWORD}" in shown.state.message
        assert encrypted.bytes() == before
        _, shown = run(verify, encrypted)
        assert "| digest | " in shown.artifact(backup_pages.VERIFY)
        assert "encrypted: without the password only its digests" in shown.artifact(backup_pages.VERIFY)

    @pytest.mark.slow
    @pytest.mark.parametrize("flow", [verify, restore, drill])
    def test_it_comes_from_the_environment_and_is_shown_nowhere(
        self, encrypted: Workspace, flow: Flow[..., Any], monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        for password, code in (("correct horse", 0), ("wrong donkey", 2)):
            monkeypatch.setenv(PASSWORD, password)
            state, shown = run(flow, encrypted)
            assert exit_code(state) == code, shown.state.message
            assert password not in json.dumps(shown.artifacts) + str(shown.run) + caplog.text


class TestPages:
    def test_many_collections_stay_readable_and_names_are_text(self) -> None:
        many = {f"{HOSTILE}{number}\u202e": number for number in range(500)}
        failed = DrillReport("failed", 6, 1.0, OLD[0], message=f"{HOSTILE}\n# no", notes=[HOSTILE])
        looked = [Verified(name, False, "deep", HOSTILE, 1, 1.0) for name in OLD * 50]
        for page in (
            backup_pages.backup_page(replace(report_of(many), notes=[HOSTILE], file=f"backups/{HOSTILE}")),
            backup_pages.drill_page(failed),
            backup_pages.verify_page(VerifyReport("bad", 6, 1.0, looked)),
        ):
            assert len(page) < 20_000
            assert not re.search(r"(?<!\\)<|(?<!\\)!\[|\u202e|\n# no", page)
        assert "… and 480 more: see the artifact `vectorkeep-backup-contents`" in backup_pages.backup_page(
            report_of(many)
        )

    def test_a_history_that_cannot_be_read_stops_nothing(
        self, kept: Workspace, caplog: pytest.LogCaptureFixture
    ) -> None:
        (kept.root / "backups" / history.FILE).unlink()
        (kept.root / "backups" / history.FILE).mkdir()
        state, shown = run(restore, kept)
        assert exit_code(state) == 0
        assert f"{history.FILE} failed: Is a directory" in caplog.text
        assert shown.artifact(backup_pages.BACKUPS) is None


class TestStop:
    def test_a_backup_leaves_nothing(self, filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tasks.watching.LOOK_EVERY_S", 0.01)
        before = filled.bytes()
        seen: list[BackupReport] = []
        view, settings = StepView("backup"), load_settings(filled.root)

        def interrupted() -> None:
            raise KeyboardInterrupt

        def make(stop: threading.Event) -> BackupReport:
            def step(step: Step) -> None:
                assert stop.wait(10)
                view.noted(stop)(step)

            return backups.backup(settings, on_step=step)

        with pytest.raises(KeyboardInterrupt):
            watched(make, interrupted, seen.append)
        assert not seen
        assert {path: data for path, data in filled.bytes().items() if not path.endswith(".lock")} == {
            path: data for path, data in before.items() if not path.endswith(".lock")
        }

    @pytest.mark.parametrize("at", ["unpacking", "writing", "verifying"])
    def test_a_restore_leaves_what_was_there(self, kept: Workspace, at: str) -> None:
        settings, was, stop = load_settings(kept.root), stored(kept.root), threading.Event()
        note = StepView("restore").noted(stop)

        def on_step(step: Step) -> None:
            if step.what == at:
                stop.set()
            note(step)

        with pytest.raises(Interrupted, match=f"stopped while {at}"):
            restores.restore(settings, on_step=on_step)
        assert stored(kept.root) == was
        assert len(names(kept)) == 1
        assert not [*kept.root.glob(".restore-*"), *(kept.root / "backups").glob(".*")]

    def test_what_is_begun_in_a_store_in_use_is_ended(self) -> None:
        stop = threading.Event()
        note = StepView("restore").noted(stop)
        note(Step("writing", 10))
        stop.set()
        note(Step(NOT_HALF, 10))
        with pytest.raises(Interrupted):
            note(Step("unpacking", 10))

    def test_the_bar_is_throttled_and_says_what_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[tuple[float, str]] = []
        monkeypatch.setattr(artifacts, "create_progress_artifact", lambda share, _, text: sent.append((share, text)))
        monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, share, text: sent.append((share, text)))
        patient, eager = artifacts.ProgressBar(), artifacts.ProgressBar(every_s=0)
        patient.show_step("backup", Step("writing", 100, 50))
        assert not sent
        eager.show_step("backup", Step("writing", 4_000_000, 1_000_000))
        eager.show_step("restore", Step("filling a store", 4_000, 1_000))
        eager.show_step("restore", Step("looking at it", 0))
        eager.show_step("verify", Step("verifying", 100, 110))
        patient.end("backup")
        assert sent == [
            (25, "backup: writing, 1.0 MB of 4.0 MB"), (25, "restore: filling a store, 1,000 of 4,000 rows"),
            (0, "restore: looking at it"), (100, "verify: verifying, 110 B of 100 B"), (100, "backup: done"),
        ]  # fmt: skip


class TestByHand:
    @pytest.fixture(autouse=True)
    def _as_before(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr("tasks.by_hand._quieten", lambda: None)  # it is for a process of its own
        handler = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, handler)

    def test_exit_codes(self, filled: Workspace) -> None:
        here = ["--param", f"workspace={filled.root}"]
        assert run_by_hand(restore, here) == 2  # there is none yet
        assert run_by_hand(backup, [*here, "-p", "kind=portable"]) == 0
        assert run_by_hand(restore, [*here, "-p", "dry_run=false", "-p", 'collections=["docs_y"]']) == 0
        assert run_by_hand(prune, here) == 0
        spoil(filled)
        assert run_by_hand(verify, here) == 6

    @pytest.mark.parametrize(
        ("flow", "wrong"), [(backup, "kind=tarball"), (verify, "level=bottomless"), (restore, "name=nope")]
    )
    def test_a_wrong_parameter_is_a_usage_error(self, flow: Flow[..., Any], wrong: str) -> None:
        with pytest.raises(SystemExit) as ended:
            run_by_hand(flow, ["--param", wrong])
        assert ended.value.code == 2


def report_of(collections: dict[str, int]) -> BackupReport:
    return BackupReport(
        state="done", exit_code=0, seconds=1.0, name=OLD[0], file=str(Path("backups") / f"{OLD[0]}.tar.gz"),
        kind="full", size=1_000, unpacked=4_000, documents=1, chunks=1, collections=collections, left_out=0,
        md5="0" * 32, sha256="0" * 64, verified="deep", encrypted=False,
    )  # fmt: skip
