"""What people read on a terminal: short, aligned, and coloured only where a terminal shows colours."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectorstore.chroma.store import Hit
    from vectorstore.plan import Plan
    from vectorstore.preview import Preview
    from vectorstore.progress import Progress
    from vectorstore.update import UpdateReport

KINDS = ("added", "moved", "changed", "missing", "stale", "all", "deleted", "unchanged", "unknown")
SHOWN_FAILURES = 10
_COLOURS = {
    "completed": "32", "healthy": "32", "fixed": "32", "done": "32", "restored": "32", "passed": "32", "pruned": "32",
    "incomplete": "33", "planned": "36", "capped": "33", "interrupted": "33",
    "partly": "33", "unmendable": "31", "refused": "31", "failed": "31",
    "PASS": "32", "INFO": "36", "WARN": "33", "FAIL": "1;31",
}  # fmt: skip


_UNITS = {"read": "row", "health": "chunk"}  # by what is under way


@contextlib.contextmanager
def bar(*, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on standard error, if that is a terminal: documents, chunks, tokens, dollars, rate, time left."""
    if quiet or not sys.stderr.isatty():
        yield lambda progress: None
        return
    shown: dict[str, Any] = {}  # by what is under way: one thing follows the other

    def advance(progress: Progress) -> None:
        if progress.command not in shown:
            from tqdm import tqdm

            for each in shown.values():
                each.close()
            unit, total = _UNITS.get(progress.command, "doc"), progress.documents_total
            shown[progress.command] = tqdm(
                total=total, desc=progress.command, unit=unit, dynamic_ncols=True, leave=False
            )
        line = shown[progress.command]
        tokens = f"{progress.tokens_embedded:,} tokens, ${progress.cost_usd:.4f}"
        line.set_postfix_str(f"{progress.chunks_written:,} chunks, {tokens}", refresh=False)
        line.update(progress.documents_done - line.n)  # draws ten times a second at most

    try:
        yield advance
    finally:
        for each in shown.values():
            each.close()


def plan_text(plan: Plan) -> str:
    """The plan before an update, in a line or two."""
    lines = [f"plan: {counts_text(plan.counts)}"]
    if plan.estimated_cost_usd:
        lines.append(f"  at most   about {plan.estimated_tokens:,} tokens, ${plan.estimated_cost_usd:.6f}")
    lines += [f"  first: {damage}" for damage in plan.damage]
    return "\n".join(lines)


def preview_text(found: Preview) -> str:
    """What an update would do and cost."""
    if found.nothing_to_do and not (found.refusals or found.notes or found.failures):
        return f"nothing to do: {found.kinds.get('unchanged', 0):,} documents are in step ({found.pipeline})"
    about = "" if found.exact else "about "
    lines = [f"plan: {counts_text(found.kinds)}", f"  pipeline  {found.pipeline}"]
    if found.exact:
        lines.append(f"  chunks    {found.chunks:,} to write, {found.chunks_cached:,} of them without paying")
    lines.append(f"  tokens    {about}{found.tokens:,}")
    cap = f", the cap is ${found.max_cost_usd:.2f}" if found.max_cost_usd is not None else ""
    lines.append(f"  cost      {about}${found.cost_usd:.6f}{cap}")
    if found.seconds:
        lines.append(f"  time      {duration_text(found.seconds)} or more, at the provider's limits")
    lines += [f"  first     {damage}" for damage in found.damage]
    lines += [f"  note      {note}" for note in found.notes]
    if len(found.collections) > 1:
        lines += ["", *_collections(found.collections)]
    lines += _failures(found.failures)
    lines += [f"refused: {refusal}" for refusal in found.refusals]
    return "\n".join(lines)


def update_text(report: UpdateReport) -> str:
    """The report of an update."""
    touched = any(count for kind, count in report.kinds.items() if kind not in ("unchanged", "unknown"))
    if report.state == "completed" and not touched and not report.failures and not report.notes:
        return f"nothing to do: {report.kinds.get('unchanged', 0):,} documents are in step ({report.seconds:.1f} s)"
    if report.state == "refused":
        return f"{coloured('refused')}: {report.message}\n  next: {report.hint}"
    lines = [f"{coloured(report.state)}: {counts_text(report.kinds)} in {duration_text(report.seconds)}"]
    lines.append(
        f"  chunks    {report.chunks_written:,} written: {report.chunks_embedded:,} embedded,"
        f" {report.chunks_from_cache:,} without paying; {report.chunks_deleted:,} deleted"
    )
    lines.append(f"  cost      ${report.cost_usd:.6f} for {report.tokens_billed or report.tokens_embedded:,} tokens")
    lines += [f"  note      {note}" for note in report.notes]
    lines += _failures(report.failures)
    if report.message:
        lines.append(f"{report.state}: {report.message}")
    if report.hint:
        lines.append(f"  next: {report.hint}")
    return "\n".join(lines)


def hits_text(hits: list[Hit]) -> str:
    """Search results: distance, place, heading and the beginning of the text."""
    import textwrap

    if not hits:
        return "nothing found"
    lines = []
    for hit in hits:
        heading = f" · {hit.metadata['heading']}" if hit.metadata.get("heading") else ""
        lines.append(f"{hit.distance:.3f}  {hit.metadata.get('doc_key', hit.id)}{heading}")
        lines.append(textwrap.indent(textwrap.shorten(hit.document, 160, placeholder=" …"), "       "))
    return "\n".join(lines)


def status_text(found: Mapping[str, Any]) -> str:
    """The summary that ``status`` prints."""
    lines = [
        f"{found['documents']:,} documents in {found['chunks']:,} chunks, {len(found['collections'])} collections",
        f"  source    {found['source']}",
        f"  store     {found['store']}",
        f"  pipeline  {found['pipeline'] or 'none yet: run `vectorkeep update`'}",
    ]
    if last := found["last_update"]:
        ended = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(last["ended"]))
        lines.append(
            f"  last      {coloured(last['state'])} at {ended}: {counts_text(last['kinds'])}, ${last['cost_usd']:.6f}"
        )
    if found["running"]:
        lines.append(f"  running   {found['running']}")
    for day, dollars in list(found["spent_usd"].items())[-7:]:
        lines.append(f"  spent     {day}  ${dollars:.6f}")
    lines += _failures({failure["doc_key"]: failure["reason"] for failure in found["failures"]})
    return "\n".join(lines)


def counts_text(kinds: Mapping[str, int]) -> str:
    """Documents by kind: "3 added, 1 deleted, 4,000 unchanged"."""
    return ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds.get(kind)) or "no documents"


def _collections(collections: Mapping[str, Mapping[str, int]]) -> list[str]:
    width = max(map(len, collections))
    return [f"  {name:<{width}}  {counts_text(counts)}" for name, counts in sorted(collections.items())]


def _failures(failures: Mapping[str, str]) -> list[str]:
    lines = [f"  failed    {key!r}: {reason}" for key, reason in list(failures.items())[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  failed    … and {len(failures) - SHOWN_FAILURES:,} more; --json shows all")
    return lines


def duration_text(seconds: float) -> str:
    """Seconds, minutes or hours: "4.2 s", "3 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def coloured(state: str) -> str:
    """A state or a severity, in its colour where standard output is a terminal and ``NO_COLOR`` is not set."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and state in _COLOURS:
        return f"\033[{_COLOURS[state]}m{state}\033[0m"
    return state
