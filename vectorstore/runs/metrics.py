"""The history of runs as figures for Prometheus, in its text format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.backups import history as backups
from vectorstore.budget import spending
from vectorstore.errors import VectorkeepError
from vectorstore.runs import machine
from vectorstore.runs.history import records
from vectorstore.runs.markers import living
from vectorstore.runs.record import RunRecord
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Value = tuple[tuple[str, ...], float]  # of the labels, and the figure

_LEVELS = {"PASS": "passed", "INFO": "info", "WARN": "warn", "FAIL": "fail"}


def metrics_text(settings: Settings, clock: Callable[[], float] = time.time) -> str:
    """All figures; one that nobody knows yet is left out."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector([each for each in _families(settings, clock()) if each.samples]))
    return generate_latest(registry).decode()


def write_metrics(settings: Settings) -> None:
    """Write them to ``metrics_file``, whole or not at all, for node_exporter's textfile collector.

    Raises:
        ConfigurationError: it can't be written.
    """
    from vectorstore.output.health_files import write_text

    write_text(settings.path(Path(settings.metrics_file)), metrics_text(settings))


class _Collector:
    """What a registry asks for its figures."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Each with its samples."""
        yield from self._families


def _families(settings: Settings, now: float) -> Iterator[Metric]:
    runs = records(settings)
    yield from _of_runs(runs)
    yield from _of_updates(runs)
    yield from _of_store(settings, runs)
    yield from _of_money(settings, now, runs)
    yield from _of_backups(settings, now)
    yield _gauge("running", "Runs that go on now.", [((), float(living(settings.hashes)))])


def _of_runs(runs: Sequence[RunRecord]) -> Iterator[Metric]:
    counts: dict[tuple[str, ...], float] = {}
    last: dict[str, RunRecord] = {}
    well: dict[str, float] = {}
    for each in runs:
        counts[each.verb, each.state] = counts.get((each.verb, each.state), 0) + 1
        last[each.verb] = each
        if each.state == "completed":
            well[each.verb] = each.started + each.seconds
    yield _counter("runs", "Runs in the history, of the last two years.", list(counts.items()), "verb", "state")
    for name, about, figure in (
        ("last_run_timestamp_seconds", "When the last run ended.", lambda run: run.started + run.seconds),
        ("last_run_duration_seconds", "How long the last run took.", lambda run: run.seconds),
        ("last_run_cpu_seconds", "CPU time of the last run.", lambda run: run.cpu_seconds),
        ("last_run_exit_code", "Exit code of the last run; -9: it was killed.", lambda run: float(run.exit_code)),
    ):
        yield _gauge(name, about, [((verb,), figure(run)) for verb, run in last.items()], "verb")
    yield _gauge(
        "last_success_timestamp_seconds", "When the last run ended that ended well.",
        [((verb,), at) for verb, at in well.items()], "verb",
    )  # fmt: skip
    memory = [((verb,), run.memory_mb * 1e6) for verb, run in last.items() if run.memory_mb is not None]
    yield _gauge("last_run_memory_bytes", "Largest resident size of the last run's process.", memory, "verb")


def _of_updates(runs: Sequence[RunRecord]) -> Iterator[Metric]:
    updates = [each for each in reversed(runs) if each.verb == "update"]
    embedding = next((each for each in updates if each.chunks_embedded and each.seconds), None)
    rate = [((), (embedding.chunks_embedded or 0) / embedding.seconds)] if embedding else []
    yield _gauge("embedding_rate_chunks_per_second", "Chunks embedded a second, in the last update that did any.", rate)
    share = next((found for each in updates if (found := each.error_rate) is not None), None)
    yield _gauge("error_ratio", "Share of documents that failed, in the last update that had any to do.", _one(share))


def _of_store(settings: Settings, runs: Sequence[RunRecord]) -> Iterator[Metric]:
    yield _gauge("documents", "Documents that the ledger knows.", _one(_last(runs, "documents")))
    yield _gauge("chunks", "Chunks that the ledger knows.", _one(_last(runs, "chunks")))
    yield _gauge("coverage_ratio", "Share of the chunks that the store holds.", _one(_last(runs, "coverage")))
    yield _gauge("store_bytes", "Size of the embedded store.", _one(machine.store_bytes(settings)))
    yield _gauge("memory_used_ratio", "Memory in use on the machine or in the container.", _one(machine.memory_share()))
    checked = next((each for each in reversed(runs) if each.fail is not None), None)
    found = [((level,), float(getattr(checked, name))) for level, name in _LEVELS.items()] if checked else []
    yield _gauge("findings", "Findings of the last health check.", found, "severity")


def _of_money(settings: Settings, now: float, runs: Sequence[RunRecord]) -> Iterator[Metric]:
    for name, about, total in (
        ("api_requests", "Requests to the provider.", sum(each.requests or 0 for each in runs)),
        ("tokens", "Tokens that the provider billed.", sum(each.tokens or 0 for each in runs)),
        ("chunks_embedded", "Chunks that were embedded.", sum(each.chunks_embedded or 0 for each in runs)),
        (
            "chunks_from_cache",
            "Chunks not paid for.",
            sum(each.chunks_from_cache or 0 for each in runs),
        ),
    ):
        yield _counter(name, f"{about} Of all runs in the history.", [((), float(total))])
    try:
        spent = spending(settings.path(settings.spend_ledger))
    except VectorkeepError:  # it is damaged; the next health check says so
        return
    yield _counter("cost_usd", "Dollars spent, by the spend ledger.", [((), sum(spent.values()))])
    today = spent.get(time.strftime("%Y-%m-%d", time.gmtime(now)), 0.0)
    yield _gauge("cost_today_usd", "Dollars spent today (UTC), by the spend ledger.", [((), today)])


def _of_backups(settings: Settings, now: float) -> Iterator[Metric]:
    try:
        good = [each for each in backups.read(settings.backups) if each.ok]
    except VectorkeepError:  # it can't be read; `vectorkeep backups` says so
        return
    for name, about, kinds in (
        ("backup_verified", "a backup was last found to be sound", backups.LOOKS),
        ("drill", "a backup was last restored for a drill, and was sound", ("drill",)),
    ):
        at = max((each.time for each in good if each.event in kinds), default=None)
        yield _gauge(f"last_{name}_timestamp_seconds", f"When {about}.", _one(at))
        yield _gauge(f"last_{name}_age_seconds", f"How long ago {about}.", _one(None if at is None else now - at))


def _last(runs: Sequence[RunRecord], name: str) -> float | None:
    return next((value for each in reversed(runs) if (value := getattr(each, name)) is not None), None)


def _one(value: float | None) -> list[Value]:
    return [] if value is None else [((), float(value))]


def _gauge(name: str, about: str, values: Sequence[Value], *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"vectorkeep_{name}", about, labels=labels)
    _fill(family, values)
    return family


def _counter(name: str, about: str, values: Sequence[Value], *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"vectorkeep_{name}", about, labels=labels)
    _fill(family, values)
    return family


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: Sequence[Value]) -> None:
    for labels, value in sorted(values):
        family.add_metric(labels, value)
