"""A run of the command line in a forked process; what it needs is imported once, by the server that forks it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import chromadb  # noqa: F401  two seconds that a fork saves
import chromadb.api.rust  # noqa: F401

import vectorstore.embedders.openai
import vectorstore.run
import vectorstore.search  # noqa: F401
from vectorstore.cli import main
from vectorstore.tokens import load_encoding

load_encoding("cl100k_base").encode_ordinary("warm")


def run(argv: list[str], env: dict[str, str], cwd: str, folder: str, file_limit: int) -> None:
    """``vectorkeep ARGV`` with this environment; its output goes to ``out`` and ``err`` in ``folder``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.exit(main(argv))
