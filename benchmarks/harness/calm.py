"""A run in trouble against the calm runs around it, on a machine that changes its pace."""

from collections.abc import Mapping

from benchmarks.harness.stats import ratio

PACE = 1.5
"""Runs whose p50 differ by more were not at the same pace."""


def to_calm(
    figures: Mapping[str, float], *calm: Mapping[str, float], p50: str, p99: str
) -> tuple[float, bool]:
    """The ratio of the p99 to the best calm run, of those at the same pace if any are; whether any are.

    A virtual core is woken in 3 or in 15 us, as its host happens to poll for it or not: that doubles the p50
    from one minute to the next, and is nobody's doing here.
    """
    alike = [each for each in calm if 1 / PACE < figures[p50] / each[p50] < PACE]
    return ratio(figures[p99], min(each[p99] for each in alike or calm)), bool(alike)
