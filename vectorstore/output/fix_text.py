"""What a fix did, or would do, on a terminal."""

from __future__ import annotations

from vectorstore.findings import Severity
from vectorstore.fix import FixReport
from vectorstore.output.health_text import health_text
from vectorstore.output.printable import printable
from vectorstore.output.render import coloured, counts_text, duration_text

_WORDS = {
    "save_cache": "save the vector cache",
    "recount": "count anew", "forget": "forget in the ledger", "remove_folders": "remove folders",
    "rebuild": "fill the index anew", "refill": "write vectors again", "delete": "delete",
    "rewrite": "write documents anew", "update": "update",
}  # fmt: skip


def fix_text(report: FixReport) -> str:
    """The steps, what is left, and how it ended."""
    lines = []
    width = max((len(_WORDS[step.action]) for step in report.steps), default=0)
    for step in report.steps:
        where = f"{printable(step.collection, 64)}: " if step.collection else ""
        lines.append(f"  {_WORDS[step.action]:<{width}}  {where}{printable(step.message, 400)}")
    if lines:
        lines.insert(0, "done:" if report.after else "would do:")
    if report.updated:
        done = report.updated
        cost = f"{done.chunks_embedded:,} chunks embedded, ${done.cost_usd:.6f}"
        lines.append(f"update: {counts_text(done.kinds)}, {cost}")
    lines += [f"  note      {printable(note, 400)}" for note in report.notes]
    if report.backup:
        lines.append(f"  before    what was there is backed up: {report.backup}")
    if report.kept:
        lines.append(f"  kept      what was deleted is in {report.kept}")
    if report.message:
        lines.append(f"{report.state}: {printable(report.message, 400)}")
    if report.hint:
        lines.append(f"  next: {printable(report.hint, 400)}")
    last = report.after or report.before
    if last.severity >= Severity.WARN and report.state != "planned":
        lines += ["", "what is left:", health_text(last)]
    lines.append(f"{coloured(report.state)} in {duration_text(report.seconds)}")
    return "\n".join(lines)
