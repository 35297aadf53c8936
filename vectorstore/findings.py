"""What a health check finds: severities, findings, and the register of all checks.

A check says what it saw as observations; the register's rule, a pure function of counts, says how bad that is. So the
reading of stores and the judging of what was read are tested apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from math import isfinite
from typing import Any

SAMPLE_IDS = 20  # a finding shows


class Severity(IntEnum):
    """How bad a finding is; FAIL makes the exit code 1."""

    PASS = 0
    INFO = 1
    WARN = 2
    FAIL = 3


class Depth(IntEnum):
    """How far a health check looks; each includes those before it."""

    QUICK = 0
    """The ledger and the SQLite side: ids, counts, states."""
    STANDARD = 1
    """And the source, SQLite's own integrity, the index files, and a rotating sample of the rows with their vectors."""
    DEEP = 2
    """And every row and vector, and what search answers."""


class Action(StrEnum):
    """What `fix` does about a finding."""

    NONE = "none"
    """Nothing can be done here; the remedy names the way on."""
    UPDATE = "update"
    """An update brings it in step."""
    DELETE = "delete"
    """Delete the rows; they are kept in a file."""
    REFILL = "refill"
    """Write the vectors again, from the cache; what it lacks is embedded again."""
    REWRITE = "rewrite"
    """Write the documents anew, from the source and the cache."""
    REBUILD = "rebuild"
    """Take the index away and fill a new one from the cache and what can still be read."""
    REMOVE_FOLDERS = "remove_folders"
    """Remove folders that no index uses."""
    RECOUNT = "recount"
    """Count the ledger's documents anew."""
    SAVE_CACHE = "save_cache"
    """Save what the vector cache holds, and put the store's vectors into it."""
    FORGET = "forget"
    """Forget documents in the ledger, so that an update stores them anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a health check saw.

    Attributes:
        check: name of the check, a key of ``CHECKS``.
        severity: how bad it is.
        message: what was seen, in a line.
        collection: where; empty for the whole store.
        count, total: how many of how many, where that makes sense; else 0.
        ids: some of the chunks or documents concerned, ``SAMPLE_IDS`` at most.
        cause: what usually makes this.
        remedy: the next step for a person.
        action: what `fix` does.
        value: the figure behind it (a share, bytes, seconds), ``None`` if there is none.
    """

    check: str
    severity: Severity
    message: str
    collection: str = ""
    count: int = 0
    total: int = 0
    ids: tuple[str, ...] = ()
    cause: str = ""
    remedy: str = ""
    action: Action = Action.NONE
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the severity and the action by name; a figure that JSON can't say (NaN, infinite) is left out."""
        value = self.value if self.value is not None and isfinite(self.value) else None
        return asdict(self) | {"severity": self.severity.name, "ids": list(self.ids), "value": value}


Rule = Callable[[int, int], Severity]
"""Count and total -> severity. Pure."""


def always(severity: Severity) -> Rule:
    """One is enough."""
    return lambda count, total: severity if count else Severity.PASS


def share(warn: float, fail: float) -> Rule:
    """Above a share (0 to 1) of the total; below it, something there is INFO. Without a total one is enough."""

    def rule(count: int, total: int) -> Severity:
        if not count:
            return Severity.PASS
        part = count / total if total else 1.0
        return Severity.FAIL if part > fail else Severity.WARN if part > warn else Severity.INFO

    return rule


@dataclass(frozen=True, slots=True)
class Check:
    """A check as the register knows it.

    Attributes:
        title: for a table.
        depth: the least depth at which it runs.
        rule: how bad so many of so many are.
        cause, remedy: what usually makes it, and the next step.
        action: what `fix` does.
    """

    title: str
    depth: Depth
    rule: Rule
    cause: str = ""
    remedy: str = ""
    action: Action = Action.NONE


_FIX = "run `vectorkeep health --fix`"
UPDATE = "run `vectorkeep update`"
RESTORE = "restore a backup; or move the store's folder away and run `vectorkeep update`, which fills a new one unpaid"
_TORN = "a kill or a full disk in Chroma's index write, or another program that wrote the files"
_OTHER_WRITER = "another program wrote to the store or deleted from it, or a write was lost"

