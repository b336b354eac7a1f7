"""Medians, percentiles and ratios; nothing else belongs between a measurement and its table."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

WARM_UP_SHARE = 0.1
"""Share of a latency run that is left out at its start: caches and the sockets' windows are still cold."""


def percentiles_us(latency_ns: NDArray[np.int64], *shares: float) -> list[float]:
    """Percentiles in us of latencies in ns, in order of arrival, without the warm-up. ValueError if empty."""
    return pooled_us([latency_ns], *shares)


def pooled_us(runs: Sequence[NDArray[np.int64]], *shares: float) -> list[float]:
    """The same of all latencies of several runs together, each without its own warm-up.

    What is compared that way has been measured in turn, so that a machine that changes its pace does so for
    both; a p99 of many runs together knows of every stall in any of them.
    """
    kept = np.concatenate([run[int(len(run) * WARM_UP_SHARE) :] for run in runs] or [np.zeros(0, np.int64)])
    if not len(kept):
        raise ValueError("no latency was measured")
    return [float(value) / 1e3 for value in np.percentile(kept, shares)]


def median(values: Iterable[float]) -> float:
    """The middle value. Raises ValueError when there is none."""
    found = list(values)
    if not found:
        raise ValueError("no value was measured")
    return float(np.median(found))


def medians(repeats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every figure over the repeats that have it."""
    names = dict.fromkeys(name for repeat in repeats for name in repeat)
    return {name: median(repeat[name] for repeat in repeats if name in repeat) for name in names}


def best(repeats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The least of every figure: of times of the same work, as others on the machine can only add to them."""
    names = dict.fromkeys(name for repeat in repeats for name in repeat)
    return {name: min(repeat[name] for repeat in repeats if name in repeat) for name in names}


def ratio(value: float, base: float) -> float:
    """value / base; NaN when the base is 0, so that a failed baseline never looks like a result."""
    return value / base if base else float("nan")
