"""Money: no cap is overrun, whatever is billed, how many requests fly, who shares the day, or who is killed."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.bill import tokens_of
from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, document, paid, wait_until
from vectorstore.budget import spending
from vectorstore.update import update

USD_PER_TOKEN = 0.02 / 1e6
DAY = 86_400
NOON = 20_000 * DAY + DAY / 2


@pytest.fixture(scope="module")
def _dear_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("dear"), overbilling=0.05, seed=5) as server:
        yield server


@pytest.fixture
def dear_server(_dear_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """A provider that bills up to 5 % more than tiktoken counts."""
    _dear_server.control(reset=True)
    monkeypatch.setenv("OPENAI_API_KEY", ServerProcess.key)
    return _dear_server


def bill_usd(server: ServerProcess) -> float:
    return server.bill.tokens * USD_PER_TOKEN


def cost_usd(workspace: Workspace) -> float:
    """What all texts cost by tiktoken's count."""
    return sum(map(tokens_of, workspace.texts())) * USD_PER_TOKEN


def test_no_cap_is_overrun_in_a_hundred_trials(tmp_path: Path, dear_server: ServerProcess) -> None:
    """With 16 requests in flight and a provider that overbills, the bill never passes a cap drawn at random, and the
    report never says less than the bill."""
    rng = random.Random(100)
    documents = tmp_path / "documents"
    for n in range(30):
        documents.mkdir(exist_ok=True)
        (documents / f"{n}.md").write_text(document(n))
    states = []
    for trial in range(100):
        dear_server.control(reset=True, latency_s=rng.choice([0, 0.01]))
        workspace = Workspace(
            tmp_path / "w", dear_server, source=str(documents), dimensions=8, concurrency=16,
            batch_texts=rng.choice([1, 2, 3]), max_attempts=4, store_batch=1000,
        )  # fmt: skip
        if trial % 4 == 0:  # some requests fail, and may be billed or not
            dear_server.control(fail=[{"kind": rng.choice(["status", "cut_before"]), "probability": 0.05}])
        cap = rng.uniform(0.05, 1.4) * 30 * 34 * USD_PER_TOKEN
        over = rng.choice([{"max_cost_usd": cap}, {"max_cost_usd_per_day": cap}])
        report = update(workspace.settings(**over))
        assert bill_usd(dear_server) <= cap, f"trial {trial}: {bill_usd(dear_server)} of {cap}"
        assert report.cost_usd >= bill_usd(dear_server) - 1e-12
        assert (report.exit_code == 3) == (report.state == "capped")
        states.append(report.state)
        shutil.rmtree(workspace.root)
    assert states.count("capped") > 30 and states.count("completed") > 10, states


def test_the_cap_is_used(tmp_path: Path, dear_server: ServerProcess) -> None:
    """A cap is no excuse to stop early: what is left of it would not have paid one more request with its margin."""
    workspace = Workspace(tmp_path / "w", dear_server, concurrency=1, batch_texts=2)
    workspace.fill(60)
    cap = cost_usd(workspace) / 2
    report = workspace.update(code=3, max_cost_usd=cap)
    assert "max_cost_usd" in report["hint"] and "run again" in report["hint"]
    assert cap - bill_usd(dear_server) < 2 * 45 * USD_PER_TOKEN


def test_a_capped_run_goes_on_the_next_day(tmp_path: Path, dear_server: ServerProcess) -> None:
    """Capped for today, the run goes on tomorrow where it stopped: in all, every text is paid once."""
    workspace = Workspace(tmp_path / "w", dear_server, batch_texts=2)
    workspace.fill(60)
    settings = workspace.settings(max_cost_usd_per_day=cost_usd(workspace) * 0.4)
    for day in range(2):
        before = paid(dear_server)
        report = update(settings, clock=lambda day=day: NOON + day * DAY)  # type: ignore[misc]
        assert report.state == "capped" and report.exit_code == 3 and "tomorrow" in report.hint
        assert paid(dear_server) > before
        before = paid(dear_server)
        assert update(settings, clock=lambda day=day: NOON + day * DAY + 60).state == "capped"  # type: ignore[misc]
        assert paid(dear_server) - before <= 2, "the same day has nothing left"
    assert update(settings, clock=lambda: NOON + 2 * DAY).state == "completed"
    assert paid(dear_server) == len(workspace.texts()) == 60
    workspace.assert_in_step()
    spent = spending(workspace.spend)
    assert len(spent) == 3 and sum(spent.values()) == pytest.approx(bill_usd(dear_server))


