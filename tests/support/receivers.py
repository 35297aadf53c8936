"""Where alerts arrive in tests: a webhook over HTTP and a mail server, which can also refuse, or never answer."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    """Takes JSON by POST.

    Attributes:
        received: the bodies, in the order of arrival.
        status: of its answers; 0: it takes a request and never answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.closing = threading.Event()
        self.place = f"127.0.0.1:{self.server_address[1]}"

    @property
    def titles(self) -> list[str]:
        return [body["title"] for body in self.received]


class _Post(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.received.append(body)
        if not self.server.status:
            self.server.closing.wait(60)
        self.send_response(self.server.status or 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mail by SMTP, as much of it as a client needs.

    Attributes:
        received: the messages.
        silent: takes a connection, and never says a word.
    """

    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.received: list[Any] = []
        self.silent = False
        self.closing = threading.Event()
        self.place = f"127.0.0.1:{self.server_address[1]}"


class _Smtp(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        if self.server.silent:
            self.server.closing.wait(60)
            return
        self._say("220 test")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self._say("354 go on")
                self.server.received.append(message_from_bytes(self._data(), policy=policy.default))
            self._say("221 bye" if command == b"QUIT" else "250 ok")
            if command == b"QUIT":
                return

    def _data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    """``Webhook()`` or ``MailServer()``, at work."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def free_port() -> int:
    """A port where nothing listens."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        return int(server.server_address[1])
