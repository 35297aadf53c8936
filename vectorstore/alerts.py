"""Alerts: judge what a person should know of, and tell those who were not told yet; see docs/alerts.md.

Nothing heavy is imported before there is something to do: `after_run` is called at the end of every run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vectorstore.alerting import addresses as places
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from vectorstore.alerting.alert import Alert
    from vectorstore.alerting.telling import Sink

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlertsReport:
    """What a check of alerts found and told.

    Attributes:
        active: what holds now, the worst first.
        fired, resolved: what was told to at least one address by this check; of a dry run what would be.
        addresses: labels of where alerts go.
        notes: what a person should know, such as an address that did not take it.
        dry_run: nothing was sent or written down.
    """

    active: list[Alert]
    fired: list[Alert] = field(default_factory=list)
    resolved: list[Alert] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 while an alert of severity FAIL holds."""
        return int(any(alert.severity == "FAIL" for alert in self.active))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        lists = {name: [each.to_dict() for each in getattr(self, name)] for name in ("active", "fired", "resolved")}
        return lists | {
            "addresses": self.addresses, "notes": self.notes, "dry_run": self.dry_run, "seconds": self.seconds,
        }  # fmt: skip


def alerts(
    settings: Settings,
    *,
    send: bool = True,
    addresses: Sequence[str] | None = None,
    sinks: Mapping[str, Sink] | None = None,
    clock: Callable[[], float] = time.time,
    seconds: float = 10.0,
) -> AlertsReport:
    """Judge now, and tell: every alert once a cool-down while it holds, and once when it is over.

    Args:
        send: else only say what would be told, and change nothing.
        addresses: Apprise addresses; ``None``: those of ``VECTORKEEP_ALERT_URLS``.
        sinks: more places, by name, that are told within this process.
        clock: Unix time.
        seconds: after which sending is given up, whatever the addresses do; the next check tries again.
    """
    from vectorstore.alerting.facts import gather
    from vectorstore.alerting.rules import judge
    from vectorstore.alerting.telling import tell, would_tell
    from vectorstore.runs.history import read
    from vectorstore.runs.recording import settle

    began, sinks = time.monotonic(), sinks or {}
    if not settings.hashes.is_dir():  # nothing ever ran here
        return AlertsReport([], dry_run=not send)
    given = places.from_environment() if addresses is None else tuple(addresses)
    notes: list[str] = []

    def look() -> list[Alert]:
        if send:
            settle(settings, notes.append)
        runs, notes[:] = read(settings.hashes)
        return judge(settings, runs, gather(settings, runs, clock(), notes))

    labels = [*places.labels(given), *sinks]
    if send and labels:
        told = tell(settings, look, given, sinks, clock, seconds)
    else:
        told = would_tell(settings, look(), labels, clock())
    fired, resolved = (told.fired, told.resolved) if labels else ([], [])
    took = time.monotonic() - began
    return AlertsReport(told.active, fired, resolved, labels, [*notes, *told.notes], not send, took)


def try_addresses(settings: Settings, addresses: Sequence[str] | None = None) -> dict[str, str]:
    """Send a test message to every address: label -> empty, or why it did not take it."""
    from vectorstore.alerting.notice import trial_notice
    from vectorstore.alerting.sending import send
    from vectorstore.alerting.telling import SECONDS

    given = places.from_environment() if addresses is None else tuple(addresses)
    sent = send(given, [trial_notice(settings)], [(number, 0) for number in range(len(given))], SECONDS)
    return {label: sent[number, 0].reason for number, label in enumerate(places.labels(given))}


def after_run(settings: Settings, note: Callable[[str], object] = _log.warning) -> None:
    """What every run ends with: alerts are judged and told, if there is an address. It never raises an error.

    Args:
        note: called with what a person should know, such as an address that did not take an alert.
    """
    if not places.from_environment():
        return
    try:
        for each in alerts(settings).notes:
            note(each)
    except Exception as error:  # whatever it is: a run that is done must not fail by it
        note(f"alerts could not be judged: {type(error).__name__}: {error}")
