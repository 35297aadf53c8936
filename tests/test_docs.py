"""The documentation is tested: what it names exists, what exists is named, and the README's session really runs."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vectorstore import cli, errors, progress
from vectorstore.alerting import URLS
from vectorstore.alerting.alert import NAMES, Alert
from vectorstore.backups import history as backups
from vectorstore.backups.encryption import PASSWORD
from vectorstore.findings import CHECKS, Action, CollectionHealth, Finding, HealthReport, Rule
from vectorstore.mending.fix_plan import ORDER
from vectorstore.output.health_history import COLUMNS, MAX_ROWS
from vectorstore.prices import PRICES_AS_OF, USD_PER_MILLION_TOKENS
from vectorstore.runs import history
from vectorstore.runs.metrics import metrics_text
from vectorstore.runs.record import STATES, VERBS, RunRecord
from vectorstore.settings import ALIASES, Settings

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in FILES}
README = PAGES["README.md"]


def rows(page: str) -> Iterator[list[str]]:
    """The cells of all rows of a page's tables; heads and rules among them."""
    for line in PAGES[page].splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_setting_is_described_with_its_default() -> None:
    described = {row[0].strip("`"): row[1].strip("`") for row in rows("docs/settings.md") if row[0].startswith("`")}
    expected = {spec.name: _as_toml(_default(spec)) for spec in fields(Settings) if spec.name != "workspace"}
    assert described == expected


def _default(spec: object) -> object:
    made = getattr(spec, "default_factory", MISSING)
    return made() if made is not MISSING else spec.default  # type: ignore[attr-defined]


