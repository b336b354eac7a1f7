"""exchange.budget: no window ever holds more than the limit, and nobody waits longer than he must."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.exchange.budget import Budget

SECOND_NS = 1_000_000_000
asked = st.lists(st.tuples(st.integers(0, 3 * SECOND_NS), st.integers(1, 40)), min_size=1, max_size=120)


def granted(budget: Budget, requests: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(asked at, granted at, cost) of requests given as (ns since the last one, cost)."""
    now_ns, found = 5 * SECOND_NS, []
    for passed_ns, cost in requests:
        now_ns += passed_ns
        found.append((now_ns, now_ns + round(budget.take(now_ns, cost) * 1e9), cost))
    return found


@given(asked, st.integers(40, 100))
def test_no_window_holds_more_than_the_limit(requests: list[tuple[int, int]], limit: int) -> None:
    places = granted(Budget(limit, 2.0), requests)
    for index, (_, start_ns, _) in enumerate(places):
        window = [cost for _, at_ns, cost in places[index:] if at_ns < start_ns + 2 * SECOND_NS - 2]
        assert sum(window) <= limit


@given(asked, st.integers(40, 100))
def test_in_order_and_no_later_than_needed(requests: list[tuple[int, int]], limit: int) -> None:
    places = granted(Budget(limit, 2.0), requests)
    times = [at_ns for _, at_ns, _ in places]
    assert times == sorted(times)
    for index, (asked_ns, at_ns, cost) in enumerate(places):
        if at_ns > asked_ns + 2 and at_ns > (times[index - 1] if index else 0) + 2:
            # A moment earlier the window would have been too full.
            before = [other for _, when, other in places[:index] if when > at_ns - 2 * SECOND_NS - 2]
            assert sum(before) + cost > limit


def test_a_burst_up_to_the_limit_then_a_period() -> None:
    budget = Budget(4, 1.25)
    assert [budget.take(0) for _ in range(4)] == [0.0] * 4
    assert [budget.take(0) for _ in range(5)] == [1.25] * 4 + [2.5]


def test_a_cost_above_the_limit_waits_for_an_empty_window() -> None:
    budget = Budget(10, 1.0)
    assert budget.take(0, 50) == 0.0
    assert budget.take(0, 1) == 1.0


@given(st.floats(0, 1_000), st.floats(0, 1_000))
def test_a_block_holds_everybody_back(first_s: float, second_s: float) -> None:
    budget = Budget(10, 1.0)
    assert budget.blocked_s(0) == 0.0
    budget.block(0, first_s)
    budget.block(0, second_s)
    longest = max(first_s, second_s)
    assert budget.blocked_s(0) == pytest.approx(longest, abs=1e-6)
    assert budget.take(0) == pytest.approx(longest, abs=1e-6)
    assert budget.blocked_s(int(longest * 1e9) + 1) == 0.0


def test_the_books_are_kept_short() -> None:
    budget = Budget(10, 1.0)
    for second in range(10_000):
        assert budget.take(second * SECOND_NS) == 0.0
    assert len(budget._places) <= 2
