"""The report: the week first, then where figures go; the same in every form, and harmless whatever names hold."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.runs.test_history import STARTED, record
from tests.support.workbench import Workspace
from tests.support.workspaces import digests, make_settings
from vectorstore.backups.history import Event
from vectorstore.backups.history import append as note_backup
from vectorstore.errors import ConfigurationError
from vectorstore.findings import Severity
from vectorstore.report import Report, report
from vectorstore.runs import history
from vectorstore.runs.history import LOG, append, row_of
from vectorstore.runs.record import STATES, RunRecord
from vectorstore.runs.report_page import report_page
from vectorstore.runs.report_text import report_markdown, report_text
from vectorstore.runs.troubles import remedy_of
from vectorstore.runs.words import verdict
from vectorstore.settings import Settings

DAY = 86_400
NOW = STARTED + 30 * DAY
HOSTILE = "<script>alert(1)</script> ![x](http://example.test/x.png) \"' | \x1b[31m \u202e `rm`"
FORMS = (report_text, report_markdown, report_page)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = make_settings(tmp_path)
    found.hashes.mkdir()
    found.backups.mkdir()
    return found


def kept(settings: Settings, *runs: RunRecord) -> Report:
    """The report on these runs."""
    for each in runs:
        assert append(settings.hashes, each) == []
    return report(settings, clock=lambda: NOW)


def spend(settings: Settings, **usd: float) -> None:
    """Dollars by day, such as ``d20261120``."""
    with sqlite3.connect(settings.path(settings.spend_ledger)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS totals (scope TEXT PRIMARY KEY, picousd INTEGER, tokens INTEGER)")
        for day, cost in usd.items():
            scope = f"day {day[1:5]}-{day[5:7]}-{day[7:]}"
            db.execute("INSERT INTO totals VALUES (?, ?, 0)", (scope, int(cost * 1e12)))


class Checked(HTMLParser):
    """Every tag that is opened is closed, and none can do anything."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object", "a", "form")
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]
        if tag not in ("meta", "rect", "line", "circle", "path", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line", "circle", "path", "polyline"):
            assert self.open.pop() == tag


def test_the_week_comes_first(settings: Settings) -> None:
    spend(settings, d20261221=0.25, d20261218=1.0, d20261125=2.0, d20261001=4.0)
    note_backup(settings.backups, Event("backup", "b", NOW - 3 * 3600, "full"))
    note_backup(settings.backups, Event("drill", "b", NOW - 9 * DAY, "drill"))
    found = kept(
        settings,
        record(3, state="failed", exit_code=1),  # not of this week
        record(25, documents=7, chunks=70, store_bytes=10**9),
        record(26, state="capped", exit_code=3, error="Capped", message="the cap is reached"),
        record(27),
        record(28, verb="health", state="findings", exit_code=1, message="missing: 3 chunks", coverage=0.97),
    )
    assert found.runs == {"update": {"completed": 2, "capped": 1}, "health": {"findings": 1}}
    assert [(each.verb, each.mended) for each in found.troubles] == [("health", False), ("update", True)]
    spent = found.spent
    assert (spent.today, spent.week, spent.span, spent.total) == (0.25, 1.25, 3.25, 7.25)
    text = report_text(found)
    head, _, rest = text.partition("\n\n")
    assert head == "FAIL: 1 run ended badly and was not made good since"
    for line in (
        "  health    1: 1 findings", "  update    3: 1 capped, 2 completed",
        "  backups   made 3 hours ago, verified 3 hours ago, drilled 9 days ago",
        "  store     7 documents in 70 chunks, 1.00 GB, coverage 97.00%",
        "  spent     $1.25 in 7 days, $0.25 today, $3.25 in 30 days, $7.25 in all",
        "    next: run `vectorkeep health --fix`",
    ):  # fmt: skip
        assert line in rest.splitlines()
    assert text.index("the week to") < text.index("ended badly\n") < text.index("\n30 days, ")


@pytest.mark.parametrize("count", [0, 1, 2, 400])
@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_runs_can_be_read(settings: Settings, count: int, form: object) -> None:
    runs = [replace(record(0, work=1, chunks_embedded=5, coverage=1.0, store_bytes=5, memory_mb=9.0), run=str(n),
                    started=NOW - 29 * DAY * (count - n) / count) for n in range(count)]  # fmt: skip
    found = kept(settings, *runs)
    text = form(found)  # type: ignore[operator]
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+", "", text.lower())
    if form is report_page:
        Checked(text)
        assert len(text) < 200_000
    else:
        assert len(text.splitlines()) < 45


def test_ten_thousand_runs_are_told_in_seconds(settings: Settings) -> None:
    rows = [
        row_of(replace(record(0, work=1, seconds=5.0 + n % 7, store_bytes=n), run=f"{n:05d}", started=NOW - 2000 * n))
        for n in range(10_000)
    ]
    LOG.format.save(settings.hashes / LOG.file, LOG.format.table_of(rows))
    began = time.process_time()
    found = report(settings, days=365, clock=lambda: NOW)
    page = report_page(found)
    assert time.process_time() - began < 8
    assert found.total_runs == 10_000 and len(page) < 200_000
    Checked(page)


def test_hostile_texts_do_nothing_in_any_form(settings: Settings) -> None:
    runs = [
        record(27, state="failed", exit_code=1, message=HOSTILE, verb=f"up<b>{HOSTILE}"),
        record(28, state=HOSTILE, exit_code=1),
        *(record(n, verb="drill", detail=HOSTILE, seconds=1.0 if n < 20 else 9.0) for n in range(1, 27)),
    ]
    found = replace(kept(settings, *runs), notes=[HOSTILE], workspace=HOSTILE)
    page = report_page(found)
    Checked(page)
    assert "&lt;script&gt;alert(1)" in page
    for text in (page, report_text(found), report_markdown(found)):
        assert "\x1b" not in text and "\u202e" not in text
    shown = re.sub(r"`[^`]*`", "", report_markdown(found))  # what stands in code does nothing
    assert "<script" not in shown.replace("\\<script", "") and "![x]" not in shown


def test_the_verdict_is_of_the_worst_that_still_holds(settings: Settings) -> None:
    assert verdict(kept(settings))[0] is Severity.WARN  # no run at all
    assert verdict(kept(settings, record(29)))[0] is Severity.WARN  # no backup
    note_backup(settings.backups, Event("backup", "b", NOW - 3600, "full"))
    assert verdict(kept(settings))[0] is Severity.INFO  # no drill
    note_backup(settings.backups, Event("drill", "b", NOW - 3600, "drill"))
    assert verdict(kept(settings))[0] is Severity.PASS
    late = replace(record(29, verb="backup", state="crashed", exit_code=-9), run="late", started=NOW - 100)
    assert verdict(kept(settings, late))[0] is Severity.FAIL
    assert verdict(kept(settings, replace(record(29, verb="backup"), run="x", started=NOW - 50)))[0] is Severity.PASS


def test_a_fix_makes_a_health_check_good(settings: Settings) -> None:
    bad = record(28, verb="health", state="findings", exit_code=1)
    assert [each.mended for each in kept(settings, bad).troubles] == [False]
    assert [each.mended for each in kept(settings, record(29, verb="fix")).troubles] == [True]


@pytest.mark.parametrize("state", [state for state in STATES if state != "completed"])
def test_every_bad_end_has_a_next_step(state: str) -> None:
    assert len(remedy_of(record(0, state=state))) > 10


def test_leaks_and_regressions_are_marked(settings: Settings) -> None:
    runs = [record(day, chunks=100, work=2, chunks_written=2, store_bytes=10**8 + day * 10**7,
                   seconds=3.0 if day < 23 else 9.0) for day in range(30)]  # fmt: skip
    found = kept(settings, *runs)
    assert {mark.kind for mark in found.warnings} == {"leak", "regression"}
    assert "LEAK: the store grew by" in report_text(found) and "REGRESSION: the last 7 runs" in report_text(found)
    page = report_page(found)
    assert page.count('<line class="second"') == 3  # the key, the store's trend and the duration's
    Checked(page)


def test_a_history_or_a_spend_ledger_that_is_damaged_is_a_note(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FOLD_BYTES", 0)
    kept(settings, record(28))
    (settings.hashes / LOG.file).write_bytes(b"PAR1")
    settings.path(settings.spend_ledger).write_bytes(b"no database at all, but long enough to be looked at")
    found = report(settings, clock=lambda: NOW)
    assert len(found.notes) == 2 and found.spent.total == 0
    for form in FORMS:
        assert "damaged" in form(found)


@pytest.mark.parametrize("days", [0, -3, 733])
def test_days_have_bounds(settings: Settings, days: int) -> None:
    with pytest.raises(ConfigurationError):
        report(settings, days=days)


def test_the_command_prints_and_writes_every_form_and_changes_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    (workspace.root / ".hashes").mkdir(exist_ok=True)
    append(workspace.root / ".hashes", replace(record(0), started=time.time() - 60))
    before = digests(workspace.root)
    assert "update    1: 1 completed" in workspace.cli("report").out
    assert workspace.cli("report", "--format", "markdown").out.startswith("## WARN")
    told = json.loads(workspace.cli("report", "--json").out)
    assert told["runs"] == {"update": {"completed": 1}} and told["series"][4]["name"] == "duration"
    for name, begin in (("r.html", "<!DOCTYPE html>"), ("r.md", "## "), ("r.txt", "WARN"), ("r.json", "{")):
        assert workspace.cli("report", "--output", str(tmp_path / "out" / name)).code == 0
        assert (tmp_path / "out" / name).read_text().startswith(begin)
    assert workspace.cli("report", "--days", "0").code == 2
    assert digests(workspace.root) == before
