"""Ticker endpoints of REST. Pure; section 7 of the fact sheet."""

import re

from tradeback.sim import payloads
from tradeback.sim.bars import Bar
from tradeback.sim.book import Book
from tradeback.sim.periodic import zone_offset_s
from tradeback.sim.rest_api import ENDPOINTS, Context, Endpoint
from tradeback.sim.rest_query import Query, RestError
from tradeback.sim.text import SCALE, decimal8

_WINDOW = re.compile(r"(\d{1,2})([mhd])")
_UNITS = {"m": (60, 59), "h": (3_600, 23), "d": (86_400, 7)}
_TICKER_SYMBOLS_MAX = 100


def _join(rows: list[str], single: bool) -> bytes:
    return (rows[0] if single else "[" + ",".join(rows) + "]").encode()


def price(query: Query, context: Context) -> bytes:
    """`ticker/price`."""
    books, single = query.books(context.books)
    context.charge(2 if single else 4)
    query.text("symbolStatus")
    query.done()
    rows = [
        f'{{"symbol":"{book.instrument.symbol}","price":"{decimal8(book.chart.last_price)}"}}'
        for book in books
    ]
    return _join(rows, single)


def book_ticker(query: Query, context: Context) -> bytes:
    """`ticker/bookTicker`: no id, no time."""
    books, single = query.books(context.books)
    context.charge(2 if single else 4)
    query.text("symbolStatus")
    query.done()
    rows = []
    for book in books:
        book.refresh()
        rows.append(
            f'{{"symbol":"{book.instrument.symbol}","bidPrice":"{decimal8(book.bid)}",'
            f'"bidQty":"{decimal8(book.bid_quantity)}","askPrice":"{decimal8(book.ask)}",'
            f'"askQty":"{decimal8(book.ask_quantity)}"}}'
        )
    return _join(rows, single)


def average(query: Query, context: Context) -> bytes:
    """`avgPrice`."""
    context.charge(2)
    book = query.book(context.books)
    query.done()
    bar = payloads.rolling(book, payloads.AVERAGE_US, context.now_us)
    mean = decimal8(payloads.mean_price(bar))
    return f'{{"mins":5,"price":"{mean}","closeTime":{context.time(book.last_us)}}}'.encode()


def day(query: Query, context: Context) -> bytes:
    """`ticker/24hr`."""
    books, single = query.books(context.books)
    named = query.text("symbols") is not None
    count = len(books)
    context.charge(2 if single or (named and count <= 20) else 40 if named and count <= 100 else 80)
    full = query.choice("type", ("FULL", "MINI"), "FULL", -1139) == "FULL"
    query.text("symbolStatus")
    query.done()
    end_us = context.now_us
    start_us = end_us - payloads.DAY_US
    rows = []
    for book in books:
        bar = payloads.rolling(book, payloads.DAY_US, end_us)
        rows.append(_statistics(book, bar, (start_us, end_us), context, full=full, touch=full))
    return _join(rows, single)


def window(query: Query, context: Context) -> bytes:
    """`ticker` with windowSize 1m..59m, 1h..23h, 1d..7d."""
    books, single = _few_books(query, context)
    size = query.text("windowSize") or "1d"
    match = _WINDOW.fullmatch(size)
    if not match or not 1 <= int(match[1]) <= _UNITS[match[2]][1]:
        raise RestError(-1130, "Data sent for parameter 'windowSize' is not valid.")
    span_us = int(match[1]) * _UNITS[match[2]][0] * 1_000_000
    full = query.choice("type", ("FULL", "MINI"), "FULL", -1139) == "FULL"
    query.text("symbolStatus")
    query.done()
    rows = []
    for book in books:
        bar = payloads.rolling(book, span_us, context.now_us)
        bounds = (context.now_us - span_us, context.now_us)
        rows.append(_statistics(book, bar, bounds, context, full=full, touch=False))
    return _join(rows, single)


def trading_day(query: Query, context: Context) -> bytes:
    """`ticker/tradingDay` with timeZone."""
    books, single = _few_books(query, context)
    offset_s = zone_offset_s(query.text("timeZone") or "0")
    if offset_s is None:
        raise RestError(-1130, "Data sent for parameter 'timeZone' is not valid.")
    full = query.choice("type", ("FULL", "MINI"), "FULL", -1139) == "FULL"
    query.text("symbolStatus")
    query.done()
    now_s = context.now_us // 1_000_000
    start_s = (now_s + offset_s) // 86_400 * 86_400 - offset_s
    rows = []
    for book in books:
        bar = book.chart.window(start_s, now_s + 1) or payloads.rolling(book, 1_000_000, context.now_us)
        bounds = (start_s * 1_000_000, (start_s + 86_400) * 1_000_000 - 1)
        rows.append(_statistics(book, bar, bounds, context, full=full, touch=False))
    return _join(rows, single)


def _few_books(query: Query, context: Context) -> tuple[list[Book], bool]:
    if query.text("symbol") is None and query.text("symbols") is None:
        raise RestError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    books, single = query.books(context.books)
    if len(books) > _TICKER_SYMBOLS_MAX:
        raise RestError(-1130, "Data sent for parameter 'symbols' is not valid.")
    context.charge(min(200, 4 * len(books)))
    return books, single


def _statistics(
    book: Book, bar: Bar, bounds_us: tuple[int, int], context: Context, *, full: bool, touch: bool
) -> str:
    first, last = (bar.first_id, bar.last_id) if bar.trades else (-1, -1)
    parts = [f'"symbol":"{book.instrument.symbol}"']
    if full:
        parts += [
            f'"priceChange":"{decimal8(bar.close - bar.open)}"',
            f'"priceChangePercent":"{payloads.percent(bar)}"',
            f'"weightedAvgPrice":"{decimal8(payloads.mean_price(bar))}"',
        ]
    if touch:
        book.refresh()
        parts += [
            f'"prevClosePrice":"{decimal8(bar.open)}"',
            f'"lastPrice":"{decimal8(bar.close)}"',
            f'"lastQty":"{decimal8(book.last_quantity)}"',
            f'"bidPrice":"{decimal8(book.bid)}"',
            f'"bidQty":"{decimal8(book.bid_quantity)}"',
            f'"askPrice":"{decimal8(book.ask)}"',
            f'"askQty":"{decimal8(book.ask_quantity)}"',
        ]
    parts += [
        f'"openPrice":"{decimal8(bar.open)}"',
        f'"highPrice":"{decimal8(bar.high)}"',
        f'"lowPrice":"{decimal8(bar.low)}"',
    ]
    if not touch:
        parts.append(f'"lastPrice":"{decimal8(bar.close)}"')
    parts += [
        f'"volume":"{decimal8(bar.volume)}"',
        f'"quoteVolume":"{decimal8(bar.quote_volume // SCALE)}"',
        f'"openTime":{context.time(bounds_us[0])}',
        f'"closeTime":{context.time(bounds_us[1])}',
        f'"firstId":{first}',
        f'"lastId":{last}',
        f'"count":{bar.trades}',
    ]
    return "{" + ",".join(parts) + "}"


ALL_ENDPOINTS: dict[str, Endpoint] = {
    **ENDPOINTS,
    "avgPrice": average,
    "ticker/24hr": day,
    "ticker/price": price,
    "ticker/bookTicker": book_ticker,
    "ticker": window,
    "ticker/tradingDay": trading_day,
}
"""Path below /api/v3/ -> endpoint."""