CHECKS: Mapping[str, Check] = {
    # -- the store's files ---------------------------------------------------------------------------------------
    "store": Check(
        "store is there and can be read", Depth.QUICK, always(Severity.FAIL),
        "the folder was moved or deleted, a disk is not mounted, or the server is down",
        f"mount or start it; if it is gone for good: restore a backup, or {UPDATE}, which fills a new one unpaid",
    ),
    "layout": Check(
        "layout is known", Depth.QUICK, always(Severity.WARN),
        "another version of Chroma wrote the store", "update Vectorkeep; until then it looks through Chroma, slower",
    ),
    "sqlite": Check(
        "SQLite is whole", Depth.STANDARD, always(Severity.FAIL),
        "a disk fault, a copy taken while it was written, or another program", RESTORE,
    ),
    "journal": Check(
        "no transaction left open", Depth.QUICK, always(Severity.INFO),
        "a writer was killed, or one is at work", "nothing: Chroma rolls it back when it opens the store next",
        Action.UPDATE,
    ),
    "relations": Check(
        "rows belong to each other", Depth.STANDARD, always(Severity.FAIL),
        "rows were deleted by hand or by another program", RESTORE,
    ),
    "fulltext": Check(
        "full-text index matches the texts", Depth.STANDARD, always(Severity.FAIL),
        "rows were deleted by hand or by another program", f"{_FIX}, which writes the documents concerned anew",
        Action.REWRITE,
    ),
    "queue": Check(
        "write queue is in order", Depth.QUICK, always(Severity.FAIL),
        "the queue was emptied or cut by hand: Chroma would drop new writes silently", RESTORE,
    ),
    "queue_purged": Check(
        "write queue is purged", Depth.QUICK, always(Severity.WARN),
        "purging is off in the store's configuration", "`chroma vacuum`, while nothing else uses the store",
    ),
    "segments": Check(
        "index folders are there", Depth.QUICK, always(Severity.FAIL),
        "a folder was deleted, or left out of a copy", f"{_FIX}, which fills the index anew", Action.REBUILD,
    ),
    "leaked_folders": Check(
        "no folder is left over", Depth.QUICK, always(Severity.WARN),
        "Chroma leaves the folder when a collection is deleted", f"{_FIX}, which removes them", Action.REMOVE_FOLDERS,
    ),
    "index": Check(
        "index files are whole", Depth.STANDARD, always(Severity.FAIL), _TORN,
        f"{_FIX}, which fills the index anew; until then open the store with nothing else", Action.REBUILD,
    ),
    "index_ids": Check(
        "index and SQLite hold the same ids", Depth.STANDARD, always(Severity.FAIL), _TORN,
        f"{_FIX}, which writes these vectors again", Action.REFILL,
    ),
    "bloat": Check(
        "index holds little that is dead", Depth.STANDARD, share(0.5, 0.8),
        "chunks were deleted: Chroma keeps their slots for good, searches get slower", f"{_FIX}, which fills it anew",
        Action.REBUILD,
    ),
    # -- rows ----------------------------------------------------------------------------------------------------
    "missing": Check(
        "every chunk of the ledger is stored", Depth.QUICK, always(Severity.FAIL), _OTHER_WRITER,
        f"{_FIX}, which writes them again, unpaid where the cache has them", Action.REWRITE,
    ),
    "orphans": Check(
        "every stored chunk is known", Depth.QUICK, share(0.0, 0.05),
        "another program wrote them, or a ledger was lost or is from another day", f"{_FIX}, which deletes them",
        Action.DELETE,
    ),
    "text": Check(
        "texts are those that were embedded", Depth.STANDARD, always(Severity.FAIL), _OTHER_WRITER,
        f"{_FIX}, which writes the documents anew", Action.REWRITE,
    ),
    "metadata": Check(
        "metadata is complete and right", Depth.STANDARD, always(Severity.FAIL), _OTHER_WRITER,
        f"{_FIX}, which writes the documents anew", Action.REWRITE,
    ),
    "vectors": Check(
        "vectors are those that were embedded", Depth.STANDARD, always(Severity.FAIL),
        "a disk fault, or another program wrote the vectors", f"{_FIX}, which writes them again", Action.REFILL,
    ),
    "no_vector": Check(
        "every chunk has a vector", Depth.STANDARD, always(Severity.FAIL), _TORN, f"{_FIX}, which writes them again",
        Action.REFILL,
    ),
    "dimension": Check(
        "vectors have the right length", Depth.QUICK, always(Severity.FAIL),
        "another model or program wrote the collection", "put it right in the settings, or `vectorkeep update --mode"
        " stale` for a new generation",
    ),
    "not_finite": Check(
        "no NaN and no infinity", Depth.STANDARD, always(Severity.FAIL), "a disk fault, or another program",
        f"{_FIX}, which writes them again", Action.REFILL,
    ),
    "zero": Check(
        "no zero vector", Depth.STANDARD, always(Severity.FAIL), "a failed embedding was stored as zeros",
        f"{_FIX}, which writes them again", Action.REFILL,
    ),
    "norm": Check(
        "vectors are of length one", Depth.STANDARD, always(Severity.WARN),
        "the vectors were scaled, or are of another model", f"{_FIX}, which writes them again", Action.REFILL,
    ),
    "duplicate_texts": Check(
        "texts are stored once", Depth.DEEP, share(0.2, 2.0), "the same text stands in several documents",
        "nothing, if that is meant; else exclude the copies in the settings",
    ),
    "duplicate_vectors": Check(
        "different texts have different vectors", Depth.DEEP, always(Severity.WARN),
        "a vector was stored with another chunk, or the embedder can't tell the texts apart",
        "embed the documents anew: `vectorkeep update --mode all --doc DOC_KEY`",
    ),
    "two_places": Check(
        "every document is in one collection", Depth.QUICK, always(Severity.WARN),
        "the template of collection names was changed, or another program copied rows",
        f"{_FIX}, which deletes what the ledger does not know", Action.DELETE,
    ),
    # -- source and pipeline -------------------------------------------------------------------------------------
    "source": Check(
        "source can be looked at", Depth.STANDARD, always(Severity.FAIL),
        "a disk is not mounted, or the setting `source` names another folder",
        "mount it or correct the setting; until then nothing is called an orphan",
    ),
    "coverage": Check(
        "every document is stored", Depth.STANDARD, share(0.0, 0.05), "documents were added since the last update",
        UPDATE, Action.UPDATE,
    ),
    "in_step": Check(
        "stored documents are as they are in the source", Depth.STANDARD, share(0.0, 1.0),
        "documents were edited since the last update", UPDATE, Action.UPDATE,
    ),
    "gone": Check(
        "stored documents are still in the source", Depth.STANDARD, share(0.0, 0.05),
        "documents were deleted or moved since the last update", f"{UPDATE}, which deletes or moves their chunks",
        Action.UPDATE,
    ),
    "failing": Check(
        "every document can be embedded", Depth.QUICK, share(0.0, 0.01), "see the reasons in `vectorkeep status`",
        f"mend the documents, or exclude them in the settings; {UPDATE} tries them again", Action.UPDATE,
    ),
    "pipeline": Check(
        "vectors are of the pipeline of the settings", Depth.QUICK, always(Severity.WARN),
        "model, dimension or chunker were changed in the settings",
        "put the old settings back, or `vectorkeep update --mode stale`",
    ),
    "pipeline_mark": Check(
        "collections name the pipeline of the ledger", Depth.QUICK, always(Severity.FAIL),
        "the ledger is another store's, or a collection was written by another program",
        "restore ledger and store from the same backup",
    ),
    # -- search --------------------------------------------------------------------------------------------------
    "self_query": Check(
        "a vector finds itself", Depth.DEEP, share(0.02, 0.1), "the index is damaged or badly worn",
        f"{_FIX}, which fills the index anew", Action.REBUILD,
    ),
    "recall": Check(
        "search finds the nearest ten", Depth.DEEP, share(0.1, 0.3), "the index is badly worn, or too coarse for the"
        " data", f"{_FIX}, which fills the index anew", Action.REBUILD,
    ),
    "canaries": Check(
        "canary queries find their documents", Depth.DEEP, always(Severity.FAIL),
        "documents are missing, or vectors are of another model", "look at the documents that the canary names",
    ),
    "probe": Check(
        "Chroma opens a copy and answers", Depth.DEEP, always(Severity.FAIL), _TORN,
        f"open the store with nothing else; {_FIX}",
    ),
    # -- what Vectorkeep keeps -----------------------------------------------------------------------------------
    "ledger": Check(
        "ledger is whole", Depth.QUICK, always(Severity.FAIL), "a disk fault, or another program",
        f"move .hashes/ledger.sqlite3 away and {UPDATE}: it makes a new one, unpaid",
    ),
    "ledger_counts": Check(
        "ledger's counts are right", Depth.QUICK, always(Severity.FAIL), "rows were changed by hand or lost",
        f"{_FIX}, which counts them anew", Action.RECOUNT,
    ),
    "ledger_places": Check(
        "ledger has documents in the collection of their folder", Depth.STANDARD, always(Severity.FAIL),
        "rows were changed by hand, or naming changed between versions", f"{_FIX}, which stores the documents anew",
        Action.FORGET,
    ),
    "unfinished": Check(
        "no run was cut short", Depth.QUICK, always(Severity.WARN), "an update was killed, or is at work", UPDATE,
        Action.UPDATE,
    ),
    "cache": Check(
        "vector cache is whole", Depth.STANDARD, always(Severity.WARN), "a disk fault",
        f"{_FIX}, which saves what can be read, and fills in what the store still has", Action.SAVE_CACHE,
    ),
    "cache_coverage": Check(
        "cache could refill the store", Depth.STANDARD, share(0.01, 2.0), "the cache was bounded, evicted or lost",
        f"{_FIX}, which fills in what the store has: without it, a lost store would be paid again", Action.SAVE_CACHE,
    ),
    "last_run": Check(
        "last update ended well", Depth.QUICK, always(Severity.WARN), "see `vectorkeep status`", UPDATE, Action.UPDATE,
    ),
    "budget": Check(
        "spending is known and below its cap", Depth.QUICK, always(Severity.WARN),
        "the day's cap is used up, or the spend ledger can't be read", "raise max_cost_usd_per_day, or wait a day",
    ),
    "lock": Check(
        "nobody is writing", Depth.QUICK, always(Severity.INFO), "an update or another writer is at work",
        "look again when it is done: what it is about to write may show as findings",
    ),
    "backup": Check(
        "a backup was verified lately", Depth.QUICK, always(Severity.WARN), "no backup is scheduled, or it fails",
        "run `vectorkeep backup`, and let it run every day",
    ),
    "drill": Check(
        "a restore was tried lately", Depth.QUICK, always(Severity.WARN), "no drill is scheduled, or it fails",
        "run `vectorkeep drill`, and let it run every week",
    ),
    "disk": Check(
        "disk has room", Depth.QUICK, always(Severity.FAIL), "the disk is nearly full: Chroma loses writes then",
        "make room on the disk",
    ),
    "memory": Check(
        "index fits into memory", Depth.QUICK, always(Severity.WARN), "Chroma holds a collection's index in memory",
        "more memory, or smaller collections by a template with {folder}",
    ),
}  # fmt: skip


