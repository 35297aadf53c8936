"""The comparison of the source with the ledger: a merge of two streams in the order of their keys."""

from __future__ import annotations

from collections.abc import Callable

from vectorstore.documents.naming import building_suffix, collection_name
from vectorstore.documents.source import Entry, FileSource
from vectorstore.ledger import Intent, Ledger, StatRow
from vectorstore.plan import Plan
from vectorstore.settings import Settings


class Comparison:
    """The merge of the scan with the ledger."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        mode: str,
        scope: Callable[[str], bool] | None,
        verify_content: bool,
        intents: list[Intent],
    ) -> None:
        self.building = plan.generation.state == "building"
        self.plan, self.scope, self.verify = plan, scope, verify_content
        self.mode = "changed" if self.building else mode  # a building generation is new or half done
        self.suffix = building_suffix(plan.generation.pipeline) if self.building else ""
        self.known = 0  # documents of the ledger in scope
        self.trust_ctime = settings.trust_ctime
        self.template = settings.collection
        self.intents = {intent.doc_key: intent for intent in intents}  # those whose document was not met yet
        self.half_written = frozenset(self.intents)
        self.strays = set(plan.presence.leftovers)  # documents in the store that were not met yet
        self.work: list[tuple[object, ...]] = []
        self.gone: list[tuple[str, str]] = []

    def run(self, source: FileSource, ledger: Ledger) -> int:
        """Merge; how many documents the source has in scope."""
        seen = unchanged = known = 0
        trust_ctime, scope, lost = self.trust_ctime, self.scope, self.plan.presence.lost_documents
        look_anyway = bool(self.verify or self.mode in ("all", "stale") or lost or self.intents)
        entries, rows = source.scan(), ledger.stats(self.plan.generation.id)
        entry, row = next(entries, None), next(rows, None)
        while entry is not None or row is not None:
            if row is None or (entry is not None and entry[0] < row[0]):
                assert entry is not None
                if scope is None or scope(entry[0]):
                    seen += 1
                    name = collection_name(self.template, entry[0]) + self.suffix
                    self._work("stale" if self.building else "added", entry, name)
                entry = next(entries, None)
            elif entry is None or row[0] < entry[0]:
                if scope is None or scope(row[0]):
                    known += 1
                    self._gone(row, source)
                row = next(rows, None)
            else:
                if scope is None or scope(entry[0]):
                    seen += 1
                    known += 1
                    if (
                        entry[2] == row[3]
                        and entry[1] == row[2]
                        and (entry[3] == row[4] or not trust_ctime)
                        and not row[5]
                        and not look_anyway
                    ):
                        unchanged += 1
                    else:
                        self._known(entry, row)
                entry, row = next(entries, None), next(rows, None)
        self.plan._add(self.work, self.gone)
        self.plan.counts["unchanged"] += unchanged
        self.known = known
        return seen

    def _known(self, entry: Entry, row: StatRow) -> None:
        self.intents.pop(row.doc_key, None)
        self.strays.discard(row.doc_key)
        if self.mode == "stale":  # what serves is of the settings' own pipeline: nothing is stale
            self.plan.counts["unchanged"] += 1
            return
        if row.doc_key in self.half_written or self.plan.presence.lost(row.collection, row.doc_key):
            kind = "missing"
        elif self.mode == "all":
            kind = "all"
        elif self.verify or row[2:] != (entry.size, entry.mtime_ns, entry.ctime_ns if self.trust_ctime else row[4], 0):
            kind = "changed"
        else:
            self.plan.counts["unchanged"] += 1
            return
        if self.mode == "missing" and kind != "missing":
            self.plan.counts["unchanged"] += 1
            return
        if not entry.size and row.size:
            self.plan.emptied += 1
        self._work(kind, entry, row.collection)

    def _work(self, kind: str, entry: Entry, collection: str) -> None:
        self.intents.pop(entry.doc_key, None)
        self.strays.discard(entry.doc_key)
        if self.mode == "stale" and kind == "added":
            return
        self.plan.counts[kind] += 1
        self.plan.bytes += entry.size
        self._tally(collection, kind)
        self.work.append((entry.doc_key, collection, kind, entry.size, entry.mtime_ns, entry.ctime_ns))
        if len(self.work) >= 10_000:
            self.plan._add(self.work, self.gone)

    def abandoned(self, source: FileSource) -> list[Intent]:
        """What is left in the store of documents that are neither in the source nor in the ledger."""
        if self.mode not in ("changed", "all"):
            return []
        return [
            intent
            for key, intent in self.intents.items()
            if (self.scope is None or self.scope(key)) and not _is_hidden(key, source)
        ]

    def _gone(self, row: StatRow, source: FileSource) -> None:
        self.intents.pop(row.doc_key, None)
        self.strays.discard(row.doc_key)
        if _is_hidden(row.doc_key, source):
            self.plan.counts["unknown"] += 1  # its folder can't be read: that is no reason to delete it
        elif self.mode in ("missing", "stale"):
            self.plan.counts["unchanged"] += 1
        else:
            self.plan.counts["deleted"] += 1
            self._tally(row.collection, "deleted")
            self.gone.append((row.doc_key, row.collection))

    def _tally(self, collection: str, kind: str) -> None:
        counts = self.plan.by_collection.setdefault(collection, {})
        counts[kind] = counts.get(kind, 0) + 1


def _is_hidden(doc_key: str, source: FileSource) -> bool:
    """Whether a document lies in a folder that can't be read."""
    return any(problem.doc_key.endswith("/") and doc_key.startswith(problem.doc_key) for problem in source.problems)
