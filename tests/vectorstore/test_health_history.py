"""The history of checks: cheap to add to, nothing lost to kills, neighbours or a full disk, and never in the way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.health_reports import STARTED, make_collections, make_report, many_faults
from tests.support.workspaces import digests
from vectorstore.findings import CollectionHealth, Findings, HealthReport
from vectorstore.histories.lines import locked
from vectorstore.histories.parquet import Unreadable
from vectorstore.output import health_history
from vectorstore.output.health_history import COLUMNS, LOG, MAX_AGE_S, MAX_RUN_ROWS, append, read, rows_of
from vectorstore.output.health_totals import totals

ROOT = Path(__file__).parents[2]
DAY = 86_400
FILE, LINES = LOG.file, LOG.lines
load, save, schema, table_of = LOG.format.load, LOG.format.save, LOG.format.schema, LOG.format.table_of


def report(number: int, depth: str = "standard", **values: Any) -> HealthReport:
    """The check number so much, a day after the one before."""
    return make_report(run=f"run-{number:05d}", depth=depth, started=STARTED + number * DAY, **values)


def names(folder: Path) -> list[str]:
    """The runs that the history has, the oldest first."""
    found = read(folder)
    assert found.notes == []
    return [run.run for run in found.runs()]


def test_a_quick_check_adds_a_line_and_imports_nothing_heavy(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.support.health_reports import make_report
from vectorstore.output.health_history import append
assert append(Path({str(tmp_path)!r}), make_report(depth="quick")) == []
sys.exit(sorted({{"pyarrow", "numpy", "pandas"}} & set(sys.modules)) or 0)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
    assert not (tmp_path / FILE).exists()
    assert len((tmp_path / LINES).read_text().splitlines()) == 1
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("depth", ["standard", "deep"])
def test_a_longer_check_folds_the_lines_into_the_file(tmp_path: Path, depth: str) -> None:
    for number in range(3):
        assert append(tmp_path, report(number, "quick")) == []
    assert append(tmp_path, report(3, depth)) == []
    assert not (tmp_path / LINES).exists()
    assert append(tmp_path, report(4, "quick")) == []
    assert names(tmp_path) == [f"run-{n:05d}" for n in range(5)]
    assert load(tmp_path / FILE).num_rows == 4


def test_quick_checks_alone_do_not_add_lines_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_history, "FOLD_BYTES", 3000)
    for number in range(20):
        append(tmp_path, report(number, "quick"))
    assert (tmp_path / LINES).stat().st_size <= 3000
    assert len(names(tmp_path)) == 20


def test_pandas_reads_the_documented_columns(tmp_path: Path) -> None:
    given = many_faults(3)
    append(tmp_path, given)
    table = pq.read_table(tmp_path / FILE)
    assert {field.name: str(field.type) for field in table.schema} == dict(COLUMNS)
    frame = pd.read_parquet(tmp_path / FILE)
    assert list(frame.columns) == list(COLUMNS)
    assert (frame["time"] == pd.Timestamp(STARTED, unit="s", tz="UTC")).all()
    run = frame[frame["kind"] == "run"].iloc[0]
    assert (run["severity"], run["documents"], run["chunks"], run["stored"]) == ("FAIL", 300, 1200, 615)
    assert (run["passed"], run["info"], run["warn"], run["fail"]) == tuple(given.counts().values())
    assert (run["count"], run["total"]) == (7, len({each.check for each in given.findings}))
    found = frame[frame["kind"] == "finding"]
    assert list(found["severity"]) == ["FAIL"] * 4 + ["WARN"] * 2 + ["INFO"]
    assert found.set_index("check").loc["backup", "value"] == 9 * DAY
    assert found[found["check"] == "missing"]["collection"].tolist() == ["docs_000", "docs_001", "docs_002"]
    assert found["documents"].isna().all()


def test_a_run_of_the_history_is_what_the_report_said(tmp_path: Path) -> None:
    given = report(7, collections=make_collections(3, worst=2))
    append(tmp_path, given)
    (run,) = read(tmp_path).runs()
    assert (run.time, run.run, run.depth, run.severity) == (given.started, given.run, "standard", "PASS")
    assert (run.documents, run.chunks, run.stored, run.seconds) == (300, 1200, 1185, 4.2)
    assert run.coverage == 1185 / 1200
    assert run.passed == len(given.findings)


def test_totals_are_of_what_serves_or_of_a_foreign_store_of_all() -> None:
    retired = CollectionHealth("old", "retired", documents=9, chunks=9, stored=9)
    serving = [CollectionHealth("a", "serving", 1, 10, 20), CollectionHealth("b", "serving", 1, 10, 5)]
    sums = totals(make_report(collections=[*serving, retired]))
    assert (sums.collections, sums.documents, sums.chunks, sums.stored, sums.coverage) == (2, 2, 20, 25, 0.75)
    foreign = totals(make_report(collections=[CollectionHealth("x", "foreign", stored=7)]))
    assert (foreign.collections, foreign.stored, foreign.coverage) == (1, 7, 1.0)


def test_reading_changes_nothing_and_needs_no_folder(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere").table.num_rows == 0
    append(tmp_path, report(0))
    append(tmp_path, report(1, "quick"))
    before = digests(tmp_path)
    assert names(tmp_path) == ["run-00000", "run-00001"]
    assert digests(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_runs_stand_in_the_order_of_time_whatever_came_first(tmp_path: Path) -> None:
    for number in (5, 3, 4):
        append(tmp_path, replace(many_faults(3), run=f"run-{number:05d}", started=STARTED + number))
    assert names(tmp_path) == ["run-00003", "run-00004", "run-00005"]
    kinds = read(tmp_path).table["kind"].to_pylist()
    assert [place for place, kind in enumerate(kinds) if kind == "run"] == [0, 8, 16]


def test_a_run_whose_lines_a_kill_left_behind_counts_once(tmp_path: Path) -> None:
    append(tmp_path, report(0, "quick"))
    lines = (tmp_path / LINES).read_bytes()
    append(tmp_path, report(1))
    (tmp_path / LINES).write_bytes(lines)  # as if killed between the new file and the removal of its lines
    assert names(tmp_path) == ["run-00000", "run-00001"]
    append(tmp_path, report(2))
    assert names(tmp_path) == ["run-00000", "run-00001", "run-00002"]
    assert load(tmp_path / FILE).num_rows == 3


WRITER = """
import sys
from pathlib import Path
from tests.support.health_reports import make_report
from vectorstore.output.health_history import append
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    depth = "quick" if number % 3 else "deep"
    assert append(folder, make_report(run=f"{name}-{number}", depth=depth)) == []
    print(f"{name}-{number}", flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_checks_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [writer(tmp_path, f"w{number}", 20) for number in range(3)]
    said = [process.communicate(timeout=120)[0].split() for process in writers]
    assert all(process.returncode == 0 for process in writers)
    assert sorted(names(tmp_path)) == sorted(run for each in said for run in each)
    assert len(names(tmp_path)) == 60


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_added(tmp_path: Path) -> None:
    chance, said = random.Random(4), []
    for turn in range(12):
        process = writer(tmp_path, f"t{turn}", 100_000)
        assert process.stdout
        said.append(process.stdout.readline().strip())
        time.sleep(chance.random() * 0.25)
        process.kill()
        said += process.communicate()[0].split()
        assert set(said) <= set(names(tmp_path))
    assert len(said) > 50
    assert append(tmp_path, report(0)) == []
    assert set(said) < set(names(tmp_path))


@pytest.mark.slow
def test_each_step_of_folding_may_be_the_last(tmp_path: Path) -> None:
    """A process that dies at its n-th system call that changes something, for every n."""
    script = """
import os, sys
from pathlib import Path
from tests.support.health_reports import make_report
from vectorstore.output.health_history import append
steps = int(sys.argv[2])
def die(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.remove") and ("health_history" in str(arguments[0])):
        steps -= 1
        if steps < 0:
            os._exit(9)
sys.addaudithook(die)
append(Path(sys.argv[1]), make_report(run=sys.argv[3], depth="deep"))
"""
    append(tmp_path, report(0))
    append(tmp_path, report(1, "quick"))
    for step in range(20):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(step), f"step-{step}"], cwd=ROOT)
        known = names(tmp_path)
        assert {"run-00000", "run-00001"} <= set(known)
        assert len(known) == len(set(known))
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert 6 <= step < 19
    assert f"step-{step}" in known


