"""exchange.fallback: right events in any spelling, documented errors for everything else."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exchange.harness import BTC, YEN
from tradeback.exchange import fallback
from tradeback.model.errors import DecodeError
from tradeback.model.record import AGG, BUYER_MAKER, QUOTE, TRADE, empty_rows
from tradeback.model.symbols import SymbolTable

SYMBOLS = SymbolTable.of((BTC, YEN))
TRADE_EVENT: dict[str, Any] = {
    "e": "trade", "E": 1781000000124, "s": "BTCUSDT", "t": 990000101, "p": "171.24000000",
    "q": "3.51000000", "T": 1781000000123, "m": False, "M": True,
}  # fmt: skip
AGG_EVENT: dict[str, Any] = {
    "e": "aggTrade", "E": 1781000000124, "s": "BTCUSDT", "a": 410000777, "p": "171.24000000",
    "q": "9.07000000", "f": 990000101, "l": 990000104, "T": 1781000000123, "m": True, "M": True,
}  # fmt: skip
QUOTE_EVENT: dict[str, Any] = {
    "u": 71000000512, "s": "BTCUSDT", "b": "171.23000000", "B": "88.1", "a": "171.24", "A": "12.45",
}  # fmt: skip
EVENTS = (TRADE_EVENT, AGG_EVENT, QUOTE_EVENT)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def decode(event: dict[str, Any]) -> tuple[Any, int]:
    rows, event_us = fallback.decode_event(event, SYMBOLS)
    return rows[0], event_us


def test_a_trade() -> None:
    row, event_us = decode(TRADE_EVENT)
    assert event_us == 1781000000124000
    assert row["exchange_us"] == 1781000000123000
    assert (row["kind"], row["id"], row["symbol_id"], row["flags"]) == (TRADE, 990000101, BTC.id, 0)
    assert (row["price"], row["quantity"]) == (171.24, 3.51)


def test_an_aggregate() -> None:
    row, _ = decode({**AGG_EVENT, "s": YEN.symbol, "T": 1781000000123456, "E": 1781000000124456})
    assert row["exchange_us"] == 1781000000123456
    assert (row["kind"], row["id"], row["symbol_id"]) == (AGG, 410000777, YEN.id)
    assert row["flags"] == BUYER_MAKER
    assert (row["ask"], row["ask_quantity"]) == (990000101.0, 990000104.0)


def test_a_quote() -> None:
    row, event_us = decode(QUOTE_EVENT)
    assert event_us == 0
    assert (row["kind"], row["id"], row["exchange_us"]) == (QUOTE, 71000000512, 0)
    assert [row[name] for name in ("price", "quantity", "ask", "ask_quantity")] == [
        171.23,
        88.1,
        171.24,
        12.45,
    ]


@pytest.mark.parametrize("event", EVENTS)
@given(data=st.data())
def test_any_change_of_any_value_is_taken_rightly_or_refused(event: dict[str, Any], data: Any) -> None:
    key = data.draw(st.sampled_from(sorted(event)))
    changed = {**event, key: data.draw(anything)}
    if data.draw(st.booleans()):
        del changed[data.draw(st.sampled_from(sorted(changed)))]
    try:
        row, event_us = decode(changed)
    except DecodeError:
        return
    for name in ("price", "quantity", "ask", "ask_quantity"):
        assert math.isfinite(row[name])
        assert row[name] >= 0
    assert 0 <= row["id"] < 1 << 53
    assert 0 <= row["exchange_us"] <= 1 << 53
    assert event_us >= 0
    assert row["symbol_id"] == BTC.id
    assert row["kind"] in (TRADE, AGG, QUOTE)


@given(st.dictionaries(st.sampled_from([*"eEstpqTmMafluUbBaA", "stream", "data"]), anything))
def test_documented_errors_only(message: dict[str, Any]) -> None:
    said = ""
    try:
        fallback.decode_event(fallback.event_of(message), SYMBOLS)
    except DecodeError as error:
        said = str(error)
    assert len(said) < 200, "the log line stays short"


@given(st.binary(max_size=200) | anything.map(lambda value: repr(value).encode()))
def test_parse_knows_only_objects(payload: bytes) -> None:
    try:
        assert isinstance(fallback.parse(payload), dict)
    except DecodeError:
        return
    assert isinstance(orjson.loads(payload), dict)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("p", "nan"), ("p", "inf"), ("p", "-inf"), ("p", "-1"), ("p", "-0"), ("p", "1e999"), ("p", ""),
        ("p", "1,5"), ("p", 171.24),
        ("p", "1e3"), ("p", "1_000"), ("p", " 5"), ("p", "5\n"), ("p", "\u0665"), ("p", ".5"), ("p", "5."),
        ("p", "+5"), ("p", "infinity"), ("p", "9" * 400),
        ("p", None), ("q", "-0.0"), ("q", True), ("q", "0x10"),
        ("t", -1), ("t", True), ("t", 1 << 53), ("t", 10**30), ("t", "5"), ("t", 5.0), ("t", None),
        ("T", -1), ("T", True), ("T", 1 << 53), ("T", "1781000000123"), ("T", 1.5), ("E", False),
        ("m", 1), ("m", None), ("m", "true"), ("s", "NOPEUSDT"), ("s", "btcusdt"), ("s", 5), ("s", None),
        ("e", "kline"), ("e", 5), ("e", ["trade"]),
    ],
)  # fmt: skip
def test_refused(key: str, value: object) -> None:
    with pytest.raises(DecodeError):
        decode({**TRADE_EVENT, key: value})


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, 4), (True, 4), (1, 1 << 53)])
def test_an_aggregate_of_no_range(first: object, last: object) -> None:
    with pytest.raises(DecodeError):
        decode({**AGG_EVENT, "f": first, "l": last})


@pytest.mark.parametrize("data", [None, 5, "x", [], [TRADE_EVENT]])
def test_combined_data_that_is_no_object(data: object) -> None:
    with pytest.raises(DecodeError):
        fallback.event_of({"stream": "btcusdt@trade", "data": data})


def test_combined_and_raw_are_the_same() -> None:
    assert fallback.event_of({"stream": "btcusdt@trade", "data": TRADE_EVENT}) is TRADE_EVENT
    assert fallback.event_of(TRADE_EVENT) is TRADE_EVENT


def test_same_sees_every_field() -> None:
    base = fallback.decode_event(TRADE_EVENT, SYMBOLS)[0]
    for name in (
        "exchange_us",
        "id",
        "price",
        "quantity",
        "ask",
        "ask_quantity",
        "symbol_id",
        "kind",
        "flags",
    ):
        other = base.copy()
        other[name] += 1
        assert not fallback.same(base, other), name
    stamped = base.copy()
    stamped["recv_ns"], stamped["checksum"] = 5, 7
    assert fallback.same(base, stamped)
    assert len(empty_rows(1)) == 1
