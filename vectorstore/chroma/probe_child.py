"""Opens a copy of a store with Chroma and asks it, in a process that may die.

Run by `probe_process`, whose argument to it is a file with a JSON object. It answers on standard output in JSON lines:
``at`` before each step, ``answer`` after each collection, and ``error`` or ``done`` at the end. Where neither comes,
Chroma has taken the process down, and the last ``at`` says where.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore.chroma.store import allow_open_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAREST = 10  # a vector's own id should be among so many results
SAME = 1e-4  # relative: float32 sums of some thousand products differ in the sixth digit


def main(request_file: str) -> None:
    """Ask as the request says, and end the process."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Chroma prints is no answer

    def say(line: dict[str, Any]) -> None:
        channel.write(json.dumps(line) + "\n")
        channel.flush()

    try:
        request = json.loads(Path(request_file).read_text(encoding="utf-8"))
        limit_process(request)
        for line in ask(request):
            say(line)
        say({"done": True})
    except BaseException as error:  # a panic in Chroma's Rust code is no Exception
        say({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)  # all is said: a crash while Chroma is taken down would say nothing about the store


def limit_process(request: dict[str, Any]) -> None:
    """Lower what this process may take, and what others will miss by it."""
    for name, most in request["limits"].items():
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        # Between the two lies room for SIGXCPU: at the hard limit of CPU time it is SIGKILL.
        top = most + 10 if hard == resource.RLIM_INFINITY else min(most + 10, hard)
        resource.setrlimit(which, (min(most, top), top))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and Chroma would go on with half a file
    signal.alarm(request["alarm_s"])  # ends a hang when the parent is gone, whoever holds the interpreter's lock
    os.nice(request["niceness"])
    with contextlib.suppress(OSError):  # when memory runs short, it shall be this process that goes
        Path("/proc/self/oom_score_adj").write_text("1000")
    allow_open_files()


def ask(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Open the store and ask its collections; yields the lines to say."""
    import chromadb
    import chromadb.api.rust  # all that a broken installation could fail at, before the store is opened
    from chromadb.config import Settings

    yield {"at": "open"}
    names = request["collections"]
    for tenant, database in request["databases"]:
        client = chromadb.PersistentClient(
            request["store"], settings=Settings(anonymized_telemetry=False), tenant=tenant, database=database
        )
        for collection in sorted(client.list_collections(), key=lambda each: each.name):
            if names is None or collection.name in names:
                chance = random.Random(f"{request['seed']}/{collection.name}")
                yield from ask_collection(collection, request["sample"], chance)


def ask_collection(collection: Any, sample: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Count its rows, read some of them, and search for these by their own vectors.

    Raises:
        LookupError: rows that it lists can't be read.
    """
    name = collection.name
    yield {"at": "count", "collection": name}
    count = collection.count()
    yield {"at": "get", "collection": name}
    ids = some_ids(collection, count, sample, chance)
    answered = 0
    read: dict[str, list[int]] = {}
    if ids:
        rows = collection.get(ids=ids, include=["documents", "metadatas", "embeddings"])
        if len(rows["ids"]) < len(ids):
            raise LookupError(f"of {len(ids)} ids that it lists it gives {len(rows['ids'])}")
        columns = zip(rows["ids"], rows["embeddings"], rows["documents"], strict=True)
        read = {
            id_: [zlib.crc32(vector.astype("<f4")), zlib.crc32((text or "").encode())] for id_, vector, text in columns
        }
        yield {"at": "query", "collection": name}
        found = collection.query(
            query_embeddings=rows["embeddings"], n_results=min(NEAREST, count), include=["distances"]
        )
        space = (collection.configuration_json.get("hnsw") or {}).get("space")
        answers = zip(rows["ids"], rows["embeddings"], found["ids"], found["distances"], strict=True)
        answered = sum(_is_found(id_, vector, near, by, space) for id_, vector, near, by in answers)
    yield {"answer": name, "count": count, "asked": len(ids), "answered": answered, "read": read}


def some_ids(collection: Any, count: int, sample: int, chance: random.Random) -> list[str]:
    """Ids of rows from all over a collection."""
    rows = sorted(chance.sample(range(count), min(sample, count)))
    pages = (collection.get(limit=1, offset=row, include=[])["ids"] for row in rows)
    return [id_ for page in pages for id_ in page]


def _is_found(id_: str, vector: NDArray[np.float32], near: list[str], by: list[float], space: str | None) -> bool:
    """Whether a search by a row's own vector gave the row, or one at least as near: there may be many such."""
    if id_ in near:
        return True
    own = _own_distance(vector, space)
    return any(distance <= own + SAME * max(1.0, abs(own)) for distance in by)


def _own_distance(vector: NDArray[np.float32], space: str | None) -> float:
    """Chroma's distance of a vector, of shape ``(dimension,)``, to itself."""
    square = float(vector @ vector)
    if space == "ip":
        return 1.0 - square
    return 0.0 if square or space != "cosine" else 1.0


if __name__ == "__main__":
    main(sys.argv[1])
