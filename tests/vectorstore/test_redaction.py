"""Secrets of the environment and logins in addresses do not come out of errors and logs, in whatever form."""

from __future__ import annotations

import base64
import logging
import pickle
from urllib.parse import quote

import pytest

from tasks.logs import keep_secrets_out
from vectorstore.errors import DocumentError, VectorkeepError
from vectorstore.redaction import redacted, without_logins

KEY = "sk-a/b+c=d e'f"
ADDRESSES = "json://me:pass%2Fword@host.example/T0kenT0ken?k=s3cretValue slack://xoxbT0ken"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("VECTORKEEP_ALERT_URLS", ADDRESSES)
    monkeypatch.setenv("FSSPEC_SFTP_PASSWORD", "off-site-word")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:prefect-word")


@pytest.mark.parametrize(
    "secret",
    [
        KEY, quote(KEY, safe=""), repr(KEY), base64.b64encode(KEY.encode()).decode(), "pass%2Fword", "pass/word",
        base64.b64encode(b"me:pass/word").decode(), "T0kenT0ken", "s3cretValue", "xoxbT0ken", "off-site-word",
        "prefect-word", ADDRESSES.split()[0],
    ],
)  # fmt: skip
def test_a_secret_is_hidden_in_every_form(secret: str) -> None:
    said = redacted(f"before {secret} after")
    assert said.replace("'", "").replace('"', "") == "before *** after"


def test_the_rest_stays() -> None:
    said = "no answer of host.example, json://host.example, https://api.example/v1: see /srv/docs/a@b.md"
    assert redacted(said) == said


def test_a_short_secret_would_be_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert redacted("none of them") == "none of them"


@pytest.mark.parametrize("login", ["me:word", "me:wo/rd", "me:w@rd", ":word", "token"])
def test_an_address_loses_its_login(login: str) -> None:
    assert redacted(f"at http://{login}@host:80/x, twice") == "at http://***@host:80/x, twice"
    assert without_logins(f'url = "http://{login}@host:80/x"') == 'url = "http://host:80/x"'


def test_an_error_holds_none() -> None:
    error = pickle.loads(pickle.dumps(VectorkeepError(f"with {KEY}", f"not {KEY}")))
    assert (error.message, error.hint, str(error)) == ("with ***", "not ***", "with ***\n  next: not ***")
    assert DocumentError("a.md", f"with {KEY}").reason == "with ***"


def test_a_log_line_and_its_traceback_hold_none(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    keep_secrets_out()
    try:
        logging.getLogger("any").warning("with %s", KEY)
        try:
            raise ValueError(KEY)
        except ValueError:
            logging.getLogger("any").exception("raised")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["with ***", "raised"]
    assert KEY not in caplog.text and "ValueError: ***" in caplog.text
