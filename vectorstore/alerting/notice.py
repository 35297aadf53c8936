"""What a person reads of an alert: a title and a text, the same wherever it goes."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from vectorstore.alerting.alert import Alert
from vectorstore.output.printable import printable
from vectorstore.settings import Settings

FIRED, RESOLVED, TRIAL = "fired", "resolved", "test"
_KINDS = {"FAIL": "failure", "WARN": "warning"}  # Apprise's words
LONGEST = 1000  # characters of a message


class Notice(NamedTuple):
    """A message about one alert.

    Attributes:
        what: ``fired`` or ``resolved``.
        kind: ``failure``, ``warning``, ``success`` or ``info``.
    """

    what: str
    alert: Alert | None
    kind: str
    title: str
    body: str

    def to_dict(self) -> dict[str, Any]:
        """For the process that sends."""
        return {"kind": self.kind, "title": self.title, "body": self.body}


def notice(settings: Settings, what: str, alert: Alert) -> Notice:
    """The message that an alert fired, or that it is over."""
    about = f"{alert.name.replace('_', ' ')} ({alert.subject})" if alert.subject else alert.name.replace("_", " ")
    message, since = printable(alert.message, LONGEST), _time(alert.since)
    if what == RESOLVED:
        title, lines = f"Vectorkeep resolved: {about}", [f"Over: {message}", f"It held since {since}."]
    else:
        title = f"Vectorkeep {alert.severity}: {about}"
        lines = [f"{message[:1].upper()}{message[1:]}", f"Next: {printable(alert.hint, LONGEST)}", f"Since {since}."]
    kind = "success" if what == RESOLVED else _KINDS[alert.severity]
    return Notice(what, alert, kind, title, "\n".join([*lines, _where(settings)]))


def trial_notice(settings: Settings) -> Notice:
    """The message of ``vectorkeep alerts --test``."""
    lines = ["This is a test. Alerts of this workspace arrive here.", _where(settings)]
    return Notice(TRIAL, None, "info", "Vectorkeep test alert", "\n".join(lines))


def _where(settings: Settings) -> str:
    return f"Workspace {printable(str(settings.workspace), LONGEST)} on {os.uname().nodename}"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
