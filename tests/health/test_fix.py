"""Fix: what can be mended is, unpaid, and a second look finds nothing; what can't be is named with the way on."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.health.conftest import copied
from tests.support import damage as kit
from tests.support.damage import DAMAGES, Scene
from tests.support.looking import Call, look, named, rows_of, traces
from tests.support.server_process import ServerProcess
from tests.support.workbench import Row, Workspace, digests, paid
from vectorstore.errors import Locked
from vectorstore.findings import Depth, Severity
from vectorstore.fix import FixReport
from vectorstore.restore import restore
from vectorstore.verify import verify

MENDED = [name for name, damage in DAMAGES.items() if damage.mends]
UNMENDABLE = [name for name, damage in DAMAGES.items() if not damage.mends]
# With one of these nothing can be done to a store but to restore it, or to fill a new one.
UNTOUCHABLE = {"sqlite", "layout", "store", "source", "relations", "queue", "ledger", "pipeline_mark"}


@pytest.fixture
def scene(origin: Scene, server: ServerProcess, tmp_path: Path) -> Iterator[Scene]:
    yield from copied(origin, server, tmp_path)


def start(scene: Scene, die: str = "", **options: object) -> Call:
    return Call("vectorstore.fix:fix", scene.workspace, die=die, depth=Depth.DEEP, probe=False, **options)


def fix(scene: Scene, **options: object) -> FixReport:
    report = start(scene, **options).result()
    assert isinstance(report, FixReport)
    return report


@pytest.fixture(scope="session")
def seen() -> dict[Path, dict[str, Row]]:
    """The rows of each store that damages are done to copies of, once they were looked at."""
    return {}


@pytest.fixture
def good_rows(origin: Scene, seen: dict[Path, dict[str, Row]]) -> dict[str, Row]:
    """What the store holds before it is damaged."""
    if origin.store not in seen:
        seen[origin.store] = rows_of(origin.workspace)
    return seen[origin.store]


def assert_mended(
    done: FixReport, scene: Scene, origin: Scene, good_rows: dict[str, Row], **options: object
) -> None:  # fmt: skip
    """A second fix has nothing to do, and Chroma answers with what it answered with before the damage."""
    assert done.state in ("fixed", "healthy") and done.exit_code == 0, (done.message, done.notes, done.left)
    again = fix(scene, **options)
    assert again.state == "healthy" and not named(again.before), named(again.before)
    same = {path.split("/docs/", 1)[1]: digest for path, digest in digests(origin.docs).items()}
    now = {path.split("/docs/", 1)[1]: digest for path, digest in digests(scene.docs).items()}
    if same == now and scene.workspace.values == origin.workspace.values:
        found = rows_of(scene.workspace)
        assert found.keys() == good_rows.keys()
        assert [key for key in found if found[key] != good_rows[key]] == []


@pytest.mark.parametrize("name", MENDED)
def test_mended(
    name: str, origin: Scene, scene: Scene, server: ServerProcess, good_rows: dict[str, Row]
) -> None:  # fmt: skip
    """A fix leaves a store that is clean, as it was, and cost nothing; what it did is on record."""
    damage = DAMAGES[name]
    damage.apply(scene)
    server.control(reset=True)
    done = fix(scene, verify_content=damage.contents)
    assert damage.may_cost or paid(server) == 0
    if done.state != "healthy":
        trail = [json.loads(line) for line in (scene.workspace.ledger.parent / "fixes.jsonl").open()]
        assert trail[0]["event"] == "start" and trail[-1]["event"] == "end" and not trail[-1]["found"]["FAIL"]
    else:
        assert damage.severity < Severity.WARN
    assert_mended(done, scene, origin, good_rows, verify_content=damage.contents)


def test_vectors_that_nobody_has_any_more(
    origin: Scene, scene: Scene, server: ServerProcess, good_rows: dict[str, Row]
) -> None:  # fmt: skip
    """An index is lost and the cache with it: the texts are embedded again, and the next fix fills the cache."""
    DAMAGES["data_level0_removed"].apply(scene)
    DAMAGES["cache_removed"].apply(scene)
    done = fix(scene)
    once = paid(server)
    assert 0 < once < len(good_rows) and done.after and named(done.after).keys() == {"cache_coverage"}
    assert_mended(fix(scene), scene, origin, good_rows)
    assert paid(server) == once


@pytest.mark.parametrize("name", MENDED[::12])
def test_dry_run(name: str, scene: Scene) -> None:
    """It says what would be done, and changes nothing."""
    DAMAGES[name].apply(scene)
    options = {"verify_content": DAMAGES[name].contents}
    before = traces(scene.workspace)
    planned = fix(scene, dry_run=True, **options)
    assert traces(scene.workspace) == before
    assert (planned.state, planned.exit_code, planned.after) == ("planned", 0, None)
    assert [step.action for step in fix(scene, **options).steps] == [step.action for step in planned.steps]


@pytest.mark.parametrize("name", UNMENDABLE)
def test_unmendable(name: str, scene: Scene, server: ServerProcess) -> None:
    """What is left is named with the way on; a store that nobody may write to is not touched; nothing is paid."""
    damage = DAMAGES[name]
    damage.apply(scene)
    server.control(reset=True)
    before = digests(scene.store)
    done = fix(scene)
    assert done.state in ("unmendable", "partly", "refused", "failed"), done.state
    assert paid(server) == 0
    assert done.hint or all(finding.remedy for finding in done.left), (damage.text, done.left)
    last = done.after or done.before
    assert done.error or [each.check for each in done.left] == [
        each.check for each in last.findings if each.severity >= Severity.WARN
    ]
    if damage.expect <= UNTOUCHABLE:
        assert digests(scene.store) == before


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_store_that_somebody_holds_is_left_alone(scene: Scene, server: ServerProcess, dry_run: bool) -> None:
    """It could not be looked at: nothing is planned, changed or paid, and another try is what is advised."""
    DAMAGES["cache_removed"].apply(scene)
    before = digests(scene.store) | digests(scene.docs)
    with closing(sqlite3.connect(scene.sqlite, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Locked, match="holds the store's SQLite file"):
            fix(scene, dry_run=dry_run)
        db.execute("ROLLBACK")
    assert digests(scene.store) | digests(scene.docs) == before
    assert not scene.workspace.cache.exists() and paid(server) == 0


def test_a_backup_comes_first(scene: Scene) -> None:
    """It verifies, and holds what the fix then changed."""
    DAMAGES["orphans_unknown_document"].apply(scene)
    held = rows_of(scene.workspace)
    done = fix(scene)
    settings = scene.workspace.settings()
    assert done.state == "fixed" and done.after
    assert next(each.severity for each in done.after.findings if each.check == "backup") is Severity.PASS
    assert verify(settings, done.backup).exit_code == 0
    restored = scene.workspace.root / "restored"
    restore(settings, done.backup, into=restored)
    assert rows_of(Workspace(restored, scene.workspace.server)) == held


def test_without_a_backup_nothing_is_touched(scene: Scene) -> None:
    DAMAGES["orphans_unknown_document"].apply(scene)
    (scene.workspace.root / "backups").write_text("no folder")
    before = digests(scene.store) | digests(scene.workspace.ledger.parent)
    done = fix(scene)
    assert (done.state, done.backup, done.after) == ("failed", "", None) and "--no-backup" in done.hint
    after = digests(scene.store) | digests(scene.workspace.ledger.parent)
    assert {path: digest for path, digest in after.items() if not path.endswith(".lock")} == {
        path: digest for path, digest in before.items() if not path.endswith(".lock")
    }
    (scene.workspace.root / "backups").unlink()
    done = fix(scene, backup=False)
    assert (done.state, done.backup) == ("fixed", "")


def test_two_at_once(scene: Scene) -> None:
    """The second comer is told at once who is at work, and does nothing; a dry run may look."""
    DAMAGES["vectors_random"].apply(scene)
    first, second = start(scene), start(scene)
    results: list[object] = []
    for call in (first, second):
        try:
            results.append(call.result())
        except Locked as error:
            results.append(error)
            assert "vectorkeep" in error.message
    assert sorted(type(result).__name__ for result in results) == ["FixReport", "Locked"]
    assert not named(look(scene.workspace))


def test_not_beside_an_update(scene: Scene) -> None:
    from vectorstore.lock import WriterLock, lock_files

    DAMAGES["texts_edited"].apply(scene)
    before = traces(scene.workspace)
    with WriterLock(lock_files(scene.workspace.settings()), "an update"):
        assert fix(scene, dry_run=True).state == "planned"
        with pytest.raises(Locked, match="an update"):
            fix(scene)
    assert {path: trace for path, trace in traces(scene.workspace).items() if "lock" not in path} == {
        path: trace for path, trace in before.items() if "lock" not in path
    }


@pytest.mark.parametrize("name", ["orphans_many", "ledger_of_another_day"])
def test_mass_deletes_are_refused(name: str, scene: Scene) -> None:
    """Nothing is touched without leave; with it, it is done, and what was deleted is in a file."""
    DAMAGES[name].apply(scene)
    before = traces(scene.workspace)
    done = fix(scene)
    assert (done.state, done.exit_code) == ("refused", 5) and "--max-deletes" in done.hint
    assert {path: trace for path, trace in traces(scene.workspace).items() if "lock" not in path} == {
        path: trace for path, trace in before.items() if "lock" not in path
    }
    allowed = int(done.hint.split("--max-deletes ")[1].split()[0])
    assert fix(scene, max_deletes=allowed - 1).state == "refused"
    done = fix(scene, max_deletes=allowed)
    assert done.state == "fixed" and Path(done.kept).is_file()
    assert not named(look(scene.workspace))


@pytest.mark.parametrize("guard", ["protected", "paused"])
def test_guards_hold(guard: str, scene: Scene) -> None:
    DAMAGES["orphans_unknown_document"].apply(scene)
    scene.workspace.values[guard] = True
    before = digests(scene.store)
    assert (fix(scene).state, digests(scene.store)) == ("refused", before)


def mixture(scene: Scene) -> None:
    """A bit of everything that a fix mends, in one store."""
    for name in (
        "vectors_random", "texts_edited", "metadata_extra_key", "orphans_unknown_document", "document_deleted",
        "chunk_in_another_collection", "segment_leaked", "ledger_miscounts", "vectors_zeroed_in_the_file",
        "link_count_flipped", "document_moved",
    ):  # fmt: skip
        DAMAGES[name].apply(scene)


@pytest.fixture(scope="session")
def mixed(small: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A store with many faults, to be copied and mended."""
    scene = kit.copy(small, tmp_path_factory.mktemp("mixed") / "workspace")
    mixture(scene)
    return scene


