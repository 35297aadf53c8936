"""The budget: what is spent and reserved against a run's cap and a day's cap.

A request is reserved before it is sent and settled from what the provider reports. The spend ledger is an SQLite file,
so the day's cap holds across threads, processes and workspaces that share it. A reservation whose process died stays
counted as spent: the provider may have billed it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vectorstore.errors import Capped, Damaged
from vectorstore.prices import PICO, usd
from vectorstore.sqlite_errors import UNREADABLE, is_damage

# Providers count a little differently from tiktoken (up to 5 % was allowed for), and some add a token a text.
MARGIN_PERCENT = 10
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, day TEXT NOT NULL, at REAL NOT NULL, pid INTEGER NOT NULL,
    model TEXT NOT NULL, texts INTEGER NOT NULL, tokens INTEGER NOT NULL, picousd INTEGER NOT NULL, state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS totals (scope TEXT PRIMARY KEY, picousd INTEGER NOT NULL, tokens INTEGER NOT NULL);
"""


class Budget:
    """Caps, and the spend ledger they are held against. Thread-safe.

    Args:
        path: the spend ledger; made if it is missing.
        run: the run's id, which the run's cap is counted for.
        picousd_per_token: see ``prices.price_per_token``.
        cap_run_usd, cap_day_usd: ``None`` for no cap. A day is a UTC day.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        model: str,
        picousd_per_token: int,
        cap_run_usd: float | None = None,
        cap_day_usd: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run, self._model, self._price, self._clock = run, model, picousd_per_token, clock
        self._caps = {"run": _picousd(cap_run_usd), "day": _picousd(cap_day_usd)}
        self._lock = threading.Lock()
        self.requests = 0  # that were let through
        self._path, self._db = path, _open(path)

    def reserve(self, tokens: int, texts: int) -> Reservation:
        """Set aside what a request of ``tokens`` in ``texts`` may cost at most.

        Raises:
            Capped: it could pass a cap.
        """
        billed = -(-tokens * (100 + MARGIN_PERCENT) // 100) + texts
        cost = billed * self._price
        now = self._clock()
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        with self._transaction() as db:
            for name, scope in (("run", f"run {self._run}"), ("day", f"day {day}")):
                self._check(name, _total(db, scope), cost)
            cursor = db.execute(
                "INSERT INTO requests (run, day, at, pid, model, texts, tokens, picousd, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved')",
                (self._run, day, now, os.getpid(), self._model, texts, billed, cost),
            )
            self._add(db, day, cost, billed)
            self.requests += 1
            return Reservation(self, int(cursor.lastrowid or 0), day, billed)

    def spent(self) -> tuple[int, int]:
        """What this run has spent and reserved so far: picodollars, tokens."""
        with self._lock, _guarded(self._path):
            row = self._db.execute(
                "SELECT picousd, tokens FROM totals WHERE scope = ?", (f"run {self._run}",)
            ).fetchone()
            return (int(row[0]), int(row[1])) if row else (0, 0)

    def close(self) -> None:
        """Close the spend ledger."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _guarded(self._path):
            self._db.execute("BEGIN IMMEDIATE")  # the check and the reservation must see the same total
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _check(self, name: str, spent: int, cost: int) -> None:
        cap = self._caps[name]
        if cap is not None and spent + cost > cap:
            setting = {"run": "max_cost_usd", "day": "max_cost_usd_per_day"}[name]
            raise Capped(
                f"the cap of this {name}, ${usd(cap):.4g}, is reached: ${usd(spent):.6f} are spent or in flight"
                f" and the next request may cost ${usd(cost):.6f}",
                f"nothing paid is lost: run again to go on{' tomorrow' if name == 'day' else ''}, or raise {setting}",
            )

    def _add(self, db: sqlite3.Connection, day: str, picousd: int, tokens: int) -> None:
        for scope in (f"run {self._run}", f"day {day}"):
            db.execute(
                "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (scope) DO UPDATE"
                " SET picousd = picousd + excluded.picousd, tokens = tokens + excluded.tokens",
                (scope, picousd, tokens),
            )

    def _finish(self, reservation: Reservation, state: str, tokens: int) -> None:
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE requests SET state = ?, tokens = ?, picousd = ? WHERE id = ? AND state = 'reserved'",
                (state, tokens, tokens * self._price, reservation.id),
            ).rowcount
            if changed:  # a reservation is finished once
                less = tokens - reservation.tokens
                self._add(db, reservation.day, less * self._price, less)


class Reservation:
    """Money set aside for one request; finish it in exactly one of three ways."""

    def __init__(self, budget: Budget, id: int, day: str, tokens: int) -> None:
        self._budget, self.id, self.day, self.tokens = budget, id, day, tokens

    def settle(self, tokens: int) -> None:
        """The provider reported that it billed ``tokens``."""
        self._budget._finish(self, "settled", tokens)

    def release(self) -> None:
        """The request was surely not billed."""
        self._budget._finish(self, "released", 0)

    def forfeit(self) -> None:
        """Nobody knows whether it was billed: it counts as spent."""
        self._budget._finish(self, "forfeited", self.tokens)


def spending(path: Path, *, thorough: bool = False) -> dict[str, float]:
    """Dollars by UTC day, newest last, read without changing anything; empty when nothing was ever spent.

    Raises:
        Damaged: the file can't be read; with ``thorough`` also when SQLite finds fault with any page of it.
    """
    if not path.exists():
        return {}
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        with _guarded(path):
            said = db.execute("PRAGMA integrity_check(1)").fetchone()[0] if thorough else "ok"
            if said != "ok":
                raise sqlite3.DatabaseError(said)
            rows = db.execute("SELECT substr(scope, 5), picousd FROM totals WHERE scope LIKE 'day %' ORDER BY scope")
            return {day: usd(picousd) for day, picousd in rows}
    finally:
        db.close()


def _picousd(cap: float | None) -> int | None:
    return None if cap is None else int(cap * PICO)


def _total(db: sqlite3.Connection, scope: str) -> int:
    row = db.execute("SELECT picousd FROM totals WHERE scope = ?", (scope,)).fetchone()
    return int(row[0]) if row else 0


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guarded(path):
        db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        # FULL: a reservation must survive a power cut, or a cap could be passed after one.
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    return db


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        if not is_damage(error):
            raise
        raise Damaged(
            f"the spend ledger {path} can't be read: {error}",
            f"move {path.name} away to start a new one; the caps then count from zero, so lower them for today",
        ) from None
