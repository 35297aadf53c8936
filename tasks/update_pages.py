"""What an update shows in Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.artifacts import publish_page, publish_table
from tasks.pages import SHOWN, escaped, facts, more, page, quote, section, table
from vectorstore.output.render import KINDS, counts_text, duration_text
from vectorstore.plan import Plan
from vectorstore.preview import Preview
from vectorstore.update import UpdateReport

PLAN, UPDATE = "vectorkeep-plan", "vectorkeep-update"
COLLECTIONS, FAILURES = "vectorkeep-collections", "vectorkeep-failures"

Counts = Mapping[str, int]
"""Kind of work -> documents."""


def publish_preview(found: Preview) -> None:
    """Page and table of a plan that has been costed."""
    publish_page(preview_page(found), PLAN, "what an update would do")
    _publish_tables(found.collections, found.failures)


def publish_plan(text: str) -> None:
    """The page of a plan that is being applied."""
    publish_page(text, PLAN, "what this update set out to do")


def publish_update(report: UpdateReport) -> None:
    """Page and tables of an update."""
    publish_page(update_page(report), UPDATE, "what the update did")
    _publish_tables(report.collections, report.failures)


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
    return page(
        f"Plan: {'nothing to do, ' if found.nothing_to_do else ''}{counts_text(found.kinds)}",
        *map(_refusal, found.refusals),
        "> **The cap is lower than the cost:** the update would end as Capped; the next one goes on." if over else "",
        facts({} if found.nothing_to_do else rows),
        section("First", map(escaped, found.damage)),
        _failures(found.failures),
        _collections(found.collections),
    )


def plan_page(plan: Plan) -> str:
    """Markdown."""
    return page(
        f"Plan: {'nothing to do, ' if plan.nothing_to_do else ''}{counts_text(plan.counts)}",
        *(_refusal(str(refusal)) for refusal in plan.refusals),
        facts({"to read": f"{plan.to_read:,} documents, {plan.bytes / 1e6:,.1f} MB"} if plan.to_read else {}),
        section("First", map(escaped, plan.damage)),
        _failures({problem.doc_key: problem.reason for problem in plan.problems}),
        _collections(plan.by_collection),
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
    state = report.state.capitalize()
    return page(
        f"{'Completed in part' if report.failures and not report.message else state}: {counts_text(report.kinds)}",
        quote(state, report.message, report.hint) if report.message else "",
        facts(rows),
        section("Notes", map(escaped, report.notes)),
        _failures(report.failures),
        _collections(report.collections),
    )


def _failures(failures: Mapping[str, str]) -> str:
    lines = (f"**{escaped(key)}**: {escaped(reason)}" for key, reason in list(failures.items())[:SHOWN])
    return section(f"{len(failures):,} failed", lines) + more(len(failures), FAILURES)


def _collections(collections: Mapping[str, Counts]) -> str:
    if len(collections) < 2:
        return ""
    kinds = _kinds(collections)
    busiest = sorted(collections.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:SHOWN]
    rows = ([escaped(name), *(f"{n:,}" if (n := counts.get(k)) else "" for k in kinds)] for name, counts in busiest)
    heading = f"### {len(collections):,} collections with work\n"
    return heading + table(["collection", *kinds], rows, numbers=len(kinds)) + more(len(collections), COLLECTIONS)


def _publish_tables(collections: Mapping[str, Counts], failures: Mapping[str, str]) -> None:
    kinds = _kinds(collections)
    rows = [
        {"collection": name, **{kind: counts.get(kind, 0) for kind in kinds}}
        for name, counts in sorted(collections.items())
    ]
    publish_table(rows, COLLECTIONS, "documents with work, by collection")
    failed = [{"document": key, "reason": reason} for key, reason in sorted(failures.items())]
    publish_table(failed, FAILURES, "documents that failed, and why")


def _kinds(collections: Mapping[str, Counts]) -> list[str]:
    return [kind for kind in KINDS if any(counts.get(kind) for counts in collections.values())]


def _refusal(text: str) -> str:
    message, _, hint = text.partition("\n  next: ")
    return quote("Refused", message, hint)
