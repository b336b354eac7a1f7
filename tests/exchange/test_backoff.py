"""exchange.backoff: capped, exponential, with jitter."""

from hypothesis import given
from hypothesis import strategies as st

from tradeback.exchange.backoff import Backoff

seconds = st.floats(0.001, 1_000)
chances = st.floats(0, 1, exclude_max=True)


@given(seconds, seconds, st.integers(-1, 10_000), chances)
def test_between_half_and_all_of_the_ceiling(first: float, most: float, failures: int, chance: float) -> None:
    delay_s = Backoff(first, most).delay_s(failures, chance)
    ceiling = most
    if failures < 30:
        ceiling = min(most, first * 2 ** max(0, failures - 1))
    assert ceiling / 2 <= delay_s <= ceiling or failures >= 30
    assert 0 < delay_s <= most


@given(seconds, seconds, st.integers(1, 100), chances)
def test_never_shorter_after_more_failures(first: float, most: float, failures: int, chance: float) -> None:
    backoff = Backoff(first, most)
    assert backoff.delay_s(failures, chance) <= backoff.delay_s(failures + 1, chance)
    assert backoff.delay_s(failures, 0.0) <= backoff.delay_s(failures, chance)


def test_the_defaults_reach_their_cap() -> None:
    backoff = Backoff(0.25, 30.0)
    assert [backoff.delay_s(number, 0.0) for number in (1, 2, 3)] == [0.125, 0.25, 0.5]
    assert backoff.delay_s(8, 0.0) == backoff.delay_s(9_999, 0.0) == 15.0
