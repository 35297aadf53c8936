"""The benchmarks' own parts: the same work for all, and a table that says what was measured."""

import os
import sys
import tarfile
from hashlib import sha256

import pytest

from benchmarks import api, backups, corpus, floors, health, measure, report
from benchmarks.measure import Sample
from benchmarks.report import Row, Section
from benchmarks.sections import Options


def digest(root):
    return sha256(repr(list(corpus.documents(str(root)))).encode()).hexdigest()


def test_the_same_seed_writes_the_same_corpus_and_changes(tmp_path):
    """Two machines measure the same work."""
    made = [corpus.make(str(tmp_path / name), 200) for name in "ab"]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    mutations = [corpus.mutate(one, changed=0.05, deleted=0.02, added=0.01) for one in made]
    assert mutations[0] == mutations[1]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_mutation_touches_what_it_says(tmp_path):
    made = corpus.make(str(tmp_path / "corpus"), 200)
    before = dict(corpus.documents(made.root))
    mutation = corpus.mutate(made, changed=0.05, deleted=0.02, added=0.01)
    after = dict(corpus.documents(made.root))
    assert set(before) - set(after) == set(mutation.deleted) and len(mutation.deleted) == 4
    assert set(after) - set(before) == set(mutation.added) and len(mutation.added) == 2
    assert {key for key in before.keys() & after.keys() if before[key] != after[key]} == set(mutation.changed)


@pytest.mark.parametrize(("sizes", "low", "high"), [("note", 100, 320), ("chunk", 640, 1000)])
def test_every_page_is_one_chunk_and_unlike_the_others(tmp_path, sizes, low, high):
    made = corpus.make(str(tmp_path / "corpus"), 300, sizes=sizes)
    texts = [text for _, text in corpus.documents(made.root)]
    assert len(set(texts)) == 300
    assert all(low <= len(text.encode()) <= high for text in texts)


def test_reference_pages_are_as_long_as_the_reference_users(tmp_path):
    made = corpus.make(str(tmp_path / "corpus"), 3000, sizes="reference")
    mean = sum(len(text.encode()) for _, text in corpus.documents(made.root)) / 3000
    assert mean == pytest.approx(corpus.REFERENCE_MEAN, rel=0.1)


def test_the_scan_floors_see_every_file(tmp_path):
    made = corpus.make(str(tmp_path / "corpus"), 50)
    assert floors.scan(made.root) == floors.read(made.root) == 50


def test_a_measured_process_includes_the_children_it_waited_for():
    burn = "sum(i * i for i in range(3_000_000))"
    alone = measure.run([sys.executable, "-c", burn]).sample
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert measure.run([sys.executable, "-c", child]).sample.cpu_s > 0.7 * alone.cpu_s


def test_settings_of_the_caller_do_not_reach_the_measured_process(monkeypatch):
    monkeypatch.setenv("VECTORKEEP_PAUSED", "true")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert not {"VECTORKEEP_PAUSED", "OPENAI_API_KEY"} & measure.environment({"A": "b"}).keys()


def test_a_failing_process_stops_the_benchmark_with_its_words():
    with pytest.raises(measure.BenchmarkFailed, match=r"exit code 3(.|\n)*no store here"):
        measure.run([sys.executable, "-c", "import sys; print('no store here', file=sys.stderr); sys.exit(3)"])


def test_contenders_take_turns():
    order = []

    def once(name):
        return lambda: order.append(name) or Sample(1, 1, 1)

    measure.alternate({name: once(name) for name in "abc"}, {"a": 2, "b": 2, "c": 1})
    assert order == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("w", "m", 1.0, 2.9, promise=3), "**PASS**"),
        (Row("w", "m", 1.0, 3.1, promise=3), "**FAIL**"),
        (Row("w", "m", 1.0, None, promise=3), "not run"),
        (Row("w", "m", 1.0, 3.1), ""),
        (Row("w", "m", 1.0, 301, promise=300, bound="most"), "**FAIL**"),
        (Row("w", "m", None, 97, promise=90, bound="least"), "**PASS**"),
        (Row("w", "m", None, 500, promise=1.3, factor=1.2), "**PASS**"),
    ],
)
def test_verdicts(row, verdict):
    assert row.verdict() == verdict


def test_overlap_of_api_and_store():
    """60 s of waiting and 20 s of storing, done in 60 s: the store's time was hidden."""
    counted = {"first_s": 10.0, "last_s": 70.0, "tokens": 950_000, "requests": 400, "refused": 2}
    used, refused, overlap = api._rows(counted, Sample(25, 60, 300), Sample(20, 20, 300))
    assert (used.ours, refused.ours, overlap.ours) == pytest.approx((95.0, 0.5, 1.0))
    assert (used.verdict(), refused.verdict()) == ("**PASS**", "**PASS**")


