"""Fixtures for accidents: nothing here writes a file past 2 GiB, and the provider outlives whoever it serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import limit_files

# One or two of every kind, for everyday; all others are slow.
QUICK = {
    "test_kill_at_half_pays_only_what_was_in_flight", "test_lost_from_the_store[store]",
    "test_source_gone[missing]", "test_small_source_gone", "test_folder_unreadable", "test_moved_folder_is_free",
    "test_another_pipeline_is_refused[{'dimensions': 32}]", "test_two_runs_at_once",
    "test_looking_changes_nothing[killed]",
    "test_stops_at_the_end_of_a_batch[SIGTERM]", "test_a_capped_run_goes_on_the_next_day",
    "test_two_workspaces_share_a_day", "test_reservations_of_a_killed_run_count_as_spent",
    "test_an_unknown_price_sends_nothing", "test_a_cap_of_zero_sends_nothing[{'max_cost_usd': 0}]",
    "test_bad_documents",
    "test_a_poisonous_document", "test_one_spoilt_vector[zero]", "test_wrong_key", "test_truncated_ledger[0.5]",
    "test_killed_at[after vectorstore.chroma.store:Store.upsert]", "test_damaged_spend_ledger[cut]",
    "test_checkpoint_is_only_a_picture[{]",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.name not in QUICK:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package", autouse=True)
def _limited_files() -> Iterator[None]:
    import resource

    before = limit_files()
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(_server: ServerProcess) -> ServerProcess:
    """An embeddings API in a process of its own, with an empty bill."""
    _server.control(reset=True)
    return _server
