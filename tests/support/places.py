"""Places off-site that are real: an OpenSSH server, an S3 server, and a wire that breaks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[int]:
    """Its port; skips where there is no OpenSSH server. Keys and ``known_hosts`` are in ``folder``."""
    pytest.importorskip("paramiko")
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not sshd or not shutil.which("ssh-keygen"):
        pytest.skip("no OpenSSH server")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(_SSHD.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.kill()
        server.wait()


def known_hosts(folder: Path, ports: list[int], home: Path) -> None:
    """Make the server known to whoever has this home, on these ports."""
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (home / ".ssh" / "known_hosts").write_text("".join(f"[127.0.0.1]:{port} {key}\n" for port in ports))


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """The port of an S3 server; skips where there is none."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield int(server.get_host_and_port()[1])
    finally:
        server.stop()


class Wire:
    """Passes bytes on to a port; the first ``cuts`` connections break after ``after`` bytes from the client."""

    def __init__(self, target: int) -> None:
        self._target, self.after, self.cuts = target, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                budget = self.after if self.cuts > 0 else None
                self.cuts -= 1
                threading.Thread(target=self._pass, args=(client, server, budget), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if budget is not None and (budget := budget - len(data)) < 0:
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    pytest.skip("the OpenSSH server does not start here")
