"""Checks of what Vectorkeep keeps beside the store: ledger, cache, runs, money, lock, backups, and of the machine."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from vectorstore.backups import history
from vectorstore.backups.listing import entries, names_in
from vectorstore.budget import spending
from vectorstore.cache import VectorCache
from vectorstore.errors import Damaged, VectorkeepError
from vectorstore.findings import Findings, Severity
from vectorstore.ledger import Generation, Ledger
from vectorstore.lock import held_by, lock_files
from vectorstore.settings import Settings

BACKUP_HOURS, DRILL_DAYS = 26, 35
CLOCK_AHEAD_S = 3600
LEAST_FREE = 100_000_000  # bytes: below it Chroma's writes are in danger
STORE_SHARE_FREE = 1.2  # of the store's size: what a repair, a restore or a copy needs
MEMORY_SHARE = 0.8
_HASHES_PAGE = 5_000


def check_ledger(ledger: Ledger, found: Findings, *, thorough: bool, at_work: bool) -> None:
    """The ledger's file, its counts, and what runs left in it; ``at_work``: one may still be at it."""
    found.looked("ledger")
    found.looked("ledger_counts")
    found.looked("unfinished")
    if faults := ledger.faults(thorough=thorough):
        found.add("ledger", f"the ledger is damaged: {faults[0]}", count=len(faults))
        return
    for generation in ledger.generations():
        noted = {name: counts for name, counts in ledger.collections(generation.id).items() if counts != (0, 0)}
        counted = ledger.counted(generation.id)
        for name in sorted(noted.keys() | counted.keys()):
            if noted.get(name) != counted.get(name):
                documents, chunks = noted.get(name, (0, 0))
                message = f"the ledger says {documents:,} documents, {chunks:,} chunks; it lists {counted.get(name)}"
                found.add("ledger_counts", message, collection=name)
        if intents := ledger.intents(generation.id):
            keys = [intent.doc_key for intent in intents]
            found.add(
                "unfinished", f"{len(keys):,} documents were about to be written", count=len(keys), ids=keys,
                severity=Severity.INFO if at_work else None,
            )  # fmt: skip
        if generation.state == "building":
            found.add(
                "unfinished", f"vectors of {generation.pipeline} are half built", severity=Severity.INFO,
                remedy="run `vectorkeep update --mode stale` to go on",
            )  # fmt: skip
    if ledger.fact("swap") and not at_work:
        found.add("unfinished", "a swap to another pipeline was cut short")


def check_runs(settings: Settings, ledger: Ledger, serving: Generation | None, found: Findings) -> None:
    """How the last update ended, which documents fail, and whether the vectors are of the settings' pipeline."""
    from vectorstore.pipeline import Pipeline

    last = ledger.last_run("update")
    found.looked("last_run", "" if last else "no update has run yet")
    if last and last["state"] != "completed":
        why = f": {last['message']}" if last.get("message") else ""
        found.add("last_run", f"the last update ended {last['state']}{why}", remedy=last.get("hint", ""))
    if serving is None:
        return
    found.looked("failing")
    found.looked("pipeline")
    failures = ledger.failures(serving.id)
    documents = sum(count for count, _ in ledger.collections(serving.id).values())
    if failures:
        found.add(
            "failing", f"{len(failures):,} documents fail, {failures[0][0]!r}: {failures[0][1]}", count=len(failures),
            total=documents + len(failures), ids=[key for key, _, _ in failures],
            value=len(failures) / (documents + len(failures)),
        )  # fmt: skip
    wanted = Pipeline.of(settings).id
    if serving.pipeline != wanted and documents:
        found.add("pipeline", f"the vectors are of {serving.pipeline}; the settings ask for {wanted}", count=documents)


def check_cache(
    settings: Settings, ledger: Ledger, serving: Generation | None, found: Findings, *, vectors: bool
) -> None:
    """Whether the vector cache can be read, and could refill the store; with ``vectors`` each one is looked at."""
    if serving is None:
        return
    path = settings.hashes / "cache.sqlite3"
    total = sum(chunks for _, chunks in ledger.collections(serving.id).values())
    found.looked("cache")
    if not path.exists():
        if total:
            found.add("cache_coverage", "there is no vector cache", count=total, total=total, value=1.0)
        return
    embedding = serving.pipeline.rsplit("/", 1)[0]
    try:
        cache = VectorCache(path, embedding, int(embedding.rsplit("/", 1)[1]), readonly=True)
        try:
            lacking = _count_unsound(cache, ledger) if vectors else _count_lacking(cache, ledger)
        finally:
            cache.close()
    except Damaged as error:
        found.add("cache", error.message)
        return
    found.looked("cache_coverage")
    if lacking:
        message = f"the cache lacks {lacking:,} of the {total:,} vectors in the store"
        found.add("cache_coverage", message, count=lacking, total=total, value=lacking / total if total else None)


def _count_lacking(cache: VectorCache, ledger: Ledger) -> int:
    """How many hashes the ledger needs and the cache does not have; 8 bytes of memory each."""
    import numpy as np

    needed = np.unique(ledger.hash_prefixes())
    there = np.zeros(len(needed), np.bool_)
    for prefixes in cache.hash_prefixes() if len(needed) else ():
        places = np.minimum(np.searchsorted(needed, prefixes), len(needed) - 1)
        there[places[needed[places] == prefixes]] = True
    return int(np.count_nonzero(~there))