STEPS = (
    "before fix:check_guards", "before mending.trail:Trail.write", "after mending.trail:Trail.write",
    "after mending.trail:Trail.write 4", "after mending.trail:Trail.write 7", "after ledger:Ledger.recount",
    "before ledger:Ledger.intend", "after ledger:Ledger.intend", "before ledger:Ledger.store_opened",
    "after chroma.repair:_move_aside", "before chroma.repair:_refill", "after chroma.repair:_refill",
    "after chroma.repair:_drop_aside", "before chroma.store:Store.upsert_vectors", "before chroma.store:Store.delete",
    "after chroma.store:Store.delete", "before chroma.store:Store.drop_metadata", "after chroma.store:Store.close",
    "before ledger:Ledger.store_closed", "before fix:update", "before chroma.store:Store.upsert",
    "after chroma.store:Store.upsert", "after ledger:Ledger.commit", "before ledger:Ledger.forget",
    "before ledger:Ledger.record_run",
)  # fmt: skip


def assert_second_fix_mends(scene: Scene) -> None:
    """A second fix, or a third where the first was killed before the store was whole, leaves it clean."""
    done = fix(scene)
    assert done.state in ("fixed", "healthy"), (done.state, done.message, done.left, named(done.after or done.before))
    report = look(scene.workspace, probe=False)
    assert not named(report), named(report)
    assert not list(scene.workspace.ledger.parent.glob("set-aside/*.[0-9]*"))
    assert "guide/page-050.md#00000" not in {key.partition("/")[2] for key in rows_of(scene.workspace)}  # it was moved


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(step: str, mixed: Scene, server: ServerProcess, tmp_path: Path) -> None:
    """A fix that is killed at any step is gone on with by the next one, unpaid."""
    server.control(reset=True)
    scene = kit.copy(mixed, tmp_path / "workspace")
    when, name, *nth = step.split()
    call = Call(
        "vectorstore.fix:fix", scene.workspace, die=f"{when} vectorstore.{name} {[*nth, 1][0]}", depth=Depth.DEEP
    )
    assert call.killed(), "this step was not taken"
    assert_second_fix_mends(scene)
    assert paid(server) == 0
    shutil.rmtree(tmp_path / "workspace")


@pytest.fixture(scope="session")
def duration(mixed: Scene, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that a fix takes when it is left alone."""
    scene = kit.copy(mixed, tmp_path_factory.mktemp("timed") / "workspace")
    start = time.monotonic()
    assert fix(scene).state == "fixed"
    return time.monotonic() - start


@pytest.mark.parametrize("part", range(12))
def test_killed_at_any_time(
    part: int, duration: float, mixed: Scene, server: ServerProcess, tmp_path: Path
) -> None:  # fmt: skip
    """The same at moments that are spread over the time that a fix takes."""
    server.control(reset=True)
    scene = kit.copy(mixed, tmp_path / "workspace")
    call = start(scene)
    time.sleep(duration * (part + 0.5) / 12)
    call.kill()
    assert_second_fix_mends(scene)
    assert paid(server) == 0
    shutil.rmtree(tmp_path / "workspace")
