"""The task of the report flow: what happened, as a page in the UI and as a file."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from tasks.artifacts import publish_page
from tasks.pages import escaped
from tasks.runs import HOUR, TRIED_AGAIN, stopped_by
from vectorstore.errors import VectorkeepError
from vectorstore.output.health_files import write_text
from vectorstore.report import Report, report
from vectorstore.runs.judging import Series
from vectorstore.runs.metrics_server import HOST
from vectorstore.runs.report_charts import day_chart, line_chart
from vectorstore.runs.report_page import report_page
from vectorstore.runs.report_text import report_markdown, report_text
from vectorstore.runs.words import TITLES, verdict
from vectorstore.settings import Settings, load_settings

REPORT = "vectorkeep-report"
FOLDER = "reports"  # of the workspace
_STYLE = (  # a picture in Markdown stands alone: no style sheet reaches it, and it is read on light and on dark
    "svg{background:#fff;font:11px sans-serif}text{fill:#525d6a}.strong{fill:#18212c}.grid{stroke:#d5dbe2}"
    ".first{stroke:#2c6cb0;fill:none;stroke-width:2.5}.dot-first,.fill{fill:#2c6cb0}"
    ".second{stroke:#b0540a;fill:none;stroke-width:2.5;stroke-dasharray:2 5;stroke-linecap:round}"
)


@task(name="report", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=HOUR, **TRIED_AGAIN)
def write_report(workspace: str, days: int) -> State[Any]:
    """Tell what happened; a report of bad news is a report that went well."""
    try:
        settings = load_settings(workspace or None)
        found = report(settings, days=days)
        path = _file(settings, found)
        write_text(path, report_page(found))
    except VectorkeepError as error:
        return stopped_by(error)
    get_run_logger().info(report_text(found))
    publish_page(
        report_markdown_page(found, path, settings.metrics_port), REPORT, "what happened, and where figures go"
    )
    severity, sentence = verdict(found)
    return Completed(message=f"{severity.name}: {sentence}; {path}", data=found)


def report_markdown_page(found: Report, path: Path, port: int) -> str:
    """Markdown, with its pictures inside, and where the page is for a browser; ``port``: of serve's metrics, or 0."""
    pictures = [_picture(each) for each in found.series if len({at for at, _ in each.points}) > 1]
    whole = f"The whole report, for a browser on the worker's machine: `{path.as_uri()}`"
    if port:
        whole += f", and while `vectorkeep serve` runs there, [as of now](http://{HOST}:{port}/report)"
    return "\n\n".join([report_markdown(found).rstrip(), *pictures, whole]) + "\n"


def run_name() -> str:
    """A run's name in lists: how far it looks back."""
    return f"report {flow_run.parameters.get('days', 30)} days"


def _file(settings: Settings, found: Report) -> Path:
    folder = settings.workspace / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise VectorkeepError(f"can't make {folder}: {error.strerror}", "see who may write in the workspace") from None
    return folder / time.strftime("report_%Y%m%d.html", time.gmtime(found.created))


def _picture(series: Series) -> str:
    chart = day_chart(series) if series.name == "cost" else line_chart(series)
    alone = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="430" height="200" ', 1)
    head, bracket, rest = alone.partition(">")
    data = base64.b64encode(f"{head}{bracket}<style>{_STYLE}</style>{rest}".encode()).decode()
    title = TITLES[series.name]
    return f"**{escaped(title)}**\n\n![{escaped(title)}](data:image/svg+xml;base64,{data})"
