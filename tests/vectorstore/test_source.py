"""File sources: what a scan sees, in which order, and what a read vouches for."""

import hashlib
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vectorstore.documents.source import READ_ATTEMPTS, Entry, FileSource
from vectorstore.errors import DocumentError, EmptySource

REPOSITORY = Path(__file__).parents[2]


def make(root: Path, *keys: str, text: str = "text") -> Path:
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def source(root, include=("**/*.md",), exclude=(), max_bytes=1 << 20, **more) -> FileSource:
    return FileSource(root, include, exclude, max_bytes, **more)


def keys(files: FileSource) -> list[str]:
    return [entry.doc_key for entry in files.scan()]


def problems(files: FileSource) -> dict[str, str]:
    return {problem.doc_key: problem.reason for problem in files.problems}


def read(root: Path, key: str, **more):
    return source(root, **more).read(Entry(key, 0, 0, 0))


def refusal(root: Path, key: str, **more) -> str:
    with pytest.raises(DocumentError) as caught:
        read(root, key, **more)
    assert caught.value.doc_key == key
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value.reason


# ---- scan: order and keys

NAME = st.text(alphabet="aZ0-.!é\x7f\u0800\U0001f600\n ", min_size=1, max_size=3).filter(lambda s: s not in {".", ".."})


@settings(max_examples=40, deadline=None)
@given(paths=st.sets(st.lists(NAME, min_size=1, max_size=3).map(tuple), min_size=1, max_size=12))
@example(paths={("a", "b"), ("a-", "b"), ("a.md",), ("a", "é"), ("a!",)})
def test_keys_come_in_the_order_of_sqlite(paths):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for parts in paths:
            try:
                make(root, "/".join(parts))
            except OSError:  # one path's file is another's folder
                continue
        found = keys(source(root, ("**",)))
        assert set(found) == {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        ledger = sqlite3.connect(":memory:")
        ledger.execute("create table d (k text primary key)")
        ledger.executemany("insert into d values (?)", [(key,) for key in found])
        assert found == [row[0] for row in ledger.execute("select k from d order by k")]
        assert found == sorted(found, key=str.encode)


def test_an_entry_holds_what_stat_says(tmp_path):
    make(tmp_path, "a/b.md", text="12345")
    os.utime(tmp_path / "a/b.md", ns=(1, 1_234_567_890_123_456_789))
    (entry,) = source(tmp_path).scan()
    assert isinstance(entry, Entry)
    assert entry == ("a/b.md", 5, 1_234_567_890_123_456_789, (tmp_path / "a/b.md").stat().st_ctime_ns)


def test_keys_do_not_depend_on_how_the_root_is_spelled(tmp_path, monkeypatch):
    make(tmp_path / "real/docs", "a/b.md", "c.md")
    (tmp_path / "link").symlink_to(tmp_path / "real/docs")
    monkeypatch.chdir(tmp_path / "real")
    spellings = ["docs", Path("docs/"), "../real/docs", "./docs/a/..", tmp_path / "link", f"{tmp_path}//real/docs/"]
    sources = [source(root) for root in spellings]
    monkeypatch.chdir("/")  # a relative root stays where it was
    assert [keys(files) for files in sources] == [["a/b.md", "c.md"]] * len(spellings)
    assert sources[0].read(Entry("c.md", 0, 0, 0)).text == "text"


def test_dotdot_behind_a_symbolic_link_is_the_kernels(tmp_path):
    make(tmp_path / "elsewhere", "deep/x.md", "right.md")
    make(tmp_path / "here", "wrong.md")
    (tmp_path / "here/link").symlink_to(tmp_path / "elsewhere/deep")
    assert keys(source(f"{tmp_path}/here/link/..")) == ["deep/x.md", "right.md"]


def test_names_with_newlines_control_characters_and_full_length_round_trip(tmp_path):
    long = "é" * 126 + ".md"  # 255 bytes, all that a name may have
    deep = "/".join(["x" * 250] * 4 + [long])  # a key of 1,259 bytes
    names = ["new\nline.md", "tab\t\x1b[31m.md", long, deep]
    make(tmp_path, *names)
    files = source(tmp_path)
    entries = list(files.scan())
    assert sorted(entry.doc_key for entry in entries) == sorted(names)
    assert {files.read(entry).text for entry in entries} == {"text"}
    assert files.problems == []


def test_a_path_too_long_for_the_kernel_is_a_problem_of_its_folder(tmp_path):
    make(tmp_path, "ok.md")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # 20 x 251 bytes: more than PATH_MAX
        os.mkdir("d" * 250, dir_fd=here)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    files = source(tmp_path)
    assert keys(files) == ["ok.md"]
    ((key, reason),) = problems(files).items()
    assert key.endswith("d/") and "too long" in reason


def test_a_name_that_is_not_utf8_is_a_problem_and_its_folder_goes_on(tmp_path):
    make(tmp_path, "b/ok.md")
    for name in (b"b/bad\xff.md", b"b/bad\xfe.txt"):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write("text")
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"dir\xff"))
    files = source(tmp_path)
    assert keys(files) == ["b/ok.md"]
    assert set(problems(files)) == {r"b/bad\xff.md", r"dir\xff/"}
    assert all(str(problem).encode() for problem in files.problems)


