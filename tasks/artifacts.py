"""What a run shows in Prefect's UI: Markdown pages, tables and a progress bar.

Keys are stable, so that the UI shows a history of each. Names of documents come from the disk: in Markdown they are
escaped, or a file called ``![](http://…)`` would load a picture.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from vectorstore.plan import Plan
from vectorstore.preview import Preview
from vectorstore.progress import Progress
from vectorstore.render import KINDS, counts_text, duration_text
from vectorstore.update import UpdateReport

PLAN, UPDATE, PROGRESS = "vectorkeep-plan", "vectorkeep-update", "vectorkeep-progress"
COLLECTIONS, FAILURES = "vectorkeep-collections", "vectorkeep-failures"
SHOWN = 20  # lines in Markdown; the tables hold more
TABLE_ROWS = 1000


class ProgressBar:
    """A progress artifact, made when there is something to show, and updated at most every few seconds."""

    def __init__(self, verb: str, every_s: float = 3.0) -> None:
        self._verb, self._every = verb, every_s
        self._next = time.monotonic() + every_s  # what is over by then needs no bar
        self._id: UUID | None = None

    def show(self, progress: Progress | None, *, now: bool = False) -> None:
        """Show the counters, unless it is too soon."""
        if not progress or not progress.documents_total or (time.monotonic() < self._next and not now):
            return
        percent = min(100.0, 100 * progress.documents_done / progress.documents_total)
        with shielded():
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, PROGRESS, self._text(progress)))
            else:
                update_progress_artifact(self._id, percent, self._text(progress))
        self._next = time.monotonic() + self._every

    def _text(self, progress: Progress) -> str:
        parts = [f"{self._verb}: {progress.documents_done:,} of {progress.documents_total:,} documents"]
        if progress.chunks_written:
            parts.append(f"{progress.chunks_written:,} chunks written")
        if progress.tokens_embedded:
            parts.append(f"{progress.tokens_embedded:,} tokens, ${progress.cost_usd:.4f}")
        if progress.failed:
            parts.append(f"{progress.failed:,} failed")
        return " · ".join(parts)


def publish_preview(found: Preview) -> None:
    """Page and table of a plan that has been costed."""
    with shielded():
        create_markdown_artifact(preview_page(found), PLAN, "what an update would do")
        _tables(found.collections, found.failures)


def publish_plan(page: str) -> None:
    """The page of a plan that is being applied."""
    with shielded():
        create_markdown_artifact(page, PLAN, "what this update set out to do")


def publish_update(report: UpdateReport) -> None:
    """Page and tables of an update."""
    with shielded():
        create_markdown_artifact(update_page(report), UPDATE, "what the update did")
        _tables(report.collections, report.failures)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """A picture that the server does not take stops nothing; the run's own state still tells."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("an artifact could not be stored: %r", error)


def preview_page(found: Preview) -> str:
    """Markdown."""
    about = "" if found.exact else "about "
    cap = f" (cap ${found.max_cost_usd:.2f})" if found.max_cost_usd is not None else ""
    rows = {
        "pipeline": f"`{found.pipeline}`",
        "chunks to write": f"{found.chunks:,}, of them {found.chunks_cached:,} without paying",
        "tokens to pay": f"{about}{found.tokens:,}",
        "cost": f"{about}${found.cost_usd:.6f}{cap}",
        "time": f"{duration_text(found.seconds)} or more, at the provider's limits" if found.seconds else "",
    }
    over = found.max_cost_usd is not None and found.cost_usd > found.max_cost_usd
    return _page(
        f"Plan: {'nothing to do, ' if found.nothing_to_do else ''}{counts_text(found.kinds)}",
        [*(_refusal(text) for text in found.refusals),
         "> **The cap is lower than the cost:** the update would end as Capped; the next one goes on." if over else ""],
        {} if found.nothing_to_do else rows,
        {"First": [_escaped(damage) for damage in found.damage]},
        found.collections,
        found.failures,
    )  # fmt: skip


def plan_page(plan: Plan) -> str:
    """Markdown."""
    return _page(
        f"Plan: {'nothing to do, ' if plan.nothing_to_do else ''}{counts_text(plan.counts)}",
        [_refusal(str(refusal)) for refusal in plan.refusals],
        {"to read": f"{plan.to_read:,} documents, {plan.bytes / 1e6:,.1f} MB"} if plan.to_read else {},
        {"First": [_escaped(damage) for damage in plan.damage]},
        plan.by_collection,
        {problem.doc_key: problem.reason for problem in plan.problems},
    )


