"""Rates: the long run, the burst, the bounded table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.api.rates import Rate, Rates

S = 10**9


def test_a_burst_then_the_rate() -> None:
    rates = Rates({"read": Rate(2.0, 4)})
    assert [rates.take("read", "a", S) for _ in range(4)] == [0] * 4
    assert rates.take("read", "a", S) == 1
    assert rates.take("read", "b", S) == 0, "another client has its own"
    assert rates.take("read", "a", S + S // 2) == 0
    assert rates.take("read", "a", S + S // 2) == 1
    assert rates.refused == {"read": 2}


def test_groups_are_counted_apart_and_zero_is_no_limit() -> None:
    rates = Rates({"read": Rate(1.0, 1), "write": Rate(1.0, 1), "free": Rate(0, 0)})
    assert rates.take("read", "a", 0) == rates.take("write", "a", 0) == 0
    assert rates.take("read", "a", 0) > 0
    assert not any(rates.take("free", "a", 0) for _ in range(1_000))
    assert len(rates) == 2


def test_the_table_is_bounded_and_the_idle_go_first() -> None:
    rates = Rates({"read": Rate(0.001, 1)}, clients_max=3)
    for client in ("busy", "b", "c"):
        rates.take("read", client, 0)
    assert rates.take("read", "busy", 1) > 0
    rates.take("read", "d", 2)
    assert len(rates) == 3
    assert rates.take("read", "busy", 3) > 0, "who keeps asking is not forgotten"
    assert rates.take("read", "b", 3) == 0


@given(
    st.lists(st.integers(0, 3 * S), max_size=60),
    st.sampled_from([0.5, 1.0, 7.0, 100.0]),
    st.integers(1, 5),
)
def test_never_more_than_burst_and_rate_and_the_wait_is_enough(
    pauses: list[int], per_s: float, burst: int
) -> None:
    rates, now, served = Rates({"g": Rate(per_s, burst)}), 0, []
    for pause in pauses:
        now += pause
        wait_s = rates.take("g", "c", now)
        if not wait_s:
            served.append(now)
        else:
            assert Rates.take(_copy(rates), "g", "c", now + wait_s * S) == 0
    for first in range(len(served)):
        for last in range(first, len(served)):
            most = burst + (served[last] - served[first]) / S * per_s
            assert last - first + 1 <= most + 1e-6


def _copy(rates: Rates) -> Rates:
    from copy import deepcopy

    return deepcopy(rates)


@pytest.mark.parametrize("minute", [1, 30])
def test_slow_rates_have_whole_waits(minute: int) -> None:
    rates = Rates({"login": Rate(minute / 60, 1)})
    rates.take("login", "a", 0)
    assert rates.take("login", "a", 0) == 60 // minute
