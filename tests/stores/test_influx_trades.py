"""Trades as lines: what they say, that no two share a point, that a replay writes the same bytes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores.plain_lines import PlainLines
from tradeback.model.record import GAP, QUOTE, TRADE, Rows, empty_rows
from tradeback.stores.influx_lines import Names, trade_ns
from tradeback.stores.influx_trades import Lines, TradeLines
from tradeback.wire.influx_layout import QUOTE_BACK_ROWS

NAMES = Names(lambda: [(1, "BTCUSDT"), (2, "币安 USDT,="), (65_535, "LASTUSDT")])
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


def encoder() -> TradeLines:
    made = TradeLines(NAMES)
    made.attach()
    return made


def texts(lines: Lines) -> list[str]:
    """One per record, without the line break that each must end with."""
    found = []
    for start, end in zip(lines.ends[:-1].tolist(), lines.ends[1:].tolist(), strict=True):
        line = lines.data[start:end].decode()
        assert line == "" or (line.endswith("\n") and line.count("\n") == 1)
        found.append(line.removesuffix("\n"))
    assert lines.ends[0] == 0
    assert lines.ends[-1] == len(lines.data)
    return found


def encoded(rows: Rows, first_sequence: int = 1) -> list[str]:
    return texts(encoder().encode(rows, first_sequence))


def meaning(line: str) -> tuple[str, list[tuple[str, float | int]], str]:
    """A line with its numbers read: floats may be written in several ways."""
    if not line:
        return "", [], ""
    head, fields, ns = line.replace(r"\ ", "_").split(" ")
    named = (field.split("=") for field in fields.split(","))
    return head, [(name, int(text[:-1]) if text[-1] == "i" else float(text)) for name, text in named], ns


def ns_of(line: str) -> int:
    return int(line.rpartition(" ")[2])


def test_a_trade_carries_the_newest_quote_before_it() -> None:
    rows = np.concatenate((trades(1, first_id=7), quote(), trades(1, first_id=8)))
    lines = encoder().encode(rows, 40)
    head = "trades,exchange=binance,symbol=BTCUSDT price=0.00001"
    # A quantity that no decimal of eight places is, is written by Python, and its neighbours in the line too.
    far = head.replace("0.00001", "1e-05")
    assert texts(lines) == [
        f"{far},volume=1e+21,sequence=40i,id=7i 1700000000123456007",
        "",
        f"{far},bid=2.5,ask=2.75,volume=1e+21,sequence=42i,id=8i 1700000000123456008",
    ]
    rows["quantity"] = 12.5
    assert encoded(rows[2:], 42) == [f"{head},volume=12.5,sequence=42i,id=8i 1700000000123456008"]
    assert lines.has(np.array([0, 1, 2])).tolist() == [True, False, True]
    assert texts(lines.part(1, 3)) == texts(lines)[1:]
    assert lines.part(0, 1).data + lines.part(1, 3).data == lines.data


def test_tags_are_escaped_and_the_unwritable_has_no_line() -> None:
    (line,) = encoded(trades(1, symbol_id=2))
    assert line.startswith(r"trades,exchange=binance,symbol=币安\ USDT\,\= price=")
    bad = np.concatenate((trades(1, symbol_id=3), trades(2)))
    bad["price"][1], bad["quantity"][2] = math.nan, math.inf
    assert encoded(bad) == ["", "", ""]


def test_a_symbol_that_gets_its_name_later_is_asked_for_again() -> None:
    known: list[tuple[int, str]] = []
    made = TradeLines(Names(lambda: known))
    made.attach()
    assert texts(made.encode(trades(1), 1)) == [""]
    known.append((1, "NEWUSDT"))
    assert "symbol=NEWUSDT" in texts(made.encode(trades(1), 2))[0]


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_back_as_the_same_bits(price: float) -> None:
    rows = trades(1)
    rows["price"] = price
    (line,) = encoded(rows)
    assert float(line.split("price=")[1].split(",")[0]) == price


prices = st.one_of(
    st.integers(0, 10**13).map(lambda steps: steps / 1e8),
    st.sampled_from([math.nan, math.inf, -1.5, 0.0, 1e-9, 1e18, 90_071_992.54740993, 123_456_789_012.25]),
)
events = st.tuples(
    st.sampled_from([TRADE, TRADE, QUOTE, GAP]),
    st.sampled_from([1, 2, 3, 65_535]),
    st.integers(0, 2),
    st.integers(1, 1_500),
    prices,
    prices,
    prices,
)


@settings(deadline=None)
@given(st.lists(events, max_size=60), st.integers(1, 1 << 40), st.sampled_from([0, T_US, (1 << 63) // 1_000]))
def test_the_lines_are_those_of_plain_python(
    wanted: list[tuple[int, int, int, int, float, float, float]], first: int, us: int
) -> None:
    rows, next_id = empty_rows(len(wanted)), dict.fromkeys((1, 2, 3, 65_535), -500)
    for row, (kind, symbol_id, step_us, ids, price, quantity, ask) in zip(rows, wanted, strict=True):
        us += step_us
        next_id[symbol_id] += ids
        row["kind"], row["symbol_id"], row["exchange_us"], row["id"] = kind, symbol_id, us, next_id[symbol_id]
        row["price"], row["quantity"], row["ask"] = price, quantity, ask
    ours = [meaning(line) for line in encoded(rows, first)]
    assert ours == [meaning(line) for line in PlainLines(NAMES).encode(rows, first)]


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
    times = [ns_of(line) for line in encoded(np.concatenate(parts))]
    assert len(set(times)) == len(times)


def test_a_repaired_trade_has_the_time_it_would_have_had() -> None:
    rows = trades(1_000)
    late = np.concatenate((rows[:500], rows[501:], rows[500:501]))
    mixed = encoded(late)
    assert {ns_of(line) for line in mixed} == {ns_of(line) for line in encoded(rows)}
    assert ns_of(mixed[-1]) == trade_ns(T_US, 501)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 300))
def test_begun_anywhere_the_same_lines_come_out(seed: int, cut: int) -> None:
    chance = np.random.default_rng(seed)
    rows = np.concatenate(
        [quote(2), trades(150, first_id=1), quote(), trades(149, first_id=151, symbol_id=2)]
    )
    chance.shuffle(rows)
    whole, resumed = encoder().encode(rows, 1), encoder()
    resumed.warm(quote(2), 5_000)
    resumed.forget()
    resumed.warm(rows[:cut], 1)
    assert texts(resumed.encode(rows[cut:], 1 + cut)) == texts(whole)[cut:]


@pytest.mark.parametrize(("back", "used"), [(QUOTE_BACK_ROWS, True), (QUOTE_BACK_ROWS + 1, False)])
def test_a_quote_too_far_back_is_not_used(back: int, used: bool) -> None:
    lines = encoder()
    lines.warm(quote(), 1)
    assert ("bid=2.5" in texts(lines.encode(trades(1), 1 + back))[0]) is used
