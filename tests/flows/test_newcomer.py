"""A newcomer's first hour: ``vectorkeep serve``, and then all of it in a browser, by mouse and keyboard.

``make pictures`` runs it, too, and keeps the pictures of docs/first-hour.md.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import pytest

from tasks.prefect_api import PrefectApi
from tests.flows.test_server import BROWSER, needs_browser, wait_until
from tests.support.browser import Ui, browsing
from tests.support.chroma_helpers import file_limit, open_client
from tests.support.receivers import MailServer, Webhook, free_port, serving
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PICTURES = Path(os.environ["PICTURES"]).resolve() if "PICTURES" in os.environ else None
TOPICS = {
    "it": ("laptops", "passwords", "printers", "vpn"),
    "office": ("badges", "desks", "keys", "mail"),
    "travel": ("flights", "hotels", "trains", "visas"),
}
FAIL, RESOLVED = "Vectorkeep FAIL: health", "Vectorkeep resolved: health"


@pytest.fixture
def handbook(tmp_path: Path) -> Iterator[Path]:
    """A folder with 48 documents in ``docs``; for pictures in a place whose name tells nothing."""
    root = Path(tempfile.gettempdir() if PICTURES else tmp_path, "handbook")
    for folder, topics in TOPICS.items():
        (root / "docs" / folder).mkdir(parents=True)
        for topic in topics:
            for part in range(1, 5):
                text = f"# {topic.title()}, part {part}\n\nWhat everybody should know of {topic}: chapter {part}.\n"
                (root / "docs" / folder / f"{topic}-{part}.md").write_text(text)
    yield root
    if PICTURES:
        shutil.rmtree(root)


@needs_browser
def test_a_first_hour(handbook: Path, tmp_path: Path) -> None:
    assert BROWSER
    with (
        ServerProcess(tmp_path, latency=1.5) as embeddings,
        serving(Webhook()) as webhook,
        serving(MailServer()) as mail,
        served(handbook, embeddings, webhook, mail) as address,
        browsing(BROWSER, address, PICTURES) as ui,
    ):
        update_with_other_parameters(ui, embeddings)
        paid = len(embeddings.bill.requests)
        assert paid == 24  # 48 documents, two a request
        lose_rows(handbook)
        see_the_fault(ui)
        wait_until(lambda: FAIL in webhook.titles and FAIL in [each["subject"] for each in mail.received])
        show_alert(ui, webhook, mail)
        mend(ui)
        wait_until(lambda: RESOLVED in webhook.titles and RESOLVED in [each["subject"] for each in mail.received])
        assert len(embeddings.bill.requests) == paid
        assert ui.outside <= {"sr-client-cfg.amplitude.com"}  # asked by Prefect's UI whatever its settings say


def update_with_other_parameters(ui: Ui, embeddings: ServerProcess) -> None:
    ui.open()
    ui.show_deployments()
    ui.picture("ui-deployments", 860)
    ui.open_form("update")
    ui.fill_in(mode="all", max_cost_usd=0.5, then_health="quick")
    ui.picture("ui-form", 860, whole=True)
    ui.submit()
    ui.open_artifact("vectorkeep-progress")
    ui.comes_to_see(re.compile(r"^Progress: [1-9]\d?%$"))
    ui.sees(re.compile(r"^update: \d+ of 48 documents · "))
    ui.picture("ui-progress", 620)
    embeddings.control(latency_s=0)
    ui.back_to_run()
    ui.sees("update all then health quick")
    ui.sees_state("Completed")
    ui.tab("Parameters")
    ui.sees('"max_cost_usd": 0.5')
    ui.tab("Logs")
    ui.picture("ui-run", 1100)
    ui.open_artifact("vectorkeep-update")
    ui.sees("Completed: 48 added")
    ui.picture("ui-artifact", 860)


def lose_rows(handbook: Path) -> None:
    """As another program does that has the store open, too."""
    with file_limit(), open_client(handbook / "chroma") as client:
        client.get_collection("handbook_travel").delete(ids=[f"travel/visas-{part}.md#00000" for part in range(1, 5)])


def see_the_fault(ui: Ui) -> None:
    ui.open_form("health")
    ui.fill_in(depth="deep")
    ui.submit()
    ui.sees_state("Failed")
    ui.tab("Details")
    ui.sees("missing: handbook_travel: 4 chunks of the ledger are not in the store. Next: ")
    ui.picture("ui-failed", 1000)
    ui.open_artifact("vectorkeep-health")
    ui.sees("FAIL: 1 check failed")
    ui.sees("handbook_travel: 4 chunks of the ledger are not in the store")
    ui.picture("ui-health", 960)


def mend(ui: Ui) -> None:
    ui.open()
    ui.open_form("health")
    ui.fill_in(depth="deep", fix=True, dry_run=False)
    ui.submit()
    ui.sees("fix deep")
    ui.sees_state("Completed")
    ui.run_as_it_is("drill")
    ui.sees_state("Completed")
    ui.open_form("health")
    ui.fill_in(depth="deep")
    ui.submit()
    ui.sees_state("Completed")
    ui.tab("Details")
    ui.sees(re.compile(r"^PASS: "))
    ui.open_artifact("vectorkeep-health")
    ui.sees(re.compile(r"^PASS"))
    ui.picture("ui-pass", 860)


def show_alert(ui: Ui, webhook: Webhook, mail: MailServer) -> None:
    """The mail and what the webhook got, on a page; the name of this machine is nobody's business."""
    message = next(each for each in mail.received if each["subject"] == FAIL)
    body = message.get_body(("plain",)).get_content().strip().replace(os.uname().nodename, "archive")
    posted = next(each for each in webhook.received if each["title"] == FAIL)
    assert (posted["type"], posted["message"].splitlines()[0]) == ("failure", "The last health found 1 at FAIL")
    assert "Next: see them with `vectorkeep health`" in body
    if PICTURES:
        heads = "".join(f"<b>{name}</b> {escape(message[name])}<br>" for name in ("From", "To", "Subject"))
        style = "font: 16px/1.5 sans-serif; margin: 24px 32px"
        ui.page.set_content(f'<main style="{style}">{heads}<hr><div style="white-space: pre-wrap">{escape(body)}</div>')
        ui.picture("ui-alert", 300)


