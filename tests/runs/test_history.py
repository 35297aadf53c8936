"""The history of runs: every run once, whatever becomes of the files it is kept in."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.workspaces import digests, make_settings
from vectorstore.runs import history
from vectorstore.runs.history import COLUMNS, LOG, MAX_AGE_S, append, frame, read, records, row_of
from vectorstore.runs.record import RunRecord

ROOT = Path(__file__).parents[2]
STARTED, DAY = 1_795_292_147.525, 86_400
FILE, LINES = LOG.file, LOG.lines


def record(number: int, **values: Any) -> RunRecord:
    """The run number so much, a day after the one before."""
    figures = {"verb": "update", "by": "cli", "seconds": 1.5, "cpu_seconds": 1.0, "state": "completed", "exit_code": 0}
    return RunRecord(run=f"run-{number:05d}", started=STARTED + number * DAY, **figures | values)


def names(folder: Path) -> list[str]:
    found = read(folder)
    assert found.notes == []
    return [each.run for each in found.records]


@pytest.fixture
def fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run folds the lines."""
    monkeypatch.setattr(history, "FOLD_BYTES", 0)
    monkeypatch.setattr(history, "FOLD_ANYWAY_BYTES", 0)


@pytest.mark.parametrize("folded", [False, True])
def test_what_was_added_is_read_again(tmp_path: Path, folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if folded:
        monkeypatch.setattr(history, "FOLD_BYTES", 0)
    full = record(
        1, documents=5, chunks=9, work=3, failures=1, cost_usd=0.25, coverage=0.5, memory_mb=100.5, memory_share=0.25,
        store_bytes=2**40, name="backup_20261121_020000", error="Capped", message="“said” 😀 <b>", state="capped",
    )  # fmt: skip
    assert append(tmp_path, record(0)) == [] and append(tmp_path, full) == []
    assert (tmp_path / FILE).exists() == folded
    assert read(tmp_path).records == [record(0), full]
    assert full.error_rate == pytest.approx(1 / 3) and record(0).error_rate is None


def test_every_field_is_a_column() -> None:
    assert set(COLUMNS) == {spec.name for spec in fields(RunRecord)} - {"started"} | {"time"}


def test_an_addition_imports_nothing_heavy_and_neither_does_reading_lines(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.runs.test_history import record
for name in [name for name in sys.modules if name.partition(".")[0] in ("pandas", "pyarrow")]:
    del sys.modules[name]
from vectorstore.runs.history import append, read
folder = Path({str(tmp_path)!r})
assert [append(folder, record(n)) for n in range(80)] == [[]] * 80
assert len(read(folder).records) == 80
sys.exit(sorted({{"pyarrow", "pandas"}} & set(sys.modules)) or 0)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
    assert not (tmp_path / FILE).exists()


def test_runs_fold_the_lines_when_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FOLD_BYTES", 3000)
    for number in range(20):
        append(tmp_path, record(number))
    assert (tmp_path / LINES).stat().st_size <= 3000
    assert names(tmp_path) == [f"run-{n:05d}" for n in range(20)]
    assert len(pd.read_parquet(tmp_path / FILE)) >= 12


def test_a_frame_has_the_columns_with_their_types(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert list(frame(settings).columns) == list(COLUMNS) and frame(settings).empty
    settings.hashes.mkdir()
    append(settings.hashes, record(1, work=3))
    append(settings.hashes, record(0))
    found = frame(settings)
    assert list(found["run"]) == ["run-00000", "run-00001"]
    assert found["time"].iloc[0] == pd.Timestamp(round(STARTED * 1000), unit="ms", tz="UTC")
    assert found["work"].isna().tolist() == [True, False]
    assert [str(found[name].dtype) for name in ("work", "cost_usd", "fail")] == ["float64"] * 3
    assert records(settings) == [record(0), record(1, work=3)]


def test_reading_changes_nothing_and_needs_no_folder(tmp_path: Path, fold: None) -> None:
    assert read(tmp_path / "nowhere") == ([], [])
    append(tmp_path, record(0))
    before = digests(tmp_path)
    assert names(tmp_path) == ["run-00000"]
    assert digests(tmp_path) == before


def test_of_two_lines_of_a_run_the_first_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a run was killed after it was put on record and before its mark was gone."""
    append(tmp_path, record(0))
    append(tmp_path, record(0, state="crashed"))
    assert [each.state for each in read(tmp_path).records] == ["completed"]
    monkeypatch.setattr(history, "FOLD_BYTES", 0)
    append(tmp_path, record(0, state="crashed"))
    assert [each.state for each in read(tmp_path).records] == ["completed"]


@pytest.mark.parametrize("size", [0, 1, 50, 900, -1, -8, -300])
def test_a_file_cut_short_is_set_aside_and_the_history_goes_on(tmp_path: Path, size: int, fold: None) -> None:
    append(tmp_path, record(0))
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[:size])
    assert "damaged" in read(tmp_path).notes[0]
    (note,) = append(tmp_path, record(1))
    aside = tmp_path / "run_history-set-aside-run-00001.parquet"
    assert note.endswith(f"it is kept as {aside.name}")
    assert aside.read_bytes() == data[:size]
    assert names(tmp_path) == ["run-00001"]


def test_a_file_of_a_newer_version_is_kept_aside(tmp_path: Path, fold: None) -> None:
    newer = replace(LOG.format, version=2)
    newer.save(tmp_path / FILE, newer.table_of([row_of(record(0))]))
    assert "of another version of Vectorkeep" in read(tmp_path).notes[0]
    (note,) = append(tmp_path, record(1))
    assert "of another version of Vectorkeep: it is kept as" in note
    assert names(tmp_path) == ["run-00001"]


def test_a_file_from_before_a_column_was_added_is_read(tmp_path: Path, fold: None) -> None:
    older = replace(LOG.format, columns={name: kind for name, kind in COLUMNS.items() if name != "coverage"})
    row = row_of(record(0))
    del row["coverage"]
    older.save(tmp_path / FILE, older.table_of([row]))
    assert append(tmp_path, record(1, coverage=1.0)) == []
    assert read(tmp_path).records == [record(0), record(1, coverage=1.0)]


def test_a_file_with_a_column_too_many_is_kept_aside(tmp_path: Path, fold: None) -> None:
    wider = replace(LOG.format, columns={**COLUMNS, "mood": "string"})
    wider.save(tmp_path / FILE, wider.table_of([{**row_of(record(0)), "mood": "good"}]))
    assert "of another version" in append(tmp_path, record(1))[0]
    assert names(tmp_path) == ["run-00001"]


GOOD = json.dumps({"version": 1, "run": "x", "rows": [row_of(record(0))]})


@pytest.mark.parametrize(
    "line",
    [
        GOOD[:-20], "not JSON", "[]", "7", "null", '{"version": 1}', GOOD.replace('"version": 1', '"version": 2'),
        GOOD.replace("1795292147525", '"late"'), GOOD.replace('[{"time"', '[7, {"time"').replace("1795", "-9"),
        GOOD.replace("1795292147525", "1e300"), "\x00" * 40, GOOD.replace('"verb"', '"vreb"'),
        GOOD.replace('"seconds": 1.5', '"seconds": "long"'), GOOD.replace('"verb": "update", ', ""), "[" * 20_000,
    ],
)  # fmt: skip
def test_a_line_that_can_not_be_understood_harms_no_other(tmp_path: Path, line: str) -> None:
    append(tmp_path, record(0))
    with open(tmp_path / LINES, "a") as handle:
        handle.write(line)  # without a line end: what a crash leaves
    append(tmp_path, record(1))
    found = read(tmp_path)
    assert [each.run for each in found.records] == ["run-00000", "run-00001"]
    assert len(found.notes) == 1


def test_lines_that_can_not_be_folded_are_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, record(0))
    with open(tmp_path / LINES, "a") as handle:
        handle.write(GOOD.replace('"verb"', '"vreb"') + "\n")
    monkeypatch.setattr(history, "FOLD_BYTES", 0)
    (note,) = append(tmp_path, record(1))
    assert "it is kept as" in note
    assert names(tmp_path) == ["run-00000", "run-00001"]
    assert "vreb" in next(tmp_path.glob("*set-aside*")).read_text()


def test_runs_older_than_two_years_are_dropped_and_too_many_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: None
) -> None:
    last = MAX_AGE_S // DAY
    for number in (0, 1, last + 1, last + 2):
        append(tmp_path, record(number))
    assert names(tmp_path) == [f"run-{last + 1:05d}", f"run-{last + 2:05d}"]
    monkeypatch.setattr(history, "MAX_ROWS", 2)
    append(tmp_path, record(last + 3))
    assert names(tmp_path) == [f"run-{last + 2:05d}", f"run-{last + 3:05d}"]


def test_a_history_that_can_not_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "odd" / LINES).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "not" / "there", tmp_path / "odd"):
        (note,) = append(folder, record(0))
        assert note.startswith("the history of runs could not be written")
    assert len(read(tmp_path / "odd").notes) == 1


WRITER = """
import sys
from pathlib import Path
from tests.runs.test_history import record
from vectorstore.runs import history
history.FOLD_BYTES = 2000
folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    assert history.append(folder, record(number)) == []
    print(record(number).run, flush=True)
"""


def writer(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_runs_that_end_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [writer(tmp_path, first, 30) for first in (0, 100, 200)]
    said = [process.communicate(timeout=120)[0].split() for process in writers]
    assert names(tmp_path) == sorted(run for each in said for run in each)
    assert len(names(tmp_path)) == 90


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_added(tmp_path: Path) -> None:
    chance, said = random.Random(5), []
    for turn in range(6):
        process = writer(tmp_path, turn * 100, 100)
        assert process.stdout
        said.append(process.stdout.readline().strip())
        time.sleep(chance.random() * 0.2)
        process.kill()
        said += process.communicate()[0].split()
        assert set(said) <= set(names(tmp_path))
    assert len(said) > 12
