"""Damage to what Vectorkeep keeps: ledger, vector cache, spend ledger."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing

from tests.support.damage.register import Apply, damage, register
from tests.support.damage.scene import Scene, cut, execute, flip
from tests.support.damage.sqlite_file import leaf
from tests.support.workbench import document
from vectorstore.findings import Severity

# What else is out of step with a ledger that is not today's.
ASTRAY = "missing orphans text metadata vectors coverage in_step gone ledger_counts pipeline_mark"


def _ledger(*statements: str) -> Apply:
    def apply(scene: Scene) -> None:
        for statement in statements:
            scene.in_ledger(statement)

    return apply


# -- the ledger's rows -----------------------------------------------------------------------------------------------

register(
    _ledger("DELETE FROM documents WHERE doc_key = 'guide/page-050.md'"), "ledger_row_removed",
    "A document's row is gone from the ledger", expect="ledger_counts", also="orphans coverage",
)  # fmt: skip
register(
    _ledger(
        "UPDATE collections SET documents = documents - 1, chunks = chunks - (SELECT length(chunks) / 24 FROM documents"
        " WHERE doc_key = 'guide/page-050.md') WHERE name = 'docs_guide'",
        "DELETE FROM documents WHERE doc_key = 'guide/page-050.md'",
    ),
    "ledger_forgot_a_document", "A document is gone from the ledger, its counts included", expect="orphans",
    also="coverage", api="=",
)  # fmt: skip
register(
    _ledger("UPDATE collections SET chunks = chunks + 7 WHERE name = 'docs_guide'"), "ledger_miscounts",
    "The ledger's count of chunks is off", expect="ledger_counts", also="missing",
)  # fmt: skip
register(
    _ledger("UPDATE documents SET chunks = substr(chunks, 1, 24 * 3) WHERE doc_key = 'guide/page-050.md'"),
    "ledger_chunks_forgotten", "The ledger knows only three chunks of a document", expect="ledger_counts",
    also="orphans",
)  # fmt: skip
register(
    _ledger("UPDATE documents SET chunks = substr(chunks, 1, 100) WHERE doc_key = 'guide/page-050.md'"),
    "ledger_chunks_torn", "What the ledger knows of a document's chunks ends in the middle of one", expect="ledger",
    also=f"probe {ASTRAY}", mends=False,
)  # fmt: skip
for _name, _at, _text, _expect in (
    ("text", 1, "text's hash", "text"), ("vector", 17, "vector's checksum", "vectors"),
    ("metadata", 21, "metadata's checksum", "metadata"),
):  # fmt: skip
    register(
        _ledger(
            f"UPDATE documents SET chunks = CAST(substr(chunks, 1, {_at - 1}) || x'5a' || substr(chunks, {_at + 1})"
            " AS BLOB) WHERE doc_key IN ('guide/page-050.md', 'guide/page-097.md')"
        ),
        f"ledger_{_name}_changed", f"The ledger has another {_text}", expect=_expect, also="ledger in_step",
        api="=",
    )  # fmt: skip
register(
    _ledger(
        "UPDATE documents SET content_hash = zeroblob(16) WHERE doc_key IN ('guide/page-050.md', 'api/page-003.md')"
    ),
    "ledger_content_changed", "The ledger has another hash of two documents", expect="in_step",
    contents=True,
)  # fmt: skip
register(
    _ledger("UPDATE generations SET pipeline = replace(pipeline, 'small', 'large')"), "ledger_of_another_pipeline",
    "The ledger says that another model made the vectors", expect="pipeline_mark pipeline",
    also="cache_coverage", api="=", mends=False,
)  # fmt: skip
register(
    _ledger("DELETE FROM generations"), "ledger_generation_removed",
    "The ledger's rows belong to a generation that is not there", expect="ledger", also=ASTRAY, mends=False,
)  # fmt: skip
register(
    _ledger("UPDATE documents SET collection = 'docs_api' WHERE doc_key = 'guide/page-050.md'"),
    "ledger_names_another_collection", "The ledger has a document in another collection than the store",
    expect="ledger_places", also="missing orphans two_places ledger_counts", api="=",
)  # fmt: skip
register(
    _ledger("INSERT INTO intents VALUES (1, 'guide/page-050.md', 'docs_guide', 30)"), "intent_left",
    "A run was killed before it wrote what it was about to write", expect="unfinished",
)  # fmt: skip


@damage("unfinished", "text metadata vectors orphans missing in_step", may_cost=True)
def run_killed(scene: Scene) -> None:
    """A run was killed when it had written to the store and not yet to the ledger."""
    for n in range(30, 34):
        scene.edit(f"guide/page-{n:03d}.md", document(("killed", n), 22))
    assert scene.workspace.start("update", die="before vectorstore.ledger:Ledger.commit").killed()


@damage("unfinished", "pipeline")
def swap_killed(scene: Scene) -> None:
    """Another pipeline's vectors were all there, and the run was killed before they took over."""
    scene.workspace.values["dimensions"] = 8
    assert scene.workspace.start("update", "--mode", "stale", die="before vectorstore.swap:finish_swap").killed()


