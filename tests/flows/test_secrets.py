"""Secrets are planted in environment, blocks, settings and exceptions; then everything is done, well and badly.

Nothing that is left of it holds one: workspace, reports, backups, copies, Prefect's home with its database, the output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.alerts import SECRET_BLOCK
from tests.flows.test_server import Prefect, wait_until
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.light_key import make_light_key
from tests.support.pausing import PAUSING
from tests.support.planted import search
from tests.support.receivers import Webhook, free_port, serving
from tests.support.workbench import Workspace, limit_files

KEY, PASSWORD = "sk-Pl4nted/Key+0f=OpenAI", "Pl4nted:backup p@ss/w0rd"
ALERTS, TOKEN, MAIL = "Pl4ntedAlertPassw0rd", "Pl4ntedAlertT0ken", "Pl4ntedMail%2FPassw0rd"
BASE, CHROMA, OFFSITE, SLASHED = "Pl4ntedBaseL0gin", "Pl4ntedChromaL0gin", "Pl4ntedSftpL0gin", "Pl4nted/Sl4shed"
SECRETS = (KEY, PASSWORD, ALERTS, TOKEN, MAIL, BASE, CHROMA, OFFSITE, SLASHED)


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    """In every form, in an archive within an archive, in rows of a database, in a compressed table."""
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "plain.log").write_text(f"the key {KEY} is wrong")
    (tmp_path / "login.txt").write_bytes(b"Basic YWxpY2U6UGw0bnRlZEFsZXJ0UGFzc3cwcmQ=")  # alice:Pl4ntedAlertPassw0rd
    (tmp_path / "percent.txt").write_text("sk-Pl4nted%2FKey%2B0f%3DOpenAI")
    with tarfile.open(tmp_path / "inner.tar.gz", "w:gz") as inner:
        inner.add(tmp_path / "plain.log", "deep.log")
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as outer:
        outer.add(tmp_path / "inner.tar.gz", "inner.tar.gz")
    (tmp_path / "inner.tar.gz").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("CREATE TABLE logs (message TEXT)")
        db.execute("INSERT INTO logs VALUES (?)", ("x" * 4060 + TOKEN + "x" * 9000,))  # across pages
        db.commit()
    table = pyarrow.table({"message": [f"{CHROMA} " * 1000] * 100})
    pyarrow.parquet.write_table(table, tmp_path / "history.parquet", compression="zstd")
    found = search(SECRETS, [tmp_path])
    assert {each.rpartition(": ")[0].removeprefix(f"{tmp_path}/") for each in found} >= {
        "plain.log", "login.txt", "percent.txt", "outer.tar.gz!inner.tar.gz!deep.log", "db (rows)",
        "history.parquet (rows)",
    }  # fmt: skip
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "harmless.txt").write_text("Plated Keys, planted=none, sk-")
    assert search(SECRETS, [tmp_path / "clean"]) == []


class Scene:
    """A workspace with secrets all around it, and what is printed of what is done there.

    Attributes:
        printed: the folder of all output.
    """

    def __init__(self, folder: Path, server: EmbeddingsServer, webhook: Webhook) -> None:
        self.server, self.webhook, self.folder, self.printed = server, webhook, folder, folder / "printed"
        self.printed.mkdir()
        (folder / "copies").mkdir()
        self.workspace = Workspace(folder / "workspace", max_attempts=1, request_timeout_s=5)
        self.workspace.fill(12)
        self.settings(f'offsite_url = "{folder / "copies"}"')
        nobody = f"127.0.0.1:{free_port()}"
        self.address = f"json://alice:{ALERTS}@{webhook.place}/{TOKEN}"
        self.addresses = (  # only the first takes anything
            f"{self.address} json://alice:{ALERTS}@{nobody}/{TOKEN} mailto://bob:{MAIL}@{nobody}/?to=ops@example.org"
            f" slack://{TOKEN}"
        )
        self.environment = {"OPENAI_API_KEY": KEY, "VECTORKEEP_BACKUP_PASSWORD": PASSWORD}

    def settings(self, *lines: str) -> None:
        """Write `vectorkeep.toml`, with logins that wait to be used, and more lines."""
        base = (
            f'openai_base_url = "{self.server.url}"  # http://{BASE}:{BASE}@127.0.0.1/v1\n'
            f'# chroma_url = "http://carol:{CHROMA}@127.0.0.1"\n# offsite_url = "sftp://dave:{SLASHED}@127.0.0.1/x"'
        )
        quick = ("dimensions = 64", "chunk_tokens = 64", "batch_texts = 2", "concurrency = 2", "max_attempts = 1")
        head = ('source = "docs"', 'embedder = "openai"', base, *quick)
        (self.workspace.root / "vectorkeep.toml").write_text("\n".join([*head, *lines]) + "\n")

    def do(self, *argv: str, code: int | None = 0, **environment: str) -> str:
        """Run the command line to its end, and keep what it prints."""
        alerts = {"VECTORKEEP_ALERT_URLS": self.address}
        run = self.start(*argv, **alerts | environment)
        result = run.wait(90)
        name = f"{len(list(self.printed.iterdir())):03}-{argv[0]}"
        (self.printed / name).write_text(f"{argv}\n{result.out}\n{result.err}")
        assert code is None or result.code == code, (argv, result)
        return result.out

    def start(self, *argv: str, **environment: str) -> Any:
        # nothing of `Workspace.values`: all settings are in the file
        known, self.workspace.values = self.workspace.values, {}
        try:
            return self.workspace.start(*argv, **self.environment | environment)
        finally:
            self.workspace.values = known


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    before = limit_files()
    with EmbeddingsServer(key=KEY, latency_s=0.02) as server, serving(Webhook()) as webhook:
        yield Scene(tmp_path, server, webhook)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def do_everything_well(scene: Scene) -> None:
    out = scene.folder / "reports"
    out.mkdir()
    scene.do("plan")
    scene.do("update")
    for command in ("status", "status --json", "search ban", "check-key", "alerts", "alerts --test"):
        scene.do(*command.split(), code=None, VECTORKEEP_ALERT_URLS=scene.addresses)
    scene.do(
        "health", "--depth", "deep", "--verbose", "--output", str(out / "a.json"), "--output", str(out / "a.html"),
        code=None,
    )  # fmt: skip
    scene.do("backup", "--cache")
    scene.do("backup", "--kind", "portable", "--offsite")
    scene.do("backups", "--json")
    scene.do("keygen")
    recipient = make_light_key(scene.workspace.root / "key.age", PASSWORD)
    scene.do("backup", VECTORKEEP_BACKUP_RECIPIENTS=recipient)
    scene.do("verify", "all")
    scene.do("verify", "--offsite")
    scene.do("drill")
    scene.do("restore", "--dry-run")
    scene.do("restore", "--into", str(scene.folder / "restored"))
    scene.do("restore")
    scene.do("prune")
    scene.do("health", "--fix", code=None)


def do_reports(scene: Scene) -> None:
    """Of all that happened, in every form that there is."""
    out = scene.folder / "reports"
    for name in ("report.txt", "report.md", "report.html"):
        scene.do("report", "--output", str(out / name))
    scene.do("report", "--json")
    scene.do("metrics", "--output", str(out / "metrics.prom"))


def do_everything_badly(scene: Scene) -> None:
    """A rejected key, no provider, a killed run, a wrong password, wrong addresses."""
    scene.workspace.fill(20)
    scene.server.key = "another"
    scene.do("update", code=2)
    scene.do("check-key", code=None)
    scene.do("search", "ban", code=None)
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    scene.do("update", code=1, VECTORKEEP_OPENAI_BASE_URL=nobody)
    scene.do("check-key", code=None, VECTORKEEP_OPENAI_BASE_URL=nobody)
    scene.do("update", code=2, VECTORKEEP_OPENAI_BASE_URL=f"{BASE}:{BASE}@127.0.0.1/v1")
    with_login = f"http://{BASE}:{BASE}@127.0.0.1:{scene.server.port}/v1"
    scene.do("update", code=2, VECTORKEEP_OPENAI_BASE_URL=with_login)
    scene.do("check-key", code=None, VECTORKEEP_OPENAI_BASE_URL=with_login)
    scene.server.key = KEY
    scene.server.fail("status", status=500, message=f"no luck with {KEY} and Bearer {KEY}")
    scene.do("update", code=1, VECTORKEEP_ALERT_URLS=scene.addresses)
    scene.server.faults.clear()
    scene.server.latency_s = 0.5
    run = scene.start("update", VECTORKEEP_ALERT_URLS=scene.addresses)
    wait_until(lambda: len(scene.server.bill.requests) > 10)
    run.kill()
    scene.server.latency_s = 0.0
    encrypted = next((scene.workspace.root / "backups").glob("*.age")).name.partition(".")[0]
    scene.do("verify", encrypted, code=2, VECTORKEEP_BACKUP_PASSWORD=f"{PASSWORD}x")
    dead = f"127.0.0.1:{free_port()}/x"
    for url in (f"sftp://dave:{OFFSITE}@{dead}", f"sftp://dave:{SLASHED}@{dead}", f"zip::sftp://dave:{OFFSITE}@{dead}",
                f"nowhere://dave:{SLASHED}@{dead}", f"sftp://{OFFSITE}@{dead}"):  # fmt: skip
        scene.do("backups", "--offsite", code=None, VECTORKEEP_OFFSITE_URL=url)
    scene.do("backup", "--offsite", code=None, VECTORKEEP_OFFSITE_URL=url)
    chroma = f"http://carol:{CHROMA}@127.0.0.1:{free_port()}"
    for command in (["status"], ["update"], ["health", "--output", str(scene.folder / "reports" / "b.json")],
                    ["search", "ban"], ["backup"]):  # fmt: skip
        scene.do(*command, code=None, VECTORKEEP_CHROMA_URL=chroma)
    scene.do("status", code=2, VECTORKEEP_PRICES=f'["{chroma}"]')
    scene.do("alerts", code=None, VECTORKEEP_ALERT_URLS=scene.addresses)


@pytest.mark.slow
def test_by_the_command_line(scene: Scene) -> None:
    do_everything_well(scene)
    do_everything_badly(scene)
    do_reports(scene)
    assert search(SECRETS, [scene.folder], [scene.workspace.root / "vectorkeep.toml"]) == []


@pytest.fixture
def prefect(tmp_path: Path, scene: Scene) -> Iterator[Prefect]:
    """A server and a worker, both with the secrets in their environment, and the addresses of alerts in a block."""
    (home := tmp_path / "prefect").mkdir()
    prefect = Prefect(home, scene.server)
    prefect.environment |= scene.environment | {"OPENAI_BASE_URL": ""}
    with prefect:
        save = (
            "import os; from prefect.blocks.system import Secret; Secret(value=os.environ['A']).save(os.environ['B'])"
        )
        environment = prefect.environment | {"A": scene.addresses, "B": SECRET_BLOCK}
        subprocess.run([sys.executable, "-c", save], env=environment, check=True, capture_output=True)
        yield prefect


def begin(prefect: Prefect, deployment: str, fail_at: str = "", **parameters: Any) -> str:
    """A run; in one an exception comes up that nobody foresaw."""
    faulty = {"FAIL_AT": fail_at, "PYTHONPATH": f"{PAUSING}{os.pathsep}{prefect.environment['PYTHONPATH']}"}
    body = {"parameters": parameters, "job_variables": {"env": faulty if fail_at else {}}}
    its = prefect.deployments[deployment]
    return str(prefect.ask("POST", f"/deployments/{its['id']}/create_flow_run", body)["id"])


@pytest.mark.slow
def test_by_flows(scene: Scene, prefect: Prefect) -> None:
    """A day's work that goes well, one with a rejected key and a broken store, an error nobody foresaw, and a kill."""
    webhook, root = scene.webhook, str(scene.workspace.root)
    every = {"workspace": root, "dry_run": False, "depth": "deep", "verify": True, "fix": True, "drill": True}
    scene.do("update")
    well = prefect.ended(begin(prefect, "maintain", **every, offsite=True))
    assert well["state"]["name"] == "Completed", well["state"]
    told = len(webhook.received)
    scene.workspace.fill(20)
    scene.server.key = "another"
    badly = prefect.ended(begin(prefect, "maintain", **every))
    assert badly["state"]["name"] == "Failed" and "HTTP 401" in badly["state"]["message"]
    wait_until(lambda: len(webhook.received) > told)  # at the block's addresses
    unforeseen = prefect.ended(begin(prefect, "update", "before vectorstore.run:Run.execute", workspace=root))
    assert unforeseen["state"]["message"].startswith("stopped by ValueError: nobody foresaw '***'")
    wait_until(lambda: any("Traceback" in line["message"] for line in prefect.of_run("logs", unforeseen["id"])))
    scene.settings(f'chroma_url = "http://carol:{CHROMA}@127.0.0.1:{free_port()}"')
    unreachable = prefect.ended(begin(prefect, "update", workspace=root))
    assert "does not answer" in unreachable["state"]["message"]
    scene.settings(f'offsite_url = "sftp://dave:{OFFSITE}@127.0.0.1:{free_port()}/x"')
    refused = prefect.ended(begin(prefect, "offsite", workspace=root))
    assert "holds a password" in refused["state"]["message"]
    prefect.__exit__()
    assert search(SECRETS, [scene.folder], [scene.workspace.root / "vectorkeep.toml"]) == []
