"""exchange.repair_pages: REST's JSON as records, or a ValueError."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.derive.completeness_gap import AGGS, TRADES
from tradeback.exchange.repair_pages import read_page
from tradeback.model.record import AGG, BUYER_MAKER, LINE_REST, LINE_SHIFT, REPAIRED, TRADE

TRADE_ENTRY = {"id": 990000101, "price": "171.24000000", "qty": "3.51000000", "quoteQty": "601.05240000",
               "time": 1781000000123456, "isBuyerMaker": False, "isBestMatch": True}  # fmt: skip
AGG_ENTRY = {"a": 410000777, "p": "171.24000000", "q": "9.07000000", "f": 990000101, "l": 990000104,
             "T": 1781000000123, "m": True, "M": True}  # fmt: skip


def test_a_trade() -> None:
    (row,) = read_page(orjson.dumps([TRADE_ENTRY]), TRADES, 7, 99)
    assert (row["id"], row["kind"], row["symbol_id"], row["recv_ns"]) == (990000101, TRADE, 7, 99)
    assert (row["exchange_us"], row["price"], row["quantity"]) == (1781000000123456, 171.24, 3.51)
    assert row["flags"] == REPAIRED | LINE_REST << LINE_SHIFT


def test_an_aggregate_with_time_in_ms() -> None:
    (row,) = read_page(orjson.dumps([AGG_ENTRY]), AGGS, 7, 99)
    assert (row["id"], row["kind"], row["ask"], row["ask_quantity"]) == (410000777, AGG, 990000101, 990000104)
    assert row["exchange_us"] == 1781000000123000
    assert row["flags"] == BUYER_MAKER | REPAIRED | LINE_REST << LINE_SHIFT


def test_an_empty_page() -> None:
    assert len(read_page(b"[]", TRADES, 1, 0)) == len(read_page(b"[]", AGGS, 1, 0)) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"id": -1}, {"id": 1 << 53}, {"id": 1.5}, {"id": "1"}, {"id": True}, {"price": "0"}, {"price": "-1"},
        {"price": "inf"}, {"price": "x"}, {"price": 1.5}, {"qty": "nan"}, {"qty": "-1"}, {"time": 0},
        {"time": 1 << 62}, {"isBuyerMaker": 1}, {"isBuyerMaker": None},
    ],
)  # fmt: skip
def test_entries_that_are_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of many makes)
        read_page(orjson.dumps([{**TRADE_ENTRY, **change}]), TRADES, 1, 0)


@pytest.mark.parametrize("change", [{"f": 990000105}, {"f": -1}, {"a": -2}, {"l": None}])
def test_aggregates_that_are_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of many makes)
        read_page(orjson.dumps([{**AGG_ENTRY, **change}]), AGGS, 1, 0)


@given(st.lists(st.integers(0, 1 << 52), max_size=20))
def test_ids_rise_or_it_is_no_page(ids: list[int]) -> None:
    body = orjson.dumps([{**TRADE_ENTRY, "id": number} for number in ids])
    if ids == sorted(set(ids)):
        assert read_page(body, TRADES, 1, 0)["id"].tolist() == ids
    else:
        with pytest.raises(ValueError, match="rise"):
            read_page(body, TRADES, 1, 0)


@given(st.binary(max_size=60))
def test_garbage(body: bytes) -> None:
    for stream in (TRADES, AGGS):
        try:
            rows = read_page(body, stream, 1, 0)
        except ValueError:
            continue
        assert len(rows) == 0
