"""What ``deploy/`` offers to those who run Vectorkeep without Prefect, or as a service."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect._vendor.croniter import croniter

from tests.flows.test_deployments import DEPLOYMENTS
from vectorstore import cli
from vectorstore.lock import WriterLock

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
JOBS: dict[str, list[str]] = {
    "backup": ["backup"],
    "prune": ["prune"],
    "update": ["update"],
    "nightly": ["update", "health"],
    "verify": ["verify all"],
    "fix": ["health --fix --depth deep"],
    "report": ["report"],
    "deep": ["health --depth deep --verify-content"],
    "drill": ["drill"],
    "offsite": ["backup --offsite"],
    "alerts": ["alerts"],
}
CRON = {
    {"update nightly": "nightly", "update daytime": "update"}.get(f"{name} {schedule['slug']}", name): schedule["cron"]
    for name, deployment in DEPLOYMENTS.items()
    for schedule in deployment.get("schedules", [])
}
"""Job -> cron, from the schedules of ``prefect.yaml``."""
verify_unit = shutil.which("systemd-analyze")


def job(tmp_path: Path, name: str, *codes: int, **environment: str) -> tuple[int, list[str]]:
    """Runs a job with a program that notes its arguments and ends with these codes, one after the other."""
    program, calls = tmp_path / "program", tmp_path / "calls"
    endings = "\n".join(f"{number}) exit {code} ;;" for number, code in enumerate(codes, 1))
    program.write_text(
        f'#!/bin/sh\necho "$@ key=${{OPENAI_API_KEY:-}}" >> {calls}\ncase $(wc -l < {calls}) in\n{endings}\nesac\n'
    )
    program.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VECTORKEEP": str(program), "VECTORKEEP_JOB_WAIT": "0"}
    done = subprocess.run([DEPLOY / "job", name], env={**env, **environment}, timeout=30)
    return done.returncode, [line.partition(" key=")[0] for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_makes_calls_that_the_command_line_takes(tmp_path: Path, name: str) -> None:
    assert job(tmp_path, name) == (0, JOBS[name])
    for call in JOBS[name]:
        cli._parser().parse_args(shlex.split(call))


def test_an_unknown_job_is_an_error() -> None:
    done = subprocess.run([DEPLOY / "job", "nope"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"usage: deploy/job {'|'.join(JOBS)}\n")


def test_a_job_waits_for_a_lock_and_does_its_work(tmp_path: Path) -> None:
    assert job(tmp_path, "update", 4, 4, 0) == (0, ["update"] * 3)


def test_a_job_does_not_wait_for_ever(tmp_path: Path) -> None:
    assert job(tmp_path, "update", *[4] * 20) == (4, ["update"] * 13)


def test_health_is_checked_however_the_update_ended_and_the_first_failure_counts(tmp_path: Path) -> None:
    assert job(tmp_path, "nightly", 3, 1) == (3, ["update", "health"])
    (tmp_path / "calls").unlink()
    assert job(tmp_path, "nightly", 0, 1) == (1, ["update", "health"])


def test_a_job_reads_secrets_from_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("OPENAI_API_KEY='of the file'\n")
    job(tmp_path, "update", VECTORKEEP_ENV=str(tmp_path / "secrets"))
    assert (tmp_path / "calls").read_text() == "update key=of the file\n"


def test_a_job_that_is_stopped_stops_its_run_and_waits_for_it(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(
        f"#!/bin/sh\ntrap 'sleep 0.5; echo ended >> {tmp_path}/said; exit 130' TERM\n"
        f"echo began >> {tmp_path}/said\nwhile :; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    running = subprocess.Popen([DEPLOY / "job", "nightly"], env={**os.environ, "VECTORKEEP": str(program)})
    deadline = time.monotonic() + 10
    while not (tmp_path / "said").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 130
    assert (tmp_path / "said").read_text() == "began\nended\n", "the health check did not begin"


def test_a_job_that_is_stopped_as_its_run_begins_stops_that_too(tmp_path: Path) -> None:
    """The signal may come before the shell knows the number of the process that it has begun."""
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\ntrap 'exit 130' TERM\nkill -TERM $PPID\nfor _ in $(seq 100); do sleep 0.05; done\nexit 7\n"
    )
    program.chmod(0o755)
    environment = {**os.environ, "VECTORKEEP": str(program)}
    jobs = [subprocess.Popen([DEPLOY / "job", "nightly"], env=environment) for _ in range(24)]  # at once: it is a race
    assert {each.wait(60) for each in jobs} <= {130, 143}  # 143: before the program could say what it does then


def test_a_job_runs_the_real_thing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# a\n\nWhat a is about.\n")
    (tmp_path / "vectorkeep.toml").write_text('source = "docs"\nembedder = "hash"\n')
    program = tmp_path / "vectorkeep"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vectorstore.cli "$@"\n')
    program.chmod(0o755)
    place = {**os.environ, "VECTORKEEP_WORKSPACE": str(tmp_path), "PYTHONPATH": str(ROOT), "VECTORKEEP_JOB_WAIT": "0"}

    def ended() -> subprocess.CompletedProcess[str]:
        command = [DEPLOY / "job", "nightly"]
        return subprocess.run(command, env={**place, "VECTORKEEP": str(program)}, capture_output=True, text=True)

    done = ended()
    assert (done.returncode, "completed: 1 added" in done.stdout) == (0, True)
    with WriterLock([tmp_path / ".hashes" / "writer.lock"], "a test"):
        assert ended().returncode == 4


def test_the_cron_table_is_the_timetable() -> None:
    lines = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    variables = [line for line in lines if re.match(r"[A-Z_]+=", line)]
    table = {}
    for line in lines[len(variables) :]:
        *fields, program, name = line.split()
        assert program.endswith("/deploy/job")
        assert croniter.is_valid(" ".join(fields))
        table[name] = " ".join(fields)
    assert "CRON_TZ=UTC" in variables
    assert table == CRON


def test_every_schedule_has_a_timer() -> None:
    timers = {path.stem.removeprefix("vectorkeep-"): path.read_text() for path in SYSTEMD.glob("*.timer")}
    assert timers.keys() == JOBS.keys() == CRON.keys()
    for name, text in timers.items():
        assert f"\nUnit=vectorkeep@{name}.service\n" in text
        assert "\nPersistent=true\n" in text
        assert re.search(r"(?m)^OnCalendar=.* UTC$", text)


@pytest.mark.skipif(not verify_unit, reason="no systemd-analyze on the PATH: apt-get install systemd")
class TestSystemd:
    def test_the_units_are_sound(self, tmp_path: Path) -> None:
        """With paths and a user that exist here."""
        place = {"/srv/vectorkeep/.venv/bin/vectorkeep": "/bin/true", "/srv/vectorkeep/deploy/job": str(DEPLOY / "job")}
        for path in SYSTEMD.iterdir():
            text = path.read_text().replace("User=vectorkeep", "User=root")
            for old, new in place.items():
                text = text.replace(old, new)
            (tmp_path / path.name).write_text(text.replace("=/srv/vectorkeep\n", f"={tmp_path}\n"))
        units = [*tmp_path.glob("*.timer"), tmp_path / "vectorkeep.service", tmp_path / "vectorkeep@.service"]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=120
        )
        assert [line for line in done.stderr.splitlines() if "vectorkeep" in line] == []

    def test_a_timer_elapses_when_its_cron_does(self) -> None:
        for name, cron in CRON.items():
            calendar = re.findall(r"(?m)^OnCalendar=(.*)$", (SYSTEMD / f"vectorkeep-{name}.timer").read_text())
            base = "2026-11-21 12:00:00 UTC"
            done = subprocess.run(
                ["systemd-analyze", "calendar", f"--base-time={base}", "--iterations=5", *calendar],
                capture_output=True, text=True, env={**os.environ, "TZ": "UTC"}, check=True,
            )  # fmt: skip
            found = re.findall(r"(?:Next elapse|Iteration #\d+|Iter\. #\d+): \w+ (\S+ \S+) UTC", done.stdout)
            expected = croniter(cron, 1795262400.0)
            assert found == [time.strftime("%F %T", time.gmtime(expected.get_next(float))) for _ in range(5)], name


KNOWN = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "schedule", "timeZone", "concurrencyPolicy", "startingDeadlineSeconds", "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit", "jobTemplate", "suspend",
    },
    "spec.jobTemplate": {"metadata", "spec"},
    "spec.jobTemplate.spec": {"backoffLimit", "activeDeadlineSeconds", "template", "ttlSecondsAfterFinished"},
    "spec.jobTemplate.spec.template": {"metadata", "spec"},
    "spec.jobTemplate.spec.template.spec": {"restartPolicy", "terminationGracePeriodSeconds", "containers", "volumes"},
}  # fmt: skip
"""The fields of batch/v1 that a CronJob may use here: the server would drop others with a warning at most."""


class TestKubernetes:
    objects = tuple(yaml.safe_load_all((DEPLOY / "kubernetes" / "cronjobs.yaml").read_text()))

    def test_no_field_is_misspelt(self) -> None:
        for each in self.objects[1:]:
            for path, known in KNOWN.items():
                found: Any = each
                for name in filter(None, path.split(".")):
                    found = found[name]
                assert found.keys() <= known, path

    def test_every_schedule_has_a_cronjob(self) -> None:
        (volume, *jobs) = self.objects
        assert volume["kind"] == "PersistentVolumeClaim"
        assert {each["metadata"]["name"].removeprefix("vectorkeep-"): each["spec"]["schedule"] for each in jobs} == CRON
        for each in jobs:
            assert (each["apiVersion"], each["kind"]) == ("batch/v1", "CronJob")
            assert re.fullmatch("[a-z0-9-]{1,52}", each["metadata"]["name"])
            assert (each["spec"]["timeZone"], each["spec"]["concurrencyPolicy"]) == ("Etc/UTC", "Forbid")

    def test_a_job_runs_once_on_the_volume_and_ends(self) -> None:
        for each in self.objects[1:]:
            pod = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            assert each["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
            assert pod["restartPolicy"] == "Never"
            assert container["command"] == ["deploy/job", each["metadata"]["name"].removeprefix("vectorkeep-")]
            assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
            assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == self.objects[0]["metadata"]["name"]

    def test_secrets_come_from_a_secret(self) -> None:
        for each in self.objects[1:]:
            (container,) = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            plain = {entry["name"] for entry in container["env"] if "value" in entry}
            secret = {entry["name"]: entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry}
            assert plain == {"VECTORKEEP_WORKSPACE"}
            assert secret.keys() == {"OPENAI_API_KEY", "VECTORKEEP_ALERT_URLS"}
            assert {source["secretKeyRef"]["name"] for source in secret.values()} == {"vectorkeep"}
