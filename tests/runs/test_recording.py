"""Every run is on record, whatever becomes of it; and keeping the record never stops a run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.killing import kill_everywhere
from tests.support.workspaces import make_settings, write, write_corpus
from vectorstore.errors import Capped, ConfigurationError, Interrupted, Locked, Refused
from vectorstore.runs.history import LOG, read, records
from vectorstore.runs.markers import FOLDER, Marker
from vectorstore.runs.record import RunRecord
from vectorstore.runs.recording import recorded, settle
from vectorstore.settings import Settings
from vectorstore.update import UpdateReport, update

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = make_settings(tmp_path)
    found.hashes.mkdir()
    return found


def report() -> UpdateReport:
    return UpdateReport(run="r", state="completed", exit_code=0, seconds=1.0)


def marks(settings: Settings) -> list[str]:
    folder = settings.hashes / FOLDER
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def only(settings: Settings) -> RunRecord:
    (found,) = records(settings)
    return found


def test_an_update_is_on_record_with_its_figures(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    write_corpus(settings.path(settings.source), 4)
    write(settings.path(settings.source), "bad.md", "x").write_bytes(b"\xff\xfe\x00bad")
    done = recorded(settings, "update", lambda: update(settings), by="cli")
    kept = only(settings)
    assert (kept.verb, kept.by, kept.state, kept.exit_code) == ("update", "cli", "incomplete", 1)
    assert (kept.documents, kept.work, kept.failures, kept.error_rate) == (4, 5, 1, 0.2)
    assert kept.message.startswith("1 document failed, 'bad.md' first: ")
    assert kept.chunks == kept.chunks_written == done.chunks_written > 0
    assert (kept.chunks_embedded, kept.tokens, kept.requests, kept.cost_usd) == (done.chunks_embedded, 0, 0, 0.0)
    files = [path for path in settings.path(settings.chroma_path).rglob("*") if path.is_file()]
    assert kept.store_bytes == sum(path.stat().st_size for path in files) > 0
    assert kept.seconds > 0 and kept.cpu_seconds > 0
    assert (kept.memory_mb or 0) > 10 and 0 < (kept.memory_share or 0) <= 1
    assert kept.passed is None and kept.coverage is None and kept.backup_bytes is None
    assert not marks(settings)


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (Capped("over"), "capped", 3), (Locked("busy"), "locked", 4), (Refused("no"), "refused", 5),
        (ConfigurationError("what"), "failed", 2), (Interrupted("stop"), "interrupted", 130),
        (KeyboardInterrupt(), "interrupted", 130), (OSError(28, "No space left"), "failed", 1),
        (MemoryError(), "failed", 1), (SystemExit(3), "failed", 1),
    ],
)  # fmt: skip
def test_what_is_raised_is_on_record_and_raised(
    settings: Settings, error: BaseException, state: str, code: int
) -> None:
    def fail() -> None:
        assert len(marks(settings)) == 1
        raise error

    with pytest.raises(type(error)):
        recorded(settings, "backup", fail)
    kept = only(settings)
    assert (kept.verb, kept.by, kept.state, kept.exit_code) == ("backup", "library", state, code)
    assert kept.error == ("Interrupted" if code == 130 else type(error).__name__)
    assert not marks(settings)


def test_messages_are_one_line_without_secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    monkeypatch.setenv("VECTORKEEP_ALERT_URLS", "mailto://me:word@host slack://token/other")
    said = "key sk-verysecret\nat https://me:word@host/x,\x1b[31m slack://token/other " + "\udcff" + "y" * 5000

    def fail() -> None:
        raise ConfigurationError(said)

    with pytest.raises(ConfigurationError):
        recorded(settings, "update", fail)
    message = only(settings).message
    assert "verysecret" not in message and "word" not in message and "token" not in message
    assert message.isprintable()
    assert message.startswith("key *** at https://***@host/x,\\x1b[31m *** ")
    assert len(message) == 500


def test_a_dry_run_is_not_on_record(settings: Settings) -> None:
    assert recorded(settings, "restore", report, dry_run=True) == report()
    assert records(settings) == [] and not marks(settings)


def test_a_look_makes_no_folder_but_an_update_is_marked_from_the_start(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert recorded(settings, "verify", report) == report()
    assert not settings.hashes.exists()

    def look() -> UpdateReport:
        assert len(marks(settings)) == 1
        return report()

    recorded(settings, "update", look)
    assert only(settings).state == "completed"


KILLED = """
import os, signal, sys
from pathlib import Path
from vectorstore.runs.recording import recorded
from vectorstore.settings import Settings
recorded(Settings(workspace=Path(sys.argv[1])), "update", lambda: os.kill(os.getpid(), signal.SIGKILL), by="cli")
"""


def kill_a_run(settings: Settings) -> int:
    """Its process id."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(settings.workspace)], cwd=ROOT)
    assert process.wait() == -signal.SIGKILL
    return process.pid


