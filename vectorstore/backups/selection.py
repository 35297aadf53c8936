"""Which rows are sensitive: the setting ``sensitive``, read so that doubt leaves a row out.

A selective backup is built up from the rows that the rule allows; nothing is ever cut out of a full copy, since Chroma
keeps deleted texts and vectors in its files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any, NamedTuple

from vectorstore.documents.patterns import path_matcher
from vectorstore.errors import ConfigurationError

SETTING = "sensitive"
DOCUMENT_KEY = "doc_key"
_CHUNK_ID = re.compile(r"(.+)#\d+", re.DOTALL)
_CLASS = re.compile(r"\[!?\]?[^\]]*\]")
_REMEMBERED = 10_000  # documents whose answer is kept: their chunks come one after the other
Allow = Callable[[Mapping[str, Any], str | None, str], bool]


class SensitiveRule:
    """Tells allowed rows from sensitive ones.

    Args:
        rules: paths, matched with the document that a row's ``doc_key`` or id names, and ``key=value`` terms.

    Raises:
        ConfigurationError: a rule that can't mean anything, or no rule at all; the rule is named.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        if not rules:
            raise ConfigurationError(
                f"{SETTING}: no rule says what a selective backup leaves out",
                f'name it in vectorkeep.toml: {SETTING} = ["private/**", "visibility=private"]',
            )
        rules = [_normal(rule) for rule in rules]
        paths = [rule for rule in rules if not _is_term(rule)]
        self._terms = [_term(rule) for rule in rules if _is_term(rule)]
        self._has_paths = bool(paths)
        matches = path_matcher(SETTING, paths)
        self._matches = lru_cache(_REMEMBERED)(lambda key: bool(matches(_normal(key))))

    def allows(self, metadata: Mapping[str, Any], document: str | None, id: str) -> bool:
        """Whether a row is not sensitive; an ``Allow``. Its text plays no part."""
        values = {_normal(key): value for key, value in metadata.items()} if self._terms else {}
        if any(key in values and matches(values[key]) for key, matches in self._terms):
            return False
        if not self._has_paths:
            return True
        names = _documents(metadata, id)
        return bool(names) and all(_is_key(name) and not self._matches(name) for name in names)


class _Term(NamedTuple):
    key: str
    matches: Callable[[Any], bool]


def _documents(metadata: Mapping[str, Any], id: str) -> set[str]:
    """The documents that a row says it belongs to: one, none, or two where its id and metadata disagree."""
    named = metadata.get(DOCUMENT_KEY)
    of_id = _CHUNK_ID.fullmatch(id)
    return {name for name in (named, of_id and of_id[1]) if isinstance(name, str) and name}


def _is_key(name: str) -> bool:
    """Whether it is a path below the source folder; of any other, such as ``/home/me/a.md``, patterns say nothing."""
    return name[1:2] != ":" and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _is_term(rule: str) -> bool:
    """Whether there is a ``=`` outside of a character class."""
    return "=" in _CLASS.sub("", rule)


def _term(rule: str) -> _Term:
    key, value = (part.strip() for part in rule.split("=", 1))
    if not key or not value:
        lacking = "key" if value else "value"
        raise ConfigurationError(
            f"{SETTING}: {rule!r} has no {lacking}",
            'write it like "visibility=private", "key=*" for any value; a path with "=" in it is written with [=]',
        )
    return _Term(key, _value_matcher(value))


def _value_matcher(pattern: str) -> Callable[[Any], bool]:
    text = re.compile(translate(pattern)).match
    try:
        number: float | None = float(pattern)
    except ValueError:
        number = None

    def matches(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(matches, value))
        if isinstance(value, bool):
            return bool(text(str(value).lower()) or text(str(value)))
        if isinstance(value, int | float) and value == number:
            return True
        return bool(text(_normal(str(value))))

    return matches


def _normal(text: str) -> str:
    """One spelling for letters with marks: some systems store file names in another than people type."""
    return unicodedata.normalize("NFC", text)
