"""REST's pages of trades and aggregates as records of the tape. Shapes: binance.md section 7."""

from collections.abc import Sequence

import msgspec
import numpy as np

from tradeback.derive.completeness_gap import AGGS, STREAM_KINDS
from tradeback.model.decimal_text import decimal_floats
from tradeback.model.record import (
    BUYER_MAKER,
    LINE_REST,
    LINE_SHIFT,
    REPAIRED,
    Rows,
    empty_rows,
)

PAGE_MAX = 1_000
"""Records of the longest page."""
PATHS = ("historicalTrades", "aggTrades")
"""The endpoint by stream."""
_US_MIN = 100_000_000_000_000
"""1973 in us; in ms that is the year 5138. An exchange that knows no us answers ms."""
_TIME_MAX = 1 << 60
_ID_MAX = 1 << 53


class _Trade(msgspec.Struct):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class _Aggregate(msgspec.Struct):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 (the exchange's name)
    T: int
    m: bool


_read_trades = msgspec.json.Decoder(list[_Trade]).decode
_read_aggregates = msgspec.json.Decoder(list[_Aggregate]).decode


def read_page(body: bytes, stream: int, symbol_id: int, recv_ns: int) -> Rows:
    """The records of a page, by rising id, flags REPAIRED and LINE_REST (and who was the maker).

    ValueError when it is no such page: another shape, ids that do not rise, a price that is none. Takes a
    millisecond or two for a full one, so run it in a thread.
    """
    if stream == AGGS:
        aggregates = _read_aggregates(body)
        rows = _fill(
            [one.a for one in aggregates],
            [one.T for one in aggregates],
            [one.p for one in aggregates],
            [one.q for one in aggregates],
            [one.m for one in aggregates],
        )
        rows["ask"] = [one.f for one in aggregates]
        rows["ask_quantity"] = [one.l for one in aggregates]
        if np.any(rows["ask"] > rows["ask_quantity"]) or np.any(rows["ask"] < 0):
            raise ValueError("an aggregate ends before it begins")
    else:
        trades = _read_trades(body)
        rows = _fill(
            [one.id for one in trades],
            [one.time for one in trades],
            [one.price for one in trades],
            [one.qty for one in trades],
            [one.isBuyerMaker for one in trades],
        )
    rows["symbol_id"], rows["recv_ns"], rows["kind"] = symbol_id, recv_ns, STREAM_KINDS[stream]
    return rows


def _fill(
    ids: Sequence[int], times: Sequence[int], prices: Sequence[str], quantities: Sequence[str],
    makers: Sequence[bool],
) -> Rows:  # fmt: skip
    if any(not 0 <= number < _ID_MAX for number in ids) or any(not 0 < time < _TIME_MAX for time in times):
        raise ValueError("an id or a time is none")
    rows = empty_rows(len(ids))
    rows["id"] = ids
    if np.any(np.diff(rows["id"]) <= 0):
        raise ValueError("ids do not rise")
    moments = np.array(times, np.int64)
    rows["exchange_us"] = np.where(moments < _US_MIN, moments * 1_000, moments)
    rows["price"], rows["quantity"] = decimal_floats(prices), decimal_floats(quantities)
    if not np.all(rows["price"] > 0):
        raise ValueError("a price is none")
    maker = np.array(makers, np.bool_).astype(np.uint8) * BUYER_MAKER
    rows["flags"] = maker | np.uint8(REPAIRED | LINE_REST << LINE_SHIFT)
    return rows
