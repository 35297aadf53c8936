"""Checks of the source against the ledger, by sizes and times, and by content where those differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vectorstore.documents.naming import collection_name
from vectorstore.documents.source import Entry, FileSource
from vectorstore.errors import ConfigurationError, DocumentError, EmptySource
from vectorstore.findings import Findings, Severity
from vectorstore.ledger import Generation, Ledger, StatRow
from vectorstore.settings import Settings

KEPT = 1_000  # document keys of each kind; a finding shows fewer


@dataclass
class SourceView:
    """What the source holds beside the ledger.

    Attributes:
        documents: by collection, as the template names them.
        misplaced: documents that the ledger has in another collection than the template names.
        seen, known: documents of the source, and of the ledger.
    """

    documents: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    known: int = 0
    added: int = 0
    changed: int = 0
    gone: int = 0
    hidden: int = 0
    some: dict[str, list[str]] = field(default_factory=lambda: {"added": [], "changed": [], "gone": []})
    misplaced: list[str] = field(default_factory=list)

    def note(self, kind: str, doc_key: str) -> None:
        """Count a document."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.some[kind]) < KEPT:
            self.some[kind].append(doc_key)


def check_source(
    settings: Settings, ledger: Ledger, serving: Generation | None, found: Findings, *, contents: bool
) -> SourceView | None:
    """What is not stored, not in step, or gone; ``None`` when the source can't be looked at.

    With ``contents`` every document is read, whatever its size and times say.

    A source that is missing, or empty while the ledger knows documents, is a finding of its own: nothing is called an
    orphan for it.
    """
    found.looked("source")
    source = FileSource(
        settings.path(settings.source), settings.include, settings.exclude, int(settings.max_document_mb * 1_000_000)
    )
    try:
        view = _merge(settings, ledger, serving, source, contents)
    except (EmptySource, ConfigurationError) as error:
        found.add("source", error.message, remedy=error.hint)
        return None
    if not view.seen and view.known:
        found.add("source", f"{source.root} has none of the {view.known:,} documents that the ledger knows")
        return None
    for problem in source.problems:
        found.add("source", problem.message, severity=Severity.WARN, ids=[problem.doc_key], remedy="see to its rights")
    _judge(view, _failing(ledger, serving), found)
    return view


def _failing(ledger: Ledger, serving: Generation | None) -> set[str]:
    return {key for key, _, _ in ledger.failures(serving.id)} if serving else set()


def _judge(view: SourceView, failing: set[str], found: Findings) -> None:
    for check in ("coverage", "in_step", "gone", "ledger_places"):
        found.looked(check)
    if view.misplaced:
        message = f"the ledger has {len(view.misplaced):,} documents in a collection that is not theirs"
        found.add("ledger_places", message, count=len(view.misplaced), total=view.known, ids=view.misplaced)
    added = view.added - len(failing.intersection(view.some["added"]))
    stored = view.seen - view.added
    share = stored / view.seen if view.seen else 1.0
    found.looked("coverage", f"{share:.2%} of {view.seen:,} documents are stored")
    if added:
        message = f"{added:,} of {view.seen:,} documents are not stored: {share:.2%} are"
        ids = [key for key in view.some["added"] if key not in failing]
        found.add("coverage", message, count=added, total=view.seen, ids=ids, value=share)
    if view.changed:
        message = f"{view.changed:,} documents were edited since they were embedded"
        found.add("in_step", message, count=view.changed, total=view.seen, ids=view.some["changed"])
    if view.gone:
        message = f"{view.gone:,} documents in the store are gone from the source"
        found.add("gone", message, count=view.gone, total=view.known, ids=view.some["gone"])


def _merge(
    settings: Settings, ledger: Ledger, serving: Generation | None, source: FileSource, contents: bool
) -> SourceView:
    view = SourceView()
    changed: list[Entry] = []
    entries = source.scan()
    rows = ledger.stats(serving.id) if serving else iter(())
    entry, row = next(entries, None), next(rows, None)
    while entry is not None or row is not None:
        if row is None or (entry is not None and entry[0] < row[0]):
            assert entry is not None
            view.note("added", entry[0])
            view.seen += 1
            view.documents[collection_name(settings.collection, entry[0])] += 1
            entry = next(entries, None)
        elif entry is None or row[0] < entry[0]:
            view.known += 1
            view.note("gone", row[0])
            row = next(rows, None)
        else:
            view.seen += 1
            view.known += 1
            place = collection_name(settings.collection, entry[0])
            view.documents[place] += 1
            if place != row[1]:
                view.misplaced.append(entry[0])
            if contents or _differs(entry, row, settings.trust_ctime):
                changed.append(entry)
            entry, row = next(entries, None), next(rows, None)
    _drop_hidden(view, source)
    for entry in changed:
        if _is_edited(ledger, serving, source, entry):
            view.note("changed", entry.doc_key)
    return view


def _differs(entry: Entry, row: StatRow, trust_ctime: bool) -> bool:
    same = entry[2] == row[3] and entry[1] == row[2] and (entry[3] == row[4] or not trust_ctime)
    return not same or bool(row[5])


def _drop_hidden(view: SourceView, source: FileSource) -> None:
    """What lies in a folder that can't be read is not gone."""
    folders = tuple(problem.doc_key for problem in source.problems if problem.doc_key.endswith("/"))
    if folders and view.gone:
        kept = [key for key in view.some["gone"] if not key.startswith(folders)]
        view.hidden = len(view.some["gone"]) - len(kept)
        # Beyond the keys that are kept nobody knows which are hidden: none is called gone.
        view.gone, view.some["gone"] = len(kept), kept


def _is_edited(ledger: Ledger, serving: Generation | None, source: FileSource, entry: Entry) -> bool:
    """Whether the content differs, too; what can't be read is for `failing` and `source`."""
    assert serving is not None
    try:
        document = source.read(entry)
    except DocumentError:
        return True
    row = ledger.document(serving.id, entry.doc_key)
    return row is None or row.content_hash != document.content_hash