def update_page(report: UpdateReport) -> str:
    """Markdown."""
    rows = {
        "run": f"`{report.run}`",
        "chunks written": f"{report.chunks_written:,}: {report.chunks_embedded:,} embedded,"
        f" {report.chunks_from_cache:,} without paying",
        "chunks deleted": f"{report.chunks_deleted:,}" if report.chunks_deleted else "",
        "chunks repaired": f"{report.chunks_repaired:,}" if report.chunks_repaired else "",
        "cost": f"${report.cost_usd:.6f} for {report.tokens_billed or report.tokens_embedded:,} tokens",
        "time": duration_text(report.seconds),
    }
    title = report.state if report.message or not report.failures else "completed in part"
    why = f"> **{report.state.capitalize()}:** {_escaped(report.message)}" if report.message else ""
    next_step = f">\n> **Next:** {_escaped(report.hint)}" if report.hint else ""
    return _page(
        f"{title.capitalize()}: {counts_text(report.kinds)}",
        ["\n".join(part for part in (why, next_step) if part)],
        rows,
        {"Notes": [_escaped(note) for note in report.notes]},
        report.collections,
        report.failures,
    )


def _page(
    title: str, quotes: Iterable[str], rows: Mapping[str, str], lists: Mapping[str, list[str]],
    collections: Mapping[str, Mapping[str, int]], failures: Mapping[str, str],
) -> str:  # fmt: skip
    parts = [f"## {title}", *(quote for quote in quotes if quote)]
    if any(rows.values()):
        table = [f"| {name} | {value} |" for name, value in rows.items() if value]
        parts.append("\n".join([table[0], "| --- | --- |", *table[1:]]))
    for heading, items in lists.items():
        if items:
            parts.append(f"### {heading}\n" + "\n".join(f"- {item}" for item in items))
    if failures:
        lines = [f"- **{_escaped(key)}**: {_escaped(reason)}" for key, reason in list(failures.items())[:SHOWN]]
        parts.append(f"### {len(failures):,} failed\n" + "\n".join(lines) + _more(len(failures), FAILURES))
    if len(collections) > 1:
        parts.append(f"### {len(collections):,} collections with work\n" + _collections(collections))
    return "\n\n".join(parts) + "\n"


def _collections(collections: Mapping[str, Mapping[str, int]]) -> str:
    kinds = [kind for kind in KINDS if any(counts.get(kind) for counts in collections.values())]
    busiest = sorted(collections.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    lines = [f"| collection | {' | '.join(kinds)} |", "| --- |" + " ---: |" * len(kinds)]
    for name, counts in busiest[:SHOWN]:
        cells = (f"{counts[kind]:,}" if counts.get(kind) else "" for kind in kinds)
        lines.append(f"| {_escaped(name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + _more(len(collections), COLLECTIONS)


def _more(count: int, key: str) -> str:
    return f"\n\n… and {count - SHOWN:,} more: see the artifact `{key}`" if count > SHOWN else ""


def _tables(collections: Mapping[str, Mapping[str, int]], failures: Mapping[str, str]) -> None:
    rows: list[dict[str, Any]]
    if collections:
        kinds = [kind for kind in KINDS if any(counts.get(kind) for counts in collections.values())]
        rows = [
            {"collection": name, **{kind: counts.get(kind, 0) for kind in kinds}}
            for name, counts in sorted(collections.items())
        ]
        _table(rows, COLLECTIONS, "documents with work, by collection")
    if failures:
        rows = [{"document": key, "reason": reason} for key, reason in sorted(failures.items())]
        _table(rows, FAILURES, "documents that failed, and why")


def _table(rows: list[dict[str, Any]], key: str, description: str) -> None:
    if len(rows) > TABLE_ROWS:
        description += f": the first {TABLE_ROWS:,} of {len(rows):,}"
    create_table_artifact(rows[:TABLE_ROWS], key, description)


def _refusal(text: str) -> str:
    message, _, hint = text.partition("\n  next: ")
    return f"> **Refused:** {_escaped(message)}" + (f"\n>\n> **Next:** {_escaped(hint)}" if hint else "")


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&])", r"\\\1", " ".join(text.split()))
