"""The ``openai`` embedder: OpenAI's embeddings API, or a server that speaks it. The only module that imports openai.

One attempt a call: the SDK's own retries are off, because the requester must know of every request that may cost money.
No exception that leaves this module refers to one of the SDK's: those hold the request, and so the key.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai

from vectorstore.embedders._answer import read_answer
from vectorstore.embedders.base import AttemptFailed, Embedded
from vectorstore.errors import ConfigurationError, KeyRejected, QuotaExhausted

_HOME = "https://api.openai.com/v1"
_PLACEHOLDER = "none"  # the SDK insists on a key
# native dimension, and whether a request may ask for fewer
_MODELS = {
    "text-embedding-3-small": (1536, True),
    "text-embedding-3-large": (3072, True),
    "text-embedding-ada-002": (1536, False),
}
# Nothing left this machine, or no connection stood yet: surely not billed. Everything later may have been.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "LocalProtocolError")
_REQUEST_PARAMETERS = ("model", "dimensions", "encoding_format", "user")
_KEY_STATES = {401: "rejected", 403: "no_permission"}
_KEY_HINTS = {
    "rejected": "put a valid key into OPENAI_API_KEY",
    "no_permission": "give the key the right to list models and to embed, or ask its project's owner",
    "quota": "add credit to the provider's account",
    "unreachable": "check the network and `openai_base_url`; the key was not judged",
}
_SETUP_HINT = "check `model`, `dimensions` and `openai_base_url`"


class OpenAIEmbedder:
    """See the module and ``base.Embedder``. Safe to share between threads.

    The key is read from ``OPENAI_API_KEY``. A server of one's own, that is any ``base_url`` but OpenAI's, may need
    none: then a placeholder is sent. OpenAI itself without a key is an error before any request.

    Args:
        model: a model's name; for the known ones an impossible dimension is an error at once.
        dimension: the length of a vector; asked for only where a known model's native one is longer. Of an unknown
            model it is what its vectors have: many compatible servers refuse a request that names it.
        base_url: up to and with ``/v1``; empty: OpenAI's.
        timeout_s: for connecting, and for each wait for bytes.
    """

    provider = "openai"
    max_texts = 2048
    max_tokens = 300_000
    max_text_tokens = 8191
    billable = True

    def __init__(self, model: str, dimension: int, *, base_url: str = "", timeout_s: float = 60.0) -> None:
        self.model = model
        self.dimension = dimension
        self._arguments = _arguments(model, dimension)
        url = _checked_url(base_url or _HOME)
        key = _key(url)
        self._key = _Secret(key)
        # base_url is always given: the SDK would otherwise take it from the environment, behind the settings' back
        self._client = openai.OpenAI(api_key=key, base_url=url, timeout=timeout_s, max_retries=0)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See ``base.Embedder.embed``.

        Raises:
            AttemptFailed: also of kind ``"bad_answer"``: HTTP 200 with something that is not the vectors asked for.
            KeyRejected, QuotaExhausted: as in the contract.
            ConfigurationError: no such model or address (404), or a parameter refused for every text alike.
        """
        failure: Exception
        try:
            raw = self._client.embeddings.with_raw_response.create(
                input=list(texts), model=self.model, encoding_format="base64", **self._arguments
            )
            return read_answer(raw.content, len(texts), self.dimension)
        except AttemptFailed as error:
            failure = AttemptFailed(self._key.hidden_in(error.reason), error.kind, error.billed, error.retry_after_s)
        except openai.APIStatusError as error:
            failure = self._by_status(error)
        except openai.APIConnectionError as error:
            failure = self._by_connection(error)
        except openai.OpenAIError as error:
            failure = AttemptFailed(self._key.hidden_in(f"{type(error).__name__}: {error}"), "transient", "unknown")
        except UnicodeEncodeError as error:
            failure = AttemptFailed(f"not valid Unicode: {error.reason}", "refused")
        raise failure  # not in an except block: even `from None` would leave the SDK's error in __context__

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _by_connection(self, error: openai.APIConnectionError) -> AttemptFailed:
        cause = error.__cause__
        name = type(cause).__name__
        if name in _NEVER_SENT:
            return AttemptFailed(self._key.hidden_in(f"no connection: {name}: {cause}"), "transient", "no")
        if isinstance(error, openai.APITimeoutError):
            return AttemptFailed(f"no answer in time ({name})", "transient", "unknown")
        return AttemptFailed(self._key.hidden_in(f"connection lost: {name}: {cause}"), "transient", "unknown")

    def _by_status(self, error: openai.APIStatusError) -> Exception:
        status, detail = error.status_code, _detail(error.body)
        message = f"HTTP {status}: {self._key.hidden_in(detail['message'] or 'without an explanation')}"
        if status in (401, 403):
            return KeyRejected(f"{self.model}: {message}", "check OPENAI_API_KEY: its project, its rights, its expiry")
        if status == 429 and "insufficient_quota" in (detail["code"], detail["type"]):
            return QuotaExhausted(message, "add credit to the provider's account, then run again; what is paid is kept")
        if status == 404 or (status in (400, 422) and detail["param"] in _REQUEST_PARAMETERS):
            return ConfigurationError(f"{self.model}: {message}", _SETUP_HINT)
        if status in (400, 413, 422):
            return AttemptFailed(message, "refused")
        billed = "no" if status in (409, 429) else "unknown"
        return AttemptFailed(message, "transient", billed, retry_after(error.response.headers))


