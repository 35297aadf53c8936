"""Whether figures rise or fall, and whether runs got slower: what is chance and what is not. Pure functions.

A trend is a straight line through the middle of each day, by least squares; it is believed where figures without any
trend would look like that less than once in a hundred times. Whether recent runs are slower than their own history is
the rank test of Mann and Whitney: it minds no outliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DAY = 86_400.0
BELIEVED = 0.01  # of chance
MIN_DAYS = 8  # with figures
MIN_EARLIER, MIN_RECENT = 10, 5  # runs
SLOWER = 1.3  # times as long as before
SLOWER_S = 0.5  # and so many seconds longer


@dataclass(frozen=True)
class Trend:
    """A straight line through figures.

    Attributes:
        first, last: the line's value at the first and the last day.
        per_day: its slope.
        chance: how likely figures without a trend are to look like this, 0 to 1.
    """

    first: float
    last: float
    per_day: float
    chance: float

    @property
    def believed(self) -> bool:
        """Whether it is hardly chance."""
        return self.chance < BELIEVED

    @property
    def growth(self) -> float:
        """The change as a share of where it began; 0 where that was nothing."""
        return (self.last - self.first) / self.first if self.first > 0 else 0.0


def trend(times: Sequence[float], values: Sequence[float], *, peaks: bool = False) -> Trend | None:
    """The line through the medians of the days, or their peaks; ``None`` of less than ``MIN_DAYS``. In Unix times."""
    import numpy as np

    days = np.floor(np.asarray(times, dtype=float) / DAY)
    figures = np.asarray(values, dtype=float)
    known = np.unique(days)
    if len(known) < MIN_DAYS:
        return None
    x = known - known[0]
    y = np.array([(np.max if peaks else np.median)(figures[days == day]) for day in known])
    slope, start = np.polyfit(x, y, 1)
    rest = float(((y - start - slope * x) ** 2).sum())
    spread = float(((x - x.mean()) ** 2).sum())
    free = len(x) - 2
    chance = 1.0
    if abs(slope) * x[-1] > 1e-9 * (abs(float(y.mean())) + 1e-12):  # else it is flat but for rounding
        error = math.sqrt(max(rest, 0.0) / free / spread)
        chance = two_sided(abs(float(slope)) / error, free) if error > 0 else 0.0
    return Trend(float(start), float(start + slope * x[-1]), float(slope), chance)


def two_sided(t: float, free: int) -> float:
    """How likely Student's t with so many degrees of freedom is to lie at ``t`` or beyond, on either side."""
    import numpy as np

    # With t = sqrt(free) * tan(angle) the density is a power of the cosine, and the integral a finite one.
    angle = math.atan(t / math.sqrt(free))
    width = min(math.pi / 2, 12 / math.sqrt(free))  # beyond it there is nothing left
    middles = (np.arange(4000) + 0.5) / 4000  # of strips
    ends = (min(angle, width), width)
    part, whole = (end * float((np.cos(middles * end) ** (free - 1)).mean()) for end in ends)
    return min(1.0, max(0.0, 1 - part / whole))


def slower_by(seconds: Sequence[float], work: Sequence[float], recent: int) -> float | None:
    """How many times as long the last ``recent`` runs took as the ones before let expect; ``None`` if that is chance.

    Args:
        seconds: of the runs of one kind, the oldest first.
        work: what each had to do, in any unit; a run takes its time a unit on top of a time that all take.
        recent: how many of them are judged by the others.
    """
    import numpy as np

    if recent < MIN_RECENT or len(seconds) - recent < MIN_EARLIER:
        return None
    took, units = np.maximum(np.asarray(seconds, dtype=float), 1e-3), np.asarray(work, dtype=float)
    expected = _expected(took[:-recent], units[:-recent], units)
    ratios = took / expected
    times = float(np.median(ratios[-recent:]) / np.median(ratios[:-recent]))
    excess = float(np.median(took[-recent:] - took[-recent:] / times))
    if times < SLOWER or excess < SLOWER_S or _rank_chance(ratios[:-recent], ratios[-recent:]) >= BELIEVED:
        return None
    return times


def _expected(
    took: NDArray[np.float64], units: NDArray[np.float64], of: NDArray[np.float64]
) -> NDArray[np.float64]:  # fmt: skip
    """What runs should take: a + b * units, neither below 0, fitted so that relative errors are least."""
    import numpy as np

    rows = np.stack([1 / took, units / took], axis=1)
    start, each = np.linalg.lstsq(rows, np.ones(len(took)), rcond=None)[0]
    if each <= 0 or not np.isfinite(each):
        return np.full(len(of), np.median(took))
    if start <= 0:
        start, each = 0.0, float(np.median(took / np.maximum(units, 1)))
    found: NDArray[np.float64] = np.maximum(start + each * of, 1e-3)
    return found


def _rank_chance(earlier: NDArray[np.float64], recent: NDArray[np.float64]) -> float:
    """How likely the recent ones are to be so much larger by chance: Mann and Whitney, as a normal distribution."""
    import numpy as np

    few, many = len(recent), len(earlier)
    larger = (recent[:, None] > earlier[None, :]).sum() + 0.5 * (recent[:, None] == earlier[None, :]).sum()
    counts = np.unique(np.concatenate([earlier, recent]), return_counts=True)[1]
    total = few + many
    spread = few * many / 12 * (total + 1 - float((counts**3 - counts).sum()) / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    score = (float(larger) - few * many / 2 - 0.5) / math.sqrt(spread)
    return 0.5 * math.erfc(score / math.sqrt(2))
