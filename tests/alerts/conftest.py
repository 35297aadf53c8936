"""No test of alerts sends to an address that it was not given."""

from __future__ import annotations

import pytest

from vectorstore.alerting import URLS


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URLS, raising=False)
