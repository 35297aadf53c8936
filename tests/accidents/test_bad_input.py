"""Bad documents, a bad key, a bad provider, end to end: a clear message, nothing lost, no wrong vector in the store."""

from __future__ import annotations

import os
import random
import string
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import ServerProcess
from tests.support.workbench import Workspace, document, paid
from vectorstore.update import update


@pytest.fixture
def workspace(tmp_path: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Twenty good documents, not embedded yet."""
    monkeypatch.setenv("OPENAI_API_KEY", ServerProcess.key)
    workspace = Workspace(tmp_path / "w", server)
    workspace.fill(20)
    return workspace


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_bad_documents(workspace: Workspace, server: ServerProcess) -> None:
    """Each bad document is named with its reason, the good ones go on, and what is mended is embedded."""
    docs = workspace.docs
    workspace.write("latin.md", "# Caf\xe9\n".encode("latin-1"))
    workspace.write("utf16.md", "# Hello\n".encode("utf-16"))
    workspace.write("binary.md", bytes(range(256)) * 10)
    sparse(docs / "sparse.md", 100 << 20)
    (docs / "loop").symlink_to(docs)
    (docs / "itself.md").symlink_to(docs / "itself.md")
    (docs / "nowhere.md").symlink_to(docs / "gone.md")
    with open(os.fsencode(docs) + b"/caf\xe9.md", "w") as file:
        file.write("# name\n")
    os.mkfifo(docs / "pipe.md")
    report = workspace.update(code=1)
    assert report["state"] == "completed"
    reasons = {
        "latin.md": "not UTF-8", "utf16.md": "UTF-16", "binary.md": "binary", "sparse.md": "too large",
        "loop/": "symbolic link", "itself.md": "can't be looked at", "nowhere.md": "link to nothing",
        "caf\\xe9.md": "not valid UTF-8",
    }  # fmt: skip
    assert report["failures"].keys() == reasons.keys()
    assert all(reason in report["failures"][key] for key, reason in reasons.items())
    assert len(workspace.rows()) == 20 == paid(server)
    assert workspace.update(code=1)["failures"].keys() == reasons.keys()
    assert paid(server) == 20
    for path in docs.iterdir():
        if not path.is_dir() or path.is_symlink():
            path.unlink()
    workspace.write("latin.md", "# Caf\xe9\n")
    workspace.update()
    workspace.assert_in_step()
    assert workspace.run("status", code=0).report["failures"] == []


def test_a_good_document_turns_bad(workspace: Workspace) -> None:
    """A document that can't be read any more keeps its vectors: the store is better old than empty."""
    workspace.update()
    before = workspace.rows()
    workspace.write("00/page-00003.md", b"\xff\xff\xff")
    report = workspace.update(code=1)
    assert list(report["failures"]) == ["00/page-00003.md"]
    assert workspace.rows() == before


def test_odd_but_good_documents(workspace: Workspace) -> None:
    """Empty and blank documents, odd names, a byte order mark: all of it is taken."""
    workspace.write("empty.md", b"")
    workspace.write("blank.md", " \n\t\n")
    workspace.write("line\nbreak.md", document("newline"))
    workspace.write("n" * 252 + ".md", document("long name"))
    workspace.write("with # hash#00001.md", document("hash", 3))
    workspace.write("quote'\" ; DROP.md", document("quote"))
    workspace.write("\N{SNOWMAN}/\N{GRINNING FACE}.md", document("snow"))
    report = workspace.update()
    assert "2 documents have no text" in report["notes"][0]
    workspace.assert_in_step()
    assert workspace.update()["kinds"] == {"unchanged": 27}


def test_documents_that_vanish(workspace: Workspace) -> None:
    """A document that goes between plan and read is a failure of this run and gone from the next."""
    paths = [workspace.docs / f"00/page-{n:05d}.md" for n in range(5)]
    report = update(workspace.settings(), on_plan=lambda plan: [path.unlink() for path in paths] and None)
    assert report.exit_code == 1 and len(report.failures) == 5
    assert all("gone since the scan" in reason for reason in report.failures.values())
    workspace.update()
    workspace.assert_in_step()


def test_a_line_of_a_million_tokens(tmp_path: Path) -> None:
    """A line without a space becomes bounded chunks, in bounded time."""
    workspace = Workspace(tmp_path / "w", dimensions=8, chunk_tokens=2000)
    rng = random.Random(1)
    workspace.write("line.md", "".join(rng.choices(string.ascii_letters + string.digits, k=1_500_000)))
    report = workspace.run("update", code=0, timeout=60).report
    assert report["tokens_embedded"] > 900_000
    workspace.assert_in_step()


def test_a_poisonous_document(workspace: Workspace, server: ServerProcess) -> None:
    """A text that the provider refuses for good is reported and tried again; all others go on, paid once."""
    server.control(fail=[{"kind": "refuse", "marker": "Title 7\n"}])
    for runs in (1, 2):
        report = workspace.update(code=1)
        assert list(report["failures"]) == ["00/page-00007.md"]
        assert "HTTP 400" in report["failures"]["00/page-00007.md"]
        failures = workspace.run("status", code=0).report["failures"]
        assert [(each["doc_key"], each["runs"]) for each in failures] == [("00/page-00007.md", runs)]
        assert paid(server) == 19 == len(workspace.rows())
    server.control(reset=True)
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == 1
    assert workspace.run("status", code=0).report["failures"] == []


@pytest.mark.parametrize("kind", ["nan", "inf", "zero"])
def test_one_spoilt_vector(workspace: Workspace, server: ServerProcess, kind: str) -> None:
    """A vector that is none fails its document alone and never gets into cache or store."""
    server.control(fail=[{"kind": kind, "marker": "Title 7\n"}])
    report = workspace.update(code=1)
    assert list(report["failures"]) == ["00/page-00007.md"]
    server.control(reset=True)
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == 1


PROVIDERS: dict[str, tuple[dict[str, Any], str]] = {
    "insufficient quota": ({"kind": "quota"}, "quota"),
    "500 for good": ({"kind": "status", "status": 500}, "500"),
    "HTML for good": ({"kind": "html", "status": 200}, "JSON"),
    "HTML 502 for good": ({"kind": "html", "status": 502}, "502"),
    "cut before": ({"kind": "cut_before"}, "connection lost"),
    "cut in the middle": ({"kind": "cut_mid"}, "connection lost"),
    "too few vectors": ({"kind": "too_few"}, "vectors for"),
    "too many vectors": ({"kind": "too_many"}, "vectors for"),
    "wrong dimension": ({"kind": "dimension"}, "dimensions"),
    "NaN for good": ({"kind": "nan"}, "not finite"),
    "zeros for good": ({"kind": "zero"}, "zero vector"),
    "no data": ({"kind": "no_data"}, "another shape"),
    "429 for good": ({"kind": "status", "status": 429, "retry_after": "1000"}, "1000 s"),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_bad_provider(workspace: Workspace, server: ServerProcess, name: str) -> None:
    """Whatever the provider does for good, the run ends with its reason, and a later run ends in step."""
    fault, said = PROVIDERS[name]
    server.control(fail=[fault])
    result = workspace.run("update", code=1)
    assert said in result.err + result.out
    assert result.report["hint"]
    assert server.state()["requests"] < 60, "it went on long after it was hopeless"
    if (workspace.store / "chroma.sqlite3").exists():
        assert workspace.rows() == {}
    server.control(reset=True)
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == 20


def test_no_key(workspace: Workspace, server: ServerProcess) -> None:
    """Without a key OpenAI is not even asked."""
    result = workspace.run("update", code=2, OPENAI_API_KEY=None, openai_base_url=None)
    assert "OPENAI_API_KEY" in result.err + result.out
    workspace.update()
    workspace.assert_in_step()


def test_wrong_key(workspace: Workspace, server: ServerProcess) -> None:
    """A rejected key ends the run after the requests in flight; the key is in no message and no file."""
    secret = "sk-wrong-key-that-must-not-be-shown"
    workspace.fill(200)
    result = workspace.run("update", code=2, OPENAI_API_KEY=secret)
    assert "401" in result.err + result.out and "OPENAI_API_KEY" in result.err + result.out
    assert secret not in result.err + result.out
    assert server.state()["requests"] <= 2 * workspace.values["concurrency"]
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    workspace.update()
    workspace.assert_in_step()
    assert paid(server) == 200
