"""Vectorkeep's domain library: keeps a Chroma vector store in step with its documents.

Nothing here imports Prefect. Importing this package imports nothing heavy: a run that finds nothing to do must cost
little more than looking at the files.
"""

__version__ = "0.1.0"