register(
    _ledger(
        "UPDATE runs SET state = 'failed', report = json_set(report, '$.state', 'failed', '$.exit_code', 1)"
        " WHERE started = (SELECT max(started) FROM runs)"
    ),
    "run_failed", "The last update failed", expect="last_run",
)  # fmt: skip
register(
    _ledger(
        "INSERT INTO failures SELECT 1, doc_key, 'too strange', 1, 0, 0 FROM documents WHERE doc_key LIKE 'guide/%0.md'"
    ),
    "documents_failing", "Ten documents could not be embedded last time", expect="failing",
)  # fmt: skip

# -- the ledger's file -----------------------------------------------------------------------------------------------


@damage("ledger", ASTRAY, mends=False)
def ledger_page_zeroed(scene: Scene) -> None:
    """A page of the ledger's documents is zero."""
    offset, size = leaf(scene.workspace.ledger, "documents_by_content")
    flip(scene.workspace.ledger, offset, size)


for _share in (0.01, 0.5, 0.95):
    register(
        lambda scene, share=_share: cut(scene.workspace.ledger, share), f"ledger_cut_to_{_share:.0%}",
        f"The ledger keeps {_share:.0%} of its bytes", expect="ledger", also=ASTRAY, mends=False,
    )  # fmt: skip


@damage("ledger", mends=False)
def ledger_is_something_else(scene: Scene) -> None:
    """The ledger's file holds noise."""
    scene.workspace.ledger.write_bytes(random.Random(2).randbytes(50_000))


@damage("ledger", "orphans coverage", mends=False)
def ledger_of_a_later_version(scene: Scene) -> None:
    """A later Vectorkeep has changed the ledger's layout."""
    with closing(sqlite3.connect(scene.workspace.ledger)) as db:
        db.execute("PRAGMA user_version = 99")


@damage("ledger orphans", "coverage last_run pipeline_mark", mends=False)
def ledger_removed(scene: Scene) -> None:
    """The ledger's file is gone."""
    scene.workspace.ledger.unlink()


@damage("ledger orphans", "coverage last_run pipeline_mark")
def ledger_emptied(scene: Scene) -> None:
    """The ledger's file has no byte left."""
    cut(scene.workspace.ledger, 0)


@damage("orphans", ASTRAY, api="=", mends=False)
def ledger_of_another_day(scene: Scene) -> None:
    """The ledger is that of the day before."""
    shutil.copy2(scene.older / ".hashes" / "ledger.sqlite3", scene.workspace.ledger)


# -- the cache -------------------------------------------------------------------------------------------------------


@damage("cache", "cache_coverage", contents=True)
def cache_page_flipped(scene: Scene) -> None:
    """A page of the cache's vectors is flipped."""
    offset, size = leaf(scene.workspace.cache, "vectors")
    flip(scene.workspace.cache, offset, size)


for _share in (0.02, 0.6):
    register(
        lambda scene, share=_share: cut(scene.workspace.cache, share), f"cache_cut_to_{_share:.0%}",
        f"The cache keeps {_share:.0%} of its bytes", expect="cache", also="cache_coverage",
    )  # fmt: skip


@damage("cache", "cache_coverage")
def cache_is_something_else(scene: Scene) -> None:
    """The cache's file holds noise."""
    scene.workspace.cache.write_bytes(random.Random(3).randbytes(50_000))


@damage("cache_coverage", "cache")
def cache_removed(scene: Scene) -> None:
    """The cache is gone."""
    scene.workspace.cache.unlink()


@damage("cache_coverage")
def cache_of_another_day(scene: Scene) -> None:
    """The cache is that of the day before."""
    shutil.copy2(scene.older / ".hashes" / "cache.sqlite3", scene.workspace.cache)


@damage("cache cache_coverage", contents=True)
def cached_vectors_changed(scene: Scene) -> None:
    """Vectors in the cache are not those that were paid for."""
    execute(scene.workspace.cache, "UPDATE vectors SET vector = zeroblob(length(vector)) WHERE id % 7 = 0", {})


# -- the spend ledger ------------------------------------------------------------------------------------------------


@damage("budget", mends=False)
def spend_ledger_is_something_else(scene: Scene) -> None:
    """The spend ledger holds noise: no cap would hold."""
    scene.workspace.spend.write_bytes(random.Random(4).randbytes(20_000))


@damage("budget", mends=False)
def spend_ledger_cut(scene: Scene) -> None:
    """The spend ledger keeps half of its bytes."""
    cut(scene.workspace.spend, 0.5)


@damage("budget", mends=False)
def spend_ledger_flipped(scene: Scene) -> None:
    """A page of the spend ledger is flipped."""
    flip(scene.workspace.spend, 4096, 300, 3)


@damage("budget", severity=Severity.WARN, mends=False)
def day_is_spent(scene: Scene) -> None:
    """The day's cap is used up."""
    scene.workspace.values["max_cost_usd_per_day"] = 0.000001
    for day in ("+0 days", "+1 days"):  # the day may end meanwhile
        statement = "INSERT OR REPLACE INTO totals VALUES ('day ' || date('now', :day), 1000000, 0)"
        execute(scene.workspace.spend, statement, {"day": day})
