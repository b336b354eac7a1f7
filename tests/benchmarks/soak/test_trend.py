"""The verdict must see a leak through noise, and must not see one in noise, spikes, or the warm-up."""

import random
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.soak.trend import Allowed, is_flat, second_half, slopes, trend

TIMES = [float(second) for second in range(600)]
ALLOWED = Allowed(2.0, 0.01)


def noise(seed: int, width: float) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(0, width) for _ in TIMES]


def flat(values: list[float]) -> bool:
    found = trend(TIMES, values)
    assert found is not None
    return is_flat(found, ALLOWED)


@given(st.integers(0, 1 << 32), st.floats(0, 50), st.floats(0, 1_000))
@settings(deadline=None, max_examples=25)
def test_noise_alone_is_flat(seed: int, width: float, level: float) -> None:
    assert flat([level + one for one in noise(seed, width)])


@given(st.integers(0, 1 << 32), st.floats(10.0, 1_000.0), st.floats(100, 200))
@settings(deadline=None, max_examples=25)
def test_a_leak_is_seen_through_noise_of_its_size(seed: int, rise: float, level: float) -> None:
    """`rise` over the second half, and noise of a fifth of it: that is far more than 2 MB or 1 %."""
    leak = [
        level + rise * 2 * time / 600 + one for time, one in zip(TIMES, noise(seed, rise / 5), strict=True)
    ]
    assert not flat(leak)


def test_the_slope_is_in_the_unit_of_the_series() -> None:
    found = trend(TIMES, [100 + time / 60 for time in TIMES])
    assert found is not None
    assert found.per_hour == pytest.approx(60)
    assert found.rise == pytest.approx(found.rise_least) == pytest.approx(found.seconds / 60)
    assert found.level == pytest.approx(100 + 449.5 / 60)


def test_a_warm_up_in_the_first_half_does_not_count() -> None:
    assert flat([min(time, 250.0) for time in TIMES])


def test_a_late_rise_counts() -> None:
    assert not flat([max(0.0, time - 350.0) for time in TIMES])


def test_a_falling_series_is_flat() -> None:
    assert flat([1_000 - time for time in TIMES])


def test_spikes_do_not_count() -> None:
    spiky = [100.0 + 10_000.0 * (place % 40 == 0) for place in range(len(TIMES))]
    assert flat(spiky)


def test_a_staircase_of_leaks_is_a_leak() -> None:
    assert not flat([100.0 + 5 * (time // 30) for time in TIMES])


def test_what_was_not_measured_is_left_out() -> None:
    sparse = [nan if place % 5 else 100.0 + place / 10 for place in range(len(TIMES))]
    times, values = second_half(TIMES, sparse)
    assert len(times) == len(values) == 60
    assert not flat(sparse)


@pytest.mark.parametrize("values", [[], [1.0] * 14, [nan] * 600])
def test_too_little_is_no_verdict(values: list[float]) -> None:
    assert trend(TIMES[: len(values)], values) is None


def test_slopes_against_all_pairs() -> None:
    import numpy as np

    rng = np.random.default_rng(3)
    times, values = np.sort(rng.random(20)), rng.random(20)
    pairs = sorted(
        (values[b] - values[a]) / (times[b] - times[a]) for a in range(20) for b in range(a + 1, 20)
    )
    slope, least = slopes(times, values)
    assert slope == pytest.approx((pairs[94] + pairs[95]) / 2)
    assert least == pytest.approx(pairs[int((190 - 2.576 * (20 * 19 * 45 / 18) ** 0.5) / 2)])


def test_the_greater_allowance_counts() -> None:
    assert ALLOWED.most(100) == 2.0
    assert ALLOWED.most(1_000) == 10.0
