"""ops.metrics: the histogram against sorting."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tradeback.ops.metrics import LATENCY_BOUNDS_US, Histogram


@given(st.lists(st.tuples(st.integers(-5, 30_000_000), st.integers(1, 5)), max_size=40))
def test_counts_and_sums(values: list[tuple[int, int]]) -> None:
    held = Histogram()
    for value, count in values:
        held.observe(value, count)
    assert held.total == sum(count for _, count in values)
    assert held.sums.tolist() == [
        sum(max(value, 0) * count for value, count in values),
        sum(count for value, count in values if value < 0),
    ]


@given(st.lists(st.integers(0, 9_000_000), min_size=1, max_size=60), st.sampled_from((0.5, 0.95, 0.99, 1.0)))
def test_a_quantile_is_the_bucket_bound_above_the_true_one(values: list[int], share: float) -> None:
    held = Histogram()
    for value in values:
        held.observe(value)
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    assert held.quantile_us(share) == next(bound for bound in LATENCY_BOUNDS_US if bound >= true)


def test_an_empty_histogram_has_quantile_zero() -> None:
    assert Histogram().quantile_us(0.99) == 0.0
