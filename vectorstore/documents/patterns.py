"""Which files of a folder are documents: simple globs, relative to the source root.

====================  ==========================================================================
``*``, ``?``          any run of characters, one character; never a ``/``
``[a-z]``, ``[!a]``   one character of a class, or not of it; ``[*]`` is a literal star
``**``                any number of folders, none included; a whole part of the path: ``a/**/b``
``{md,txt}``          either
``drafts/``           everything in that folder, the same as ``drafts/**``
====================  ==========================================================================

Letter case counts, hidden files are files like any other, and nothing is special about ``.gitignore``. An exclude
that matches a folder leaves out everything in it, and the scan never enters it: ``**/node_modules`` and
``**/node_modules/**`` say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise

from vectorstore.errors import ConfigurationError

MAX_ALTERNATIVES = 1000  # that the braces of one pattern may stand for
_MAGIC = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|\[|[^*?\[]+")


class Patterns:
    """Compiled include and exclude patterns.

    Attributes:
        suffixes: what a document's name must end with; ``("",)`` when that says nothing.
        matches: the rest of the question, asked with a document's key; ``None`` when ``suffixes`` decides alone.

    Raises:
        ConfigurationError: a pattern that can't mean anything; it is named, with a remedy.
    """

    def __init__(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        if not include:
            raise ConfigurationError("include: no pattern, so no document", 'give at least one, such as "**/*.md"')
        includes = [part for pattern in include for part in _parts("include", pattern)]
        excludes = [part for pattern in exclude for part in _parts("exclude", pattern)]
        suffixes = [_suffix(part) for part in includes]
        simple = all(suffix is not None for suffix in suffixes)
        self.suffixes = tuple(suffix or "" for suffix in suffixes) if simple else ("",)
        self.matches = _matcher(None if simple else _compiled(includes), _compiled(excludes) if excludes else None)
        self._pruned = _compiled([_folder(part) for part in excludes]) if excludes else None
        prefixes = {_literal_folder(part) for part in includes}
        self._prefixes = () if "" in prefixes else tuple(sorted(prefixes))

    def enters(self, folder: str) -> bool:
        """Whether a folder (key with a trailing slash) can hold documents."""
        if self._pruned and self._pruned(folder[:-1]):
            return False
        return not self._prefixes or any(p.startswith(folder) or folder.startswith(p) for p in self._prefixes)


def path_matcher(setting: str, patterns: Iterable[str]) -> Callable[[str], object]:
    """Whether a document's key, or a folder that it lies in, is what one of the patterns names.

    Raises:
        ConfigurationError: a pattern that can't mean anything; it and the setting are named.
    """
    parts = [part for pattern in patterns for part in _parts(setting, pattern)]
    below = [[*folder, "**"] for folder in map(_folder, parts)]
    return _compiled(parts + below) if parts else lambda _key: None


def _matcher(
    include: Callable[[str], object] | None, exclude: Callable[[str], object] | None
) -> Callable[[str], object] | None:
    if exclude is None:
        return include
    if include is None:
        return lambda key: not exclude(key)
    return lambda key: include(key) and not exclude(key)


def _parts(setting: str, pattern: str) -> list[list[str]]:
    """A pattern without its braces, as lists of path parts."""
    found = []
    for plain in _expand(setting, pattern, pattern):
        if plain.endswith("/"):
            plain += "**"
        parts = plain.split("/")
        if "\\" in plain:
            raise _invalid(setting, pattern, "holds a backslash", "write / between folders, and [*] for a literal star")
        if not all(parts) or "." in parts or ".." in parts:
            raise _invalid(setting, pattern, "is not relative to the source root", 'write it like "guides/**/*.md"')
        if any("**" in part and part != "**" for part in parts):
            raise _invalid(setting, pattern, "** must stand alone between slashes", 'write "**/*.md", not "**.md"')
        try:
            if _suffix(parts) is None:
                re.compile(_regex(parts))
        except (re.error, ValueError) as error:
            raise _invalid(setting, pattern, str(error), "write [[] for a literal bracket") from None
        found.append(parts)
    return found


def _invalid(setting: str, pattern: str, why: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"{setting}: pattern {pattern!r} {why}", hint)


def _expand(setting: str, pattern: str, text: str) -> list[str]:
    """All texts that the braces of ``text`` stand for."""
    if "{" not in text and "}" not in text:
        return [text]
    done: list[str] = []
    todo = [text]
    while todo:
        if len(done) + len(todo) > MAX_ALTERNATIVES:
            raise _invalid(setting, pattern, f"has more than {MAX_ALTERNATIVES} alternatives", "split it")
        current = todo.pop()
        span = _braces(current)
        if span is None:
            done.append(current)
            continue
        start, commas, end = span
        if end < 0:
            raise _invalid(setting, pattern, "has an unbalanced brace", "write [{] for a literal brace")
        edges = [start, *commas, end]
        todo += [current[:start] + current[a + 1 : b] + current[end + 1 :] for a, b in pairwise(edges)]
    return done


def _braces(text: str) -> tuple[int, list[int], int] | None:
    """The first brace outside of a class, the commas of its level, and the brace that closes it (-1: none does)."""
    commas: list[int] = []
    start, depth = -1, 0
    for token in re.finditer(r"\[!?\]?[^\]]*\]|[{},]", text):
        mark, at = token.group(), token.start()
        if mark == "{":
            start, depth = (at if depth == 0 else start), depth + 1
        elif mark == "}":
            depth -= 1
            if depth <= 0:
                return (start, commas, at) if depth == 0 else (at, [], -1)
        elif mark == "," and depth == 1:
            commas.append(at)
    return None if start < 0 else (start, commas, -1)


def _regex(parts: list[str]) -> str:
    last = len(parts) - 1
    out = ""
    for n, part in enumerate(parts):
        if part != "**":
            out += "".join(map(_token, _TOKEN.findall(part))) + ("/" if n < last else "")
        elif n < last:
            out += "(?:[^/]+/)*"
        else:
            out += ".+"
    return out


def _token(token: str) -> str:
    if token[0] == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if token == "[":
        raise ValueError("has a [ that is never closed")
    if token[0] != "[":
        return re.escape(token)
    body = token[2:-1] if token[1] == "!" else token[1:-1]
    body = "".join(char if char == "-" else re.escape(char) for char in body)
    return f"(?!/)[{'^' if token[1] == '!' else ''}{body}]"


def _compiled(patterns: list[list[str]]) -> Callable[[str], object]:
    return re.compile("|".join(f"(?:{_regex(parts)})" for parts in patterns), re.DOTALL).fullmatch


def _suffix(parts: list[str]) -> str | None:
    """``.md`` of ``**/*.md``; ``None`` for a pattern that a name's end does not decide."""
    if parts == ["**"]:
        return ""
    simple = len(parts) == 2 and parts[0] == "**" and parts[1][0] == "*" and not _MAGIC.search(parts[1], 1)
    return parts[1][1:] if simple else None


def _folder(parts: list[str]) -> list[str]:
    """The folder that an exclude leaves out: without a ``/**`` at the end."""
    while len(parts) > 1 and parts[-1] == "**":
        parts = parts[:-1]
    return parts


def _literal_folder(parts: list[str]) -> str:
    """The folder that everything an include matches lies in, by name: ``docs/api/`` of ``docs/api/**/*.md``."""
    literal = 0
    while literal < len(parts) - 1 and not _MAGIC.search(parts[literal]):
        literal += 1
    return "".join(part + "/" for part in parts[:literal])
