"""When things happen in a synthetic market, and to whom: bursts, not a Poisson process. Pure.

Clusters of actions of one symbol, their number per 100 ms driven by two log-normal factors (one slow,
one per slot), their sizes heavy-tailed, the gaps inside them tens of microseconds; symbols by Zipf's law.
The parameters put the windows of 1 s to 1 ms near the recorded session S1 (see the data sheet's figures).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SLOT_US = 100_000
ZIPF = 0.9
CLUSTER_MAX = 400
CATCH_UP_SLOTS = 30
_SLOW, _SLOT, _MEMORY = 0.7, 0.9, 0.97


class Slot(NamedTuple):
    """Actions of 100 ms in time order."""

    times_us: NDArray[np.int64]
    """Offset from the slot's start; may reach a little beyond its end."""
    symbols: NDArray[np.int64]
    """Index of the symbol."""


class Rhythm:
    """Seeded slots of actions. `bursts` scales the clustering: 1 as recorded, 0 an even stream."""

    def __init__(self, seed: int, symbols: int, actions_per_s: float, bursts: float = 1.0) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._mean = actions_per_s * SLOT_US / 1e6
        self._bursts = bursts
        weights = 1.0 / np.arange(1, symbols + 1) ** ZIPF
        self._symbols = np.cumsum(weights / weights.sum())
        self._sizes = self._make_sizes()
        self._mean_size = float(self._sizes.mean())
        self._mood = 0.0
        self._owed = 0.0
        self._behind = 0.0

    def share(self, index: int) -> float:
        """Share of the activity that symbol `index` gets."""
        return float(self._symbols[index] - (self._symbols[index - 1] if index else 0.0))

    def _make_sizes(self) -> NDArray[np.int64]:
        if self._bursts <= 0:
            return np.ones(1, np.int64)
        raw = np.exp(self._rng.normal(0.6, 1.3 * min(1.0, self._bursts), 8_192))
        return np.minimum(np.ceil(raw), CLUSTER_MAX).astype(np.int64)

    def _factor(self) -> float:
        if self._bursts <= 0:
            return 1.0
        slow, slot = _SLOW * self._bursts, _SLOT * self._bursts
        innovation = np.sqrt(1.0 - _MEMORY**2)
        self._mood = _MEMORY * self._mood + innovation * float(self._rng.normal())
        quick = float(self._rng.normal())
        return float(np.exp(slow * self._mood - slow**2 / 2 + slot * quick - slot**2 / 2))

    def slot(self) -> Slot:
        """The next 100 ms."""
        rng = self._rng
        # What is missing from (or above) the mean so far is made up within a few seconds.
        catch_up = min(3.0, max(0.2, 1.0 + self._behind / (self._mean * CATCH_UP_SLOTS)))
        expected = self._mean * self._factor() * catch_up / self._mean_size
        if self._bursts <= 0:
            self._owed += expected
            clusters = int(self._owed)
            self._owed -= clusters
        else:
            clusters = int(rng.poisson(expected))
        starts = rng.integers(0, SLOT_US, clusters)
        who = np.searchsorted(self._symbols, rng.random(clusters))
        who = np.minimum(who, len(self._symbols) - 1)
        sizes = self._sizes[rng.integers(0, len(self._sizes), clusters)]
        total = int(sizes.sum())
        self._behind += self._mean - total
        gaps = rng.exponential(40.0, total)
        first = np.cumsum(sizes) - sizes
        gaps[first] = 0.0
        run = np.cumsum(gaps)
        offsets = run - np.repeat(run[first], sizes) if total else run
        times = (np.repeat(starts, sizes) + offsets).astype(np.int64)
        order = np.argsort(times, kind="stable")
        return Slot(times[order], np.repeat(who, sizes)[order])