@pytest.mark.parametrize("size", [0, 1, 50, 900, -1, -8, -300])
def test_a_file_cut_short_is_set_aside_and_the_history_goes_on(tmp_path: Path, size: int) -> None:
    append(tmp_path, many_faults(3))
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[:size])
    assert "damaged" in read(tmp_path).notes[0]
    notes = append(tmp_path, report(1))
    aside = tmp_path / "health_history-set-aside-run-00001.parquet"
    assert notes == [f"{tmp_path / FILE} is damaged, or written by another program: it is kept as {aside.name}"]
    assert aside.read_bytes() == data[:size]
    assert names(tmp_path) == ["run-00001"]


def test_any_flipped_byte_is_seen_before_a_parser_sees_the_file(tmp_path: Path) -> None:
    append(tmp_path, many_faults(3))
    data = (tmp_path / FILE).read_bytes()
    for place in (*range(0, len(data), 17), *range(len(data) - 200, len(data))):
        wrong = bytearray(data)
        wrong[place] ^= 1 << (place % 8)
        (tmp_path / FILE).write_bytes(wrong)
        with pytest.raises(Unreadable, match="damaged, or written by another program"):
            load(tmp_path / FILE)


def test_a_file_of_a_newer_version_is_kept_aside(tmp_path: Path) -> None:
    replace(LOG.format, version=2).save(tmp_path / FILE, table_of(rows_of(report(0))))
    assert "of another version of Vectorkeep" in read(tmp_path).notes[0]
    (note,) = append(tmp_path, report(1))
    assert "of another version of Vectorkeep: it is kept as" in note
    assert names(tmp_path) == ["run-00001"]


