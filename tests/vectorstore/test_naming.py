"""Collection names: valid for Chroma, and never one for two folders."""

import hashlib

import chromadb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vectorstore.documents.naming import collection_name
from vectorstore.errors import ConfigurationError

TEMPLATES = ["apple_docs_{folder}", "{folder}", "a.{folder}.b", "1.2.3.{folder}", "{folder}00", "x" * 192 + "{folder}"]


def marked(folder: str, kept: str) -> str:
    return f"{kept}-{hashlib.blake2b(folder.encode(), digest_size=6).hexdigest()}"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("swift/a.md", "docs_swift"),
        ("swift/deep/a.md", "docs_swift"),
        ("Swift-5.9_x/a.md", "docs_Swift-5.9_x"),
        ("a.md", "docs_root"),
        ("root/a.md", f"docs_{marked('root', 'root')}"),
        ("a b/x.md", f"docs_{marked('a b', 'a-b')}"),
        ("日本/x.md", f"docs_{marked('日本', 'folder')}"),
        ("a..b/x.md", f"docs_{marked('a..b', 'a-b')}"),
        (".x/x.md", f"docs_{marked('.x', 'x')}"),
        ("line\n/x.md", f"docs_{marked(f'line{chr(10)}', 'line')}"),
        (marked("a b", "a-b") + "/x.md", f"docs_{marked(marked('a b', 'a-b'), marked('a b', 'a-b'))}"),
    ],
)
def test_golden(key, name):
    assert collection_name("docs_{folder}", key) == name


def test_a_template_without_a_folder_is_one_collection():
    assert collection_name("docs", "a/b.md") == collection_name("docs", "c.md") == "docs"


FOLDER = st.one_of(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=255),
    st.text(alphabet="ab-._ 12é", min_size=1, max_size=6),
    st.from_regex(r"[a-c][- ][0-9a-f]{12}", fullmatch=True),
)


@given(folders=st.lists(FOLDER, unique=True, min_size=2, max_size=20), template=st.sampled_from(TEMPLATES))
@example(folders=["root", "a b", "a-b", "a.b", "a_b", "A-B", "4", "1.2.3.4"], template="{folder}")
def test_different_folders_get_different_names(folders, template):
    keys = [folder + "/x.md" for folder in folders]
    keys += [collection_name("{folder}", key) + "/x.md" for key in keys]  # folders that are called like a collection
    names = {key.partition("/")[0]: collection_name(template, key) for key in [*keys, "x.md"]}
    by_folder = {folder: name for folder, name in names.items() if folder != "x.md"}
    assert len({*by_folder.values(), collection_name(template, "x.md")}) == len(by_folder) + 1


def test_chroma_takes_every_name(tmp_path):
    client = chromadb.PersistentClient(str(tmp_path))
    folders = ["x", "a..b", "-a-", "...", "日本", "root", "10.0.0.1", "4", "a\nb", "é" * 127, "y" * 255, "y" * 200, " "]
    names = {collection_name(template, f"{folder}/x.md") for template in TEMPLATES for folder in folders}
    names |= {collection_name(template, "x.md") for template in TEMPLATES}
    for name in names:
        client.create_collection(name)
    assert client.count_collections() == len(names) == len(TEMPLATES) * (len(folders) + 1)


@pytest.mark.parametrize(
    "template",
    ["", "ab", "docs_{Folder}", "docs_{}", "docs_{folder", "docs}", "docs_{0}", "docs {folder}", "_{folder}",
     "{folder}_", "a..{folder}", "{folder}{folder}", "x" * 201, "é{folder}", "1.2.3.4", "docs\n"],
)  # fmt: skip
def test_a_template_that_chroma_would_refuse_is_refused(template):
    with pytest.raises(ConfigurationError) as caught:
        collection_name(template, "a/b.md")
    assert "{folder}" in caught.value.hint