class Findings:
    """Collects findings; what was looked at and found right becomes a PASS."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._looked: dict[str, str] = {}

    def looked(self, check: str, message: str = "") -> None:
        """A check was made. Unless it finds something, it passes."""
        assert check in CHECKS, check
        if message or check not in self._looked:
            self._looked[check] = message

    def add(
        self, check: str, message: str, *, collection: str = "", count: int = 1, total: int = 0,
        ids: Iterable[str] = (), severity: Severity | None = None, value: float | None = None, remedy: str = "",
        action: Action | None = None,
    ) -> None:  # fmt: skip
        """What a check saw, judged by its rule unless ``severity`` is given; a PASS by the rule is not kept."""
        known = CHECKS[check]
        self.looked(check)
        judged = known.rule(count, total) if severity is None else severity
        if judged is Severity.PASS:
            return
        some = tuple(sorted(ids)[:SAMPLE_IDS])
        self._found.append(
            Finding(
                check, judged, message, collection, count, total, some, known.cause, remedy or known.remedy,
                known.action if action is None else action, value,
            )
        )  # fmt: skip

    def skip(self, check: str) -> None:
        """Forget that a check was made: it could not come to its end."""
        self._looked.pop(check, None)

    def result(self) -> list[Finding]:
        """All findings in the register's order; where a check found nothing, its PASS."""
        found = {finding.check for finding in self._found}
        passed = [
            Finding(check, Severity.PASS, message or CHECKS[check].title)
            for check, message in self._looked.items()
            if check not in found
        ]
        order = {check: position for position, check in enumerate(CHECKS)}
        return sorted([*self._found, *passed], key=lambda each: (order[each.check], -each.severity, each.collection))


