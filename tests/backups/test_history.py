"""The history of backups: only added to, and readable whatever a crash left of it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.backup_files import make_backup
from tests.support.disks import resize
from vectorstore.backups import history
from vectorstore.backups.catalog import list_backups
from vectorstore.backups.history import Event
from vectorstore.errors import VectorkeepError

A, B, C = "backup_20260101_000000", "backup_20260201_000000", "backup_20260301_000000"


def test_what_is_added_is_read_in_its_order(tmp_path: Path) -> None:
    events = [
        Event("backup", A, 1.5, seconds=2.0), Event("verify", A, 2.0, "deep"),
        Event("drill", A, 3.0, ok=False, message='the "row" é was\nlost'), Event("prune", "", 4),
    ]  # fmt: skip
    assert history.read(tmp_path) == []
    for event in events:
        history.append(tmp_path, event)
    assert history.read(tmp_path) == events
    assert history.last(tmp_path, "drill") is None
    assert history.last(tmp_path, "drill", ok=False) == history.last(tmp_path, "drill", ok=None) == events[2]
    assert history.last(tmp_path, "restore", ok=None) is None


@given(cut=st.integers(min_value=0), junk=st.binary(max_size=40))
def test_a_torn_line_costs_no_other(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("history")
    for at in (1.0, 2.0):
        history.append(folder, Event("backup", A, at))
    path = folder / history.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)] + junk)
    kept = history.read(folder)
    history.append(folder, Event("verify", B, 3.0))
    assert history.read(folder) == [*kept, Event("verify", B, 3.0)]
    assert len(kept) >= whole[: cut % len(whole)].count(b"\n")


@pytest.mark.parametrize(
    "line",
    [
        "[]", "7", "null", "{}", "[" * 100_000, '{"event":"backup"}', b"\xff", b"\0" * 50,
        {"time": "1"}, {"time": float("nan")}, {"time": None}, {"ok": "yes"}, {"event": "party"}, {"name": 3},
    ],
    ids=lambda line: str(line)[:20],
)  # fmt: skip
def test_a_line_that_means_nothing_is_passed_over(tmp_path: Path, line: str | bytes | dict[str, object]) -> None:
    history.append(tmp_path, Event("backup", A, 1.0))
    path = tmp_path / history.FILE
    if isinstance(line, dict):
        line = json.dumps(json.loads(path.read_text()) | line)
    with open(path, "ab") as file:
        file.write((line.encode() if isinstance(line, str) else line) + b"\n")
    assert history.read(tmp_path) == [Event("backup", A, 1.0)]


def test_a_field_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    history.append(tmp_path, Event("backup", A, 1.0))
    path = tmp_path / history.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bytes": 3}) + "\n")
    assert history.read(tmp_path) == [Event("backup", A, 1.0)]


def test_events_added_at_once_are_all_there(tmp_path: Path) -> None:
    events = [Event("verify", A, float(n), message="x" * 5_000) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda event: history.append(tmp_path, event), events))
    assert sorted(history.read(tmp_path), key=lambda each: each.time) == events


def test_the_last_look_tells_whether_a_backup_is_sound() -> None:
    events = [
        Event("backup", A, 1.0), Event("backup", B, 2.0), Event("verify", A, 3.0, ok=False), Event("drill", B, 4.0),
        Event("offsite", A, 5.0), Event("restore", A, 6.0),
    ]  # fmt: skip
    assert {name: look.ok for name, look in history.looks(events).items()} == {A: False, B: True}


def test_drills_go_round(tmp_path: Path) -> None:
    """The newest that never had one first; then the one whose turn was longest ago, also if it failed then."""
    for name in (A, B, C):
        make_backup(tmp_path, name)
    order, tried = [], {}
    for at in range(7):
        turn = history.next_to_drill(list_backups(tmp_path), tried)
        assert turn
        order.append(turn.name)
        history.append(tmp_path, Event("drill", turn.name, float(at), ok=turn.name != B))
        tried = history.drilled(history.read(tmp_path), ok=None)
        if at == 4:
            os.truncate(tmp_path / f"{A}.tar.gz", 3)  # nobody drills what can't be used
    assert order == [C, A, B, C, A, B, C]
    assert history.drilled(history.read(tmp_path)) == {C: 6.0, A: 4.0}
    assert history.next_to_drill([], {}) is None


def test_a_full_disk(small_disk: Path) -> None:
    """The event is lost with a clear error; the next one is whole again."""
    resize(small_disk, 4)
    with pytest.raises(VectorkeepError, match="No space left") as error:
        for at in range(100):
            history.append(small_disk, Event("verify", A, float(at), message="x" * 300))
    assert "make room" in error.value.hint
    kept = history.read(small_disk)
    assert kept == [Event("verify", A, float(at), message="x" * 300) for at in range(len(kept))] and kept
    resize(small_disk, 64)
    history.append(small_disk, Event("verify", B, 7.0))
    assert history.read(small_disk) == [*kept, Event("verify", B, 7.0)]


def test_a_history_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Not an empty one: retention would forget what was verified."""
    (tmp_path / history.FILE).mkdir()
    with pytest.raises(VectorkeepError, match="directory"):
        history.read(tmp_path)