def _as_toml(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case dict():
            return "{}"
        case tuple():
            return "[" + ", ".join(f'"{item}"' for item in value) + "]"
        case int() | float():
            return str(value)
        case _:
            return f'"{value}"'


def test_every_environment_variable_that_is_named_exists() -> None:
    names = {f"VECTORKEEP_{spec.name.upper()}" for spec in fields(Settings)} | {"VECTORKEEP_", PASSWORD, URLS}
    named = {match for text in PAGES.values() for match in re.findall(r"VECTORKEEP_[A-Z_]*", text)}
    assert named <= names
    for alias in ALIASES.values():
        assert alias in PAGES["docs/settings.md"]


def test_every_command_and_flag_is_described() -> None:
    described = re.search(r"(?s)\n## Commands\n(.*?)\n## ", README)
    assert described
    commands = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(re.findall(r"\| `vectorkeep ([\w-]+)", described[1])) == set(commands)
    flags = {flag for command in commands.values() for a in command._actions for flag in a.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", described[1])) == flags - {"-h", "--help"}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    described = {int(row[0]) for row in rows("README.md") if row[0].isdigit()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.VectorkeepError)}
    assert described == raised | {0}


def test_the_prices_are_those_of_the_table() -> None:
    described = {row[0].strip("`"): float(row[1]) for row in rows("docs/money.md") if row[1].startswith("0.")}
    assert described == USD_PER_MILLION_TOKENS
    assert PRICES_AS_OF in PAGES["docs/money.md"]


def test_every_field_of_the_checkpoint_is_described() -> None:
    text = PAGES["docs/how-it-works.md"].partition("## The checkpoint file")[2].partition("\n## ")[0]
    described = {name for row in re.findall(r"(?m)^\| (`.*?) \|", text) for name in re.findall(r"`(\w+)`", row)}
    written = {spec.name for spec in fields(progress.Progress)} | {"updated", "pid", "message", "hint", "failures"}
    assert described == written - {"collections_total"}


def test_every_check_is_described_as_the_register_has_it() -> None:
    described = [row for row in rows("docs/health.md") if row[0].strip("`") in CHECKS and len(row) == 7]
    expected = [
        [
            f"`{name}`", check.title, check.depth.name.lower(), _severity(check.rule), check.cause, check.remedy,
            f"`{check.action}`" if check.action is not Action.NONE else "–",
        ]
        for name, check in CHECKS.items()
    ]  # fmt: skip
    assert described == expected, "it should be:\n" + "\n".join(f"| {' | '.join(row)} |" for row in expected)


def _severity(rule: Rule) -> str:
    """A rule in words, asked: "INFO, WARN above 1 %"."""
    said = [rule(1, 10**9)]
    words = [said[0].name]
    for share in range(1, 1001):
        if (now := rule(share, 1000)) is not said[-1]:
            said.append(now)
            words.append(f"{now.name} above {(share - 1) / 10:g} %")
    return ", ".join(words)


def test_every_alert_is_described_and_its_settings_exist() -> None:
    described = {row[0].strip("`"): row for row in rows("docs/alerts.md") if len(row) == 5 and row[0].startswith("`")}
    assert tuple(described) == NAMES
    settings = {name for row in described.values() for name in re.findall(r"`(\w+)`", row[3])}
    assert settings <= {spec.name for spec in fields(Settings)}
    named = set(re.findall(r"`(alert_\w+|coverage_floor)`", PAGES["docs/alerts.md"]))
    assert named == {spec.name for spec in fields(Settings) if spec.name.startswith(("alert_", "coverage_"))}


def test_every_field_of_an_alert_event_is_described() -> None:
    text = PAGES["docs/alerts.md"].partition("### Events")[2].partition("\n### ")[0].partition("| field |")[2]
    described = {name for cell in re.findall(r"(?m)^\| (`.*?) \|", text) for name in re.findall(r"`(\w+)`", cell)}
    alert = Alert("failed", "FAIL", "", "", None, None, 0.0)
    assert described == {*alert.to_dict(), "title", "text", "workspace"}


def test_every_action_of_a_fix_is_described() -> None:
    text = PAGES["docs/health.md"].partition("## What `--fix` does")[2].partition("\n## ")[0]
    described = re.findall(r"(?m)^\| `(\w+)` \|", text)
    assert described == [action.value for action in ORDER]
    assert set(Action) == {*ORDER, Action.NONE}


def test_every_field_of_a_health_report_is_described() -> None:
    report = HealthReport("", 0.0, 0.0, "", "", "", "", "", "", [], [])
    for heading, names in (
        ("A report", set(report.to_dict())),
        ("A finding", {spec.name for spec in fields(Finding)}),
        ("A collection", {spec.name for spec in fields(CollectionHealth)} | {"coverage"}),
    ):
        text = PAGES["docs/health.md"].partition(f"\n### {heading}\n")[2].partition("\n#")[0]
        described = [name for cell in re.findall(r"(?m)^\| (`.*?) \|", text) for name in re.findall(r"`(\w+)`", cell)]
        assert len(described) == len(set(described))
        assert set(described) == names


def test_every_column_of_the_health_history_is_described_with_its_type() -> None:
    text = PAGES["docs/health.md"].partition("## The history")[2].partition("\n## ")[0]
    cells = re.findall(r"(?m)^\| (`.*?) \| (.*?) \|", text)
    assert {name: kind for names, kind in cells for name in re.findall(r"`(\w+)`", names)} == {
        name: kind.partition("[")[0] for name, kind in COLUMNS.items()
    }
    assert f"{MAX_ROWS:,}" in text


def test_every_column_of_the_history_of_runs_is_described_with_its_type() -> None:
    text = PAGES["docs/report.md"].partition("## The history of runs")[2].partition("\n## ")[0]
    cells = re.findall(r"(?m)^\| (`.*?) \| (.*?) \|", text)
    described = {name: kind for names, kind in cells for name in re.findall(r"`(\w+)`", names)}
    assert described == {name: kind.partition("[")[0] for name, kind in history.COLUMNS.items()}
    assert f"{history.MAX_ROWS:,}" in text
    for name in (*VERBS, *STATES):
        assert f"`{name}`" in text


def test_every_metric_is_described_with_its_labels(tmp_path: Path) -> None:
    text = PAGES["docs/report.md"].partition("## Metrics")[2].partition("\n## ")[0]
    described = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in re.findall(r"(?m)^\| (`[^/].*?) \|(.*?)\|", text)
        for name in re.findall(r"`(\w+)`", names)
    }
    settings = Settings(workspace=tmp_path)
    settings.path(settings.chroma_path).mkdir()
    full = dict.fromkeys((spec.name for spec in fields(RunRecord)), 1)
    texts = {"run": "r", "verb": "update", "by": "cli", "state": "completed", "error": "", "message": "", "name": ""}
    history.append(tmp_path / ".hashes", RunRecord(**full | texts | {"detail": ""}))
    backups.append(tmp_path, backups.Event("drill", "b", 1.0))
    found = metrics_text(replace(settings, backups_path=tmp_path))
    families = {each.name + "_total" * (each.type == "counter"): each for each in text_string_to_metric_families(found)}
    assert described == {
        name.removeprefix("vectorkeep_"): {label for sample in each.samples for label in sample.labels}
        for name, each in families.items()
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        found = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert found.is_file(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", found.read_text("utf-8"))
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    for path in re.findall(r"(?:tests|docs|flows|tasks|benchmarks|vectorstore)/[\w/.-]+\.(?:py|md)", PAGES[page]):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_no_place_of_one_machine(page: str) -> None:
    assert not re.search(r"(?<![\w.])/(tmp|work|root|opt)/", PAGES[page])


@pytest.mark.slow
def test_the_session_in_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    """Line by line and in order; numbers and paths may differ, and the README may leave lines out."""
    command = [sys.executable, str(ROOT / "docs" / "demo.py"), str(tmp_path / "demo")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    printed = iter(_normal(run.stdout))
    session = re.search(r"(?s)```console\n(.*?)```", README)
    assert session
    for line in _normal(session[1]):
        assert line in printed, f"the demo did not print (any more): {line}\n\n{run.stdout}"


def _normal(text: str) -> list[str]:
    text = re.sub(r"(?m)^wrote .*/", "wrote ", text)
    text = re.sub(r"\d[\d,.]*", "0", text)
    return [re.sub(r" +", " ", line).strip() for line in text.splitlines() if line.strip()]