class Models(NamedTuple):
    """What the provider answered when it was asked for its models; see ``check_key.KeyReport``."""

    state: str
    message: str
    hint: str
    address: str
    models: frozenset[str] = frozenset()


def ask_for_models(base_url: str, timeout_s: float) -> Models:
    """Ask for the list of models, which is free and needs a key that works.

    Args:
        base_url: as for ``OpenAIEmbedder``.

    Raises:
        ConfigurationError: it is no address.
    """
    url = _checked_url(base_url or _HOME)
    address = urlsplit(url).hostname or ""
    try:
        key = _key(url)
    except ConfigurationError as error:
        return Models("missing", error.message, error.hint, address)
    secret = _Secret(key)
    try:
        with openai.OpenAI(api_key=key, base_url=url, timeout=timeout_s, max_retries=0) as client:
            models = frozenset(str(each.id) for each in client.models.list().data or ())
        return Models("accepted", "", "", address, models)
    except openai.APIStatusError as error:
        detail = _detail(error.body)
        message = f"HTTP {error.status_code}: {secret.hidden_in(detail['message'] or 'without an explanation')}"
        quota = "insufficient_quota" in (detail["code"], detail["type"])
        state = "quota" if quota else _KEY_STATES.get(error.status_code, "unreachable")
        return Models(state, message, _KEY_HINTS[state], address)
    except openai.OpenAIError as error:
        cause = error.__cause__ or error
        message = secret.hidden_in(f"{type(cause).__name__}: {cause}")
    except (ValueError, TypeError, AttributeError):
        message = "an answer that is no list of models"
    return Models("unreachable", message, _KEY_HINTS["unreachable"], address)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an answer asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except ValueError:
        return None


class _Secret:
    """A key that does not show itself, and hides itself in what others say."""

    def __init__(self, key: str) -> None:
        own = "" if key == _PLACEHOLDER else f"{re.escape(key)}|"
        self._pattern = re.compile(own + r"\bsk-[A-Za-z0-9_*.-]{4,}")

    def __repr__(self) -> str:
        return "<key>"

    def hidden_in(self, text: str) -> str:
        """One line of at most 300 characters, without this key or anything that looks like one."""
        return " ".join(self._pattern.sub("<key>", text).split())[:300]


def _detail(body: object) -> dict[str, str]:
    """OpenAI's error object; a body that is none (HTML of a proxy) is the message."""
    if not isinstance(body, dict):
        return {"message": body if isinstance(body, str) else "", "code": "", "type": "", "param": ""}
    inner = body.get("error", body)
    fields: dict[str, Any] = inner if isinstance(inner, dict) else {"message": json.dumps(inner)}
    return {name: str(fields.get(name) or "") for name in ("message", "code", "type", "param")}


def _arguments(model: str, dimension: int) -> dict[str, Any]:
    native, shortens = _MODELS.get(model.rpartition("/")[2], (dimension, False))
    if dimension > native or (dimension < native and not shortens):
        raise ConfigurationError(
            f"{model} has no {dimension} dimensions",
            f"set `dimensions` to {native}" + (" or less" if shortens else ""),
        )
    return {} if dimension == native else {"dimensions": dimension}


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("openai_base_url is not an http(s) address", f"for example {_HOME}")
    if "@" in parts.netloc:  # it would be sent in place of the key, and a provider's error may show it
        raise ConfigurationError("openai_base_url holds a login", "take it out; the key is read from OPENAI_API_KEY")
    return url


def _key(url: str) -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    problem = ("", "")
    if not key and (urlsplit(url).hostname or "").endswith("openai.com"):
        problem = ("OPENAI_API_KEY is not set", "put the key into the environment, never into a file")
    elif not re.fullmatch("[!-~]*", key):
        problem = ("OPENAI_API_KEY holds characters that no key has", "copy it again")
    if problem[0]:
        key = ""  # some tools print local variables with a traceback
        raise ConfigurationError(*problem)
    return key or _PLACEHOLDER
