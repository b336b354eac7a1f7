"""Clocks that run fast or are wrong."""

import pytest

from tradeback.sim.clock import ScaledClock, SkewedClock

START_NS = 1_781_000_000_000_000_000


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.passed_ns = 0

    def wall_ns(self) -> int:
        return START_NS + self.passed_ns

    def steady_ns(self) -> int:
        return 7 + self.passed_ns


def test_a_scaled_clock_starts_right_and_runs_fast() -> None:
    hand = Hand()
    hand.passed_ns = 5
    clock = ScaledClock(hand, 1_000)
    assert (clock.wall_ns(), clock.steady_ns()) == (hand.wall_ns(), hand.steady_ns())
    hand.passed_ns += 2_000
    assert clock.steady_ns() == 12 + 2_000_000
    assert clock.wall_ns() == START_NS + 5 + 2_000_000


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_is_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ScaledClock(Hand(), rate)


def test_a_skewed_clock_is_ahead_drifts_and_steps() -> None:
    hand = Hand()
    clock = SkewedClock(hand)
    assert clock.wall_ns() == hand.wall_ns()
    assert clock.skew(40, 100) == 40_000
    assert clock.wall_ns() == hand.wall_ns() + 40_000_000
    assert clock.steady_ns() == hand.steady_ns()
    hand.passed_ns += 10_000_000_000
    assert clock.wall_ns() == hand.wall_ns() + 40_000_000 + 1_000_000
    assert clock.steady_ns() == hand.steady_ns() + 1_000_000
    assert clock.skew(-5, 0) == -46_000
    assert clock.wall_ns() == hand.wall_ns() - 5_000_000
    assert clock.steady_ns() == hand.steady_ns() + 1_000_000