# ---- scan: links and other things that are no files


def test_links_to_files_are_followed_and_links_to_nothing_are_problems(tmp_path):
    outside = make(tmp_path / "outside", "far.txt", text="123")
    root = make(tmp_path / "root", "near.md")
    (root / "far.md").symlink_to(outside / "far.txt")
    (root / "twice.md").symlink_to("near.md")
    (root / "gone.md").symlink_to("nowhere")
    (root / "gone.txt").symlink_to("nowhere")  # not a document anyway
    (root / "self.md").symlink_to("self.md")
    files = source(root)
    assert [(entry.doc_key, entry.size) for entry in files.scan()] == [("far.md", 3), ("near.md", 4), ("twice.md", 4)]
    assert problems(files).keys() == {"gone.md", "self.md"}
    assert problems(files)["gone.md"] == "a symbolic link to nothing"


def test_links_to_folders_are_entered_in_order_and_loops_are_problems(tmp_path):
    shared = make(tmp_path / "shared", "s.md")
    root = make(tmp_path / "root", "a/x.md", "b/y.md", "b-.md")
    (root / "b/shared").symlink_to(shared)
    (root / "a/up").symlink_to(root)
    (root / "a/self").symlink_to(".")
    (root / "a/to-b").symlink_to("../b")
    (root / "b/to-a").symlink_to("../a")
    files = source(root)
    found = keys(files)
    assert found == [
        "a/to-b/shared/s.md", "a/to-b/y.md", "a/x.md", "b-.md", "b/shared/s.md", "b/to-a/x.md", "b/y.md"
    ]  # fmt: skip
    loops = {"a/self/", "a/to-b/to-a/", "a/up/", "b/to-a/self/", "b/to-a/to-b/", "b/to-a/up/"}
    assert problems(files).keys() == loops
    assert all("lies in" in reason for reason in problems(files).values())


def test_pipes_sockets_and_devices_are_no_documents(tmp_path):
    make(tmp_path, "a.md")
    os.mkfifo(tmp_path / "pipe.md")
    os.mknod(tmp_path / "socket.md", stat.S_IFSOCK | 0o600)
    (tmp_path / "device.md").symlink_to("/dev/zero")
    (tmp_path / "link.md").symlink_to("pipe.md")
    files = source(tmp_path)
    assert keys(files) == ["a.md"] and files.problems == []


def test_version_control_is_never_entered_and_other_hidden_names_are(tmp_path):
    make(tmp_path, ".git/a.md", "sub/.hg/a.md", ".svn/a.md", ".github/a.md", ".hidden.md", "git/.gitkeep.md")
    assert keys(source(tmp_path)) == [".github/a.md", ".hidden.md", "git/.gitkeep.md"]


# ---- scan: what goes away, what can't be read


def test_what_vanishes_during_the_scan_is_not_there(tmp_path):
    make(tmp_path, "a.md", "b.md", "c/d.md", "e.md")
    files = source(tmp_path)
    scan = files.scan()
    assert next(scan).doc_key == "a.md"
    (tmp_path / "b.md").unlink()
    (tmp_path / "c/d.md").unlink()
    (tmp_path / "c").rmdir()
    assert [entry.doc_key for entry in scan] == ["e.md"] and files.problems == []


def test_a_root_that_goes_away_or_is_exchanged_during_the_scan_is_an_error(tmp_path):
    root = make(tmp_path / "root", "a.md", "b/c.md")
    scan = source(root).scan()
    next(scan)
    root.rename(tmp_path / "old")
    with pytest.raises(EmptySource, match="can't be opened"):
        list(scan)
    make(root, "a.md", "b/c.md")
    scan = source(root).scan()
    next(scan)
    root.rename(tmp_path / "old2")
    make(root, "other.md")
    with pytest.raises(EmptySource, match="exchanged"):
        list(scan)


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file"), ("file", "Not a directory")])
def test_a_root_that_is_no_folder_says_so(tmp_path, name, reason):
    make(tmp_path, "file")
    with pytest.raises(EmptySource, match=reason) as caught:
        list(source(tmp_path / name).scan())
    assert "source" in caught.value.hint and str(tmp_path / name) in str(caught.value)


