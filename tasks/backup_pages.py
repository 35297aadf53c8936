"""What the flows about backups show in Prefect's UI."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prefect.logging import get_run_logger

from tasks.artifacts import publish_page, publish_table
from tasks.pages import LONGEST, SHOWN, escaped, facts, more, one_line, page, prose, quote, section, table
from vectorstore.backup import BackupReport
from vectorstore.backups import catalog, history
from vectorstore.drill import DrillReport
from vectorstore.errors import VectorkeepError
from vectorstore.output.backup_text import size_text
from vectorstore.output.render import duration_text
from vectorstore.prune import PruneReport
from vectorstore.restore import RestoreReport
from vectorstore.settings import Settings
from vectorstore.verify import Verified, VerifyReport

BACKUP, VERIFY, RESTORE = "vectorkeep-backup", "vectorkeep-verify", "vectorkeep-restore"
DRILL, PRUNE = "vectorkeep-drill", "vectorkeep-prune"
BACKUPS, CONTENTS = "vectorkeep-backups", "vectorkeep-backup-contents"
VERIFIED, RETENTION = "vectorkeep-verified", "vectorkeep-retention"


def publish_backup(settings: Settings, report: BackupReport) -> None:
    """Page and tables of a backup that was made."""
    publish_page(backup_page(report), BACKUP, "the backup that was made")
    _publish_contents(report.collections)
    publish_backups(settings)


def publish_verify(settings: Settings, report: VerifyReport) -> None:
    """Page and tables of a look at backups."""
    publish_page(verify_page(report), VERIFY, "whether backups are what they were")
    rows = [
        {
            "backup": each.name, "state": _verdict(each), "level": each.level, "size": size_text(each.size),
            "time": duration_text(each.seconds), "what": one_line(each.message, LONGEST),
        }
        for each in report.backups
    ]  # fmt: skip
    publish_table(rows, VERIFIED, "the backups that were looked at, the newest first")
    publish_backups(settings)


def publish_restore(settings: Settings, report: RestoreReport) -> None:
    """Page and tables of a restore, or of the plan of one."""
    publish_page(restore_page(report), RESTORE, "what was restored, or would be")
    _publish_contents(report.collections)
    publish_backups(settings)


def publish_drill(settings: Settings, report: DrillReport) -> None:
    """Page and tables of a drill."""
    publish_page(drill_page(report), DRILL, "whether a backup restores")
    _publish_contents(report.collections)
    publish_backups(settings)


def publish_prune(settings: Settings, report: PruneReport) -> None:
    """Page and tables of what became of the backups."""
    publish_page(prune_page(report), PRUNE, "which backups are kept, and why")
    rows = [
        {"backup": each.name, "decision": _decision(each.keep, report), "reason": one_line(each.reason, LONGEST)}
        for each in report.decisions
    ]
    publish_table(rows, RETENTION, "what retention decided, the newest first")
    publish_backups(settings)


def publish_backups(settings: Settings) -> None:
    """The table of all backups that there are now, with the last look at each."""
    try:
        events = history.read(settings.backups)
        found = catalog.list_backups(settings.backups)
    except VectorkeepError as error:  # the run's state and its other artifacts still tell
        get_run_logger().warning(str(error))
        return
    looks, drilled = history.looks(events), history.drilled(events)
    rows = [_backup_row(each, looks.get(each.name), drilled.get(each.name)) for each in found]
    publish_table(rows, BACKUPS, "all backups, the newest first, with the last look at each")


def backup_page(report: BackupReport) -> str:
    """Markdown."""
    smaller = f", {1 - report.size / report.unpacked:.0%} smaller than what is in it" if report.unpacked else ""
    rows = {
        "kind": f"{report.kind}, encrypted" if report.encrypted else report.kind,
        "size": size_text(report.size) + smaller,
        "holds": f"{_rows(report.collections)}; {report.documents:,} documents and {report.chunks:,} chunks of the"
        " ledger",
        "left out": f"{report.left_out:,} sensitive rows" if report.left_out else "",
        "verified": "every byte was read back" if report.verified == "deep" else "its digests; it is encrypted",
        "off-site": "copied, and read back" if report.offsite else "",
        "file": escaped(report.file),
        "MD5": f"`{report.md5}`",
        "SHA-256": f"`{report.sha256}`",
        "time": duration_text(report.seconds),
    }
    return page(
        f"{report.state.capitalize()}: {report.name}",
        facts(rows),
        section("Notes", map(prose, report.notes)),
        _collections(report.collections),
    )


def verify_page(report: VerifyReport) -> str:
    """Markdown."""
    bad = [each for each in report.backups if not each.ok]
    total = _counted(len(report.backups), "backup")
    title = f"Bad: {len(bad):,} of {total}" if bad else f"Good: {total}"
    worst_first = [*bad, *(each for each in report.backups if each.ok)]
    rows = (
        [each.name, _verdict(each), each.level, size_text(each.size), escaped(one_line(each.message, LONGEST))]
        for each in worst_first[:SHOWN]
    )
    return page(
        title,
        "> **Next:** make a new backup, and find out what happened to the disk" if bad else "",
        table(["backup", "state", "level", "size", ""], rows) if report.backups else "",
        more(len(report.backups), VERIFIED).strip(),
        f"In {duration_text(report.seconds)}.",
    )


def restore_page(report: RestoreReport) -> str:
    """Markdown."""
    planned = report.state == "planned"
    rows = {
        "made": _time(report.created),
        "kind": report.kind,
        "holds": f"{_rows(report.collections)}; {report.documents:,} documents and {report.chunks:,} chunks of the"
        " ledger",
        "into": escaped(report.into),
        "would replace" if planned else "replaced": "" if report.into else _rows(report.replaces),
        "what was there": f"is {report.safety}; this flow with `undo` brings it back" if report.safety else "",
        "time": duration_text(report.seconds),
    }
    how = "> **To restore it:** run this flow with `dry_run` turned off; nothing was changed yet."
    return page(
        f"{'Would restore' if planned else 'Restored'}: {report.name}",
        how if planned else "",
        facts(rows),
        section("Notes", map(prose, report.notes)),
        _collections(report.collections, {} if report.into else report.replaces),
    )


def drill_page(report: DrillReport) -> str:
    """Markdown."""
    rows = {
        "restored": f"{_rows(report.collections)}, {report.documents:,} documents; every row was looked at",
        "time": duration_text(report.seconds),
    }
    failed = quote("Failed", one_line(report.message, LONGEST), "make a new backup, then drill that one")
    return page(
        f"{report.state.capitalize()}: drill of {report.name}",
        failed if report.exit_code else facts(rows),
        section("Notes", map(prose, report.notes)),
        _collections(report.collections),
    )


def prune_page(report: PruneReport) -> str:
    """Markdown."""
    gone = f"{_counted(len(report.deleted), 'backup')}, {size_text(report.freed)}"
    title = f"{'Would delete' if report.dry_run else 'Deleted'}: {gone}" if report.deleted else "Nothing to delete"
    gone_first = sorted(report.decisions, key=lambda each: each.keep)
    rows = ([_decision(each.keep, report), each.name, escaped(each.reason)] for each in gone_first[:SHOWN])
    return page(
        title,
        f"{len(report.decisions) - len(report.deleted):,} are kept, in {escaped(report.folder)}.",
        table(["decision", "backup", "reason"], rows) if report.decisions else "",
        more(len(report.decisions), RETENTION).strip(),
        section("What killed runs had left, and is gone", map(escaped, report.swept[:SHOWN])),
    )


def _backup_row(
    each: catalog.Backup, look: history.Event | None, drilled: float | None
) -> dict[str, object]:  # fmt: skip
    return {
        "backup": each.name, "made": _time(each.created), "kind": each.sidecar.kind if each.sidecar else "",
        "size": size_text(each.size), "problem": one_line(each.problem, LONGEST),
        "last look": f"{look.level} {'good' if look.ok else 'BAD'}" if look else "none",
        "looked at": _time(look.time) if look else "", "last drill that passed": _time(drilled) if drilled else "",
        "pinned": one_line(each.pinned, LONGEST),
    }  # fmt: skip


def _publish_contents(collections: Mapping[str, int]) -> None:
    rows = [{"collection": name, "rows": count} for name, count in sorted(collections.items())]
    publish_table(rows, CONTENTS, "what is in the backup, by collection")


def _collections(collections: Mapping[str, int], replaced: Mapping[str, int] | None = None) -> str:
    """A table of the largest; beside them, if there is something to replace, what is there now or was before."""
    names = _largest_first({**(replaced or {}), **collections})
    if not names:
        return ""
    columns = [collections] + ([replaced] if replaced else [])
    heads = ["collection", "rows in the backup"] + (["rows replaced"] if replaced else [])
    lines = (
        [escaped(one_line(name, 64)), *(f"{column[name]:,}" if name in column else "" for column in columns)]
        for name in names[:SHOWN]
    )
    heading = f"### {_counted(len(names), 'collection')}\n"
    return heading + table(heads, lines, numbers=len(columns)) + more(len(names), CONTENTS)


def _largest_first(collections: Mapping[str, int]) -> list[str]:
    return sorted(collections, key=lambda name: (-collections[name], name))


def _rows(collections: Mapping[str, int]) -> str:
    return f"{sum(collections.values()):,} rows in {_counted(len(collections), 'collection')}" if collections else ""


def _verdict(each: Verified) -> str:
    return "good" if each.ok else "BAD"


def _decision(keep: bool, report: PruneReport) -> str:
    return "keep" if keep else "delete" if report.dry_run else "deleted"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
