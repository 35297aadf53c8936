"""A real HTTP server that speaks OpenAI's ``POST /v1/embeddings`` and ``GET /v1/models``, keeps a bill, enforces limits
and fails on demand.

In a test::

    with EmbeddingsServer() as server:
        server.fail("status", status=503, nth=(2,))
        ...  # client at server.url with server.key
        assert server.bill.paid_over_needed(texts) == 1.0

As a process of its own, so that its bill outlives a killed client::

    python -m tests.support.embeddings_server --port-file F --bill B --latency 0.2 --tokens-per-minute 1000000

Then ``POST /_control`` with ``{"reset": true, "fail": [{"kind": "hang", "nth": [3]}], "latency_s": 0.1,
"limits": {"requests_per_minute": 100}}`` scripts it, and ``GET /_control`` tells what it has counted.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import select
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.bill import Bill, sha_of, tokens_of
from tests.support.embeddings_api import MODELS, BadRequest, Call, Reply, json_reply, vectors_reply
from tests.support.faults import STATUS_KINDS, Fault, error_body
from tests.support.limits import Limits

HTML = b"<html><head><title>Bad gateway</title></head><body>nginx</body></html>"


class EmbeddingsServer:
    """See the module.

    Attributes:
        url: the base URL for a client, ending in ``/v1``.
        key: the only API key that is accepted.
        bill: what was billed.
        requests: embeddings requests that arrived, whatever became of them.
        statuses: how many of them were answered with which HTTP status (0: not at all).
        models: known models and their native dimensions.
    """

    def __init__(
        self, *, key: str = "test-key-0123456789", bill_file: Path | None = None, overbilling: float = 0.0,
        seed: int = 0, latency_s: float = 0.0, requests_per_minute: float = 0, tokens_per_minute: float = 0,
        burst_s: float = 2.0, retry_after: bool = True,
    ) -> None:  # fmt: skip
        self.key = key
        self.bill = Bill(bill_file)
        self.overbilling = overbilling
        self.seed = seed
        self.models = dict(MODELS)
        self.latency_s, self.retry_after = latency_s, retry_after
        self.defaults: dict[str, Any] = {
            "latency_s": latency_s,
            "retry_after": retry_after,
            "limits": {
                "requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute, "burst_s": burst_s,
            },
        }  # fmt: skip
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.reset()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.app = self
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def reset(self) -> None:
        """Forget faults, counts and the bill; limits and latency as they were at the start."""
        self.faults: list[Fault] = []
        self.requests = 0
        self.most_in_flight = self._in_flight = 0
        self.statuses: Counter[int] = Counter()
        self.bill.clear()
        self._random = random.Random(self.seed)
        self.configure(self.defaults)

    def configure(self, orders: dict[str, Any]) -> None:
        """The orders of ``POST /_control``."""
        if orders.get("reset"):
            self.reset()
        if "limits" in orders:
            self.limits = Limits(**orders["limits"])
        self.latency_s = float(orders.get("latency_s", self.latency_s))
        self.retry_after = bool(orders.get("retry_after", self.retry_after))
        for rule in orders.get("fail", []):
            self.fail(**rule)

    def fail(self, kind: str, **conditions: Any) -> Fault:
        """Add a rule, see ``Fault``. It can be taken out of ``faults`` again."""
        fault = Fault(kind, **conditions)
        with self._lock:
            self.faults.append(fault)
        return fault

    def state(self) -> dict[str, Any]:
        """What ``GET /_control`` tells."""
        return {
            "requests": self.requests, "statuses": dict(self.statuses), "billed_requests": len(self.bill.requests),
            "billed_tokens": self.bill.tokens, "most_in_flight": self.most_in_flight,
        }  # fmt: skip

    def start(self) -> EmbeddingsServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self.bill.close()

    def __enter__(self) -> EmbeddingsServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # one request

    def answer(self, authorization: str, body: bytes) -> Reply:
        """The reply to one embeddings request; its status is counted by the handler when it is sent."""
        with self._lock:
            self.requests += 1
            number = self.requests
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return self._answer(number, authorization, body)
        except BadRequest as error:
            return error.reply
        finally:
            with self._lock:
                self._in_flight -= 1

    def _answer(self, number: int, authorization: str, body: bytes) -> Reply:
        call = Call.read(body, self.models)
        with self._lock:
            fault = next(iter([fault for fault in self.faults if fault.matches(call.texts)]), None)
            if fault:
                fault.hits += 1
            factor = self._random.uniform(1, 1 + self.overbilling)
        if authorization != f"Bearer {self.key}":
            raise BadRequest(f"Incorrect API key provided: {authorization[7:]}.", None, "invalid_api_key", 401)
        call.check()
        if fault and not fault.bills and fault.kind in STATUS_KINDS:
            status, error = fault.error()
            return json_reply(status, error, fault.headers())
        wait = self.limits.admit(call.total)
        if wait:
            return self._turned_away(wait)
        billed = math.ceil(call.total * factor)
        is_billed = fault is None or fault.bills
        if is_billed:
            self.bill.add(
                {
                    "id": number, "time": time.time(), "texts": len(call.texts), "tokens": call.total,
                    "billed": billed, "sha": [sha_of(text) for text in call.texts],
                }
            )  # fmt: skip
        if self.latency_s:
            self.closing.wait(self.latency_s)
        return self._reply(call, fault, billed)._replace(bill_id=number if is_billed else 0)

    def list_models(self, authorization: str) -> Reply:
        """The reply to a request for the list of models; faults of kinds of ``STATUS_KINDS`` hit it, too."""
        fault = next(iter([fault for fault in self.faults if fault.matches([""])]), None)
        if authorization != f"Bearer {self.key}":
            error = f"Incorrect API key provided: {authorization[7:]}."
            return BadRequest(error, None, "invalid_api_key", 401).reply
        if fault and fault.kind in (*STATUS_KINDS, "html"):
            status, error_object = fault.error()
            return Reply(200, HTML, {}, "text/html") if fault.kind == "html" else json_reply(status, error_object)
        about = [{"id": name, "object": "model", "created": 0, "owned_by": "system"} for name in self.models]
        return json_reply(200, {"object": "list", "data": about})

    def _turned_away(self, wait: float) -> Reply:
        headers = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
        error = error_body("Rate limit reached. Please try again.", "rate_limit_exceeded", "rate_limit_exceeded")
        return json_reply(429, error, (headers if self.retry_after else {}) | self.limits.headers())

    def _reply(self, call: Call, fault: Fault | None, billed: int) -> Reply:
        kind = fault.kind if fault else ""
        if fault and kind in STATUS_KINDS:
            status, error = fault.error()
            return json_reply(status, error, fault.headers())
        if fault and kind == "html":
            return Reply(fault.status, HTML, fault.headers(), "text/html")
        reply = vectors_reply(call, fault, billed, self.limits.headers())
        return reply._replace(lost=kind)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    app: EmbeddingsServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # killed clients are part of the tests
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(self.server.app.list_models(self.headers.get("authorization", "")))
        else:
            self._send(json_reply(200, self.server.app.state()) if self.path == "/_control" else json_reply(404, {}))

    def do_POST(self) -> None:
        app = self.server.app
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/_control":
            app.configure(json.loads(body))
            self._send(json_reply(200, app.state()))
        elif self.path == "/v1/embeddings":
            self._answer(app.answer(self.headers.get("authorization", ""), body))
        else:
            self._send(json_reply(404, error_body(f"Invalid URL (POST {self.path})", "invalid_request_error")))

    def _answer(self, reply: Reply) -> None:
        app = self.server.app
        if reply.lost == "hang":
            while not app.closing.wait(0.05) and not self._client_is_gone():
                pass
        if reply.lost in ("hang", "cut_before", "cut_mid"):
            self._count(0)
            if reply.lost == "cut_mid":
                self.wfile.write(self._head(reply) + reply.body[: len(reply.body) // 2])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._count(reply.status)
        if self._client_is_gone():
            if reply.bill_id:
                app.bill.undelivered(reply.bill_id)
            self.close_connection = True
            return
        self._send(reply)

    def _count(self, status: int) -> None:
        app = self.server.app
        with app._lock:
            app.statuses[status] += 1

    def _client_is_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send(self, reply: Reply) -> None:
        self.wfile.write(self._head(reply) + reply.body)

    def _head(self, reply: Reply) -> bytes:
        headers = {"content-type": reply.content_type, "content-length": str(len(reply.body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('', ''))[0]}"]
        return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]).encode()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    """Serve until SIGTERM or until standard input closes, if ``--until-stdin-closes``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-file", type=Path, required=True, help="the port is written here when all is ready")
    parser.add_argument("--bill", type=Path, help="JSON lines; read with tests.support.bill.read_bill")
    parser.add_argument("--key", default="test-key-0123456789")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--requests-per-minute", type=float, default=0)
    parser.add_argument("--tokens-per-minute", type=float, default=0)
    parser.add_argument("--burst-s", type=float, default=2.0)
    parser.add_argument("--overbilling", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until-stdin-closes", action="store_true", help="so that it never outlives its parent")
    args = parser.parse_args()
    server = EmbeddingsServer(
        key=args.key, bill_file=args.bill, overbilling=args.overbilling, seed=args.seed, latency_s=args.latency,
        requests_per_minute=args.requests_per_minute, tokens_per_minute=args.tokens_per_minute, burst_s=args.burst_s,
    )  # fmt: skip
    tokens_of("warm")
    with server:
        temporary = args.port_file.with_suffix(".tmp")
        temporary.write_text(str(server.port))
        temporary.replace(args.port_file)
        if args.until_stdin_closes:
            sys.stdin.buffer.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()
