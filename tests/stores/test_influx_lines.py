"""Line protocol: what it says, that no two trades share a point, that a replay writes the same bytes."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influxdb_client.client.write.point import Point

from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.stores.influx_lines import (
    QUOTE_BACK_ROWS,
    Names,
    TradeLines,
    body_of,
    position_line,
    tag,
    trade_ns,
)

NAMES = Names(lambda: [(1, "BTCUSDT"), (2, "币安 USDT,=")])
T_US = 1_700_000_000_123_456


def trades(count: int, us: int = T_US, first_id: int = 1, symbol_id: int = 1) -> Rows:
    rows = empty_rows(count)
    rows["kind"], rows["symbol_id"], rows["exchange_us"] = TRADE, symbol_id, us
    rows["id"] = np.arange(first_id, first_id + count)
    rows["price"], rows["quantity"] = 0.00001, 1e21
    return rows


def quote(symbol_id: int = 1) -> Rows:
    row = trades(1, symbol_id=symbol_id)
    row["kind"], row["price"], row["ask"] = QUOTE, 2.5, 2.75
    return row


def test_a_trade_carries_the_newest_quote_before_it() -> None:
    lines = TradeLines(NAMES).encode(
        np.concatenate((trades(1, first_id=7), quote(), trades(1, first_id=8))), 40
    )
    head = "trades,exchange=binance,symbol=BTCUSDT price=1e-05"
    assert lines == [
        f"{head},volume=1e+21,sequence=40i,id=7i 1700000000123456007",
        "",
        f"{head},bid=2.5,ask=2.75,volume=1e+21,sequence=42i,id=8i 1700000000123456008",
    ]
    assert body_of(lines) == (lines[0] + "\n" + lines[2]).encode()


def test_tags_are_escaped_and_the_unwritable_has_no_line() -> None:
    (line,) = TradeLines(NAMES).encode(trades(1, symbol_id=2), 1)
    assert line.startswith(r"trades,exchange=binance,symbol=币安\ USDT\,\= price=")
    bad = np.concatenate((trades(1, symbol_id=3), trades(2)))
    bad["price"][1], bad["quantity"][2] = math.nan, math.inf
    assert TradeLines(NAMES).encode(bad, 1) == ["", "", ""]
    for text in ("", "a\nb", "a\\"):
        with pytest.raises(ValueError, match="cannot be a tag"):
            tag(text)


@settings(deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12))
def test_tags_are_those_of_the_library(text: str) -> None:
    if not text.isprintable() or text.endswith("\\"):
        return
    point: Any = Point("m")  # type: ignore[no-untyped-call]
    line = point.tag("symbol", text).field("x", 1).time(1).to_line_protocol()
    assert line == f"m,symbol={tag(text)} x=1i 1"


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_back_as_the_same_bits(price: float) -> None:
    rows = trades(1)
    rows["price"] = price
    (line,) = TradeLines(NAMES).encode(rows, 1)
    assert float(line.split("price=")[1].split(",")[0]) == price


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1_500)), min_size=1, max_size=8),
    st.integers(1, 10**9),
)
def test_no_two_trades_share_a_point(runs: list[tuple[int, int]], first_id: int) -> None:
    """Up to 1,500 trades in a microsecond, then up to 3 us later the next: the spill stays apart as long as
    the thousand of the microsecond it goes to is not used up."""
    parts, us, next_id = [], T_US, first_id
    for gap_us, count in runs:
        us += max(2, gap_us) if count > 1_000 else gap_us + 1
        us += 2
        parts.append(trades(count, us, next_id))
        next_id += count
    lines = TradeLines(NAMES).encode(np.concatenate(parts), 1)
    times = [int(line.rpartition(" ")[2]) for line in lines]
    assert len(set(times)) == len(times)


def test_a_repaired_trade_has_the_time_it_would_have_had() -> None:
    rows = trades(1_000)
    whole = TradeLines(NAMES).encode(rows, 1)
    late = np.concatenate((rows[:500], rows[501:], rows[500:501]))
    mixed = TradeLines(NAMES).encode(late, 1)
    assert {line.rpartition(" ")[2] for line in mixed} == {line.rpartition(" ")[2] for line in whole}
    assert mixed[-1].rpartition(" ")[2] == str(trade_ns(T_US, 501))


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 300))
def test_begun_anywhere_the_same_lines_come_out(seed: int, cut: int) -> None:
    chance = np.random.default_rng(seed)
    rows = np.concatenate(
        [quote(2), trades(150, first_id=1), quote(), trades(149, first_id=151, symbol_id=2)]
    )
    chance.shuffle(rows)
    whole = TradeLines(NAMES).encode(rows, 1)
    resumed = TradeLines(NAMES)
    resumed.warm(rows[:cut], 1)
    assert resumed.encode(rows[cut:], 1 + cut) == whole[cut:]


def test_a_quote_too_far_back_is_not_used() -> None:
    lines = TradeLines(NAMES)
    lines.warm(quote(), 1)
    assert "bid=2.5" in lines.encode(trades(1), 1 + QUOTE_BACK_ROWS)[0]
    assert "bid" not in lines.encode(trades(1), 2 + QUOTE_BACK_ROWS)[0]


def test_positions() -> None:
    assert position_line("trades", 7, 9, 5) == "tradeback_position,sink=trades epoch=7i,sequence=9i 5"
