"""Does a series rise? Theil and Sen's slope over the second half, and how sure that is. Pure.

The first half is warm-up: caches fill, rings are touched for the first time. Of the second one the medians of
up to POINTS_MAX buckets count, so that single spikes mean nothing and neighbours are less alike. The slope
is the median of the slopes between all pairs; Kendall's variance bounds it from below (Sen 1968). A series
is flat unless we are 99.5 % sure that it rose by more than it is allowed to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

POINTS_MAX = 60
POINTS_MIN = 8
"""With fewer nothing can be said."""
SURE = 2.576
"""Standard normal quantile of 99.5 %."""
HOUR_S = 3_600.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """What the second half of a series does. Rises are over that half, in the series' unit."""

    level: float
    """Median of the half."""
    rise: float
    rise_least: float
    """What it rose at the least, as far as that can be known."""
    seconds: float
    """Length of the half."""

    @property
    def per_hour(self) -> float:
        """The rise if it went on like that."""
        return self.rise * HOUR_S / self.seconds


@dataclass(frozen=True)
class Allowed:
    """How much a series may rise over the half: the greater of a value and a share of its level."""

    value: float
    share: float = 0.0

    def most(self, level: float) -> float:
        """In the series' unit."""
        return max(self.value, self.share * abs(level))


def second_half(times_s: Sequence[float], values: Sequence[float]) -> tuple[Floats, Floats]:
    """The part behind the middle of the time, without what was not measured (NaN)."""
    times, held = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    if not len(times):
        return times, held
    kept = (times >= (times[0] + times[-1]) / 2) & np.isfinite(held)
    return times[kept], held[kept]


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend | None:
    """The trend of the second half; None when there is too little of it."""
    times, held = second_half(times_s, values)
    if len(times) < POINTS_MIN:
        return None
    groups = min(POINTS_MAX, len(times))
    points = [np.median(part) for part in np.array_split(times, groups)]
    medians = [np.median(part) for part in np.array_split(held, groups)]
    slope, least = slopes(np.array(points), np.array(medians))
    seconds = float(times[-1] - times[0])
    return Trend(float(np.median(held)), slope * seconds, least * seconds, seconds)


def slopes(times: Floats, values: Floats) -> tuple[float, float]:
    """(median slope, lower bound of it) over all pairs of points; times rise strictly."""
    count = len(times)
    first, second = np.triu_indices(count, 1)
    found = np.sort((values[second] - values[first]) / (times[second] - times[first]))
    spread = SURE * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    place = max(0, int((len(found) - spread) / 2))
    return float(np.median(found)), float(found[place])


def is_flat(found: Trend, allowed: Allowed) -> bool:
    """Whether nothing proves that it rises by more than it may."""
    return found.rise_least <= allowed.most(found.level)
