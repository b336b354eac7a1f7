"""Answers of REST, computed from the books. Pure; section 7 of the fact sheet.

An endpoint takes (query, context) and returns JSON text, in small pieces where it takes long to make, so
that the market goes on in between. Its weight may depend on the query, so it charges
`context.charge(weight)` as soon as that is known.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from tradeback.sim import payloads
from tradeback.sim.bars import Bar
from tradeback.sim.book import Book
from tradeback.sim.chart import INTERVALS, bucket_end, bucket_start, month_start
from tradeback.sim.config import SimConfig
from tradeback.sim.exchange_info import exchange_info
from tradeback.sim.periodic import zone_offset_s
from tradeback.sim.rest_query import Query, RestError
from tradeback.sim.text import SCALE, decimal8, quote8
from tradeback.sim.trades import AggTrade, Row, Store, Trade

Hides = Callable[[str, str, int, int], bool]
"""Is a row missing for good? (path, symbol, id, time in us)"""


@dataclass(slots=True)
class Context:
    """One request: market time now, the unit of times, and where its weight is charged."""

    books: dict[str, Book]
    config: SimConfig
    now_us: int
    microseconds: bool
    charge: Callable[[int], None]
    hides: Hides | None = None
    """Rows that are missing for good, for tests of whoever repairs."""

    def time(self, time_us: int) -> int:
        """A time as the client wants it."""
        return time_us if self.microseconds else time_us // 1_000


Endpoint = Callable[[Query, Context], bytes | Iterator[bytes]]
"""Errors are raised by the call, never by a piece."""


def ping(query: Query, context: Context) -> bytes:
    """`ping`."""
    context.charge(1)
    query.done()
    return b"{}"


def server_time(query: Query, context: Context) -> bytes:
    """`time`."""
    context.charge(1)
    query.done()
    return b'{"serverTime":%d}' % context.time(context.now_us)


def info(query: Query, context: Context) -> bytes:
    """`exchangeInfo`."""
    context.charge(20)
    books, _ = query.books(context.books)
    permissions, status = query.text("permissions"), query.text("symbolStatus")
    named = query.text("symbol") is not None or query.text("symbols") is not None
    if named and (permissions is not None or status is not None):
        raise RestError(-1128, "Combination of optional parameters invalid.")
    sets = query.flag("showPermissionSets", True)
    query.done()
    if status not in (None, "TRADING") or (permissions is not None and "SPOT" not in permissions):
        books = []
    return orjson.dumps(
        exchange_info(
            [book.instrument for book in books],
            context.time(context.now_us),
            context.config.weight_per_minute,
            sets,
        )
    )


def depth(query: Query, context: Context) -> bytes:
    """`depth`."""
    limit = query.limit(100, 5_000)
    context.charge(5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1_000 else 250)
    book = query.book(context.books)
    query.text("symbolStatus")
    query.done()
    return payloads.partial_depth(book, limit)


def _trade(trade: Trade, context: Context) -> str:
    return (
        f'{{"id":{trade.id},"price":"{decimal8(trade.price)}","qty":"{decimal8(trade.quantity)}",'
        f'"quoteQty":"{decimal8(quote8(trade.price, trade.quantity))}","time":{context.time(trade.time_us)},'
        f'"isBuyerMaker":{"true" if trade.is_buyer_maker else "false"},"isBestMatch":true}}'
    )


def _agg(agg: AggTrade, context: Context) -> str:
    return (
        f'{{"a":{agg.id},"p":"{decimal8(agg.price)}","q":"{decimal8(agg.quantity)}","f":{agg.first_id},'
        f'"l":{agg.last_id},"T":{context.time(agg.time_us)},'
        f'"m":{"true" if agg.is_buyer_maker else "false"},"M":true}}'
    )


def trades(query: Query, context: Context) -> bytes:
    """`trades`: the newest."""
    context.charge(25)
    book, limit = query.book(context.books), query.limit(500, 1_000)
    query.done()
    found = _page(book.trades, "trades", book, book.trades.next_id - limit, limit, context)
    return _array(_trade(trade, context) for trade in found)


def historical_trades(query: Query, context: Context) -> bytes:
    """`historicalTrades`: from an id on, or the newest. Ids older than what is kept begin at the oldest."""
    context.charge(25)
    book, limit = query.book(context.books), query.limit(500, 1_000)
    from_id = query.number("fromId")
    query.done()
    first_id = book.trades.next_id - limit if from_id is None else from_id
    found = _page(book.trades, "historicalTrades", book, first_id, limit, context)
    return _array(_trade(trade, context) for trade in found)


def agg_trades(query: Query, context: Context) -> bytes:
    """`aggTrades`: by id, by time (both bounds inclusive), or the newest."""
    context.charge(4)
    book, limit = query.book(context.books), query.limit(500, 1_000)
    from_id = query.number("fromId")
    start_us, end_us = query.time_us("startTime"), query.time_us("endTime")
    query.done()
    store = book.aggs
    if from_id is not None:
        if start_us is not None or end_us is not None:
            raise RestError(-1128, "Combination of optional parameters invalid.")
        found = _page(store, "aggTrades", book, from_id, limit, context)
    elif start_us is None and end_us is None:
        found = _page(store, "aggTrades", book, store.next_id - limit, limit, context)
    else:
        # A bound in ms means the whole millisecond.
        after = store.next_id if end_us is None else store.first_at(_inclusive(end_us) + 1)
        first = store.first_at(start_us) if start_us is not None else max(after - limit, 0)
        found = _page(store, "aggTrades", book, first, limit, context, after)
    return _array(_agg(agg, context) for agg in found)


def _page(
    store: Store[Row],
    path: str,
    book: Book,
    first_id: int,
    limit: int,
    context: Context,
    end: int | None = None,
) -> list[Row]:
    """Up to `limit` rows from `first_id` on, before `end`; those that are missing for good are passed by."""
    end = store.next_id if end is None else end
    hides = context.hides
    if hides is None:
        return store.read(first_id, min(limit, max(0, end - first_id)))
    found: list[Row] = []
    symbol, at = book.instrument.symbol, max(first_id, store.first_id)
    while len(found) < limit and at < end:
        rows = store.read(at, min(limit, end - at))
        found += [row for row in rows if not hides(path, symbol, row.id, row.time_us)]
        at += len(rows)
    return found[:limit]


def _inclusive(time_us: int) -> int:
    return time_us + 999 if time_us % 1_000 == 0 else time_us


def klines(query: Query, context: Context) -> Iterator[bytes]:
    """`klines` and `uiKlines`."""
    context.charge(2)
    book, interval, limit = query.book(context.books), query.interval(), query.limit(500, 1_000)
    start_us, end_us = query.time_us("startTime"), query.time_us("endTime")
    zone = query.text("timeZone")
    query.done()
    offset_s = 0 if zone is None else zone_offset_s(zone)
    if offset_s is None:
        raise RestError(-1130, "Data sent for parameter 'timeZone' is not valid.")
    first_s, last_s = kline_range(book, interval, (start_us, end_us), limit, offset_s, context.now_us)
    rows = islice(book.chart.rows(interval, first_s, last_s, offset_s), limit)
    return _kline_pieces(book, rows, context)


def _kline_pieces(book: Book, rows: Iterator[tuple[int, int, Bar]], context: Context) -> Iterator[bytes]:
    """A piece for every bar, and before them empty ones while the past is being made."""
    yield b"["
    if book.chart.history is not None:
        for _ in book.chart.history.prepare():
            yield b""
    comma = ""
    for start_s, until_s, bar in rows:
        yield (comma + _kline(start_s, until_s, bar, context)).encode()
        comma = ","
    yield b"]"


def kline_range(
    book: Book,
    interval: str,
    bounds_us: tuple[int | None, int | None],
    limit: int,
    offset_s: int,
    now_us: int,
) -> tuple[int, int]:
    """[first, last) in seconds, aligned: the spans whose opening time lies within the bounds.

    No bound: the newest; start: the oldest from it; end: the newest up to it; both: from the start.
    """
    start_us, end_us = bounds_us
    oldest_s = book.chart.first_s
    now_s = now_us // 1_000_000
    if oldest_s is None:
        return 0, 0
    newest_s = now_s if end_us is None else min(now_s, end_us // 1_000_000)
    until_s = bucket_end(interval, bucket_start(interval, newest_s, offset_s), offset_s)
    if start_us is None:
        first_s = _back(interval, until_s, limit, offset_s)
    else:
        first_s = bucket_start(interval, -(-start_us // 1_000_000), offset_s)
        if first_s * 1_000_000 < start_us:
            first_s = bucket_end(interval, first_s, offset_s)
    return max(first_s, bucket_start(interval, oldest_s, offset_s)), until_s


def _back(interval: str, until_s: int, count: int, offset_s: int) -> int:
    size = INTERVALS[interval]
    return until_s - count * size if size else month_start(until_s + offset_s, -count) - offset_s


def _kline(start_s: int, end_s: int, bar: Bar, context: Context) -> str:
    return (
        f'[{context.time(start_s * 1_000_000)},"{decimal8(bar.open)}","{decimal8(bar.high)}",'
        f'"{decimal8(bar.low)}","{decimal8(bar.close)}","{decimal8(bar.volume)}",'
        f"{payloads.last_moment(end_s, context.microseconds)},"
        f'"{decimal8(bar.quote_volume // SCALE)}",{bar.trades},"{decimal8(bar.taker_volume)}",'
        f'"{decimal8(bar.taker_quote_volume // SCALE)}","0"]'
    )


def _array(rows: Any) -> bytes:
    return ("[" + ",".join(rows) + "]").encode()


ENDPOINTS: dict[str, Endpoint] = {
    "ping": ping,
    "time": server_time,
    "exchangeInfo": info,
    "depth": depth,
    "trades": trades,
    "historicalTrades": historical_trades,
    "aggTrades": agg_trades,
    "klines": klines,
    "uiKlines": klines,
}
"""Path below /api/v3/ -> endpoint; the tickers are added by rest_tickers."""
