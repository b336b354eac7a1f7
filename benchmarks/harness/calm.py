"""A run in trouble against the calm runs around it, on a machine that changes its pace."""

from collections.abc import Mapping

from benchmarks.harness.stats import ratio

PACE = 1.5
"""Runs whose p50 differ by more were not at the same pace."""


def to_calm(
    figures: Mapping[str, float], *calm: Mapping[str, float], p50: str, p99: str
) -> tuple[float, bool]:
    """Ratio of the p99 to that of the better calm run, and whether both were at the same pace.

    A virtual core is woken in 3 or in 15 us, as its host happens to poll for it or not: that doubles the p50
    from one minute to the next, and then the ratio, too high or too low, decides nothing.
    """
    base = min(calm, key=lambda each: each[p99])
    return ratio(figures[p99], base[p99]), 1 / PACE < figures[p50] / base[p50] < PACE


def unlike_doubt(alike: list[bool]) -> str:
    """Why a median of such ratios is in doubt; empty when it is not."""
    unlike = alike.count(False)
    return (
        f"not quiet: the machine changed its pace in {unlike} of {len(alike)} comparisons" if unlike else ""
    )
