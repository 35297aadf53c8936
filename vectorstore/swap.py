"""The swap: a generation that was built beside the serving one takes its place.

Two renames a collection, with a moment in which the name is gone. The swap is journaled in the ledger and every step
asks first what is already there, so a run that is killed in it is finished by the next one.
"""

from __future__ import annotations

import time
from typing import Any

from vectorstore.chroma.fingerprint import fingerprint
from vectorstore.chroma.store import Store
from vectorstore.documents.naming import building_suffix
from vectorstore.ledger import Generation, Ledger
from vectorstore.settings import Settings

JOURNAL = "swap"


def begin_swap(ledger: Ledger, serving: Generation, building: Generation, now: float) -> None:
    """Write down what is about to be swapped."""
    retired = f"--old-{serving.id}-{time.strftime('%Y%m%d', time.gmtime(now))}"
    ledger.remember(JOURNAL, {"serving": serving.id, "building": building.id, "retired_suffix": retired})


def finish_swap(settings: Settings, ledger: Ledger) -> list[str]:
    """Do, or go on with, the swap that the journal names; notes for a person. No journal: nothing to do."""
    journal = ledger.fact(JOURNAL)
    if not journal:
        return []
    old = ledger.generation_of(journal["serving"])
    new = ledger.generation_of(journal["building"])
    ledger.store_opened()
    store = Store(settings)
    try:
        _rename(store, ledger, old, new, journal)
    finally:
        store.close()
    ledger.swap(old.id, new.id, building_suffix(new.pipeline), journal["retired_suffix"], JOURNAL)
    if not settings.chroma_url:
        ledger.store_closed(fingerprint(settings.path(settings.chroma_path)))
    return [
        f"{new.pipeline} serves now; the vectors of {old.pipeline} are kept in collections named"
        f" …{journal['retired_suffix']}"
    ]


def _rename(store: Store, ledger: Ledger, old: Generation, new: Generation, journal: dict[str, Any]) -> None:
    suffix, retired = building_suffix(new.pipeline), journal["retired_suffix"]
    made_by = store.pipelines()
    for name in ledger.collections(old.id):
        if made_by.get(name) == old.pipeline:
            store.rename(name, name + retired)
    for name in ledger.collections(new.id):
        if name in made_by:
            store.rename(name, name.removesuffix(suffix))
