"""A health report in a handful of figures: for the last line, the history, and the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from vectorstore.findings import HealthReport


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the collections that serve; over all of a store that Vectorkeep did not make, as none serves there.

    Attributes:
        collections: how many.
        documents, chunks: as the ledger knows them.
        stored: ids in the store.
        coverage: the share of the ledger's chunks that the store holds, 0 to 1; too many in one collection do not make
            up for too few in another.
    """

    collections: int
    documents: int
    chunks: int
    stored: int
    coverage: float


def totals(report: HealthReport) -> Totals:
    """The sums of a report."""
    counted = [each for each in report.collections if each.state == "serving"] or report.collections
    chunks = sum(each.chunks for each in counted)
    held = sum(min(each.stored, each.chunks) for each in counted)
    return Totals(
        len(counted), sum(each.documents for each in counted), chunks, sum(each.stored for each in counted),
        held / chunks if chunks else 1.0,
    )  # fmt: skip
