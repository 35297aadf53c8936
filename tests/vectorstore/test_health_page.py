"""The page: whole, self-contained, harmless whatever documents are called, and true to the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.health_reports import HOSTILE, STARTED, make_collections, make_report, many_faults
from vectorstore.errors import ConfigurationError
from vectorstore.findings import CHECKS, Action, CollectionHealth, Findings, HealthReport, Severity
from vectorstore.output.chart_parts import BUCKETS, nice_ticks
from vectorstore.output.health_files import write_report
from vectorstore.output.health_history import Run
from vectorstore.output.health_marks import figure, percent
from vectorstore.output.health_page import health_page
from vectorstore.output.health_style import STYLE
from vectorstore.output.health_tables import ROWS

VOID = {"meta", "br", "img", "link", "input", "hr"}
ROOT = Path(__file__).parents[2]
DAY = 86_400


class Page(HTMLParser):
    """What a page holds: tags with attributes, and its text by the innermost tag. Tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def text(self, *tags: str) -> str:
        return " ".join(data for tag, data in self.texts if not tags or tag in tags)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(each == tag and attributes.items() <= found.items() for each, found in self.tags)


def runs(number: int, every: float = DAY, **last: int) -> list[Run]:
    """``number`` checks, the last one of them as ``last`` says."""
    made = [
        Run(STARTED - (number - 1 - n) * every, f"r{n}", "standard", "PASS", 100 + n, 400 + n, 400 + n, 1.0, 4.0,
            44, n % 3, n % 2, 0)
        for n in range(number)
    ]  # fmt: skip
    return [*made[:-1], replace(made[-1], **last)]  # type: ignore[arg-type]


