"""What people read of backups on a terminal: short, aligned, the next step last."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vectorstore.output.printable import printable
from vectorstore.output.render import coloured

if TYPE_CHECKING:
    from vectorstore.backup import BackupReport
    from vectorstore.backups.catalog import Backup
    from vectorstore.backups.steps import Step
    from vectorstore.drill import DrillReport
    from vectorstore.prune import PruneReport
    from vectorstore.restore import RestoreReport
    from vectorstore.verify import VerifyReport


@contextlib.contextmanager
def step_bar(*, quiet: bool = False) -> Iterator[Callable[[Step], None]]:
    """A progress bar on standard error, if that is a terminal: one step after the other, in bytes or rows."""
    if quiet or not sys.stderr.isatty():
        yield lambda step: None
        return
    from tqdm import tqdm

    shown: list[Any] = []

    def advance(step: Step) -> None:
        if not shown or shown[-1].desc.rstrip(": ") != step.what:
            if shown:
                shown[-1].close()
            shown.append(
                tqdm(
                    total=step.total or None, desc=step.what, unit="row" if step.in_rows else "B", unit_scale=True,
                    dynamic_ncols=True, leave=False,
                )
            )  # fmt: skip
        shown[-1].update(step.done - shown[-1].n)

    try:
        yield advance
    finally:
        for each in shown:
            each.close()


def backup_text(report: BackupReport) -> str:
    """A backup that was made."""
    smaller = 1 - report.size / report.unpacked if report.unpacked else 0
    saved = f", {smaller:.0%} smaller than what is in it" if smaller > 0 else ""
    looked = "every byte read back" if report.verified == "deep" else "digests read back; it is encrypted"
    lines = [
        f"{coloured(report.state)}: {report.name}, {report.kind}, {size_text(report.size)}{saved}",
        f"  file      {printable(report.file)}",
        f"  verified  {looked}, {report.seconds:.1f} s",
        f"  holds     {_held(report.collections, report.documents)}",
        f"  md5       {report.md5}",
    ]
    if report.left_out:
        lines.append(f"  left out  {report.left_out:,} sensitive rows")
    if report.offsite:
        lines.append("  off-site  copied and read back")
    return "\n".join([*lines, *_notes(report.notes)])


def backups_text(backups: list[Backup], looks: dict[str, tuple[str, bool, float]], where: str) -> str:
    """The backups that there are; ``looks``: by name the level of the last look, whether it was good, when."""
    if not backups:
        return f"there is no backup in {printable(where)}\nnext: run `vectorkeep backup`"
    lines = []
    for each in backups:
        level, ok, at = looks.get(each.name, ("", True, 0.0))
        state = each.problem or (f"{level} {'good' if ok else 'BAD'}, {_date(at)}" if level else "not looked at")
        kind = each.sidecar.kind if each.sidecar else "?"
        pinned = f"; pinned: {each.pinned}" if each.pinned else ""
        lines.append(f"{each.name}  {kind:<9} {size_text(each.size):>9}  {printable(state + pinned)}")
    return "\n".join(lines)


def verify_text(report: VerifyReport) -> str:
    """What was looked at."""
    lines = []
    for each in report.backups:
        state = coloured("PASS" if each.ok else "FAIL")
        lines.append(
            f"{state}  {each.name}  {each.level:<6} {size_text(each.size):>9}  {printable(each.message)}".rstrip()
        )
    if report.exit_code:
        lines.append("next: make a new backup, and find out what happened to the disk")
    return "\n".join(lines)


def restore_text(report: RestoreReport) -> str:
    """What was restored, or would be."""
    made = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(report.created))
    lines = [
        f"{coloured(report.state)}: {report.name} of {made}"
        + (f" into {printable(report.into)}" if report.into else ""),
        f"  holds     {_held(report.collections, report.documents)}",
    ]
    if report.replaces:
        lines.append(f"  replaces  {_rows(report.replaces)}")
    if report.safety:
        lines.append(f"  before    what was there is {report.safety}; `vectorkeep restore --undo` brings it back")
    lines += _notes([*report.adapted, *report.notes])
    if report.state == "planned":
        lines.append("next: the same without --dry-run")
    elif report.into:
        lines.append(f"next: `vectorkeep plan --workspace {shlex.quote(printable(report.into))}`")
    else:
        lines.append("next: `vectorkeep plan` says what changed in the documents since")
    return "\n".join(lines)


def drill_text(report: DrillReport) -> str:
    """What a drill showed."""
    lines = [f"{coloured(report.state)}: drill of {report.name}, {report.seconds:.1f} s"]
    if report.message:
        lines.append(f"  {printable(report.message)}")
    else:
        lines.append(f"  restored  {_held(report.collections, report.documents)}; every row was looked at")
    lines += _notes(report.notes)
    if report.exit_code:
        lines.append("next: run `vectorkeep backup`, then drill that one")
    return "\n".join(lines)


def prune_text(report: PruneReport) -> str:
    """What became of every backup, and why."""
    lines = [
        f"{'keep' if each.keep else 'delete' if report.dry_run else 'deleted':<8} {each.name}  {printable(each.reason)}"
        for each in report.decisions
    ]
    if not lines:
        return f"there is no backup in {printable(report.folder)}\nnext: run `vectorkeep backup`"
    if not report.deleted:
        lines.append("nothing to delete: retention keeps them all")
    else:
        verb, count = "would be deleted" if report.dry_run else "deleted", _count(len(report.deleted), "backup")
        lines.append(f"{coloured(report.state)}: {count} {verb}, {size_text(report.freed)}")
    return "\n".join(lines)


def size_text(count: float) -> str:
    """Bytes: "517 B", "1.3 MB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _rows(collections: dict[str, int]) -> str:
    total, names = sum(collections.values()), sorted(collections)
    some = ", ".join(printable(name) for name in names[:3]) + (", …" if names[3:] else "")
    return f"{_count(total, 'row')} in {_count(len(names), 'collection')} ({some})" if names else "no rows"


def _held(collections: dict[str, int], documents: int) -> str:
    """Rows, and documents where they are known."""
    return _rows(collections) + (f", {_count(documents, 'document')}" if documents else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _notes(notes: list[str]) -> list[str]:
    return [f"  note: {printable(note)}" for note in notes]


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
