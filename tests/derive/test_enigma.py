"""Enigma against exact arithmetic and the formula written down, bit for bit."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.world import START_US, Trade, feed, make_trades, rows_of, symbol
from tradeback.derive.enigma import FIB_NAMES, FIB_PERCENTS, fib_of, level_of
from tradeback.derive.seeds import levels_row
from tradeback.derive.state import Derived

prices = st.integers(1, 10**12).map(lambda ticks: ticks / 10**4)


def derived_of(trades: list[Trade]) -> Derived:
    derived = Derived(2)
    derived.add_symbol(symbol())
    feed(derived, rows_of(trades))
    return derived


@settings(max_examples=300)
@given(prices, prices, prices)
def test_level_and_fibs_are_right_and_inside(one: float, two: float, three: float) -> None:
    atl, price, ath = sorted((one, two, three))
    level = level_of(price, ath, atl)
    assert 0.0 <= level <= 100.0
    levels = fib_of(ath, atl)
    assert levels[0] == ath
    assert list(levels) == sorted(levels, reverse=True)
    assert all(atl <= value <= ath for value in levels)
    if ath == atl:
        assert level == 50.0
        return
    span = Fraction(ath) - Fraction(atl)
    exact = 100 * (Fraction(price) - Fraction(atl)) / span
    assert abs(Fraction(level) - exact) <= Fraction(1, 10**9) + exact / 10**4 * (Fraction(ath) / span) / 10**9
    for value, percent in zip(levels, FIB_PERCENTS, strict=True):
        wanted = Fraction(ath) - span * Fraction(str(percent)) / 100
        assert abs(Fraction(value) - wanted) <= Fraction(ath) * Fraction(1, 10**15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 60), st.booleans())
def test_enigma_is_the_formula_over_all_trades(seed: int, count: int, seeded: bool) -> None:
    trades = make_trades(seed, count)
    derived = derived_of(trades)
    seen = [float(trade.price) for trade in trades]
    if seeded:
        feed(derived, levels_row(1, 250_000.5, 0.25))
        seen += [250_000.5, 0.25]
    held = derived.enigma(1)
    assert held is not None
    price, ath, atl = float(trades[-1].price), max(seen), min(seen)
    assert (held.price, held.ath, held.atl, held.trade_id) == (price, ath, atl, trades[-1].id)
    assert held.exchange_us == trades[-1].time_us
    if ath != atl:
        assert held.level == min(100 * (price - atl) / (ath - atl), 100.0)
        assert held.fib_levels()["38.2"] == ath - (ath - atl) * 38.2 / 100
    assert tuple(held.fib_levels()) == FIB_NAMES


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 60))
def test_many_at_once_give_the_same_bits(seed: int, count: int) -> None:
    derived = Derived(5)
    for symbol_id in range(1, 6):
        derived.add_symbol(symbol(symbol_id))
    feed(derived, rows_of(make_trades(seed, count, symbols=4)))
    rows = derived.enigma_all()
    found = {int(row["symbol_id"]): row for row in rows}
    assert 5 not in found
    for symbol_id in range(1, 6):
        one = derived.enigma(symbol_id)
        assert (one is not None) == (symbol_id in found)
        if one is not None:
            row = found[symbol_id]
            assert row["level"].tobytes() == np.float64(one.level).tobytes()
            assert row["fib"].tobytes() == np.array(one.fib).tobytes()
            assert (row["ath"], row["atl"], row["trade_id"]) == (one.ath, one.atl, one.trade_id)


def test_one_price_only_stands_in_the_middle() -> None:
    derived = derived_of([Trade(1, START_US, "10.00", "1.0", False)])
    held = derived.enigma(1)
    assert held is not None
    assert held.level == 50.0
    assert set(held.fib) == {10.0}
    assert derived.enigma_all()["level"].tolist() == [50.0]


def test_levels_that_cannot_be_are_refused() -> None:
    derived = derived_of([Trade(1, START_US, "10.00", "1.0", False)])
    for highest, lowest in ((1.0, 2.0), (5.0, 0.0), (np.inf, 1.0), (np.nan, 1.0), (5.0, -1.0)):
        feed(derived, levels_row(1, highest, lowest))
    held = derived.enigma(1)
    assert held is not None
    assert (held.ath, held.atl) == (10.0, 10.0)
    assert derived.counters["seeds_refused"] == 5


def test_no_level_before_the_first_trade() -> None:
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, levels_row(1, 3.0, 1.0))
    assert derived.enigma(1) is None
    feed(derived, rows_of([Trade(1, START_US, "2.00", "1.0", False)]))
    held = derived.enigma(1)
    assert held is not None
    assert held.level == 50.0
    assert (held.ath, held.atl) == (3.0, 1.0)
