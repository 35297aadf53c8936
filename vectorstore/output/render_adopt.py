"""What ``adopt`` says on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vectorstore.output.render import duration_text

if TYPE_CHECKING:
    from vectorstore.adopt import AdoptReport


def adopt_text(report: AdoptReport) -> str:
    """What was taken over, what is left, and what the rest will cost."""
    verb = "would adopt" if report.dry_run else "adopted"
    first = f"{verb}: {_documents(report.documents_adopted)} in {report.chunks_adopted:,} chunks, nothing paid"
    if not report.documents_adopted and not report.texts_cached:
        first = "nothing to adopt that is not ours already"
    lines = [f"{first} ({duration_text(report.seconds)})"]
    lines += [f"  read      {_collection(name, about)}" for name, about in report.collections.items()]
    if report.texts_cached:
        lines.append(f"  texts     {report.texts_cached:,} new in the vector cache: equal ones are not paid any more")
    lines += [f"  unused    {count:,} rows: {why}" for why, count in sorted(report.rows_unused.items())]
    lines += [f"  left      {_documents(count)}: {why}" for why, count in sorted(report.documents_left.items())]
    lines += [f"            {key}" for key in list(report.examples)[:3]]
    lines += [f"  note      {note}" for note in report.notes]
    lines.append(f"  next      {_next(report.next_update)}")
    return "\n".join(lines)


def _collection(name: str, about: Mapping[str, Any]) -> str:
    text = f"{name}: {about['rows']:,} rows"
    if about["kind"] == "own":
        text += ", made by Vectorkeep"
    elif about["kind"] != "foreign":
        text += ", made by Vectorkeep with another chunker: only its vectors are of use"
    elif "document_key" in about:
        behind = f" behind {about['prefix']!r}" if about["prefix"] else ""
        order = f", {about['order_key']!r} its place" if about["order_key"] else ""
        text += f"; {about['document_key']!r} names the document{behind}{order}"
    if about.get("unnamed"):
        text += f"; {about['unnamed']:,} rows name no document of the source"
    return text


def _next(update: Mapping[str, Any]) -> str:
    if update["refusals"]:
        return f"`vectorkeep update` is refused: {update['refusals'][0]}"
    if update["nothing_to_do"]:
        return "`vectorkeep update` has nothing to do"
    return (
        f"`vectorkeep update` writes {update['chunks']:,} chunks, {update['chunks_cached']:,} of them without paying:"
        f" {update['tokens']:,} tokens, ${update['cost_usd']:.6f}"
    )


def _documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"
