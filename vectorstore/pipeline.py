"""The pipeline id: the identity of everything that shapes a vector, readable, since people meet it in refusals."""

from __future__ import annotations

from typing import NamedTuple

from vectorstore.settings import Settings


class Pipeline(NamedTuple):
    """What makes vectors out of documents.

    Attributes:
        embedding: provider, model and dimension: what a text's vector depends on, and so the vector cache's key.
        chunker: version and parameters of the chunker.
    """

    embedding: str
    chunker: str

    @property
    def id(self) -> str:
        """Both, as one name."""
        return f"{self.embedding}/{self.chunker}"

    @classmethod
    def of(cls, settings: Settings) -> Pipeline:
        """The pipeline that the settings ask for."""
        from vectorstore.documents.chunks import Chunker

        return cls(
            f"{settings.embedder}/{settings.model_name}/{settings.dimension}",
            Chunker(settings.chunk_tokens, settings.encoding).id,
        )
