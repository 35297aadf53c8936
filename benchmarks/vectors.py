"""The instant embedder of the floors and the peers: that of Vectorkeep's ``hash`` embedder."""

from vectorstore.embedders.hash import hash_vectors

__all__ = ["hash_vectors"]
