"""Rows of figures, their factors and verdicts, and the table in the documentation.

``results.json`` keeps every section's rows, so that a section that was not run again keeps what it had.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Sample

RESULTS = REPOSITORY / "benchmarks" / "results.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: written by python -m benchmarks.run -->", "<!-- end of results -->"
SECTIONS = ("unchanged", "scale", "changed", "cold", "memory", "health", "backup", "api", "prefect")
WHO = ("ours", "langchain", "llamaindex")
HEADINGS = ("Vectorkeep", "LangChain `index()`", "LlamaIndex pipeline")


@dataclass(frozen=True)
class Row:
    """One line of the table. A figure of ``None`` was not run.

    ``promise`` bounds our factor (``bound="factor"``), or our figure (``"most"``, ``"least"``). ``factor`` is given
    where it is not our figure by the floor's. ``peers`` is false where they have no part in the work.
    """

    work: str
    measure: str
    floor: float | None = None
    ours: float | None = None
    langchain: float | None = None
    llamaindex: float | None = None
    promise: float | None = None
    bound: str = "factor"
    factor: float | None = None
    peers: bool = True

    def factor_of(self, who: str) -> float | None:
        """A contender's figure by the floor's."""
        if who == "ours" and self.factor is not None:
            return self.factor
        figure = getattr(self, who)
        return figure / self.floor if figure is not None and self.floor else None

    def verdict(self) -> str:
        """Whether the promise holds: PASS, FAIL, not run; empty without a promise."""
        if self.promise is None:
            return ""
        figure = self.factor_of("ours") if self.bound == "factor" else self.ours
        if figure is None:
            return "not run"
        kept = figure >= self.promise if self.bound == "least" else figure <= self.promise
        return "**PASS**" if kept else "**FAIL**"


@dataclass(frozen=True)
class Section:
    """The rows of a section, every sample behind them, and what a reader must know about them."""

    rows: list[Row]
    samples: dict[str, list[Sample]]
    notes: list[str]
    settings: dict[str, Any]


def load() -> dict[str, Any]:
    """The kept results; empty if there are none."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def merge(results: dict[str, Any], name: str, section: Section, conditions: dict[str, str]) -> None:
    """Put one section into the results."""
    results[name] = {
        "date": datetime.now(UTC).date().isoformat(),
        "conditions": conditions,
        "settings": section.settings,
        "notes": section.notes,
        "rows": [{key: _rounded(value) for key, value in asdict(row).items()} for row in section.rows],
        "samples": {
            who: [{key: _rounded(value) for key, value in sample._asdict().items()} for sample in samples]
            for who, samples in section.samples.items()
        },
    }


def save(results: dict[str, Any]) -> None:
    """Write the results and the page's table, each at once or not at all."""
    _replace(RESULTS, json.dumps(results, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    _replace(PAGE, f"{before}{BEGIN}\n{render(results)}\n{END}{after}")


def render(results: dict[str, Any]) -> str:
    """The table, the notes under it and how it was measured, as Markdown."""
    titles = ["work", "measure", "floor"]
    titles += [title for heading in HEADINGS for title in (heading, "×")]
    lines = [_line([*titles, "promised", ""]), _line(["---", "---", *["---:"] * 8, "---"])]
    present = [name for name in SECTIONS if name in results]
    lines += [_line(_cells(Row(**row))) for name in present for row in results[name]["rows"]]
    if notes := [f"- {note}" for name in present for note in results[name]["notes"]]:
        lines += ["", *notes]
    lines += ["", *_provenance(results, present)]
    return "\n".join(lines)


def broken(results: dict[str, Any]) -> bool:
    """Whether any row breaks its promise."""
    rows = (Row(**row) for section in results.values() for row in section["rows"])
    return any(row.verdict() == "**FAIL**" for row in rows)


def conditions(versions: dict[str, str]) -> dict[str, str]:
    """What the figures depend on besides the code."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {_processor()}, {memory:.0f} GB, {platform.system()} {platform.machine()}"
    return {"machine": machine, "Python": platform.python_version(), **versions}


def _provenance(results: dict[str, Any], present: list[str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in present:
        items = results[name]["conditions"].items()
        shown = ", ".join(value if key == "machine" else f"{key} {value}" for key, value in items)
        groups.setdefault(f"{results[name]['date']}, {shown}", []).append(name)
    return [f"Measured ({', '.join(names)}): {shown}." for shown, names in groups.items()]


def _cells(row: Row) -> list[str]:
    cells = [row.work, row.measure, _figure(row.floor) or "—"]
    for who in WHO:
        factor = row.factor_of(who)
        missing = "not run" if row.peers or who == "ours" else "—"
        cells += [_figure(getattr(row, who)) or missing, "" if factor is None else f"{factor:.2f}"]
    sign = {"factor": "≤ {} ×", "most": "≤ {}", "least": "≥ {}"}[row.bound]
    return [*cells, "" if row.promise is None else sign.format(f"{row.promise:g}"), row.verdict()]


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
