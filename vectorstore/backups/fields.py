"""Strict reading of JSON that somebody else may have written: each field there, of its type, and no other."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from vectorstore.errors import BadBackup

_HEX = re.compile(r"[0-9a-f]*", re.ASCII)
_MOST = 2**63 - 1


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object; a key that is there twice, NaN and what is not UTF-8 are refused.

    Raises:
        BadBackup: it is no such object.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadBackup(f"a manifest can't be read: {error}") from error
    if not isinstance(found, dict):
        raise BadBackup("a manifest can't be read: it is no object")
    return found


def to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON with one spelling for each value; characters stand for themselves."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=indent, separators=separators)


class Fields:
    """The fields of one object, each taken once.

    Raises:
        BadBackup: from every method, where a field is missing, of another type or out of its range; from ``done``,
            where fields are left.
    """

    def __init__(self, values: object, where: str) -> None:
        self._where = where
        if not isinstance(values, Mapping):
            self.refuse("it is no object")
        self._values = dict(values)

    def refuse(self, why: str) -> NoReturn:
        """Say that the object as a whole is wrong."""
        raise BadBackup(f"{self._where} can't be read: {why}")

    def take(self, name: str) -> Any:
        """The value of a field, whatever it is."""
        if name not in self._values:
            self.refuse(f"{name!r} is missing")
        return self._values.pop(name)

    def text(self, name: str) -> str:
        """A text that UTF-8 can hold."""
        value = self.take(name)
        if not isinstance(value, str) or not _encodable(value):
            self.refuse(f"{name!r} is no text")
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.text(name)
        if value not in allowed:
            self.refuse(f"{name!r} is {value!r}")
        return value

    def hex(self, name: str, digits: int) -> str:
        """A digest in lower case."""
        value = self.text(name)
        if len(value) != digits or not _HEX.fullmatch(value):
            self.refuse(f"{name!r} is no digest of {digits} digits")
        return value

    def whole(self, name: str, low: int = 0, high: int = _MOST) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.take(name)
        if type(value) is not int or not low <= value <= high:
            self.refuse(f"{name!r} is no whole number from {low} to {high}")
        return value

    def seconds(self, name: str) -> float:
        """A finite time."""
        value = self.take(name)
        if type(value) is not float or not math.isfinite(value):
            self.refuse(f"{name!r} is no time")
        return value

    def list(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self.take(name)
        if not isinstance(value, list):
            self.refuse(f"{name!r} is no list")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, none of them twice."""
        values = self.list(name)
        if not all(isinstance(value, str) and _encodable(value) for value in values) or len(set(values)) < len(values):
            self.refuse(f"{name!r} is no list of different texts")
        return tuple(values)

    def object(self, name: str) -> Fields:
        """An object whose fields are read in turn."""
        return Fields(self.take(name), f"{self._where}: {name!r}")

    def names(self) -> tuple[str, ...]:
        """The fields that are left."""
        if not all(_encodable(name) for name in self._values):
            self.refuse("a name is no text")
        return tuple(self._values)

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if self._values:
            self.refuse(f"{next(iter(self._values))!r} is not known")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
