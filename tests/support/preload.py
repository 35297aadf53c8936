"""For the server that forks test processes: all that Vectorkeep and Chroma import, imported once."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import vectorstore
from tests.support import forked, looking, run_process  # noqa: F401
from vectorstore.documents.tokens import load_encoding

LATE = (  # only when they are needed
    "_strptime", "encodings.ascii", "chromadb.api.rust", "chromadb.telemetry.product.posthog", "isal.igzip_lib",
    "isal.isal_zlib", "numpy.ma", "numpy.random", "pyarrow.compute", "pyarrow.json", "pyarrow.parquet",
)  # fmt: skip
for _name in (*LATE, *(each.name for each in pkgutil.walk_packages(vectorstore.__path__, "vectorstore."))):
    importlib.import_module(_name)
load_encoding("cl100k_base").encode_ordinary("warm")
gc.freeze()  # the collector of a forked process would touch, and so copy, all of this