def test_an_empty_root_is_for_the_planner_to_judge(tmp_path):
    assert keys(source(tmp_path)) == []


def test_missing_rights_are_problems_and_a_root_without_them_an_error():
    """In a process without root's rights, for which no file is unreadable."""
    script = """
        import os, sys
        from vectorstore.errors import *
        from vectorstore.documents.source import *
        import hashlib
        root = sys.argv[1]
        for name in ("a", "locked", "noexec"):
            os.makedirs(f"{root}/{name}")
            open(f"{root}/{name}/x.md", "w").write("text")
        if os.geteuid() == 0:
            os.chown(f"{root}/a/x.md", 0, 0)
        os.chmod(f"{root}/a/x.md", 0)
        os.chmod(f"{root}/locked", 0)
        os.chmod(f"{root}/noexec", 0o444)
        os.chmod(root, 0o755)
        if os.geteuid() == 0:
            os.seteuid(65534)
        files = FileSource(root, ("**/*.md",), (), 100)
        print([e.doc_key for e in files.scan()], sorted((p.doc_key, p.reason) for p in files.problems))
        try:
            files.read(Entry("a/x.md", 0, 0, 0))
        except DocumentError as error:
            print(error)
        try:
            list(FileSource(root + "/locked", ("**",), (), 100).scan())
        except EmptySource as error:
            print(error.message)
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), f"{folder}/root"],
            capture_output=True, text=True, cwd=REPOSITORY, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "['a/x.md'] [('locked/', \"the folder can't be listed: Permission denied\"), "
        "('noexec/x.md', \"can't be looked at: Permission denied\")]"
    )
    assert lines[1] == "'a/x.md': it can't be read: Permission denied"
    assert lines[2].endswith("/locked can't be listed: Permission denied")


def test_memory_follows_a_listing_and_not_the_corpus(tmp_path):
    def peak(folders: int) -> int:
        root = make(tmp_path / str(folders), *(f"f{f:03}/{n:03}.md" for f in range(folders) for n in range(100)))
        tracemalloc.start()
        try:
            assert sum(1 for _ in source(root).scan()) == folders * 100
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(30) < 1.3 * peak(3)


def test_importing_it_is_cheap():
    script = "import sys, vectorstore.documents.source; print(sorted({'dataclasses', 'inspect', 'hashlib', 'chromadb', 'numpy'} & set(sys.modules)))"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


# ---- read


def test_a_document_is_what_was_read(tmp_path):
    raw = b"\xef\xbb\xbf# T\r\n\r\nline\rend \xc3\xa9\n"
    (tmp_path / "a.md").write_bytes(raw)
    os.utime(tmp_path / "a.md", ns=(5, 5))
    found = (tmp_path / "a.md").stat()
    document = read(tmp_path, "a.md", clock_ns=lambda: found.st_ctime_ns + 2_000_000_001)
    assert document.text == "# T\n\nline\nend é\n"
    assert document.content_hash == hashlib.blake2b(raw, digest_size=16).digest()
    assert document.entry == Entry("a.md", len(raw), 5, found.st_ctime_ns)
    assert document.racy is False


@pytest.mark.parametrize(("age_ns", "racy"), [(2_000_000_001, False), (1_999_999_999, True), (-5_000_000_000, True)])
@pytest.mark.parametrize("by", ["mtime", "ctime"])
def test_a_file_changed_within_two_seconds_or_in_the_future_is_racy(tmp_path, age_ns, racy, by):
    make(tmp_path, "a.md")
    ctime = (tmp_path / "a.md").stat().st_ctime_ns
    mtime = 0 if by == "ctime" else ctime + 10**12  # the older of the two does not matter
    os.utime(tmp_path / "a.md", ns=(mtime, mtime))
    newest = max(mtime, (tmp_path / "a.md").stat().st_ctime_ns)
    assert read(tmp_path, "a.md", clock_ns=lambda: newest + age_ns).racy is racy


BAD = {
    "latin1": (b"caf\xe9 au lait", "it is not UTF-8: byte 0xe9 at offset 3"),
    "cut off": (b"caf\xc3", "it is not UTF-8: byte 0xc3 at offset 3"),
    "surrogate": (b"\xed\xa0\x80", "it is not UTF-8: byte 0xed at offset 0"),
    "utf-16": ("text".encode("utf-16"), "it is not UTF-8 but UTF-16; save it as UTF-8"),
    "binary": (b"PNG\x00\xff", "it is binary: a NUL byte at offset 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_says_why(tmp_path, case):
    raw, reason = BAD[case]
    (tmp_path / "a.md").write_bytes(raw)
    assert refusal(tmp_path, "a.md") == reason


def test_a_document_too_large_is_refused_unread(tmp_path, monkeypatch):
    with open(tmp_path / "a.md", "wb") as file:
        file.truncate(100_000_000)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    reason = refusal(tmp_path, "a.md", max_bytes=50_000_000)
    assert reason == "it is too large: 100,000,000 bytes, 50,000,000 are allowed"


def test_a_document_of_just_the_limit_is_read(tmp_path):
    make(tmp_path, "a.md", text="12345")
    assert read(tmp_path, "a.md", max_bytes=5).text == "12345"
    assert "too large" in refusal(tmp_path, "a.md", max_bytes=4)


@pytest.mark.timeout(20)
def test_what_took_a_files_place_can_not_block_a_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "endless.md").symlink_to("/dev/zero")
    assert {refusal(tmp_path, f"{name}.md") for name in ("pipe", "folder", "endless")} == {"it is not a regular file"}


def test_a_vanished_document_says_so(tmp_path):
    assert refusal(tmp_path, "a.md") == "it is gone since the scan"


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that opens and can't be read")
def test_an_unreadable_document_says_why(tmp_path):
    (tmp_path / "a.md").symlink_to("/proc/self/mem")
    assert refusal(tmp_path, "a.md") == "it can't be read: Input/output error"


class Meddler:
    """Changes the file after each read of it, for a number of reads."""

    def __init__(self, path: Path, change, times: int) -> None:
        self.path, self.change, self.left, self.real = path, change, times, os.read

    def __call__(self, handle: int, size: int) -> bytes:
        data = self.real(handle, size)
        if self.left:
            self.left -= 1
            self.change(self.path)
        return data


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("more")


def shorten(path: Path) -> None:
    os.truncate(path, max(0, path.stat().st_size - 1))


def same_size(path: Path) -> None:
    before = path.stat()
    with open(path, "r+") as file:
        file.write("X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # only the ctime tells


@pytest.mark.parametrize("change", [append, shorten, same_size])
def test_a_document_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch, change):
    path = make(tmp_path, "a.md", text="text" * 50) / "a.md"
    os.utime(path, ns=(5, 5))
    monkeypatch.setattr(os, "read", Meddler(path, change, times=1))
    document = read(tmp_path, "a.md")
    assert document.text == path.read_text()
    assert document.entry.size == path.stat().st_size and document.entry.ctime_ns == path.stat().st_ctime_ns


@pytest.mark.parametrize("change", [append, shorten, same_size])
def test_a_document_that_never_rests_is_given_up(tmp_path, monkeypatch, change):
    path = make(tmp_path, "a.md", text="text" * 50) / "a.md"
    meddler = Meddler(path, change, times=10**6)
    monkeypatch.setattr(os, "read", meddler)
    assert refusal(tmp_path, "a.md") == "it changes while it is read"
    assert 10**6 - meddler.left <= 2 * READ_ATTEMPTS


def test_a_document_that_vanishes_while_it_is_read_is_not_taken_over(tmp_path, monkeypatch):
    path = make(tmp_path, "a.md") / "a.md"
    monkeypatch.setattr(os, "read", Meddler(path, Path.unlink, times=1))
    assert refusal(tmp_path, "a.md") == "it is gone since the scan"


def test_reading_leaves_no_file_open(tmp_path):
    make(tmp_path, "a.md", "b.md", text="\0")
    before = len(os.listdir("/proc/self/fd"))
    for key in ("a.md", "b.md", "gone.md"):
        refusal(tmp_path, key)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("raw", [b"", " \n\t\u00a0\r\n".encode(), b"\xef\xbb\xbf"])
def test_a_document_of_white_space_has_no_text(tmp_path, raw):
    (tmp_path / "a.md").write_bytes(raw)
    source = FileSource(tmp_path, ("**/*.md",), (), 1_000_000)
    (entry,) = source.scan()
    assert source.read(entry).text.strip() == ""
