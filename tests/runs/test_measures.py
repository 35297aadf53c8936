"""What the record of a run has of what its verb returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.health_reports import make_collections, make_report, many_faults
from vectorstore.adopt import AdoptReport
from vectorstore.drill import DrillReport
from vectorstore.findings import HealthReport
from vectorstore.fix import FixReport
from vectorstore.prune import PruneReport
from vectorstore.runs.machine import memory_share
from vectorstore.runs.measures import of_report
from vectorstore.runs.record import STATES
from vectorstore.update import UpdateReport
from vectorstore.verify import Verified, VerifyReport


def updated(state: str = "completed", exit_code: int = 0, **values: Any) -> UpdateReport:
    return UpdateReport("r", state, exit_code, 1.0, **values)


def fixed(state: str, exit_code: int, after: HealthReport, **values: Any) -> FixReport:
    return FixReport("r", state, exit_code, 1.0, many_faults(1), [], [], after=after, **values)


def test_unchanged_documents_are_no_work_and_failed_ones_are() -> None:
    kinds = {"added": 3, "changed": 2, "deleted": 1, "unchanged": 900, "unknown": 7}
    found = of_report(updated(kinds=kinds, failures={"a": "x", "b/": "y"}, exit_code=1))
    assert (found["work"], found["failures"], found["state"]) == (8, 2, "incomplete")
    assert of_report(updated(kinds={"unchanged": 900}))["work"] == 0


def test_an_update_that_a_cap_stopped_is_capped_also_with_failures() -> None:
    found = of_report(updated("capped", 3, error="Capped", message="the cap is reached", failures={"a": "x"}))
    assert (found["state"], found["error"], found["message"]) == ("capped", "Capped", "the cap is reached")


def test_a_health_check_tells_findings_and_coverage() -> None:
    found = of_report(many_faults(3))
    assert found["state"] == "findings" and found["exit_code"] == 1
    assert (found["fail"], found["warn"], found["info"]) == (4, 2, 1)
    assert found["message"].endswith(", and 3 more")
    healthy = of_report(make_report(collections=make_collections(3, worst=2)))
    assert (healthy["state"], healthy["fail"], healthy["coverage"]) == ("completed", 0, 1185 / 1200)


def test_a_fix_tells_what_is_left_and_what_was_paid() -> None:
    paid = updated(cost_usd=0.5, tokens_billed=9, requests=2, kinds={"added": 4})
    found = of_report(fixed("fixed", 0, make_report(), updated=paid))
    assert (found["state"], found["cost_usd"], found["requests"], found["work"], found["fail"]) == (
        "completed", 0.5, 2, 4, 0,
    )  # fmt: skip
    assert of_report(fixed("partly", 1, many_faults(1)))["state"] == "findings"
    some = updated(exit_code=1, failures={"a": "x"})
    assert of_report(fixed("fixed", 1, make_report(), updated=some))["state"] == "incomplete"
    refused = of_report(fixed("refused", 5, many_faults(1), error="Refused", message="no"))
    assert (refused["state"], refused["error"], refused["message"]) == ("refused", "Refused", "no")
    capped = updated("capped", 3, error="Capped", message="over")
    assert of_report(fixed("capped", 3, make_report(), updated=capped, message="over"))["state"] == "capped"


def test_bad_backups_are_failures_that_name_them() -> None:
    good, bad = (Verified(name, ok, "deep", "torn", 5, 1.0) for name, ok in (("b1", True), ("b2", False)))
    found = of_report(VerifyReport("bad", 6, 1.0, [good, bad]))
    assert (found["state"], found["exit_code"], found["name"]) == ("failed", 6, "b2")
    assert found["message"] == "1 of 2 do not verify, b2 first: torn"
    assert of_report(VerifyReport("verified", 0, 1.0, [good])) == {
        "state": "completed", "exit_code": 0, "name": "b1", "detail": "deep",
    }  # fmt: skip
    drilled = of_report(DrillReport("failed", 6, 1.0, "b3", message="does not open"))
    assert (drilled["state"], drilled["name"], drilled["error"]) == ("failed", "b3", "BadBackup")


def test_other_reports_have_no_figures_that_are_not_theirs() -> None:
    assert of_report(PruneReport("pruned", 0, 1.0, False, "f", [])) == {"state": "completed", "exit_code": 0}
    found = of_report(AdoptReport("r", "completed", 0, 1.0, False, "p", documents_adopted=4, chunks_written=9))
    assert found == {"state": "completed", "exit_code": 0, "work": 4, "chunks_written": 9}


@pytest.mark.parametrize("exit_code", [0, 1])
@pytest.mark.parametrize("report", [updated(), many_faults(1), make_report(), fixed("healthy", 0, make_report())])
def test_every_state_is_a_known_one(report: Any, exit_code: int) -> None:
    assert of_report(report)["state"] in STATES


def machine(root: Path, **files: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc", root / "cgroup"


MEMORY = {"proc__meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   750 kB\n"}
GROUP = {"proc__self__cgroup": "0::/a/b\n"}


def test_the_share_of_memory_is_the_machines(tmp_path: Path) -> None:
    assert memory_share(*machine(tmp_path, **MEMORY)) == 0.25
    assert 0 < (memory_share() or 0) <= 1


def test_a_container_around_us_counts_where_it_is_fuller(tmp_path: Path) -> None:
    limits = {
        "cgroup__a__b__memory_DOT_max": "max", "cgroup__a__memory_DOT_max": "1000",
        "cgroup__a__memory_DOT_current": "900", "cgroup__a__memory_DOT_stat": "anon 5\ninactive_file 300\n",
    }  # fmt: skip
    assert memory_share(*machine(tmp_path, **MEMORY, **GROUP, **limits)) == 0.6


def test_a_system_that_does_not_tell_has_no_share(tmp_path: Path) -> None:
    assert memory_share(tmp_path / "proc", tmp_path / "cgroup") is None
    assert memory_share(*machine(tmp_path, proc__meminfo="MemTotal: x\n", proc__self__cgroup="junk")) is None
