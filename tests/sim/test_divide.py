"""Divided bars add up to their parent, whatever the parent."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tradeback.sim.bars import Bar, merge
from tradeback.sim.divide import divide, portions

WEIGHTS = st.lists(st.floats(0, 10), min_size=1, max_size=60).filter(lambda weights: sum(weights) > 1e-6)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    """Any bar that trades can make."""
    trades = draw(st.integers(1, 5_000))
    opened = draw(st.integers(1, 10_000_000))
    close = opened if trades == 1 else draw(st.integers(1, 10_000_000))
    high, low = max(opened, close), min(opened, close)
    if trades > 3:
        high, low = high + draw(st.integers(0, 10**5)), max(1, low - draw(st.integers(0, 10**5)))
    volume = trades + draw(st.integers(0, 10**9))
    quote = draw(st.integers(low * volume, high * volume))
    taker = draw(st.integers(0, volume))
    taker_quote = draw(st.integers(low * taker, high * taker))
    return Bar(
        opened, high, low, close, volume, quote, trades, taker, taker_quote, draw(st.integers(1, 10**9))
    )


@given(st.integers(0, 10**12), WEIGHTS)
def test_portions_add_up_and_give_nothing_to_no_weight(total: int, weights: list[float]) -> None:
    shares = portions(total, weights)
    assert sum(shares) == total
    assert all(share >= 0 for share in shares)
    assert all(share == 0 for share, weight in zip(shares, weights, strict=True) if weight == 0)


@given(bars(), WEIGHTS, st.integers(0, 2**32))
def test_children_add_up_to_their_parent(parent: Bar, weights: list[float], seed: int) -> None:
    children = divide(parent, weights, random.Random(seed))
    assert len(children) == len(weights)
    together = None
    for child in children:
        together = merge(together, child)
        if child is None:
            continue
        assert child.low <= min(child.open, child.close) <= max(child.open, child.close) <= child.high
        assert child.trades >= 1
        assert child.volume >= child.trades
        assert 0 <= child.taker_volume <= child.volume
        if child.trades == 1:
            assert child.low == child.high
        if child.trades == 2:
            assert {child.low, child.high} == {child.open, child.close}
    assert together == parent
