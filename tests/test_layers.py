"""The layers point one way: the library works on the day that Prefect does not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.workspaces import make_settings, write_corpus
from vectorstore.settings import Settings
from vectorstore.update import update

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "vectorstore").rglob("*.py")
)
HEAVY = {"chromadb", "numpy", "openai", "pandas", "pyarrow", "pydantic", "tenacity", "tiktoken", "tqdm", "wordllama"}
BELOW: dict[str, set[str]] = {
    "alerting": {"runs", "output"},
    "runs": {"output", "histories"},
    "output": {"chroma", "histories"},
    "adoption": {"mending", "chroma", "documents", "embedders"},
    "mending": {"checks", "chroma"},
    "checks": {"chroma", "documents"},
    "chroma": set(),
    "documents": set(),
    "embedders": set(),
    "histories": set(),
}
"""Packages of the library, and which of them each may import; one without any imports only errors and settings."""
BLOCKED_IMPORTS = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("prefect", "tasks", "flows"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
print("imported")
"""


def test_the_library_imports_without_prefect() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED_IMPORTS, *MODULES], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
    assert len(MODULES) > 30


@pytest.mark.parametrize("module", MODULES)
def test_no_library_module_names_an_upper_layer(module: str) -> None:
    """Also where the import would only happen inside a function."""
    assert not imported(module) & {"prefect", "tasks", "flows"}


def test_chroma_is_imported_by_the_store_and_by_the_process_that_may_die_of_it() -> None:
    """Also where the import is inside a function; all else reads files, or asks one of these two."""
    assert {module for module in MODULES if "chromadb" in imported(module)} == {
        "vectorstore.chroma.store",
        "vectorstore.chroma.probe_child",
    }


@pytest.mark.parametrize("package", BELOW)
def test_packages_import_what_is_below_them(package: str) -> None:
    """Also inside functions, and where only types are imported."""
    reached = {other.split(".")[1] for module in MODULES if part_of(module) == package for other in neighbours(module)}
    assert reached & BELOW.keys() <= BELOW[package] | {package}
    if not BELOW[package]:
        assert reached <= {package, "errors", "settings"}


def test_no_two_modules_import_each_other() -> None:
    """Nor three or more in a ring."""
    TopologicalSorter({module: neighbours(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.name)
def test_flows_hold_no_logic(path: Path) -> None:
    tree = ast.parse(path.read_text())
    branches = (ast.For, ast.While, ast.Try, ast.With, ast.comprehension, ast.Lambda)
    assert not any(isinstance(node, branches) for node in ast.walk(tree))
    assert not names_of(tree) & {"os", "sqlite3", "vectorstore"}


def part_of(module: str) -> str:
    """The package inside the library that a module belongs to."""
    return module.split(".")[1] if module.count(".") > 1 else ""


def neighbours(module: str) -> set[str]:
    """The library's modules that a module imports."""
    found = {
        f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module or ""
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return found & set(MODULES) - {module}


def imported(module: str) -> set[str]:
    return names_of(parsed(module))


def parsed(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())


def names_of(tree: ast.AST) -> set[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def test_a_run_with_nothing_to_do_imports_nothing_heavy(tmp_path: Path) -> None:
    """Imports would cost more than the whole look at 20,000 files."""
    settings = make_settings(tmp_path)
    write_corpus(settings.path(settings.source), 3)
    assert update(settings).exit_code == 0
    time.sleep(2.1)  # the inode times of files this young are not believed
    assert update(settings).kinds == {"unchanged": 3}
    script = (
        "import sys; from vectorstore.cli import main; code = main();"
        f" heavy = {HEAVY!r} & set(sys.modules); sys.exit(str(heavy) if heavy else code)"
    )
    environment = {**os.environ, **{f"VECTORKEEP_{k}": v for k, v in variables(settings).items()}}
    for command in (["update"], ["plan"], ["status"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert command == ["status"] or "nothing to do: 3 documents" in done.stdout


def variables(settings: Settings) -> dict[str, str]:
    named = {"SOURCE": settings.source, "EMBEDDER": "hash", "DIMENSIONS": 32, "CHUNK_TOKENS": 120}
    return {"WORKSPACE": str(settings.workspace), **{name: str(value) for name, value in named.items()}}
