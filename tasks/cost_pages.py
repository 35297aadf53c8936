"""What was spent, in Prefect's UI."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Mapping

from tasks.artifacts import publish_page
from tasks.pages import facts, page, table
from vectorstore.budget import spending
from vectorstore.errors import VectorkeepError
from vectorstore.settings import Settings

COSTS = "vectorkeep-costs"
DAYS = 31
_BAR = 20  # characters of the dearest day


def publish_costs(settings: Settings, cost_usd: float) -> None:
    """The page of costs after a run that cost so much; none where nothing was ever spent."""
    with contextlib.suppress(VectorkeepError, sqlite3.Error):  # a ledger that can't be read: the health check tells
        spent = spending(settings.path(settings.spend_ledger))
        if any(spent.values()):
            publish_page(costs_page(settings, spent, cost_usd, time.time()), COSTS, "what was spent, by UTC day")


def costs_page(settings: Settings, spent: Mapping[str, float], cost_usd: float, now: float) -> str:
    """Markdown.

    Args:
        spent: dollars by UTC day, the newest last.
        cost_usd: of the run that has just ended.
        now: Unix time.
    """
    today = spent.get(time.strftime("%Y-%m-%d", time.gmtime(now)), 0.0)
    days = [(day, usd) for day, usd in list(spent.items())[-DAYS:] if usd]
    most = max((usd for _, usd in days), default=0.0)
    rows = ([day, f"{usd:.6f}", "█" * max(1, round(_BAR * usd / most))] for day, usd in reversed(days))
    return page(
        f"Costs: ${today:.6f} today, ${sum(usd for _, usd in days):.6f} on the last {len(days):,} days with any",
        facts({
            "this run": f"${cost_usd:.6f}",
            "cap of a run": _cap(settings.max_cost_usd),
            "cap of a day": _cap(settings.max_cost_usd_per_day),
            "in all": f"${sum(spent.values()):.6f}",
        }),
        table(["UTC day", "USD", ""], rows),
    )  # fmt: skip


def _cap(usd: float | None) -> str:
    return "none" if usd is None else f"${usd:.2f}"
