"""What people read of alerts on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vectorstore.output.printable import printable
from vectorstore.output.render import coloured

if TYPE_CHECKING:
    from vectorstore.alerts import AlertsReport


def alerts_text(report: AlertsReport) -> str:
    """The alerts that hold, and who was told."""
    lines = [] if report.active else ["no alerts"]
    for alert in report.active:
        since = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(alert.since))
        lines.append(f"{coloured(alert.severity)}  {alert.key}, since {since}: {printable(alert.message)}")
        lines.append(f"  next: {printable(alert.hint)}")
    word = "would tell" if report.dry_run else "told"
    for what, told in (("fired", report.fired), ("resolved", report.resolved)):
        if told:
            lines.append(f"{word} {what}: {', '.join(alert.key for alert in told)}")
    lines.append(f"  to        {', '.join(report.addresses) or 'nobody: VECTORKEEP_ALERT_URLS is not set'}")
    lines += [f"  note      {note}" for note in report.notes]
    return "\n".join(lines)


def trial_text(sent: Mapping[str, str]) -> str:
    """Which address took the test message."""
    width = max(map(len, sent), default=0)
    said = ((label, f"not sent: {reason}" if reason else "took it") for label, reason in sent.items())
    return "\n".join(f"{label:<{width}}  {words}" for label, words in said)