def test_a_killed_run_is_put_on_record_once_by_the_next(settings: Settings) -> None:
    pid = kill_a_run(settings)
    assert len(marks(settings)) == 1 and records(settings) == []
    recorded(settings, "health", lambda: report())
    crashed, healthy = records(settings)
    assert (crashed.verb, crashed.by, crashed.state, crashed.exit_code) == ("update", "cli", "crashed", -9)
    assert f"process {pid} went away" in crashed.message
    assert crashed.started < healthy.started and healthy.state == "completed"
    assert settle(settings) == [] and len(records(settings)) == 2 and not marks(settings)


def test_settling_puts_killed_runs_on_record(settings: Settings) -> None:
    for _ in range(3):
        kill_a_run(settings)
    assert [each.state for each in settle(settings)] == ["crashed"]  # the first two by the runs after them
    assert [each.state for each in records(settings)] == ["crashed"] * 3


def test_a_run_that_lives_is_left_alone_also_one_of_this_process(settings: Settings) -> None:
    def inside() -> UpdateReport:
        assert settle(settings) == []
        return recorded(settings, "health", report)

    recorded(settings, "update", inside)
    assert [each.state for each in records(settings)] == ["completed"] * 2


def test_a_process_id_used_anew_is_no_mistake(settings: Settings) -> None:
    about = {"pid": os.getpid(), "started": 1_795_292_147.0, "verb": "update", "by": "cli"}
    (settings.hashes / FOLDER).mkdir()
    (settings.hashes / FOLDER / "20261121T000000Z-00000000.json").write_text(json.dumps(about))
    (found,) = settle(settings)
    assert (found.run, found.state) == ("20261121T000000Z-00000000", "crashed")


def test_two_that_settle_at_once_put_a_run_on_record_once(settings: Settings) -> None:
    about = {"pid": 1, "started": 1_795_292_147.0, "verb": "update", "by": "cli"}
    (settings.hashes / FOLDER).mkdir()
    for number in range(200):
        (settings.hashes / FOLDER / f"run-{number:03d}.json").write_text(json.dumps(about))
    script = """
import sys
from pathlib import Path
from vectorstore.runs.recording import settle
from vectorstore.settings import Settings
print(len(settle(Settings(workspace=Path(sys.argv[1])))))
"""
    command = [sys.executable, "-c", script, str(settings.workspace)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=60)[0]) for process in both]
    assert sum(counts) == 200
    lines = (settings.hashes / LOG.lines).read_text().splitlines()
    assert len(lines) == 200 and len({json.loads(line)["run"] for line in lines}) == 200
    assert not marks(settings)


def test_a_mark_that_another_has_just_dealt_with_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_run(settings)
    (mark,) = (settings.hashes / FOLDER).iterdir()

    def lock(handle: object, operation: int) -> None:
        mark.unlink()  # by the other, between our opening it and our locking it
        mark.write_text("somebody's, by chance of the same name")

    monkeypatch.setattr("vectorstore.runs.markers.fcntl.flock", lock)
    assert settle(settings) == [] and records(settings) == [] and mark.exists()