def test_a_capped_run_says_so_and_goes_on(tmp_path: Path, server: ServerProcess) -> None:
    """A run that reached its cap exits 3, status says capped, and runs with the same cap end the work, paid once."""
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(60)
    cap = cost_usd(workspace) * 0.45
    assert workspace.run("update", code=3, max_cost_usd=cap).report["state"] == "capped"
    assert workspace.run("status", code=0).report["last_update"]["state"] == "capped"
    codes = [workspace.run("update", max_cost_usd=cap).code for _ in range(4)]
    assert codes[-1] == 0 and set(codes) <= {0, 3}
    assert paid(server) == 60
    workspace.assert_in_step()


def test_two_workspaces_share_a_day(tmp_path: Path, dear_server: ServerProcess) -> None:
    """Two processes with one spend ledger share the day's cap, to the cent."""
    dear_server.control(latency_s=0.02)
    both = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name, dear_server, concurrency=16, batch_texts=1)
        workspace.fill(80, prefix=name)
        both.append(workspace)
    cap = cost_usd(both[0])
    over = {"spend_ledger": str(tmp_path / "spend.sqlite3"), "max_cost_usd_per_day": cap}
    runs = [workspace.start("update", "--json", **over) for workspace in both]
    results = [run.wait() for run in runs]
    assert [result.code for result in results] == [3, 3]
    assert all(result.report["chunks_embedded"] for result in results), "one of them had it all"
    assert 0.7 * cap < bill_usd(dear_server) <= cap
    assert sum(spending(tmp_path / "spend.sqlite3").values()) >= bill_usd(dear_server) - 1e-12


def test_reservations_of_a_killed_run_count_as_spent(tmp_path: Path, server: ServerProcess) -> None:
    """What was in flight at a kill may have been billed, so it counts, also against the next run's cap of the day."""
    server.control(latency_s=20)
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(100)
    run = workspace.start("update")
    assert wait_until(lambda: paid(server) == 32), "four requests of eight texts"
    run.kill()
    status = workspace.run("status", code=0).report
    in_flight = sum(status["spent_usd"].values())
    assert in_flight >= bill_usd(server)
    server.control(latency_s=0)
    requests = server.state()["requests"]
    workspace.run("update", code=3, max_cost_usd_per_day=in_flight * 1.05)
    assert server.state()["requests"] == requests
    workspace.update(max_cost_usd_per_day=in_flight + 2 * cost_usd(workspace))
    assert paid(server) == 100 + 32


def test_an_unknown_price_sends_nothing(tmp_path: Path, server: ServerProcess) -> None:
    """A model without a price is refused before anything is sent: a cap that counts zero guards nothing."""
    workspace = Workspace(tmp_path / "w", server, model="text-embedding-4-huge")
    workspace.fill(3)
    for verb in (["update"], ["plan"], ["update", "--max-cost-usd", "100"]):
        result = workspace.run(*verb, code=2)
        assert "price" in result.err and "prices = {" in result.err
    assert server.state()["requests"] == 0


@pytest.mark.parametrize("over", [{"max_cost_usd": 0}, {"max_cost_usd_per_day": 0}], ids=str)
def test_a_cap_of_zero_sends_nothing(tmp_path: Path, server: ServerProcess, over: dict[str, float]) -> None:
    """Zero is a cap, not the lack of one."""
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(3)
    assert workspace.update(code=3, **over)["state"] == "capped"
    assert server.state()["requests"] == 0


def test_a_search_counts_against_the_day(tmp_path: Path, server: ServerProcess) -> None:
    """A search's words are paid from the same purse."""
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(5)
    workspace.update()
    spent = sum(spending(workspace.spend).values())
    question = "where does it say how the vectors are kept"
    workspace.run("search", question, code=0)
    assert sum(spending(workspace.spend).values()) == pytest.approx(bill_usd(server))
    requests = server.state()["requests"]
    result = workspace.run("search", question, code=3, max_cost_usd_per_day=spent)
    assert "max_cost_usd_per_day" in result.err
    assert server.state()["requests"] == requests


def test_nothing_stays_reserved(tmp_path: Path, server: ServerProcess) -> None:
    """After a run with failures of all kinds every reservation is settled, released or forfeited, and what surely was
    not billed is not counted."""
    server.control(fail=[{"kind": "status", "status": 429, "times": 3, "retry_after_ms": "10"}])
    server.control(fail=[{"kind": "cut_mid", "nth": [5]}, {"kind": "refuse", "marker": "Title 7"}])
    workspace = Workspace(tmp_path / "w", server, max_attempts=6)
    workspace.fill(30)
    report = workspace.update(code=1)
    assert list(report["failures"]) == ["00/page-00007.md"]
    with closing(sqlite3.connect(workspace.spend)) as db:
        states = dict(db.execute("SELECT state, sum(tokens) FROM requests GROUP BY state"))
    assert "reserved" not in states and states["released"] == 0
    assert states["settled"] + states["forfeited"] >= server.bill.tokens
    assert report["cost_usd"] == pytest.approx((states["settled"] + states["forfeited"]) * USD_PER_TOKEN)