@dataclass(frozen=True)
class CollectionHealth:
    """A collection in figures.

    Attributes:
        name: of the collection.
        state: ``serving``, ``building``, ``retired``; ``foreign`` where Vectorkeep did not make it.
        documents, chunks: as the ledger knows them (0 for a foreign one).
        stored: ids in the store.
        source_documents: documents of the source that belong here; ``None`` where the source was not looked at.
        checked: rows whose text, metadata and vector were looked at.
        dimension: floats a vector, ``None`` before the first write.
        slots: places in the vector index, dead ones too; ``None`` where the files were not looked at.
    """

    name: str
    state: str
    documents: int = 0
    chunks: int = 0
    stored: int = 0
    source_documents: int | None = None
    checked: int = 0
    dimension: int | None = None
    slots: int | None = None

    @property
    def coverage(self) -> float:
        """The share of the ledger's chunks that the store holds, 0 to 1."""
        return min(1.0, self.stored / self.chunks) if self.chunks else 1.0


SCHEMA_VERSION = 1


@dataclass(frozen=True)
class HealthReport:
    """What a health check found.

    Attributes:
        run: id, a UTC time and six digits.
        started, seconds: Unix time; how long it took.
        depth: by name: quick, standard, deep.
        way: ``files`` (read as they lie on disk), ``api`` (through Chroma), ``none`` (there is no store).
        workspace, store, source: where.
        findings: in the register's order.
        collections: in the order of their names.
        norms: histogram of vector lengths: lower edges -> how many; empty where no vectors were looked at.
        notes: what else a person should know.
    """

    run: str
    started: float
    seconds: float
    depth: str
    way: str
    workspace: str
    store: str
    source: str
    pipeline: str
    findings: list[Finding]
    collections: list[CollectionHealth]
    norms: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """The worst of the findings."""
        return max((finding.severity for finding in self.findings), default=Severity.PASS)

    @property
    def exit_code(self) -> int:
        """1 with a FAIL, else 0."""
        return int(self.severity is Severity.FAIL)

    def counts(self) -> dict[str, int]:
        """Findings by the name of their severity."""
        return {level.name: sum(each.severity is level for each in self.findings) for level in Severity}

    def to_dict(self) -> dict[str, Any]:
        """For JSON, in the schema that docs/health_report.schema.json describes."""
        documents = sum(each.documents for each in self.collections if each.state == "serving")
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run, "started": self.started, "seconds": round(self.seconds, 3), "depth": self.depth,
            "way": self.way, "workspace": self.workspace, "store": self.store, "source": self.source,
            "pipeline": self.pipeline, "severity": self.severity.name, "exit_code": self.exit_code,
            "counts": self.counts(), "documents": documents,
            "chunks": sum(each.chunks for each in self.collections if each.state == "serving"),
            "findings": [finding.to_dict() for finding in self.findings],
            "collections": [asdict(each) | {"coverage": each.coverage} for each in self.collections],
            "norms": self.norms, "notes": self.notes,
        }  # fmt: skip


def held(findings: Iterable[Finding]) -> Finding | None:
    """That somebody holds the store's SQLite file: not all was looked at, and nothing may be built on such a look."""
    return next((each for each in findings if each.check == "lock" and each.severity >= Severity.WARN), None)
