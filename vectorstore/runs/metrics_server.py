"""``/metrics``, ``/health``, ``/status`` and ``/report`` over HTTP, for this machine only.

A page is made when it is asked for, at most every few seconds; a ledger that a run writes to is waited for a moment,
never longer. Nothing here changes anything, and no secret is shown.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from vectorstore.errors import ConfigurationError, VectorkeepError
from vectorstore.redaction import redacted
from vectorstore.runs.history import records
from vectorstore.runs.metrics import metrics_text
from vectorstore.runs.troubles import remedy_of
from vectorstore.settings import Settings
from vectorstore.status import status

HOST = "127.0.0.1"
_FRESH_S = 5.0
_PATIENCE_S = 1.0  # with the ledger
_SOCKET_S = 10.0
_JSON, _PROMETHEUS = "application/json; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_ENDED_BADLY = ("failed", "crashed", "findings", "capped", "refused")


class Page(NamedTuple):
    """An answer."""

    code: int
    kind: str
    body: bytes


class MetricsServer:
    """Answers from threads of its own, from ``start`` to ``stop``.

    Args:
        settings: of the workspace.
        port: instead of the setting ``metrics_port``; 0 here: any that is free.
    """

    def __init__(self, settings: Settings, port: int | None = None) -> None:
        self._settings, self._asked = settings, port
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> None:
        """Begin to answer; nothing happens where the setting is 0.

        Raises:
            ConfigurationError: the port is taken, or none.
        """
        port = self._settings.metrics_port if self._asked is None else self._asked
        if self._asked is None and not port:
            return
        try:
            self._server = _Server((HOST, port), _handler(_Pages(self._settings)))
        except (OSError, OverflowError) as error:  # taken, or there is no such port
            raise ConfigurationError(
                f"the metrics can't be served on port {port}: {error}",
                "set metrics_port to a free one, or to 0 to turn it off",
            ) from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop to answer; what is being answered is not waited for."""
        if self._server and self._thread:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16


class _Pages:
    """What there is to see, each made anew when it is a few seconds old."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._made: dict[str, tuple[float, Page]] = {}
        self._make: dict[str, Callable[[Settings], Page]] = {
            "/metrics": _metrics, "/health": _health, "/status": _status, "/report": _report,
        }  # fmt: skip

    def page(self, path: str) -> Page:
        """The page at a path."""
        if path not in self._make:
            return _json(404, {"error": "not found", "pages": sorted(self._make)})
        with self._lock:  # one is made at a time, and many who ask at once get the same
            at, page = self._made.get(path, (-_FRESH_S, _json(503, {})))
            if time.monotonic() - at >= _FRESH_S:
                page = self._fresh(path)
                self._made[path] = time.monotonic(), page
        return page

    def _fresh(self, path: str) -> Page:
        try:
            return self._make[path](self._settings)
        except VectorkeepError as error:
            return _json(503, {"well": False, "error": error.message, "hint": error.hint})
        except (OSError, sqlite3.Error) as error:
            return _json(503, {"well": False, "error": f"{type(error).__name__}: {error}"})


def _metrics(settings: Settings) -> Page:
    return Page(200, _PROMETHEUS, metrics_text(settings).encode())


def _health(settings: Settings) -> Page:
    """503 where the newest run of a verb ended badly."""
    newest = {each.verb: each for each in records(settings)}  # the newest last
    bad = [each for each in newest.values() if each.state in _ENDED_BADLY]
    problems = [
        {
            "verb": each.verb, "state": each.state, "time": each.started, "message": each.message,
            "next": remedy_of(each),
        }
        for each in bad
    ]  # fmt: skip
    last = {verb: {"state": each.state, "time": each.started} for verb, each in newest.items()}
    return _json(503 if bad else 200, {"well": not bad, "problems": problems, "last": last})


def _status(settings: Settings) -> Page:
    return _json(200, status(settings, patience_s=_PATIENCE_S))


def _report(settings: Settings) -> Page:
    from vectorstore.report import report
    from vectorstore.runs.report_page import report_page

    return Page(200, _HTML, report_page(report(settings)).encode())


def _json(code: int, value: Any) -> Page:
    return Page(code, _JSON, json.dumps(_clean(value), indent=2, default=str).encode() + b"\n")


def _clean(value: Any) -> Any:
    """Without secrets, whatever text they might be in."""
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    return redacted(value) if isinstance(value, str) else value


def _handler(pages: _Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """GET and HEAD; everything else is refused by the base class."""

        timeout = _SOCKET_S
        server_version, sys_version = "vectorkeep", ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            page = pages.page(self.path.partition("?")[0])
            self.send_response(page.code)
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(len(page.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                self.wfile.write(page.body)

        def log_message(self, format: str, *args: Any) -> None:
            """A look a minute is no news."""

    return Handler
