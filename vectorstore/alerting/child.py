"""The process that sends: it may hang, and is then killed. It knows of addresses only what comes on standard input.

It is started by its path and imports nothing of the library, so that it runs wherever Apprise is installed.
Standard input: ``{"addresses": [...], "notices": [...], "work": [[address, notice], ...], "seconds": 10}``. Standard
output: a line ``{"address": 0, "notice": 1, "ok": true, "reason": ""}`` as each one is done.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from typing import Any

import apprise

_PRINTING = threading.Lock()


class _Complaints(logging.Handler):
    """What Apprise says of a failure, by thread. It may name the address: only a few known words of it go on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.said.setdefault(record.thread or 0, record.getMessage())

    def reason(self) -> str:
        said = self.said.pop(threading.get_ident(), "")
        if code := re.search(r"error=(\d{3})\b", said):
            return f"HTTP {code[1]}"
        return "no connection" if "onnection error" in said else "it did not take it"


def main() -> None:
    """Send all; every address in a thread of its own, its notices one after the other."""
    asked = json.load(sys.stdin)
    signal.alarm(int(asked["seconds"]) + 15)  # should nobody be left to end this process
    complaints = _Complaints()
    logger = logging.getLogger("apprise")
    logger.addHandler(complaints)
    logger.propagate = False
    threads = [
        threading.Thread(target=_send, args=(asked, address, complaints), daemon=True)
        for address in sorted({address for address, _ in asked["work"]})
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # whatever Apprise keeps open


def _send(asked: dict[str, Any], address: int, complaints: _Complaints) -> None:
    service = apprise.Apprise()
    known = service.add(asked["addresses"][address])
    for _, number in (each for each in asked["work"] if each[0] == address):
        notice, ok, reason = asked["notices"][number], False, "Apprise knows no such address"
        if known:
            try:
                ok = bool(service.notify(notice["body"], notice["title"], notice["kind"], body_format="text"))
            except Exception as error:  # plugins raise what they like
                reason = type(error).__name__
            else:
                reason = "" if ok else complaints.reason()
        with _PRINTING:
            print(json.dumps({"address": address, "notice": number, "ok": ok, "reason": reason}), flush=True)


if __name__ == "__main__":
    main()