def test_the_floors_of_health_checks_read_every_row(tmp_path):
    made = corpus.make(str(tmp_path / "corpus"), 30)
    rows, store = str(tmp_path / "rows"), str(tmp_path / "store")
    assert ask_floor("prepare", made.root, rows, "8") == ask_floor("upsert", rows, store) == "30"
    assert ask_floor("ids", store) == ask_floor("get", store) == "30"
    assert float(ask_floor("integrity", store)) < 1


def ask_floor(*words):
    return measure.run([sys.executable, "-m", "benchmarks.floors", *words]).output.strip()


def test_health_is_measured_without_the_check_of_sqlite():
    """Three seconds of 5.5 are SQLite's own; a quick check has none of it."""
    cpu = {"quick": 0.5, "standard": 4.0, "deep": 5.5, "ids": 0.25, "get": 25.0}
    samples = {who: [Sample(figure, 1, 1)] for who, figure in cpu.items()}
    quick, standard, deep = health._speed_rows(100_000, samples, 3.0)
    assert (quick.factor_of("ours"), standard.ours, deep.factor_of("ours")) == pytest.approx((2.0, 1.0, 0.1))
    assert (quick.verdict(), deep.verdict()) == ("**PASS**", "**PASS**")


def test_memory_of_health_is_told_from_that_of_the_id_map():
    peaks = {"deep 10": 100, "labels 10": 30, "deep 100": 140, "labels 100": 60}
    samples = {who: [Sample(1, 1, peak)] for who, peak in peaks.items()}
    small, large, grown = health._memory_rows([33, 330], (10, 100), samples)
    assert (small.floor, small.ours, large.floor, large.ours) == (30, 100, 60, 140)
    assert (grown.ours, grown.factor) == pytest.approx((110, 1.1))


def contents(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


@pytest.mark.slow
def test_floor_and_part_archive_what_the_command_does(tmp_path):
    with backups._Store(Options(str(tmp_path)), 5, 8) as store:
        store.backup("full")
        store._part("write")
        store._floor("pack", "ours", "hashed")
        [archive] = store._archives("full")
        whole, part, floor = (
            contents(path) for path in (archive, store._bench.path("part"), store._bench.path("floor"))
        )
        assert whole.keys() == part.keys() == floor.keys() | {"manifest.json"}
        assert all(whole[name] == part[name] == floor[name] for name in floor if name.startswith("chroma/"))


def test_a_backup_is_judged_by_its_parts():
    """Writing is judged by the stream, verifying by our writing, unpacking by tarfile; whole commands are only told."""
    cpu = {
        "pack": 2.0, "pack hashed": 2.5, "write": 2.6, "backup": 5.0, "verify": 1.3,
        "unpack": 1.0, "unpack hashed": 1.25, "extract": 1.5, "restore": 20.0,
        "portable backup": 4.0, "portable restore": 90.0,
    }  # fmt: skip
    rows = backups._speed_rows("work", {who: Sample(figure, 1, 1) for who, figure in cpu.items()})
    assert [row.factor_of("ours") for row in rows] == pytest.approx(
        [1.3, 1.04, 2.5, 0.5, 0.26, 1.5, 1.2, 20.0, None, None]
    )
    assert [row.verdict() for row in rows] == ["**PASS**", "", "", "**PASS**", "", "**FAIL**", "", "", "", ""]


@pytest.mark.parametrize(
    ("dimension", "portable", "verdict"), [(384, 24, "**PASS**"), (384, 26, "**FAIL**"), (1536, 26, "")]
)
def test_what_a_portable_backup_saves_is_promised_at_384_dimensions(dimension, portable, verdict):
    *_, saved = backups._size_rows("work", {"store": 100.0, "full": 70.0, "portable": portable}, dimension)
    assert (saved.ours, saved.verdict()) == (pytest.approx(100 - portable), verdict)


def test_the_memory_of_full_backups_is_bounded_at_both_sizes():
    peaks = [dict.fromkeys(("backup", "verify", "portable backup"), Sample(1, 1, peak)) for peak in (50, 250)]
    rows = backups._memory_rows((10, 100), *peaks)
    assert [row.ours for row in rows] == [50, 250] * 3
    assert [row.verdict() for row in rows] == ["**PASS**", "**FAIL**"] * 2 + ["", ""]


def test_a_section_that_is_not_run_again_keeps_its_rows(tmp_path, monkeypatch):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\nan earlier table\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    for name, figure in (("cold", 1.5), ("unchanged", 2.5), ("unchanged", 2.75)):
        results = report.load()
        section = Section([Row(f"work {name}", "CPU s", 1.0, figure)], {"ours": [Sample(figure, 1, 1)]}, [], {})
        report.merge(results, name, section, {"machine": "a machine"})
        report.save(results)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "work cold | CPU s | 1 | 1.5 |" in text and "2.75" in text and "2.5 |" not in text and "earlier" not in text
    assert sorted(os.listdir(tmp_path)) == ["benchmarks.md", "results.json"]
