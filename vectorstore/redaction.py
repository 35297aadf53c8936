"""Secrets, taken out of what is shown or kept: those of the environment, and logins in addresses.

They are known by their names in the environment; nothing else is read for them. Standard library only: every error
passes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache

HIDDEN = "***"
# A login in an address: settings hold no secrets, but people do. A password may have an @ in it, and even a slash.
_LOGIN = re.compile(r"(?<=://)(?:[^/\s\"'@:]*:[^\s\"']*|[^/\s\"']+)@")
_NAMES = ("OPENAI_API_KEY", "VECTORKEEP_BACKUP_PASSWORD", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING",
          "PREFECT_SERVER_API_AUTH_STRING", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")  # fmt: skip
_STORAGE = re.compile(r"FSSPEC_\w*(?:PASSWORD|PASSPHRASE|SECRET|TOKEN|KEY)\w*")
_ADDRESSES = "VECTORKEEP_ALERT_URLS"
SHORTEST = 6  # characters of a secret; a shorter one would be found in every other word
_SHORTEST_PART = 8  # of an address


def redacted(text: str) -> str:
    """``text`` without secrets: plain, percent-encoded, in base64, or as ``repr`` writes them."""
    values = tuple(_values())
    for secret in _forms(values) if values else ():
        text = text.replace(secret, HIDDEN)
    return _LOGIN.sub(f"{HIDDEN}@", text)


def without_logins(text: str) -> str:
    """``text`` whose addresses lack their ``user:password@``, and a ``user@`` as well: it may be a token."""
    return _LOGIN.sub("", text)


def _values() -> Iterator[tuple[str, str]]:
    """Names and values in the environment."""
    for name, value in os.environ.items():
        if name in _NAMES or name == _ADDRESSES or _STORAGE.fullmatch(name):
            yield name, value


@lru_cache(maxsize=4)
def _forms(values: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """All that must not be seen, the longest first."""
    import base64
    from urllib.parse import quote, quote_plus, unquote

    plain: set[str] = set()
    for name, value in values:
        plain |= {part for each in value.split() for part in _parts(each)} if name == _ADDRESSES else {value.strip()}
        if name.endswith("_AUTH_STRING"):
            plain.add(value.partition(":")[2])
    forms: set[str] = set()
    for secret in (each for each in plain if len(each) >= SHORTEST):
        for known in {secret, unquote(secret)}:
            encoded = base64.b64encode(known.encode()).decode()
            forms |= {known, quote(known, safe=""), quote(known), quote_plus(known), encoded, repr(known)[1:-1]}
    return tuple(sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True))


def _parts(address: str) -> Iterator[str]:
    """An address of alerts, and what in it is secret by its place or its looks: login and tokens, never a host."""
    rest = address.partition("://")[2] or address
    login, _, place = rest.rpartition("@")
    yield from (address, login, login.partition(":")[2])
    for part in re.split(r"[/?&=,:@]+", place):
        if len(part) >= _SHORTEST_PART and not part.islower() and "." not in part:
            yield part
