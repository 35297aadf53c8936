"""A folder for ``PYTHONPATH``: see ``sitecustomize`` in it."""

from pathlib import Path

PAUSING = Path(__file__).parent
