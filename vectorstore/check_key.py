"""Check-key: does the provider accept the key? Asks for its list of models, which costs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vectorstore.settings import Settings


@dataclass(frozen=True)
class KeyReport:
    """What the provider said of the key. The key itself is in no field.

    Attributes:
        state: ``accepted``; ``rejected`` (HTTP 401), ``no_permission`` (403), ``quota``: no credit is left,
            ``unreachable``: no connection, or an answer that tells nothing of the key, ``missing``: there is no key.
        message, hint: for a person.
        address: the provider's host.
        model: whether the model of the settings is in its list; ``None``: it was not told.
    """

    state: str
    message: str
    hint: str
    address: str
    model: bool | None = None

    @property
    def exit_code(self) -> int:
        """0 accepted; 2 where the key or the settings are wrong; 1 where the provider or its account is."""
        return {"accepted": 0, "quota": 1, "unreachable": 1}.get(self.state, 2)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_key(settings: Settings) -> KeyReport:
    """Ask the provider of the settings, or OpenAI where they name another embedder; nothing is paid.

    Raises:
        ConfigurationError: `openai_base_url` is no address.
    """
    from vectorstore.embedders.openai import ask_for_models

    model = settings.model_name if settings.embedder == "openai" else ""
    found = ask_for_models(settings.openai_base_url, min(settings.request_timeout_s, 20.0))
    if found.state != "accepted":
        return KeyReport(found.state, found.message, found.hint, found.address)
    known = model in found.models if model and found.models else None
    if known is False:
        hint = "check `model`, and whether the key's project may use it; some servers do not list all"
        return KeyReport("accepted", f"accepted, but {model} is not in the list of models", hint, found.address, known)
    return KeyReport("accepted", "accepted", "", found.address, known)
