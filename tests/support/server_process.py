"""The embeddings server as a process of its own, for tests that kill its clients."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.bill import Bill, read_bill

KEY = "test-key-0123456789"


class ServerProcess:
    """Starts the server and waits until it listens; ends it, at the latest with this process.

    Args:
        folder: for its port and its bill.
        options: of its command line, ``latency=0.2`` for ``--latency 0.2``.
    """

    key = KEY

    def __init__(self, folder: Path, **options: Any) -> None:
        self._port_file, self.bill_file = folder / "server-port", folder / "bill.jsonl"
        given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        files = ["--port-file", str(self._port_file), "--bill", str(self.bill_file), "--until-stdin-closes"]
        self._command = [sys.executable, "-m", "tests.support.embeddings_server", *files, *given]

    def __enter__(self) -> ServerProcess:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, cwd=root)
        deadline = time.monotonic() + 30
        while not self._port_file.exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.port = int(self._port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()

    @property
    def bill(self) -> Bill:
        """What was billed up to now, read from its file."""
        return read_bill(self.bill_file)

    def state(self) -> dict[str, Any]:
        return self._ask(None)

    def control(self, **orders: Any) -> dict[str, Any]:
        """``fail=[{"kind": "hang", "nth": [3]}]``, ``latency_s``, ``limits``, ``reset``; returns the state."""
        return self._ask(json.dumps(orders).encode())

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_control", body, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
            return state
