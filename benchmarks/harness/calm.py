"""A run in trouble against the calm runs around it, on a machine that changes its pace."""

from collections.abc import Mapping

import numpy as np

from benchmarks.harness.native import Ints
from benchmarks.harness.stats import median, percentiles_us, ratio

PACE = 1.5
"""Runs whose p50 differ by more were not at the same pace."""


WINDOW = 2_500
"""Trades whose p99 is taken at a time: a quarter of a second."""


def usual_p99_us(latency_ns: Ints) -> float:
    """The p99 of the median window.

    A host that takes the core away for 2 ms now and then, as here, makes the p99 of the whole, trouble
    or not. That hits one window; what lasts as long as the trouble hits all of them.
    """
    windows = np.array_split(latency_ns, max(1, len(latency_ns) // WINDOW))
    return median(percentiles_us(window, 99)[0] for window in windows)


def to_calm(
    figures: Mapping[str, float], *calm: Mapping[str, float], p50: str, p99: str
) -> tuple[float, bool]:
    """Ratio of the p99 to the mean of the calm runs (those at the same pace, if any are); whether any are.

    A virtual core is woken in 3 or in 15 us, as its host happens to poll for it or not: that doubles the p50
    from one minute to the next, and is nobody's doing here.
    """
    alike = [each for each in calm if 1 / PACE < figures[p50] / each[p50] < PACE]
    base = [each[p99] for each in alike or calm]
    return ratio(figures[p99], sum(base) / len(base)), bool(alike)
