"""Every alert over a real workspace: it arrives, once a cool-down, and once when it is over; whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.receivers import MailServer, Webhook
from tests.support.workspaces import make_settings, write_corpus
from vectorstore.alerting.alert import NAMES
from vectorstore.alerting.state import FILE, LOCK
from vectorstore.alerts import AlertsReport, after_run, alerts, try_addresses
from vectorstore.backup import backup
from vectorstore.backups import history as backup_history
from vectorstore.budget import Budget
from vectorstore.runs.history import append
from vectorstore.runs.markers import Marker
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings
from vectorstore.update import update

ROOT = Path(__file__).parents[2]
HOUR, DAY = 3600.0, 86_400.0
START = 1_790_000_000.0 // DAY * DAY
QUIET = {"alert_backup_hours": 0, "alert_drill_days": 0, "alert_update_hours": 0, "alert_memory_share": 0}


@dataclass
class Scene:
    """A workspace with a history, and a clock."""

    settings: Settings
    urls: list[str]
    now: float = START
    count: int = field(default=0)

    def run(self, verb: str = "update", state: str = "completed", **figures: Any) -> None:
        """Put a run on record that ends now."""
        self.count += 1
        values: dict[str, Any] = {"seconds": 1.0, "cpu_seconds": 1.0, "exit_code": 0, **figures}
        record = RunRecord(f"r{self.count:04}", verb, "cli", self.now - 1, state=state, **values)
        assert append(self.settings.hashes, record) == []

    def set(self, **settings: Any) -> None:
        self.settings = replace(self.settings, **settings)

    def check(self, **more: Any) -> AlertsReport:
        return alerts(self.settings, addresses=self.urls, clock=lambda: self.now, **more)


@pytest.fixture
def scene(tmp_path: Path, webhook: Webhook) -> Scene:
    settings = make_settings(tmp_path, **QUIET)
    settings.hashes.mkdir()
    return Scene(settings, [f"json://{webhook.place}"])


def spend(scene: Scene, dollars: float) -> None:
    budget = Budget(
        scene.settings.path(scene.settings.spend_ledger), "run", "m", 10**12, clock=lambda: scene.now
    )  # a dollar a token
    budget.reserve(1, 1).settle(int(dollars))
    budget.close()


def backed_up(scene: Scene) -> None:
    write_corpus(scene.settings.path(scene.settings.source), 1)
    assert update(scene.settings).exit_code == 0
    assert backup(scene.settings, clock=lambda: scene.now).exit_code == 0


def drilled(scene: Scene) -> None:
    scene.settings.backups.mkdir(exist_ok=True)
    event = backup_history.Event("drill", "backup_20260101_000000", scene.now)
    backup_history.append(scene.settings.backups, event)


def a_store_of(scene: Scene, size: int) -> None:
    folder = scene.settings.path(scene.settings.chroma_path)
    folder.mkdir(exist_ok=True)
    (folder / "chroma.sqlite3").write_bytes(b"x" * size)


def killed_run(scene: Scene) -> None:
    about = {"pid": 1, "started": scene.now, "verb": "update", "by": "cli"}
    marker = Marker(scene.settings.hashes, "killed", about)
    marker._handle.close()  # as the kernel does


def ten_runs_then(scene: Scene, **figures: Any) -> None:
    for _ in range(10):
        scene.run()
    scene.run(**figures)


def long_ago(scene: Scene, verb: str = "update", **settings: Any) -> None:
    scene.run(verb)
    scene.set(**settings)
    scene.now += 40 * DAY


Step = Callable[[Scene], None]
CAUSES: dict[str, tuple[Step, Step]] = {
    "error_rate": (lambda s: s.run(state="incomplete", work=5, failures=1), lambda s: s.run(work=5, failures=0)),
    "storage": (
        lambda s: (a_store_of(s, 3000), s.set(alert_storage_gb=2e-6))[0],
        lambda s: a_store_of(s, 1000),
    ),
    "cost": (lambda s: spend(s, 6), lambda s: setattr(s, "now", s.now + DAY)),
    "memory": (lambda s: s.set(alert_memory_share=1e-6), lambda s: s.set(alert_memory_share=1.0)),
    "deviation": (lambda s: ten_runs_then(s, seconds=90.0), lambda s: s.run()),
    "capped": (lambda s: s.run(state="capped"), Scene.run),
    "refused": (lambda s: s.run(state="refused"), Scene.run),
    "failed": (lambda s: s.run("backup", "failed"), lambda s: s.run("backup")),
    "crashed": (killed_run, Scene.run),
    "late": (lambda s: long_ago(s, alert_update_hours=26), Scene.run),
    "backup_age": (lambda s: long_ago(s, "health", alert_backup_hours=26), backed_up),
    "drill_age": (lambda s: long_ago(s, "health", alert_drill_days=35), drilled),
    "coverage": (lambda s: s.run(coverage=0.5), lambda s: s.run(coverage=1.0)),
    "key_rejected": (lambda s: s.run(state="failed", error="KeyRejected"), Scene.run),
    "health": (lambda s: s.run("health", "findings", fail=1), lambda s: s.run("health", fail=0)),
}


def test_every_alert_has_its_cause_here() -> None:
    assert tuple(CAUSES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_told_once_a_cool_down_and_once_when_it_is_over(scene: Scene, name: str) -> None:
    cause, cure = CAUSES[name]
    told: list[tuple[str, str]] = []
    scene.urls = []
    hear = {"ear": lambda notice: told.append((notice.what, notice.alert.name))}
    if name not in ("late", "crashed"):
        scene.run("prune")  # the workspace is in use
    assert scene.check(sinks=hear).active == []
    cause(scene)
    first = scene.check(sinks=hear)
    assert [alert.name for alert in first.active] == [alert.name for alert in first.fired] == [name]
    assert (told, first.notes) == ([("fired", name)], [])
    assert (scene.check(sinks=hear).fired, len(told)) == ([], 1)
    if name != "cost":  # its day would be over
        scene.now += 23 * HOUR
        assert scene.check(sinks=hear).fired == []
        scene.now += 2 * HOUR
        assert [alert.name for alert in scene.check(sinks=hear).fired] == [name]
    cure(scene)
    scene.now += 5
    over = scene.check(sinks=hear)
    assert (over.active, [alert.name for alert in over.resolved]) == ([], [name])
    assert told.pop() == ("resolved", name)
    assert scene.check(sinks=hear).resolved == []
    scene.now += HOUR
    assert scene.check(sinks=hear).resolved == []
    assert set(told) == {("fired", name)}


def test_a_fresh_workspace_is_quiet(scene: Scene, webhook: Webhook) -> None:
    scene.set(alert_backup_hours=26, alert_drill_days=35, alert_update_hours=26)
    assert scene.check().active == []
    scene.run()
    scene.now += HOUR
    assert (scene.check().active, webhook.received) == ([], [])


def test_a_folder_where_nothing_ran_is_left_as_it_is(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert alerts(settings, addresses=["json://127.0.0.1:9"]).active == []
    assert list(settings.workspace.iterdir()) == []


def test_what_comes_back_after_its_end_was_told_is_news(scene: Scene, webhook: Webhook) -> None:
    for state in ("failed", "completed", "failed"):
        scene.run("backup", state)
        scene.now += 60
        scene.check()
    assert [body["type"] for body in webhook.received] == ["failure", "success", "failure"]


def test_an_address_that_fails_is_tried_again_and_the_other_is_not_told_twice(
    scene: Scene, webhook: Webhook, mail: MailServer
) -> None:
    scene.urls.append(f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org")
    webhook.status = 500
    scene.run("backup", "failed")
    report = scene.check()
    assert report.notes == ["json://127.0.0.1: 1 not sent, HTTP 500; the next check tries again"]
    assert len(mail.received) == 1
    webhook.status, webhook.received = 200, []
    assert ([alert.key for alert in scene.check().fired], scene.check().fired) == (["failed:backup"], [])
    assert (len(webhook.received), len(mail.received)) == (1, 1)


def test_the_end_is_told_when_the_address_is_back(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    scene.check()
    webhook.status = 503
    scene.run("backup")
    assert scene.check().resolved == []
    webhook.status, webhook.received = 200, []
    scene.now += DAY
    assert [alert.key for alert in scene.check().resolved] == ["failed:backup"]
    assert (scene.check().resolved, len(webhook.received)) == ([], 1)


def test_what_comes_back_is_told_to_those_who_took_it_for_over(
    scene: Scene, webhook: Webhook, mail: MailServer
) -> None:
    scene.urls.append(f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org")
    scene.run("backup", "failed")
    scene.check()
    webhook.status = 500
    scene.run("backup")
    scene.check()  # only the mail says that it is over
    scene.run("backup", "failed")
    webhook.status, webhook.received = 200, []
    scene.check()
    assert [message["subject"].split()[1] for message in mail.received] == ["FAIL:", "resolved:", "FAIL:"]
    assert webhook.received == []


def test_a_sink_is_told_of_what_an_address_knows_already(scene: Scene) -> None:
    seen: list[tuple[str, str]] = []
    sink = {"events": lambda notice: seen.append((notice.what, notice.alert.key))}
    scene.run("backup", "failed")
    scene.check()
    scene.check(sinks=sink)
    scene.run("backup")
    scene.check()  # without the sink: its end is kept for it
    scene.check(sinks=sink)
    scene.check(sinks=sink)
    assert seen == [("fired", "failed:backup"), ("resolved", "failed:backup")]


def test_a_sink_that_raises_is_a_note(scene: Scene) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("secret")

    scene.run("backup", "failed")
    report = scene.check(sinks={"events": broken})
    assert [alert.key for alert in report.fired] == ["failed:backup"]  # by the webhook
    assert report.notes == ["events: 1 not sent, RuntimeError; the next check tries again"]


def test_a_dry_run_says_what_it_would_tell_and_changes_nothing(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    killed_run(scene)
    before = sorted(path.name for path in scene.settings.hashes.rglob("*"))
    report = scene.check(send=False)
    assert [alert.key for alert in report.fired] == ["failed:backup"]
    assert sorted(path.name for path in scene.settings.hashes.rglob("*")) == before
    assert webhook.received == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "alerts": {"x": {}}}', b"\xff"]
)
def test_a_damaged_state_begins_anew_with_a_note(scene: Scene, webhook: Webhook, damage: bytes) -> None:
    scene.run("backup", "failed")
    scene.check()
    (scene.settings.hashes / FILE).write_bytes(damage)
    report = scene.check()
    assert [alert.key for alert in report.fired] == ["failed:backup"]
    assert len(report.notes) == 1
    assert "begun anew" in report.notes[0]
    assert (scene.check().fired, scene.check().notes, len(webhook.received)) == ([], [], 2)


def test_state_that_cannot_be_written_silences_nothing(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    (scene.settings.hashes / f"{FILE}.new").mkdir()
    report = scene.check()
    assert [alert.key for alert in report.fired] == ["failed:backup"]
    assert any("can't be written down" in note for note in report.notes)


CHILD = """
import json, sys
from vectorstore.alerts import alerts
from vectorstore.settings import Settings
from pathlib import Path
settings = Settings(Path(sys.argv[1]), alert_backup_hours=0, alert_drill_days=0, alert_update_hours=0,
                    alert_memory_share=0)
