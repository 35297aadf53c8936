"""The vector cache keeps what was paid, forgets what nobody needs, and never hands out a damaged vector."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from vectorstore.cache import VectorCache
from vectorstore.errors import Damaged

DIMENSION = 8
DAY = 86_400.0


def hashes(*numbers: int) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in numbers]


def vectors(*numbers: int) -> np.ndarray:
    return np.asarray([np.full(DIMENSION, number + 1) for number in numbers], dtype=np.float32)


def make(tmp_path: Path, day: float = 100, embedding: str = "e") -> VectorCache:
    return VectorCache(tmp_path / "cache.sqlite3", embedding, DIMENSION, clock=lambda: day * DAY)


def test_what_was_put_comes_back_bit_for_bit_after_a_reopening(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.put_many(hashes(*range(1200)), vectors(*range(1200)))
    cache.close()
    cache = make(tmp_path)
    found = cache.get_many(hashes(*range(1300)))
    assert len(found) == 1200
    assert all((found[hashes(n)[0]] == vectors(n)[0]).all() for n in range(1200))
    assert cache.known(hashes(3, 5000)) == set(hashes(3))
    assert make(tmp_path, embedding="other").get_many(hashes(1)) == {}


def test_a_flipped_bit_makes_a_vector_absent(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.put_many(hashes(1, 2), vectors(1, 2))
    db = sqlite3.connect(tmp_path / "cache.sqlite3")
    with db:
        db.execute("UPDATE vectors SET vector = ? WHERE hash = ?", (vectors(7)[0].tobytes(), hashes(1)[0]))
    db.close()
    assert list(cache.get_many(hashes(1, 2))) == hashes(2)
    cache.put_many(hashes(1), vectors(1))
    assert len(cache.get_many(hashes(1, 2))) == 2


def test_only_what_nobody_has_needed_for_long_is_dropped(tmp_path: Path) -> None:
    make(tmp_path, day=1).put_many(hashes(1, 2, 3), vectors(1, 2, 3))
    cache = make(tmp_path, day=100)
    cache.put_many(hashes(4), vectors(4))
    cache.released(hashes(3))
    assert cache.evict(hashes(1), keep_days=90) == 1
    assert cache.known(hashes(1, 2, 3, 4)) == set(hashes(1, 3, 4))
    assert make(tmp_path, day=300).evict(hashes(1), keep_days=90) == 2


def test_a_bound_drops_the_unneeded_first_and_the_oldest_of_them(tmp_path: Path) -> None:
    for day in (1, 2, 3, 4):
        make(tmp_path, day=day).put_many(hashes(day), vectors(day))
    cache = make(tmp_path, day=5)
    assert cache.evict(hashes(1), keep_days=1000, max_bytes=2 * 4 * DIMENSION) == 2
    assert cache.known(hashes(1, 2, 3, 4)) == set(hashes(1, 4))


@pytest.mark.parametrize("damage", ["cut", "garbage", "middle"])
def test_a_damaged_file_is_set_aside_and_salvaged(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cache.sqlite3"
    cache = make(tmp_path)
    cache.put_many(hashes(*range(2000)), vectors(*range(2000)))
    cache.close()
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 5000)
    else:
        middle = len(whole) // 2 // 4096 * 4096
        path.write_bytes(whole[:middle] + b"\xff" * 8192 + whole[middle + 8192 :])
    cache = _open_and_use(tmp_path)
    found = cache.get_many(hashes(*range(2000)))
    assert all((vector == vectors(int.from_bytes(hash_, "big"))[0]).all() for hash_, vector in found.items())
    if damage == "middle":
        assert len(found) > 500, "what could be read was saved"
    assert "damaged" in cache.damage
    assert list(tmp_path.glob("cache.sqlite3.damaged-*"))
    cache.put_many(hashes(9999), vectors(9999))
    cache.close()


def _open_and_use(tmp_path: Path) -> VectorCache:
    """The damage may show on opening, or only when a page is met; then the next opening mends it."""
    try:
        cache = make(tmp_path)
        cache.get_many(hashes(*range(2000)))
        cache.put_many(hashes(5000), vectors(5000))
        assert cache.damage, "the damage was met nowhere"
    except Damaged as error:
        assert "again" in error.hint
        cache = make(tmp_path)
    return cache