def test_what_a_killed_update_had_spent_is_on_record(settings: Settings) -> None:
    pid = kill_a_run(settings)
    (mark,) = (settings.hashes / FOLDER).iterdir()
    started = json.loads(mark.read_text())["started"]
    picture = {"pid": pid, "updated": started + 12.5, "cost_usd": 1.25, "tokens_billed": 70, "requests": 3, "failed": 2}
    (settings.hashes / "embedding_checkpoint.json").write_text(json.dumps(picture))
    (found,) = settle(settings)
    assert (found.cost_usd, found.tokens, found.requests, found.failures, found.seconds) == (1.25, 70, 3, 2, 12.5)


def test_the_checkpoint_of_another_run_is_not_taken(settings: Settings) -> None:
    pid = kill_a_run(settings)
    picture = {"pid": pid, "updated": 1000.0, "cost_usd": 1.25}
    (settings.hashes / "embedding_checkpoint.json").write_text(json.dumps(picture))
    (found,) = settle(settings)
    assert (found.cost_usd, found.seconds) == (None, 0.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\x00\x00"])
def test_a_mark_that_says_nothing_goes(settings: Settings, text: str) -> None:
    (settings.hashes / FOLDER).mkdir()
    (settings.hashes / FOLDER / "run.json").write_text(text)
    assert settle(settings) == [] and not marks(settings)


def test_a_mark_that_was_never_whole_goes_after_an_hour(settings: Settings) -> None:
    (settings.hashes / FOLDER).mkdir()
    path = settings.hashes / FOLDER / "run.new"
    path.write_text("")
    assert settle(settings) == [] and path.exists()
    os.utime(path, (0, 0))
    assert settle(settings) == [] and not path.exists()


def test_a_kill_at_any_step_leaves_at_most_one_record(settings: Settings) -> None:
    """Also one of the recording itself; and what comes after it goes on as if nothing had been."""
    kills = 0
    for where in kill_everywhere(lambda: recorded(settings, "backup", report)):
        kills += 1
        settle(settings)
        found = read(settings.hashes)
        assert found.notes == [] and len(found.records) <= 1, where
        assert not [name for name in marks(settings) if name.endswith(".json")], where
        for path in settings.hashes.rglob("*"):
            if path.is_file():
                path.unlink()
    assert kills > 8
    assert [each.state for each in records(settings)] == ["completed"]


@pytest.mark.parametrize("broken", ["file", "lines", "lock"])
def test_a_history_that_can_not_be_kept_is_a_note(settings: Settings, broken: str) -> None:
    if broken == "file":
        (settings.hashes / FOLDER).write_text("no folder")
    else:
        (settings.hashes / (LOG.lines if broken == "lines" else "run_history.lock")).mkdir()
    notes: list[str] = []
    assert recorded(settings, "update", report, note=notes.append) == report()
    with pytest.raises(Capped):
        recorded(settings, "update", capped, note=notes.append)
    assert len(notes) == (0 if broken == "file" else 2)
    assert len(records(settings)) == (2 if broken == "file" else 0)


def capped() -> UpdateReport:
    raise Capped("over")


def under_a_full_disk(action: Callable[[], object]) -> None:
    """Call it in a child whose files may not grow past 10 bytes; it must end well."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_full_disk_leaves_no_litter_and_stops_nothing(settings: Settings) -> None:
    notes: list[str] = []

    def run() -> None:
        assert recorded(settings, "backup", report, note=notes.append) == report()
        assert len(notes) == 1 and "could not be written" in notes[0]

    under_a_full_disk(run)
    assert not marks(settings) and records(settings) == []


def test_a_killed_run_waits_for_room_on_the_disk(settings: Settings) -> None:
    kill_a_run(settings)

    def look() -> None:
        assert settle(settings, lambda note: None) == []

    under_a_full_disk(look)
    assert len(marks(settings)) == 1
    assert len(settle(settings)) == 1


def test_a_mark_is_whole_when_it_has_its_name(settings: Settings) -> None:
    mark = Marker(settings.hashes, "run", {"pid": 1})
    assert marks(settings) == ["run.json"]
    mark.remove()
    assert marks(settings) == []