REPORTS = {
    "healthy": make_report(),
    "many": many_faults(),
    "empty": make_report(Findings(), collections=[], way="none", norms={}, pipeline=""),
    "foreign": make_report(collections=[CollectionHealth("theirs", "foreign", stored=7)]),
    "hostile": make_report(
        collections=[CollectionHealth(name, "<b>state", chunks=2, stored=1) for name in HOSTILE],
        norms=dict.fromkeys(HOSTILE, 3), depth=HOSTILE[0], way=HOSTILE[1], run=HOSTILE[2], store=HOSTILE[3],
        source=HOSTILE[4], workspace=HOSTILE[5], pipeline=HOSTILE[0], notes=list(HOSTILE),
    ),
}  # fmt: skip
PAGES = {
    name: health_page(report, [replace(run, depth=HOSTILE[0]) for run in runs(5)]) for name, report in REPORTS.items()
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(name: str) -> None:
    page = Page(PAGES[name])
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    names = {attribute for _, attributes in page.tags for attribute in attributes}
    assert not {each for each in names if each.startswith("on") or each in ("src", "href", "style", "action")}
    assert not re.search(r"url\(|@import|javascript:|https?:", PAGES[name])
    assert page.count("meta", **{"http-equiv": "Content-Security-Policy"}) == 1


@pytest.mark.parametrize("name", PAGES)
def test_pictures_are_well_formed_and_say_what_they_show(name: str) -> None:
    pictures = list(svgs(PAGES[name]))
    assert pictures
    for picture in pictures:
        if picture.get("aria-hidden") == "true":
            continue
        ids = {child.get("id"): child.text for child in picture}
        assert picture.get("role") == "img"
        assert all(ids[key] for key in (picture.get("aria-labelledby") or "").split())


def svgs(text: str) -> Iterator[ElementTree.Element]:
    for match in re.finditer(r"(?s)<svg.*?</svg>", text):
        yield ElementTree.fromstring(match[0])


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_there_once_and_labels_lead_to_them(name: str) -> None:
    page = Page(PAGES[name])
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {key for _, each in page.tags for key in each.get("aria-labelledby", "").split()}
    assert labels <= set(ids)
    assert page.count("h1") == 1
    assert page.count("html", lang="en") == 1


@pytest.mark.parametrize("name", ["many", "hostile"])
def test_hostile_names_are_shown_and_do_nothing(name: str) -> None:
    text = PAGES[name]
    shown = Page(text).text()
    for words in ("<script>alert(1)</script>", "\\u202egpj.exe", "\\x1b[31mred\\x07\\r\\n", "\\udcff", "--><style>"):
        assert words in shown
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert text.count("<style>") == 1
    assert text.encode("utf-8")
    assert max(map(len, shown.split("\n"))) < 20_000
    assert "long " * 100 not in shown


def test_each_collection_has_a_bar_and_a_row() -> None:
    text = health_page(make_report(collections=make_collections(7)))
    page = Page(text)
    names = [f"docs_{n:03d}" for n in range(7)]
    assert [data for tag, data in page.texts if tag == "bdi" and data in names] == names * 2
    assert len(bars(text)) == 14  # chunks and documents


def bars(text: str) -> list[float]:
    """The lengths of all bars of coverage, in percent."""
    found = (picture.find("rect[@class='fill']") for picture in svgs(text) if picture.get("preserveAspectRatio"))
    return [float(rect.get("width", "")) for rect in found if rect is not None]


def test_of_many_collections_the_worst_thirty_have_a_bar() -> None:
    report = make_report(collections=make_collections(341, worst=40))
    text = health_page(report)
    assert len(bars(text)) == 60
    assert bars(text)[0] == 50.0
    assert "and 311 more collections, each at least at 87.5 %" in Page(text).text("td")
    few = health_page(make_report(collections=make_collections(341)))
    assert "and 311 more collections, all at 100 %" in Page(few).text("td")


def test_without_a_look_at_the_source_there_is_no_bar_for_it() -> None:
    collections = [replace(each, source_documents=None) for each in make_collections(4)]
    text = health_page(make_report(collections=collections))
    assert len(bars(text)) == 4
    assert "source’s" not in text


def test_what_is_lacking_is_never_rounded_away() -> None:
    lacking = [replace(make_collections(1)[0], chunks=1_000_000, stored=stored) for stored in (999_999, 1)]
    text = health_page(make_report(collections=[replace(each, name=f"c{n}") for n, each in enumerate(lacking)]))
    assert bars(text)[0] == 1.5
    assert bars(text)[2] == 98.5
    shares = (1.0, 0.99999, 0.875, 0.1, 0.001, 0.0001, 0.0)
    assert [percent(share) for share in shares] == [
        "100 %", "99.9 %", "87.5 %", "10.0 %", "0.1 %", "&lt;0.1 %", "0.0 %",
    ]  # fmt: skip


def test_a_store_of_ten_thousand_collections_makes_no_page_without_end() -> None:
    text = health_page(make_report(collections=make_collections(10_000)))
    assert f"and {10_000 - ROWS:,} more" in Page(text).text("td")
    assert len(text) < 600_000


def test_every_finding_is_there_with_its_cause_and_next_step() -> None:
    report = many_faults()
    page = Page(PAGES["many"])
    assert page.count("article") == 5
    shown = re.sub(r"\s+", " ", page.text())
    for finding in report.findings:
        if finding.severity is not Severity.PASS:
            assert finding.check in page.text("code")
            assert finding.cause in shown
            assert finding.remedy.partition("`")[0].strip() in shown
    assert "vectorkeep health --fix" in page.text("code")
    assert "2 checks failed, 2 warned, 1 noted" in shown


@pytest.mark.parametrize("action", Action)
def test_what_a_fix_would_do_is_said_where_it_does_something(action: Action) -> None:
    for severity in (Severity.INFO, Severity.WARN):
        found = Findings()
        found.add("missing", "m", severity=severity, action=action)
        said = "a fix" in Page(health_page(make_report(found))).text("dt")
        assert said is (severity is Severity.WARN and action is not Action.NONE)


def test_every_passed_check_is_named() -> None:
    assert all(check.title in Page(PAGES["healthy"]).text("li") for check in CHECKS.values())


@pytest.mark.parametrize("level", Severity)
def test_a_severity_is_never_told_by_colour_alone(level: Severity) -> None:
    found = Findings()
    found.add("missing", "m", severity=level)
    page = Page(health_page(make_report(found)))
    assert (level.name in page.text("p")) and page.text("title").startswith(level.name)
    assert page.count("article") == (level is not Severity.PASS)
    assert page.text("span").count(level.name) == (level is not Severity.PASS) + 1 + (3 if level == 0 else 0)


def test_the_last_of_the_history_is_told_in_words_too() -> None:
    text = health_page(make_report(), runs(10, documents=278_778, chunks=900, stored=850, fail=17))
    said = {picture[0].text: picture[1].text for picture in svgs(text) if picture.get("role") == "img"}
    assert said["Documents"] == "10 checks; at the last one: documents 278,778."
    assert said["Chunks"] == "10 checks; at the last one: known 900, stored 850."
    assert said["Findings over time"] == "10 checks: FAIL at most 17; WARN at most 1; INFO at most 2."
    assert said["Lengths of vectors"] == "948 vectors; 0.90: 3, 0.95: 40, 1.00: 900, 10+: 5."


@pytest.mark.parametrize("every", [0.001, 1, 70, 3600, DAY, 40 * DAY])
@pytest.mark.parametrize("number", [2, 3, 31, 1000])
def test_a_history_of_any_length_stays_within_its_picture(number: int, every: float) -> None:
    for picture in svgs(health_page(make_report(), runs(number, every, stored=0, fail=9))):
        if picture.get("role") == "img":
            _, _, width, height = map(float, picture.get("viewBox", "").split())
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points(picture))
            assert len(picture) <= 4 * BUCKETS + 60
            assert_no_label_overlaps(picture)


def points(picture: ElementTree.Element) -> Iterator[tuple[float, float]]:
    for each in picture:
        if each.tag == "polyline":
            for pair in each.get("points", "").split():
                x, y = map(float, pair.split(","))
                yield x, y
        if each.tag == "rect":
            x, y, width, height = (float(each.get(name, "0")) for name in ("x", "y", "width", "height"))
            assert width > 0 and height >= 0
            yield from ((x, y), (x + width, y + height))