def pause_schedules(api: PrefectApi) -> None:
    """Else at 03:00, 09:00 and so on a run nobody asked for would come in between."""
    for deployment in api.deployments():
        api.ask("PATCH", f"/deployments/{deployment['id']}", {"paused": True})


@contextmanager
def served(handbook: Path, embeddings: ServerProcess, webhook: Webhook, mail: MailServer) -> Iterator[str]:
    """``vectorkeep init`` and ``vectorkeep serve``; the address that it prints. It ends as by Ctrl-C."""
    sender = f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1",
        "OPENAI_API_KEY": embeddings.key, "OPENAI_BASE_URL": embeddings.url,
        "VECTORKEEP_EMBEDDER": "openai", "VECTORKEEP_COLLECTION": "handbook_{folder}",
        "VECTORKEEP_BATCH_TEXTS": "2", "VECTORKEEP_CONCURRENCY": "1", "VECTORKEEP_STORE_BATCH": "4",
        "VECTORKEEP_ALERT_URLS": f"json://{webhook.place}/ {sender}",
    }  # fmt: skip
    vectorkeep = [sys.executable, "-m", "vectorstore.cli"]
    subprocess.run([*vectorkeep, "init", "--source", "docs"], cwd=handbook, env=environment, check=True)
    process = subprocess.Popen(
        [*vectorkeep, "serve", "--port", str(free_port())], cwd=handbook, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("ready"):
                break
        assert said[-1].startswith("ready"), "".join(said)
        address = re.search(r"http://127\.0\.0\.1:\d+", "".join(said))
        assert address
        if not PICTURES:
            pause_schedules(PrefectApi(f"{address[0]}/api"))
        yield address[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()