print("ready", flush=True)
sys.stdin.readline()
report = alerts(settings, clock=lambda: float(sys.argv[2]))
print(json.dumps([len(report.fired), len(report.resolved), report.notes]))
"""


def start(scene: Scene) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(scene.settings.workspace), str(scene.now)],
        env={**os.environ, "VECTORKEEP_ALERT_URLS": scene.urls[0], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    return child


def go(*children: subprocess.Popen[str]) -> None:
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()


def test_two_processes_at_once_tell_once(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    children = [start(scene), start(scene)]
    go(*children)
    said = sorted(json.loads(child.communicate(timeout=30)[0])[0] for child in children)
    assert (said, len(webhook.received)) == ([0, 1], 1)


@pytest.mark.parametrize("over", [False, True])
def test_a_kill_while_sending_loses_nothing(scene: Scene, webhook: Webhook, over: bool) -> None:
    scene.run("backup", "failed")
    webhook.status = 0
    with start(scene) as child:
        go(child)
        until(lambda: webhook.received)
        child.send_signal(signal.SIGKILL)
    webhook.status = 200
    if over:
        scene.run("backup")
    report = scene.check()
    assert [alert.key for alert in (report.resolved if over else report.fired)] == ["failed:backup"]
    assert len(webhook.received) == 2
    assert scene.check().fired == scene.check().resolved == []


def test_a_kill_before_sending_loses_nothing(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    with start(scene) as child:
        go(child)
        until(lambda: (scene.settings.hashes / LOCK).exists())
        child.send_signal(signal.SIGKILL)
    scene.check()
    assert set(webhook.titles) == {"Vectorkeep FAIL: failed (backup)"}


@pytest.mark.slow
def test_another_check_that_hangs_is_waited_for_and_then_left_alone(scene: Scene, webhook: Webhook) -> None:
    scene.run("backup", "failed")
    webhook.status = 0
    with start(scene) as child:
        go(child)
        until(lambda: webhook.received)
        began = time.monotonic()
        report = scene.check()
        assert time.monotonic() - began < 20
        assert len(webhook.received) <= 2
        assert report.notes
        child.kill()


@pytest.mark.slow
def test_no_address_is_ever_in_arguments_environment_or_state(scene: Scene, webhook: Webhook) -> None:
    secret = "s3cr3t-t0ken"
    scene.urls = [f"json://user:{secret}@{webhook.place}/{secret}"]
    webhook.status = 0
    scene.run("backup", "failed")
    with start(scene) as child:
        go(child)
        until(lambda: webhook.received)
        senders = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and "alerting/child.py" in line_of(pid)]
        shown = [line_of(pid) + Path(f"/proc/{pid}/environ").read_text() for pid in senders]
        child.kill()
        for pid in senders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert shown
    assert not any(secret in text for text in shown)
    report = scene.check()  # it still hangs
    kept = b"".join(path.read_bytes() for path in scene.settings.hashes.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret not in json.dumps(report.to_dict())


def line_of(pid: str | int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_without_an_address_starts_and_writes_nothing(scene: Scene) -> None:
    scene.run("backup", "failed")
    after_run(scene.settings, pytest.fail)
    assert not (scene.settings.hashes / FILE).exists()


def test_a_run_ends_whatever_becomes_of_its_alerts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORKEEP_ALERT_URLS", scene.urls[0])
    notes: list[str] = []
    scene.run()
    after_run(replace(scene.settings, alert_cost_usd_per_day="much"), notes.append)
    assert notes == ["alerts could not be judged: TypeError: '>' not supported between instances of 'float' and 'str'"]


def test_a_test_message_tells_which_address_took_it(scene: Scene, webhook: Webhook) -> None:
    assert try_addresses(scene.settings, [scene.urls[0], "slack://no"]) == {
        f"json://{webhook.place.partition(':')[0]}": "",
        "slack://…": "Apprise knows no such address",
    }
    assert webhook.titles == ["Vectorkeep test alert"]
    assert not (scene.settings.hashes / FILE).exists()
