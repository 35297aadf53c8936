"""Embedders: ``local`` (wordllama), ``openai``, ``hash``. Importing this package imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectorstore.errors import ConfigurationError

if TYPE_CHECKING:
    from vectorstore.embedders.base import Embedder
    from vectorstore.settings import Settings


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name, ready to be used by several threads.

    Raises:
        ConfigurationError: a model or dimension that the embedder does not have, or no API key.
    """
    if settings.embedder == "hash":
        from vectorstore.embedders.hash import HashEmbedder

        return HashEmbedder(settings.model_name, settings.dimension)
    if settings.embedder == "local":
        from vectorstore.embedders.local import LocalEmbedder

        return LocalEmbedder(settings.model_name, settings.dimension)
    if settings.embedder == "openai":
        from vectorstore.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder(
            settings.model_name,
            settings.dimension,
            base_url=settings.openai_base_url,
            timeout_s=settings.request_timeout_s,
        )
    raise ConfigurationError(f"unknown embedder {settings.embedder!r}", "choose one of local, openai, hash")
