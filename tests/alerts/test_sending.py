"""Sending to real receivers: those that take it, and those that are down, refuse, or never answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.receivers import MailServer, Webhook, free_port
from tests.support.run_records import NOW
from vectorstore.alerting.addresses import labels
from vectorstore.alerting.alert import Alert
from vectorstore.alerting.notice import FIRED, RESOLVED, notice
from vectorstore.alerting.sending import Sent, send
from vectorstore.settings import Settings

SECRET = "s3cr3t-t0ken"
ALERT = Alert("failed", "FAIL", "the last update failed", "mend the cause", None, None, NOW, "update")
SETTINGS = Settings(Path("/workspaces/notes"))
NOTICES = [notice(SETTINGS, FIRED, ALERT), notice(SETTINGS, RESOLVED, ALERT)]


def test_a_webhook_gets_title_text_and_kind(webhook: Webhook) -> None:
    assert send([f"json://{webhook.place}/{SECRET}"], NOTICES, [(0, 0), (0, 1)], 10) == {
        (0, 0): Sent(True),
        (0, 1): Sent(True),
    }
    fired, resolved = webhook.received
    assert (fired["title"], fired["type"]) == ("Vectorkeep FAIL: failed (update)", "failure")
    assert fired["message"].splitlines() == [
        "The last update failed",
        "Next: mend the cause",
        "Since 2026-09-21 14:13 UTC.",
        f"Workspace /workspaces/notes on {os.uname().nodename}",
    ]
    assert (resolved["title"], resolved["type"]) == ("Vectorkeep resolved: failed (update)", "success")
    assert "Over: the last update failed" in resolved["message"]


def test_a_mail_arrives(mail: MailServer) -> None:
    address = f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org"
    assert send([address], NOTICES, [(0, 0)], 10) == {(0, 0): Sent(True)}
    (message,) = mail.received
    assert message["subject"] == "Vectorkeep FAIL: failed (update)"
    assert "operator@example.org" in message["to"]
    assert "mend the cause" in message.get_body(("plain", "html")).get_content()


def test_what_is_down_or_refuses_says_why_and_stops_no_other(webhook: Webhook, mail: MailServer) -> None:
    refusing = f"json://{webhook.place}/{SECRET}"
    webhook.status = 500
    addresses = [
        refusing,
        f"json://127.0.0.1:{free_port()}/{SECRET}",
        f"nonsense://{SECRET}",
        f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org",
    ]
    sent = send(addresses, NOTICES, [(number, 0) for number in range(4)], 10)
    assert [sent[number, 0] for number in range(4)] == [
        Sent(False, "HTTP 500"),
        Sent(False, "no connection"),
        Sent(False, "Apprise knows no such address"),
        Sent(True),
    ]
    assert len(mail.received) == 1


@pytest.mark.slow
def test_what_never_answers_is_given_up_and_the_others_have_it(webhook: Webhook, mail: MailServer) -> None:
    mail.silent = True
    silent = f"mailto://{mail.place}?from=vectorkeep@example.org&to=operator@example.org"
    began = time.monotonic()
    sent = send([silent, f"json://{webhook.place}"], NOTICES, [(0, 0), (1, 0), (1, 1)], 4)
    assert time.monotonic() - began < 8
    assert sent == {(0, 0): Sent(False, "no answer in 4 s"), (1, 0): Sent(True), (1, 1): Sent(True)}


def test_no_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert send(["json://127.0.0.1"], NOTICES, [], 10) == {}


@pytest.mark.parametrize(
    ("address", "label"),
    [
        (f"json://user:{SECRET}@hooks.example.org:8080/{SECRET}?key={SECRET}", "json://hooks.example.org"),
        (f"mailtos://user:{SECRET}@mail.example.org?to=a@b.org", "mailtos://mail.example.org"),
        (f"https://hooks.slack.com/services/{SECRET}", "https://hooks.slack.com"),
        (f"slack://{SECRET}/B/C", "slack://…"),
        (f"ntfy://{SECRET}", "ntfy://…"),
        (f"mailtos://user:{SECRET[:4]}/{SECRET[4:]}@mail.example.org", "mailtos://…"),
        (f"json://[{SECRET}", "json://…"),
        (SECRET, "no address"),
        (f"{SECRET}!://x", "no address"),
    ],
)  # fmt: skip
def test_a_label_shows_scheme_and_host_only(address: str, label: str) -> None:
    assert labels([address, "json://other", address]) == [label, "json://other", f"{label} #2"]
