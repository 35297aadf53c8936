"""From what a verb returned or raised to the figures of its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vectorstore.errors import VectorkeepError
from vectorstore.output.printable import printable
from vectorstore.redaction import redacted

if TYPE_CHECKING:
    from vectorstore.findings import HealthReport
    from vectorstore.fix import FixReport
    from vectorstore.update import UpdateReport

Figures = dict[str, Any]

LONGEST = 500  # characters of a message
_NO_WORK = {"unchanged", "unknown"}  # kinds of documents that a run had nothing to do with
_STATES = {3: "capped", 4: "locked", 5: "refused", 130: "interrupted"}  # by exit code; of others failed


def of_error(error: BaseException) -> Figures:
    """The figures of a run that raised."""
    if isinstance(error, KeyboardInterrupt):
        return {"state": "interrupted", "exit_code": 130, "error": "Interrupted", "message": "stopped by a signal"}
    code = error.exit_code if isinstance(error, VectorkeepError) else 1
    said = error.message if isinstance(error, VectorkeepError) else str(error)
    return {"state": _STATES.get(code, "failed"), "exit_code": code, "error": type(error).__name__, "message": said}


def of_report(report: Any) -> Figures:
    """The figures of a run that returned a report."""
    known = {"state": "failed" if report.exit_code else "completed", "exit_code": int(report.exit_code)}
    more = _OF.get(type(report).__name__)
    return known | (more(report) if more else {})


def of_checkpoint(picture: Mapping[str, Any]) -> Figures:
    """What a killed run had done and spent, from its last checkpoint; see ``progress``."""
    names = {
        "chunks_written": "chunks_written", "chunks_embedded": "chunks_embedded", "failures": "failed",
        "chunks_from_cache": "chunks_from_cache", "tokens": "tokens_billed", "requests": "requests",
    }  # fmt: skip
    found: Figures = {name: picture[key] for name, key in names.items() if isinstance(picture.get(key), int)}
    if isinstance(picture.get("cost_usd"), int | float):
        found["cost_usd"] = float(picture["cost_usd"])
    return found


def fit_to_keep(text: str) -> str:
    """A message in one line of at most ``LONGEST`` characters, without secrets."""
    return printable(" ".join(redacted(text).split()), LONGEST)


def _of_update(report: UpdateReport) -> Figures:
    found: Figures = {
        "error": report.error, "message": report.message, "failures": len(report.failures),
        "work": sum(count for kind, count in report.kinds.items() if kind not in _NO_WORK) + len(report.failures),
        "chunks_written": report.chunks_written, "chunks_embedded": report.chunks_embedded,
        "chunks_from_cache": report.chunks_from_cache, "tokens": report.tokens_billed, "requests": report.requests,
        "cost_usd": report.cost_usd, "state": report.state,
    }  # fmt: skip
    if report.failures and not report.error:
        key, reason = next(iter(report.failures.items()))
        count = "1 document" if len(report.failures) == 1 else f"{len(report.failures):,} documents"
        found |= {"state": "incomplete", "message": f"{count} failed, {key!r} first: {reason}"}
    return found


def _of_health(report: HealthReport) -> Figures:
    from vectorstore.output.health_totals import totals

    counts = {name.lower().replace("pass", "passed"): count for name, count in report.counts().items()}
    found: Figures = {**counts, "coverage": totals(report).coverage, "detail": report.depth}
    if report.exit_code:
        worst = max(report.findings, key=lambda each: each.severity)
        more = f", and {counts['fail'] - 1:,} more" if counts["fail"] > 1 else ""
        found |= {"state": "findings", "message": f"{worst.check}: {worst.message}{more}"}
    return found


def _of_fix(report: FixReport) -> Figures:
    found = (_of_update(report.updated) if report.updated else {}) | _of_health(report.after or report.before)
    if report.updated and report.updated.failures and found.get("state") != "findings":
        found["state"] = "incomplete"
    if report.message or report.error:
        found |= {"message": report.message, "error": report.error or (report.updated.error if report.updated else "")}
    if report.state in ("refused", "capped", "interrupted", "failed"):
        found["state"] = report.state
    return {"state": "completed"} | found if not report.exit_code else found


def _of_adopt(report: Any) -> Figures:
    return {"work": report.documents_adopted, "chunks_written": report.chunks_written}


def _of_backup(report: Any) -> Figures:
    found: Figures = {"name": report.name, "backup_bytes": report.size, "detail": report.kind}
    return found | ({"state": "incomplete", "message": "; ".join(report.notes)} if report.exit_code else {})


def _of_verify(report: Any) -> Figures:
    bad = [each for each in report.backups if not each.ok]
    found: Figures = {"name": report.backups[0].name if len(report.backups) == 1 else ""}
    found["detail"] = report.backups[0].level if report.backups else ""
    if bad:
        what = f"{len(bad):,} of {len(report.backups):,} do not verify, {bad[0].name} first: {bad[0].message}"
        found |= {"error": "BadBackup", "message": what, "name": bad[0].name}
    return found


def _of_drill(report: Any) -> Figures:
    failed = {"error": "BadBackup"} if report.exit_code else {}
    return {"name": report.name, "message": report.message, **failed}


_OF: dict[str, Callable[[Any], Figures]] = {
    "UpdateReport": _of_update, "HealthReport": _of_health, "FixReport": _of_fix, "AdoptReport": _of_adopt,
    "BackupReport": _of_backup, "VerifyReport": _of_verify, "DrillReport": _of_drill,
    "RestoreReport": lambda report: {"name": report.name},
}  # fmt: skip
