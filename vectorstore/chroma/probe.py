"""Does Chroma itself open a store and answer? Asked of a throwaway copy, by a process that may die of it.

On damaged files Chroma can crash, wait for ever, or grow a file without bound. The store itself is only read, and stays
as it is to the last byte.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.chroma.probe_copy import SPARE_BYTES, Changed, NotCopied, StoreCopy, copy_store, throwaway_folder
from vectorstore.chroma.probe_process import ChildEnd, run_child

TRIES, PAUSE_S = 3, 1.0
STEPS = {
    "open": "the store was opened",
    "count": "collection {collection!r} was counted",
    "get": "rows of collection {collection!r} were read",
    "query": "collection {collection!r} was queried",
}
COLUMNS = ("count", "answered", "asked")
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DISK_FULL = ("no space left", "disk is full", "disk full", "os error 28")


@dataclass(frozen=True)
class ProbeResult:
    """What Chroma did with a copy of a store.

    Attributes:
        ok: it answered.
        outcome: ``answered``; ``crashed``; ``hung``, did not end in time; ``grew``, a file or its memory, to the limit;
            ``error``, it raised, or found not one of the vectors that a collection was asked for; ``not_run``, nothing
            can be said.
        detail: a line for a person.
        collection: where it stopped; empty when all answered.
        counts: rows by collection, as Chroma counts them.
        read: by collection and id, CRC-32 of the vector's little-endian float32 bytes and of the text, as Chroma gave
            them: to be held against another way of reading.
        answered, asked: by collection, how many vectors found themselves, of how many. An approximate index may miss
            some.
    """

    ok: bool
    outcome: str
    detail: str
    collection: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    read: dict[str, dict[str, list[int]]] = field(default_factory=dict)


def probe(
    store: Path, *, collections: Collection[str] | None = None, scratch: Path | None = None, timeout_s: float = 120,
    sample: int = 5, seed: int = 0,
) -> ProbeResult:  # fmt: skip
    """Copy an embedded store, and have Chroma open the copy and answer.

    Args:
        store: its folder. Others may read it meanwhile; what Chroma does is not believed where others wrote.
        collections: names of those to copy and to ask; ``None`` for all.
        scratch: folder for the copy, by default the system's for temporary files.
        timeout_s: for Chroma, its start included.
        sample: rows to read and to search for in each collection, chosen by ``seed``.
    """
    parent = scratch or Path(tempfile.gettempdir())
    reason = ""
    for attempt in range(TRIES):
        time.sleep(PAUSE_S * attempt)
        try:
            with throwaway_folder(parent) as folder:
                copy = copy_store(store, folder / "store", collections)
                end = run_child(folder, copy, collections, timeout_s=timeout_s, sample=sample, seed=seed)
        except Changed as error:
            reason = f"while it was copied: {error}"
            continue
        except (NotCopied, OSError) as error:
            return ProbeResult(False, "not_run", str(error))
        result = judge(end, copy.collections.union(collections or ()))
        result = replace(result, detail=result.detail.replace(str(copy.path), str(store)))
        if result.ok or _is_as_copied(store, copy):
            return result
        reason = f"since it was copied, and the copy may be torn: {result.detail}"
    return ProbeResult(False, "not_run", f"somebody wrote to the store {reason}")


def _is_as_copied(store: Path, copy: StoreCopy) -> bool:
    try:
        return fingerprint(store) == copy.original
    except OSError:
        return False


def judge(end: ChildEnd, expected: Collection[str] = ()) -> ProbeResult:
    """What the end of the child says about the store. Pure.

    Args:
        expected: names of collections that should have answered.
    """
    answers = [line for line in end.lines if "answer" in line]
    counts, answered, asked = ({line["answer"]: line[key] for line in answers} for key in COLUMNS)
    read = {line["answer"]: line.get("read", {}) for line in answers}
    unknown = sorted(set(expected) - counts.keys())
    unanswered = [name for name in asked if asked[name] and not answered[name]]
    where = str(end.last("at").get("collection", ""))
    outcome, detail = _outcome(end)
    if outcome == "answered" and unknown:
        where, outcome, detail = unknown[0], "error", f"Chroma knows no collection {unknown[0]!r}"
    elif outcome == "answered" and unanswered:
        where, outcome = unanswered[0], "error"
        detail = f"collection {where!r} found none of {asked[where]} vectors that it holds"
    elif outcome == "answered":
        where = ""
        detail = f"collections: {len(counts)}; vectors found: {sum(answered.values())} of {sum(asked.values())}"
    return ProbeResult(outcome == "answered", outcome, detail, where, counts, answered, asked, read)


def _outcome(end: ChildEnd) -> tuple[str, str]:
    at = end.last("at")
    error = " ".join(end.last("error").get("error", "").split())[:500]
    if end.last("done"):
        return "answered", ""
    if not at:
        reason = error or (f"it took too much {end.stopped}" if end.stopped else _complaint(end))
        return "not_run", f"Chroma did not start: {reason}"
    where = STEPS[at["at"]].format(**at)
    if end.stopped == "memory":
        return "grew", f"memory grew to the limit while {where}"
    if end.grown or end.code == -signal.SIGXFSZ:
        return "grew", f"{', '.join(end.grown) or 'a file'} grew to the limit while {where}"
    if end.stopped or end.code in (-signal.SIGXCPU, -signal.SIGALRM):
        return "hung", f"no answer in time while {where}"
    if any(words in error.lower() for words in DISK_FULL):
        # More than was free for it is its own doing; otherwise somebody else filled the disk.
        return "grew" if end.growth > SPARE_BYTES else "not_run", f"while {where}: {error}"
    if error:
        return "error", f"while {where}: {error}"
    if -end.code in FROM_OUTSIDE:
        return "not_run", f"{_signal(end.code)} from elsewhere (is memory short?) while {where}"
    how = _signal(end.code) if end.code < 0 else f"exit code {end.code}"
    return "crashed", f"{how} while {where}"


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _complaint(end: ChildEnd) -> str:
    lines = end.complaint.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {end.code}")
