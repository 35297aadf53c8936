"""The report on a terminal: faults first and merged, nothing that acts on the terminal, the verdict last."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.health_reports import HOSTILE, make_report, many_faults
from vectorstore.findings import CHECKS, Findings, Severity
from vectorstore.output.health_text import health_text
from vectorstore.output.merged_findings import faults, verdict
from vectorstore.output.printable import printable

ROOT = Path(__file__).parents[2]


def test_a_store_without_faults_is_two_lines() -> None:
    assert health_text(make_report()).splitlines() == [
        f"PASS  {len(CHECKS)} checks",
        f"PASS: {len(CHECKS)} checks passed; 3 collections, 1,200 stored chunks; standard, 4.2 s",
    ]


def test_the_worst_comes_first_and_passes_are_folded() -> None:
    lines = health_text(many_faults()).splitlines()
    heads = [line.split()[0] for line in lines if line[0] != " "]
    assert heads == ["FAIL", "FAIL", "WARN", "WARN", "INFO", "PASS", "note", "note", "FAIL:"]
    assert lines[-1].startswith(f"FAIL: 2 checks failed, 2 warned, 1 noted, {len(CHECKS) - 5} passed; 341 collections")


def test_a_fault_of_341_collections_is_one_block() -> None:
    text = health_text(many_faults(341))
    assert "FAIL  missing  not true in 341 collections (58,311 of 136,400): every chunk" in text
    assert text.count("chunks are not stored") == 3  # the worst three
    assert "docs_340: 341 of 400" in text
    assert "… and 338 more; --json shows all" in text
    assert len(text.splitlines()) < 30


def test_each_fault_says_what_where_why_and_what_next() -> None:
    block = re.search(r"(?ms)^FAIL  vectors.*?(?=^\w)", health_text(many_faults()))
    assert block
    assert [line[:13].split() for line in block[0].splitlines()] == [["FAIL", "vectors"], ["cause"], ["next"], ["ids"]]
    for words in ("docs_007: 6 of 400", CHECKS["vectors"].cause, CHECKS["vectors"].remedy, "'notes/"):
        assert words in block[0]


def test_verbose_shows_every_check_place_and_id() -> None:
    text = health_text(many_faults(5), verbose=True)
    assert all(f"  {check} " in text for check in CHECKS)
    assert text.count("chunks are not stored") == 5
    assert text.count("page-") == 25
    assert CHECKS["journal"].cause in text
    assert CHECKS["journal"].cause not in health_text(many_faults(5))


def test_columns_are_aligned_and_wrapped_to_the_width() -> None:
    lines = health_text(many_faults(), verbose=True, width=90).splitlines()[:-1]
    start = lines[0].index("not true")
    assert all(len(line) <= 90 and line[start - 2 : start] == "  " and line[start] != " " for line in lines)


def test_hostile_names_do_nothing_to_the_terminal() -> None:
    text = health_text(many_faults(), verbose=True)
    assert "\\x1b[31mred\\x07\\r\\n.md" in text
    assert "\\u202egpj.exe.md" in text
    assert "\\udcff\\udcfe.md" in text
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert "long " * 100 not in text


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 64, 400])
@pytest.mark.parametrize("text", ["", "abc", "x" * 10_000, "\x00" * 500, *HOSTILE])
def test_a_long_text_keeps_both_ends(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert len(shown) == min(limit, len(printable(text)))
    if "…" in shown and limit > 2:
        assert printable(text).startswith(shown.partition("…")[0])
        assert printable(text).endswith(shown.partition("…")[2])


def test_faults_are_merged_only_where_severity_and_next_step_are_the_same() -> None:
    found = Findings()
    for number, (severity, remedy) in enumerate([(Severity.FAIL, ""), (Severity.FAIL, ""), (Severity.FAIL, "other")]):
        found.add("missing", "m", collection=f"c{number}", severity=severity, remedy=remedy)
    found.add("missing", "m", collection="c9", severity=Severity.INFO)
    assert [(len(fault.findings), fault.severity) for fault in faults(found.result())] == [
        (2, Severity.FAIL), (1, Severity.FAIL), (1, Severity.INFO),
    ]  # fmt: skip


def test_the_verdict_counts_a_check_once_by_its_worst() -> None:
    found = Findings()
    found.add("missing", "m", collection="a", severity=Severity.INFO)
    found.add("missing", "m", collection="b", severity=Severity.WARN)
    found.looked("disk")
    assert verdict(make_report(found)) == "1 check warned, 1 passed"
    assert verdict(make_report(Findings())) == "no check was made"


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_colours_are_for_terminals_that_want_them(variables: dict[str, str], coloured: bool) -> None:
    script = (
        "from tests.support.health_reports import many_faults; from vectorstore.output.health_text import health_text;"
        " print(health_text(many_faults()))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=theirs, env=environment | variables)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    assert (b"\x1b[1;31mFAIL\x1b[0m  missing" in shown) is coloured
    assert (b"\x1b" in shown) is coloured
    assert "\x1b" not in health_text(many_faults())  # pytest's output is no terminal


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""