def _count_unsound(cache: VectorCache, ledger: Ledger) -> int:
    """The same of those whose vector can't be read either."""
    hashes, lacking = iter(ledger.needed_hashes()), 0
    while page := set(islice(hashes, _HASHES_PAGE)):
        lacking += len(page) - len(cache.get_many(list(page)))
    return lacking


def check_money(settings: Settings, found: Findings, clock: Callable[[], float]) -> None:
    """Whether all of the spend ledger can be read, and how much of the day's cap is left."""
    found.looked("budget")
    try:
        by_day = spending(settings.path(settings.spend_ledger), thorough=True)
    except Damaged as error:
        found.add("budget", error.message, severity=Severity.FAIL, remedy=error.hint)
        return
    except sqlite3.OperationalError as error:
        found.add("budget", f"the spend ledger can't be read now: {error}", severity=Severity.WARN, remedy="run again")
        return
    today = by_day.get(time.strftime("%Y-%m-%d", time.gmtime(clock())), 0.0)
    cap = settings.max_cost_usd_per_day
    if cap is not None and today >= cap and settings.is_billable:
        found.add("budget", f"${today:.4f} of the day's ${cap:.2f} are spent", value=today)
    else:
        found.looked("budget", f"${today:.4f} were spent today")


def check_lock(settings: Settings, found: Findings) -> bool:
    """Whether a writer is at work."""
    found.looked("lock")
    who = next((who for path in lock_files(settings) if (who := held_by(path))), None)
    if who:
        found.add("lock", f"at work: {who}")
    return who is not None


def check_backups(settings: Settings, found: Findings, clock: Callable[[], float]) -> None:
    """The ages of the newest backup that verified and is still there, and of the last drill that went well."""
    found.looked("backup")
    found.looked("drill")
    try:
        events = history.read(settings.backups)
        there = {name for name, file in entries(names_in(settings.backups)) if file}
    except VectorkeepError as error:
        found.add("backup", error.message)
        return
    made = [each for each in events if each.event == "backup"]
    sound = {name for name, look in history.looks(events).items() if look.ok} & there
    newest = max((each for each in made if each.ok and each.name in sound), key=lambda each: each.time, default=None)
    bad = sorted(name for name, look in history.looks(events).items() if not look.ok and name in there)
    if bad:
        found.add(
            "backup", f"{len(bad):,} backups did not verify, {bad[-1]} among them", count=len(bad), ids=bad,
            remedy="run `vectorkeep verify` again; move away what stays bad, and run `vectorkeep backup`",
        )  # fmt: skip
    _check_age("backup", made, newest, BACKUP_HOURS * 3600, found, clock())
    drills = [each for each in events if each.event == "drill"]
    good = next((each for each in reversed(drills) if each.ok), None)
    _check_age("drill", drills, good, DRILL_DAYS * 86_400, found, clock())


def _check_age(
    kind: str, tries: list[history.Event], good: history.Event | None, oldest: float, found: Findings, now: float
) -> None:
    """The age of the last good one, and how the last one ended."""
    if not tries:
        found.add(kind, f"no {kind} is on record", severity=Severity.INFO)
        return
    if not tries[-1].ok:
        found.add(kind, f"the last {kind} failed: {tries[-1].message}")
    if good is None:
        found.add(kind, f"no {kind} that is good is left" if kind == "backup" else f"no {kind} ever went well")
        return
    age = now - good.time
    shown = f"{age / 3600:.0f} h" if age < 3 * 86_400 else f"{age / 86_400:.0f} days"
    if age < -CLOCK_AHEAD_S:
        found.add(kind, f"the last {kind} is dated in the future: see the clock", value=age)
    elif age > oldest:
        found.add(kind, f"the last {kind} is {shown} old", value=age)
    else:
        found.looked(kind, f"the last {kind}, {good.name}, is {shown} old")


def check_machine(store: Path, found: Findings) -> None:
    """Room on the store's disk, and whether the largest index fits into memory."""
    found.looked("disk")
    sizes = [sum(_sizes(folder)) for folder in store.iterdir() if folder.is_dir()]
    size = sum(sizes) + sum(_sizes(store))
    free = shutil.disk_usage(store).free
    text = f"{free / 1e9:,.1f} GB are free, the store takes {size / 1e9:,.2f} GB"
    if free < LEAST_FREE:
        found.add("disk", text, value=float(free))
    elif free < STORE_SHARE_FREE * size:
        found.add("disk", text + ": not enough for a copy of it", severity=Severity.WARN, value=float(free))
    else:
        found.looked("disk", text)
    total = _memory()
    if total is None:
        return
    largest = max(sizes, default=0)
    found.looked("memory", f"the largest index takes {largest / 1e6:,.0f} MB of {total / 1e9:,.1f} GB")
    if largest > MEMORY_SHARE * total:
        text = f"the largest index takes {largest / 1e9:,.1f} GB, the machine has {total / 1e9:,.1f} GB"
        found.add("memory", text, value=float(largest))


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return sizes


def _memory() -> int | None:
    """Bytes of memory that programs can have now; ``None`` where the system does not say."""
    with suppress(OSError, StopIteration, ValueError), open("/proc/meminfo", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("MemAvailable:")).split()[1]) * 1024
    return None