def test_another_programs_file_is_set_aside_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / FILE)
    assert append(tmp_path, report(1))
    assert names(tmp_path) == ["run-00001"]
    assert len(list(tmp_path.glob("*set-aside*"))) == 1


GOOD = json.dumps({"version": 1, "run": "x", "rows": [{"run": "x", "kind": "run", "time": 5}]})


@pytest.mark.parametrize(
    "line",
    [
        GOOD[:-20], "not JSON", "[]", "7", "null", '{"version": 1}', GOOD.replace('"version": 1', '"version": 2'),
        GOOD.replace("5", '"late"'), GOOD.replace('[{"run"', '[7, {"run"'), GOOD.replace("5", "1e300"), "\x00" * 40,
    ],
)  # fmt: skip
def test_a_line_that_can_not_be_read_is_kept_aside_and_harms_no_other(tmp_path: Path, line: str) -> None:
    append(tmp_path, report(0, "quick"))
    with open(tmp_path / LINES, "a") as handle:
        handle.write(line)  # without a line end: what a crash leaves
    append(tmp_path, report(1, "quick"))
    found = read(tmp_path)
    assert [run.run for run in found.runs()] == ["run-00000", "run-00001"]
    assert len(found.notes) == 1
    lines = (tmp_path / LINES).read_bytes()
    (note,) = append(tmp_path, report(2))
    assert "it is kept as" in note
    (aside,) = tmp_path.glob("*set-aside*")
    assert aside.read_bytes().startswith(lines)
    assert names(tmp_path) == ["run-00000", "run-00001", "run-00002"]


def test_rows_older_than_two_years_are_dropped(tmp_path: Path) -> None:
    last = MAX_AGE_S // DAY
    for number in (0, 1, last + 1):
        append(tmp_path, report(number))
    assert names(tmp_path) == ["run-00001", f"run-{last + 1:05d}"]


