"""Sending: in a process of its own that is killed when its time is over, so that no address can hold a run up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vectorstore.alerting.notice import Notice

# All else stays away: keys and passwords above all. Proxies and certificates are for the way out.
_PASSED_ON = (
    "PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "no_proxy",
)  # fmt: skip


class Sent(NamedTuple):
    """What became of one notice at one address; ``reason``: why it did not take it, without anything of the address."""

    ok: bool
    reason: str = ""


def send(
    addresses: Sequence[str], notices: Sequence[Notice], work: Sequence[tuple[int, int]], seconds: float
) -> dict[tuple[int, int], Sent]:
    """Send notices to addresses, all addresses at once.

    Args:
        work: which notice goes where: pairs of the address's and the notice's number.
        seconds: after which everything is given up.

    Returns:
        What became of each pair of ``work``. One that was given up may have arrived all the same.
    """
    if not work:
        return {}
    asked = {
        "addresses": list(addresses), "notices": [each.to_dict() for each in notices], "work": work, "seconds": seconds
    }  # fmt: skip
    output, problem = _ask(json.dumps(asked).encode(), seconds)
    done = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line may be half a one
            said = json.loads(line)
            done[said["address"], said["notice"]] = Sent(bool(said["ok"]), str(said["reason"]))
    return {pair: done.get(pair, Sent(False, problem)) for pair in work}


def _ask(request: bytes, seconds: float) -> tuple[bytes, str]:
    """The child's output as far as it came, and what is to be said of what is lacking."""
    until = time.monotonic() + seconds
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("child.py"))],
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0,
        )  # fmt: skip
    except OSError as error:
        return b"", f"no process could be started: {error.strerror}"
    with child:
        try:
            return child.communicate(request, max(0.0, until - time.monotonic()))[0], "the sending process failed"
        except subprocess.TimeoutExpired:
            _kill(child)
            return child.communicate()[0], f"no answer in {seconds:.0f} s"
        finally:
            _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
