"""Where alerts go: Apprise addresses. They hold passwords and tokens, so only their labels are ever shown or kept."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from vectorstore.alerting import URLS

# In these schemes the host is a host; in `slack://…` and most others a token stands in its place.
_WITH_HOST = ("json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "http", "https")


def from_environment() -> tuple[str, ...]:
    """The addresses of ``VECTORKEEP_ALERT_URLS``, separated by blanks or lines."""
    return tuple(os.environ.get(URLS, "").split())


def labels(addresses: Sequence[str]) -> list[str]:
    """A name for each address, without anything secret: scheme and host, and a number where they are the same."""
    seen: Counter[str] = Counter()
    named = []
    for address in addresses:
        label = _masked(address)
        seen[label] += 1
        named.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return named


def _masked(address: str) -> str:
    scheme, colon, rest = address.partition("://")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", scheme):
        return "no address"
    scheme = scheme.lower()
    place, _, path = rest.partition("/")
    if scheme not in _WITH_HOST or "@" in path:  # a slash in a password would make its beginning the host
        return f"{scheme}://…"
    try:
        host = urlsplit(f"//{place}").hostname or ""
    except ValueError:
        host = ""
    return f"{scheme}://{host if re.fullmatch('[a-z0-9_.:-]+', host) else '…'}"
