"""A Prefect server that is busy, slow or gone, as ``serve`` sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tasks.prefect_api import PrefectApi


@contextmanager
def answering(*codes: int) -> Iterator[PrefectApi]:
    """A server that answers with these codes, one after the other, and then with 200."""
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0) if left else 200)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield PrefectApi(f"http://127.0.0.1:{server.server_port}/api/")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_busy_server_is_asked_again() -> None:
    with answering(503, 503) as api:
        assert api.ask("GET", "/deployments") is True


def test_but_not_for_ever() -> None:
    with answering(*[503] * 9) as api:
        api.patience_s = 0.6
        with pytest.raises(OSError, match="503"):
            api.ask("GET", "/deployments")


def test_what_is_not_there_is_none_and_an_error_is_raised() -> None:
    with answering(404, 500) as api:
        assert api.ask("GET", "/work_pools/p") is None
        with pytest.raises(OSError, match="500"):
            api.ask("GET", "/work_pools/p")


def test_answers_tells_whether_it_is_there_now() -> None:
    with answering(503) as api:
        assert not api.answers()
        assert api.answers()
    assert not api.answers()


def test_who_can_reach_it() -> None:
    assert PrefectApi("http://127.0.0.1:4200/api").local
    assert not PrefectApi("http://prefect.internal:4200/api").local
    assert PrefectApi("http://127.0.0.1:4200/api").ui == "http://127.0.0.1:4200"
