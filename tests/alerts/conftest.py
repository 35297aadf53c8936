"""A webhook and a mail server for every test that wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.receivers import MailServer, Webhook, serving
from vectorstore.alerting import URLS


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URLS, raising=False)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving(Webhook()) as server:
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with serving(MailServer()) as server:
        yield server