def assert_no_label_overlaps(picture: ElementTree.Element) -> None:
    """Labels of one line stand apart; 6.4 units a letter is what 12 px take at most on average."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for each in picture.iter("text"):
        wide = 6.4 * len(each.text or "")
        x = float(each.get("x", "0")) - {"middle": wide / 2, "end": wide}.get(each.get("text-anchor", ""), 0.0)
        rows.setdefault(float(each.get("y", "0")), []).append((x, x + wide))
        assert x >= -1
    for row in rows.values():
        row.sort()
        assert all(left[1] <= right[0] for left, right in pairwise(row)), row


def test_one_check_alone_has_no_history_yet() -> None:
    for history in ([], runs(1), runs(2, every=0)):
        page = Page(health_page(make_report(), history))
        assert "no earlier check on record" in page.text("p")


@pytest.mark.parametrize("bins", [1, 2, 24, 60])
def test_each_length_has_a_column_in_the_order_of_numbers(bins: int) -> None:
    norms = {f"{0.5 + n * 0.05:.2f}": 10**6 if n == 0 else n % 2 for n in reversed(range(bins))}
    picture = next(each for each in svgs(health_page(make_report(norms=norms))) if each[0].text == "Lengths of vectors")
    columns = picture.findall("rect")
    assert [rect[0].text for rect in columns] == [f"{edge}: {norms[edge]:,}" for edge in sorted(norms)]
    assert all((float(rect.get("height", "")) >= 2) == (count > 0) for rect, count in zip(
        columns, (norms[edge] for edge in sorted(norms)), strict=True))  # fmt: skip
    assert_no_label_overlaps(picture)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0, [0, 1]), (0, 3, [0, 1, 2, 3]), (5, 5, [0, 2, 4, 6]), (0, 1000, [0, 500, 1000]),
        (270_000, 279_000, [270_000, 275_000, 280_000]), (998, 1001, [998, 999, 1000, 1001]),
    ],
)  # fmt: skip
def test_axes_have_round_numbers(low: int, high: int, expected: list[int]) -> None:
    assert nice_ticks(low, high) == expected


def test_labels_of_an_axis_differ() -> None:
    for low in (0, 900, 10_000, 999_000, 1_080_000, 123_456_789):
        for span in (1, 30, 700, 5_000, 40_000, 900_000):
            ticks = nice_ticks(low, low + span)
            labels = [figure(tick, ticks[1] - ticks[0]) for tick in ticks]
            assert len(set(labels)) == len(labels), labels


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(dark: bool) -> None:
    """4.5 to 1 for text, 3 to 1 for what pictures show: WCAG 2.1, level AA."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[dark]))
    for front in ("ink", "soft", "fail", "warn", "info", "pass"):
        assert all(contrast(colours[front], colours[back]) >= 4.5 for back in ("card", "page")), front
    assert contrast(colours["ink"], colours["mark"]) >= 4.5
    for level in ("fail", "warn", "info", "pass"):
        assert contrast(colours["on"], colours[level]) >= 4.5, level
    assert contrast(colours["bar"], colours["track"]) >= 3
    assert all(contrast(colours[line], colours["card"]) >= 3 for line in ("bar", "second"))


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_is_written_by_its_suffix(tmp_path: Path, report: HealthReport) -> None:
    write_report(report, tmp_path / "new" / "folder" / "report.json")
    assert json.loads((tmp_path / "new/folder/report.json").read_text()) == report.to_dict()
    (tmp_path / "report.HTML").write_text("an older one")
    write_report(report, tmp_path / "report.HTML", runs(3))
    assert (tmp_path / "report.HTML").read_text(encoding="utf-8") == health_page(report, runs(3))
    assert sorted(os.listdir(tmp_path)) == ["new", "report.HTML"]


def test_a_report_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "latest.json").symlink_to("kept/report.json")
    write_report(make_report(), tmp_path / "latest.json")
    assert (tmp_path / "latest.json").is_symlink()
    assert (tmp_path / "kept" / "report.json").is_file()


@pytest.mark.parametrize("name", ["report", "report.txt", "folder.json", "file/report.json"])
def test_a_report_that_can_not_be_written_is_an_error_with_a_next_step(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigurationError) as caught:
        write_report(make_report(), tmp_path / name)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.json"]


def test_a_report_that_a_full_disk_cuts_leaves_the_old_one(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from tests.support.health_reports import make_report
from vectorstore.errors import ConfigurationError
from vectorstore.output.health_files import write_report
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_report(make_report(), Path({str(tmp_path / "report.html")!r}))
except ConfigurationError as error:
    print(error)
"""
    (tmp_path / "report.html").write_text("the old one")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "can't be written" in done.stdout, done.stderr
    assert (tmp_path / "report.html").read_text() == "the old one"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_figure_that_json_can_not_say_is_left_out(tmp_path: Path) -> None:
    found = Findings()
    found.add("norm", "a length is infinite", value=float("inf"))
    write_report(make_report(found), tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["findings"][0]["value"] is None
