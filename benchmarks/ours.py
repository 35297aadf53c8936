"""Vectorkeep as its users run it: the command line, configured by the environment."""

from __future__ import annotations

import importlib.util
import os
import sys

from benchmarks import measure


def available() -> bool:
    """Whether the command line is there."""
    return importlib.util.find_spec("vectorstore.cli") is not None


def settings(corpus: str, dimension: int) -> dict[str, str]:
    """The settings of a run with the instant embedder."""
    return {
        "VECTORKEEP_EMBEDDER": "hash",
        "VECTORKEEP_DIMENSIONS": str(dimension),
        "VECTORKEEP_SOURCE": os.path.abspath(corpus),
        "VECTORKEEP_COLLECTION": "docs",
    }


def init(workspace: str, env: dict[str, str]) -> None:
    """Make a workspace; not measured: it is done once in a store's life."""
    os.makedirs(workspace)
    measure.run(command(workspace, "init"), env)


def update(workspace: str, env: dict[str, str]) -> measure.Sample:
    """One ``vectorkeep update``."""
    return measure.run(command(workspace, "update"), env).sample


def health(workspace: str, env: dict[str, str], depth: str) -> measure.Sample:
    """One ``vectorkeep health``, always of the same part of the rows, and without Chroma: as of a large store."""
    env = env | {"VECTORKEEP_PROBE_MAX_MB": "0"}
    return measure.run(command(workspace, "health", "--depth", depth, "--seed", "0"), env).sample


def run(workspace: str, env: dict[str, str], *words: str) -> measure.Sample:
    """One command, as its users type it."""
    return measure.run(command(workspace, *words), env).sample


def command(workspace: str, *words: str) -> list[str]:
    """The command line of one verb."""
    return [sys.executable, "-m", "vectorstore.cli", "--workspace", workspace, *words]


def store(workspace: str) -> str:
    """Where a workspace keeps its Chroma store."""
    return os.path.join(workspace, "chroma")
