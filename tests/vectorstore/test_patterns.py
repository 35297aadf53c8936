"""Include and exclude patterns."""

from pathlib import Path

import pytest

from vectorstore.documents.patterns import Patterns
from vectorstore.documents.source import FileSource
from vectorstore.errors import ConfigurationError

TREE = [
    "a.md", "a.txt", "drafts/a.md", "guides/a.md", "guides/deep/b.md", "guides/deep/c.MD", "guides/x[1].md",
    "node_modules/p/readme.md", "guides/node_modules/readme.md", "node_modules.md", ".hidden/h.md", "ab.md", "ä.md",
    "new\nline/n\n.md", "{b}.md",
]  # fmt: skip
DOCUMENTS = sorted(key for key in TREE if key.endswith(".md"))


def found(tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...] = ()) -> list[str]:
    for key in TREE:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    return [entry.doc_key for entry in FileSource(tmp_path, include, exclude, 1).scan()]


def under(*prefixes: str) -> list[str]:
    return [key for key in DOCUMENTS if key.startswith(prefixes)]


INCLUDES = [
    (("**/*.md",), DOCUMENTS),
    (("**/*.{md,MD}",), sorted([*DOCUMENTS, "guides/deep/c.MD"])),
    (("**/*.md", "**/*.txt"), sorted([*DOCUMENTS, "a.txt"])),
    (("**",), sorted(TREE)),
    (("**/*",), sorted(TREE)),
    (("*.md",), [key for key in DOCUMENTS if "/" not in key]),
    (("?.md",), ["a.md", "ä.md"]),
    (("[a-c].md",), ["a.md"]),
    (("[!a].md",), ["ä.md"]),
    (("guides/*.md",), ["guides/a.md", "guides/x[1].md"]),
    (("guides/**/*.md",), under("guides/")),
    (("guides/",), sorted([*under("guides/"), "guides/deep/c.MD"])),
    (("guides/**/b.md", "drafts/*"), ["drafts/a.md", "guides/deep/b.md"]),
    (("**/deep/*.md",), ["guides/deep/b.md"]),
    (("**/x[[]1].md",), ["guides/x[1].md"]),
    (("[{]b[}].md",), ["{b}.md"]),
    (("{drafts,guides/deep}/*.md",), ["drafts/a.md", "guides/deep/b.md"]),
    (("{a,{ab,x}}.md",), ["a.md", "ab.md"]),
    (("a.md",), ["a.md"]),
    (("guides?a.md", "guides[!x]a.md", "guides[+-9]a.md"), []),  # no class and no ? matches a slash
]


@pytest.mark.parametrize(("include", "expected"), INCLUDES)
def test_include(tmp_path, include, expected):
    assert found(tmp_path, include) == expected


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        (("drafts/**",), under("drafts/")),
        (("drafts",), under("drafts/")),
        (("drafts/",), under("drafts/")),
        (("node_modules/**",), under("node_modules/")),
        (("**/node_modules/**",), under("node_modules/", "guides/node_modules/")),
        (("**/node_modules",), under("node_modules/", "guides/node_modules/")),
        (("guides/**/*.md",), under("guides/")),
        (("**/a.md", "ab.md"), ["a.md", "ab.md", "drafts/a.md", "guides/a.md"]),
        (("**/.*",), [".hidden/h.md"]),
        (("**",), DOCUMENTS),
        (("nothing/**",), []),
    ],
)
@pytest.mark.parametrize("include", ["**/*.md", "{*,**/*,x}.md"])  # decided by the suffix, and by a regex
def test_exclude(tmp_path, include, exclude, gone):
    assert found(tmp_path, (include,), exclude) == [key for key in DOCUMENTS if key not in gone]


def test_excluded_folders_and_those_no_include_reaches_are_never_opened(tmp_path, monkeypatch):
    import os

    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(os.path.relpath(path, tmp_path)) or scandir(path))
    found(tmp_path, ("guides/**/*.md",), ("**/node_modules",))
    assert opened == [".", "guides", "guides/deep"]


@pytest.mark.parametrize(
    "pattern",
    ["", "/a", "a//b", "../a", "a/./b", "a\\b", "**.md", "a/b**", "[a", "a[/]b", "[z-a]", "{a", "a}", "{a,{b}", "{,}/x",
     "{a,b}" * 11],
)  # fmt: skip
@pytest.mark.parametrize("setting", ["include", "exclude"])
def test_a_pattern_that_means_nothing_is_refused_by_name(pattern, setting):
    given = {"include": ("**",), "exclude": ()} | {setting: (pattern,)}
    with pytest.raises(ConfigurationError) as caught:
        Patterns(**given)
    assert setting in caught.value.message and repr(pattern) in caught.value.message and caught.value.hint


def test_no_include_is_refused():
    with pytest.raises(ConfigurationError, match="no pattern"):
        Patterns((), ())
