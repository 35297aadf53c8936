"""Portable backups: rows as Parquet, for any version of Chroma, for servers, and for a selection of the rows.

``collections.json`` lists the collections with all that it takes to make them anew; ``collections/<n>.parquet`` has
their rows by id, with the columns ``id``, ``document``, ``metadata`` (JSON text) and ``vector``. Any tool that reads
Parquet reads them.
"""

from vectorstore.backups.portable_facts import PortableCollection, read_facts
from vectorstore.backups.portable_read import Loaded, load, read_pages
from vectorstore.backups.portable_write import Exported, export

__all__ = ["Exported", "Loaded", "PortableCollection", "export", "load", "read_facts", "read_pages"]
