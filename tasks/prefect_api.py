"""A Prefect server asked over HTTP: what ``serve`` needs to know, without the memory that Prefect's client takes."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit


class PrefectApi:
    """A server.

    Args:
        url: its address with ``/api``.

    Attributes:
        patience_s: how long a server that is too busy to answer is asked again.
    """

    patience_s = 120.0

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")

    @property
    def ui(self) -> str:
        """The address for a browser."""
        return self.url.removesuffix("/api")

    def answers(self) -> bool:
        """Whether a Prefect server answers there, now."""
        try:
            return self._once("GET", "/health") is True
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer, ``None`` for 404; asked again for ``patience_s`` while it is too busy to answer.

        Raises:
            OSError: it does not answer, or with an error.
        """
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return self._once(method, path, body)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 503 or time.monotonic() > deadline:
                    raise
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def deployments(self) -> list[dict[str, Any]]:
        """All that carry our tag."""
        only = {"deployments": {"tags": {"all_": ["vectorkeep"]}}}
        return list(self.ask("POST", "/deployments/filter", only))

    def next_runs(self) -> dict[str, str]:
        """Deployment's id -> the time of its next scheduled run, as the server's scheduler has them."""
        only = {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "tags": {"all_": ["vectorkeep"]}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        runs = self.ask("POST", "/flow_runs/filter", only)
        return {run["deployment_id"]: run["expected_start_time"] for run in runs if run["deployment_id"]}

    def _once(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")