def test_beyond_the_bound_the_oldest_runs_go_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_history, "MAX_ROWS", 20)
    for number in range(6):
        append(tmp_path, replace(many_faults(3), run=f"run-{number}", started=STARTED + number))
    table = load(tmp_path / FILE)
    assert names(tmp_path) == ["run-4", "run-5"]
    assert table.num_rows == 16
    assert table["kind"][0].as_py() == "run"


def test_of_one_run_the_worst_findings_are_kept() -> None:
    found = Findings()
    for number in range(MAX_RUN_ROWS + 500):
        found.add("journal" if number % 2 else "missing", "m", collection=f"c{number}")
    rows = rows_of(make_report(found))
    assert len(rows) == MAX_RUN_ROWS
    assert [row["severity"] for row in rows[1:]].count("FAIL") == (MAX_RUN_ROWS + 500) // 2
    assert rows[0]["fail"] + rows[0]["info"] == MAX_RUN_ROWS + 500


def test_a_folder_that_can_not_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "not" / "there"):
        (note,) = append(folder, report(0))
        assert note.startswith("the history of health checks could not be written")
    (tmp_path / "odd" / LINES).mkdir(parents=True)
    assert len(append(tmp_path / "odd", report(0))) == 1
    assert len(read(tmp_path / "odd").notes) == 1


@pytest.mark.parametrize("depth", ["quick", "deep"])
def test_a_full_disk_is_a_note_and_leaves_what_was_there(tmp_path: Path, depth: str) -> None:
    append(tmp_path, report(0))
    append(tmp_path, report(1, "quick"))
    before = digests(tmp_path)
    limit = (tmp_path / LINES).stat().st_size + (100 if depth == "quick" else 1500)
    script = f"""
import resource, signal, sys
from pathlib import Path
from tests.support.health_reports import many_faults
from dataclasses import replace
import pyarrow.parquet
from vectorstore.output.health_history import append
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
(note,) = append(Path({str(tmp_path)!r}), replace(many_faults(1), run="late", depth={depth!r}, notes=[]))
print(note)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert "could not be written" in done.stdout, done.stderr
    kept = ["late"] if depth == "deep" else []  # its line found room, the folded file did not
    assert names(tmp_path) == ["run-00000", *kept, "run-00001"]
    after = digests(tmp_path)
    changed = {Path(path).name for path in before if before[path] != after[path]}
    assert changed == ({LINES} if kept else set())
    assert append(tmp_path, report(2)) == []
    assert names(tmp_path)[-1] == "run-00002"


def test_a_lock_that_is_not_freed_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorstore.histories.lines.LOCK_WAIT_S", 0.1)
    with locked(tmp_path / "health_history.lock"):
        (note,) = append(tmp_path, report(0))
    assert "another run holds its lock" in note
    assert append(tmp_path, report(1)) == []


def test_names_that_are_no_utf8_do_not_stop_the_history(tmp_path: Path) -> None:
    found = Findings()
    found.add("missing", "m", collection="bytes\udcff\udcfe")
    assert append(tmp_path, make_report(found)) == []
    assert "bytes\\udcff\\udcfe" in read(tmp_path).table["collection"].to_pylist()


def test_a_full_history_stays_small_and_quick(tmp_path: Path) -> None:
    base = rows_of(many_faults(341))
    rows = [row | {"run": f"r{n}", "time": row["time"] + n - 10**6} for n in range(580) for row in base]
    save(tmp_path / FILE, table_of(rows))
    assert append(tmp_path, report(0)) == []
    table = read(tmp_path).table
    assert 199_000 < table.num_rows <= 200_000
    assert table.schema == schema()
    assert (tmp_path / FILE).stat().st_size < 5_000_000


def test_folding_does_not_import_pandas(tmp_path: Path) -> None:
    """It would cost more than all else that a check of a small store does."""
    script = (
        "import sys; from pathlib import Path; from tests.support.health_reports import make_report;"
        "from vectorstore.output.health_history import append;"
        "[append(Path(sys.argv[1]), make_report(run=str(n), depth='deep')) for n in range(2)];"
        "sys.exit('pandas' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert read(tmp_path).table.num_rows
