"""Bars, latest and levels of the kernel against sorting all trades."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.world import (
    NAMES,
    START_US,
    Trade,
    feed,
    make_trades,
    rows_of,
    seen,
    seen_slots,
    slots,
    stable,
    stand_ins,
    symbol,
)
from tradeback.derive.state import Derived
from tradeback.model.record import AGG, GAP, QUOTE, empty_rows

seeds = st.integers(0, 1 << 32)


def derived_of(trades: list[Trade], splits: list[int] | None = None, symbols: int = 1) -> Derived:
    derived = Derived(symbols)
    for symbol_id in range(1, symbols + 1):
        derived.add_symbol(symbol(symbol_id))
    feed(derived, rows_of(trades), splits or ())
    return derived


def assert_bars(derived: Derived, trades: list[Trade], symbols: int = 1) -> None:
    for symbol_id in range(1, symbols + 1):
        own = [trade for trade in trades if trade.symbol_id == symbol_id]
        for index, name in enumerate(NAMES):
            assert seen_slots(derived, symbol_id, index) == slots(own, name), (symbol_id, name)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 120), st.lists(st.integers(0, 120), max_size=6), st.integers(1, 3))
def test_bars_equal_sorting_all_trades(seed: int, count: int, splits: list[int], symbols: int) -> None:
    trades = make_trades(seed, count, symbols=symbols)
    derived = derived_of(trades, splits, symbols)
    assert_bars(derived, trades, symbols)
    assert derived.counters["trades"] == count
    assert derived.counters["off_grid"] == 0


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 100))
def test_any_order_gives_the_same_bits(seed: int, count: int) -> None:
    trades = make_trades(seed, count)
    straight = derived_of(trades)
    shuffled = list(trades)
    random.Random(seed).shuffle(shuffled)
    mixed = derived_of(shuffled)
    assert_bars(mixed, trades)
    for index in range(len(NAMES)):
        assert stable(seen(mixed, 1, index)) == stable(seen(straight, 1, index))
    assert mixed.enigma(1) == straight.enigma(1)
    one, other = straight.latest(1), mixed.latest(1)
    assert one is not None
    assert other is not None
    names = ["price", "quantity", "trade_id", "exchange_us", "recv_ns", "ath", "atl", "newest_us", "since_us"]
    assert [one[name] for name in names] == [other[name] for name in names]


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 100))
def test_stand_ins_count_the_trades_they_stand_for(seed: int, count: int) -> None:
    trades = stand_ins(seed, make_trades(seed, count))
    random.Random(seed + 1).shuffle(trades)
    derived = derived_of(trades)
    assert_bars(derived, trades)
    total = sum(trade.count for trade in trades)
    day = seen(derived, 1, NAMES.index("1d"))
    assert int(day["trade_count"].sum()) == total == count
    assert int(day["last_id"].max() - day["first_id"].min()) + 1 == count


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 60), st.integers(0, 60))
def test_other_kinds_leave_bars_alone(seed: int, count: int, others: int) -> None:
    rng = random.Random(seed)
    trades = make_trades(seed, count)
    rows = np.concatenate([rows_of(trades), empty_rows(others)])
    for row in rows[count:]:
        row["kind"], row["symbol_id"] = rng.choice((AGG, GAP, QUOTE)), 1
        row["exchange_us"], row["id"] = START_US + 1, rng.randrange(1, 1000)
        row["price"], row["quantity"], row["ask"], row["ask_quantity"] = 1e9, 1e9, 1, 5
        row["recv_ns"] = rng.randrange(1, 1 << 60)
    order = rng.sample(range(len(rows)), len(rows))
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, rows[order])
    assert_bars(derived, trades)
    quotes = [row for row in rows[order] if row["kind"] == QUOTE]
    latest = derived.latest(1)
    assert latest is not None
    if quotes:
        assert latest["bid"] == 1e9
        assert latest["ask"] == 1
        assert latest["ask_quantity"] == 5
        assert latest["quote_recv_ns"] == quotes[-1]["recv_ns"]
    else:
        assert latest["quote_recv_ns"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", 0.0), ("price", -1.0), ("price", np.nan), ("price", np.inf), ("quantity", np.nan),
     ("quantity", -0.1), ("quantity", 1e18), ("exchange_us", 0), ("exchange_us", 1 << 62), ("id", -1)],
)  # fmt: skip
def test_what_cannot_be_a_trade_is_refused_and_counted(field: str, value: float) -> None:
    rows = rows_of([Trade(5, START_US, "10.00", "1.0000", False)])
    rows[field] = value
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, rows)
    assert derived.counters["rejected"] == 1
    assert derived.enigma(1) is None
    assert len(derived.bars_open(1, 0)) == 0


@pytest.mark.parametrize(
    "ids", [(-1.0, 1.0), (6.0, 1.0), (3.0, 4.0), (np.nan, 1.0), (1.0, 0.0), (1.0, np.inf)]
)
def test_impossible_stand_ins_are_refused(ids: tuple[float, float]) -> None:
    rows = rows_of([Trade(5, START_US, "10.00", "1.0000", False, first=4, count=2)])
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, rows)
    assert derived.counters["trades"] == 1
    rows["ask"], rows["ask_quantity"] = ids
    feed(derived, rows)
    assert derived.counters["rejected"] == 1


def test_unknown_symbols_are_counted() -> None:
    derived = Derived(1)
    derived.add_symbol(symbol(7))
    feed(
        derived,
        rows_of([Trade(1, START_US, "1.0", "1.0", False, symbol_id) for symbol_id in (6, 7, 8, 65_535)]),
    )
    assert derived.counters["unknown_symbol"] == 3
    assert derived.counters["trades"] == 1
    assert derived.latest(6) is None
    assert derived.enigma(8) is None


@pytest.mark.parametrize("quantity", ["0.123456789", "1.000000001", "0.0000000049"])
def test_quantities_off_the_grid_are_rounded_and_counted(quantity: str) -> None:
    derived = Derived(1)
    derived.add_symbol(symbol(1, "0.0001"))
    feed(derived, rows_of([Trade(1, START_US, "1.0", quantity, False)]))
    assert derived.counters["off_grid"] == 1
    assert derived.bars_open(1, 0)["volume"][0] == round(float(quantity) * 1e8)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**15 - 1), st.integers(0, 8))
def test_decimals_of_fifteen_digits_become_exact_lots(digits: int, scale: int) -> None:
    step = "1" if scale == 0 else "0." + "0" * (scale - 1) + "1"
    traded = symbol(1, step)
    text = f"{digits // 10**scale}.{digits % 10**scale:0{scale}d}" if scale else str(digits)
    lots = digits * 10 ** (traded.lot_digits - scale)
    if lots >= 1 << 62:
        return
    derived = Derived(1)
    derived.add_symbol(traded)
    feed(derived, rows_of([Trade(1, START_US, "1.0", text, False)]))
    assert derived.counters["off_grid"] == 0
    held = int(derived.bars_open(1, 0)["volume"][0])
    assert held == lots if lots < 1 << 51 else abs(held - lots) <= lots >> 51


@settings(max_examples=300, deadline=None)
@given(st.floats(0, float(1 << 61)))
def test_rounding_is_half_even_over_the_whole_range(value: float) -> None:
    derived = Derived(1)
    derived.add_symbol(symbol(1, "1"))
    rows = rows_of([Trade(1, START_US, "1.0", "1.0", False)])
    rows["quantity"] = value / 1e4
    feed(derived, rows)
    assert int(derived.bars_open(1, 0)["volume"][0]) == round(float(rows["quantity"][0]) * 1e4)


def test_a_late_trade_does_not_replace_the_last() -> None:
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(
        derived,
        rows_of([Trade(9, START_US + 10, "5.00", "1.0", False), Trade(8, START_US, "6.00", "2.0", True)]),
    )
    latest = derived.latest(1)
    assert latest is not None
    assert (latest["trade_id"], latest["price"], latest["ath"]) == (9, 5.0, 6.0)
