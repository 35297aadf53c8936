"""A run of the command line in a forked process; what it needs is imported once, see ``preload``."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.pausing.stepping import die_at
from vectorstore.chroma import probe_child, probe_process


def fork_probes() -> None:
    """Have this process, which was forked itself, fork the probe's too."""
    probe_process.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _forked_probe})  # type: ignore[attr-defined]


def _forked_probe(argv: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """The probe's process: all that it imports is there already. `tests.vectorstore.test_probe` starts it anew."""

    def probe() -> None:
        os.closerange(3, 1024)
        os.environ.clear()
        os.environ.update(env)
        probe_child.main(argv[-1])  # which ends the process

    assert argv[:-1] == [sys.executable, "-m", probe_child.__name__]
    if len(os.listdir("/proc/self/task")) > 1:  # what other threads hold would stay held in a forked process
        return subprocess.Popen(argv, env=env, **options)
    return subprocess.Popen(argv, env=env, preexec_fn=probe, **options)


def run(argv: list[str], env: dict[str, str], cwd: str, folder: str, file_limit: int, die: str) -> None:
    """``vectorkeep ARGV`` with this environment; its output goes to ``out`` and ``err`` in ``folder``.

    ``die`` names a step to be killed at: ``before vectorstore.ledger:Ledger.commit`` or ``after ... 3`` for the third.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    if die:
        die_at(die)
    fork_probes()
    from vectorstore.cli import main

    sys.exit(main(argv))
