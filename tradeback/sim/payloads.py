"""Payloads of the streams that are made from the books: klines, tickers, depth. Pure.

Times are given in us and shown in ms or us; key order is the exchange's.
"""

from collections.abc import Sequence

from tradeback.sim.bars import Bar
from tradeback.sim.book import Book, Level
from tradeback.sim.text import SCALE, decimal8

DAY_US = 86_400_000_000
WINDOWS_US = {"1h": 3_600_000_000, "4h": 14_400_000_000, "1d": DAY_US}
AVERAGE_US = 300_000_000


def shown(time_us: int, microseconds: bool) -> int:
    """A time as the listener wants it."""
    return time_us if microseconds else time_us // 1_000


def last_moment(end_s: int, microseconds: bool) -> int:
    """The closing time of a span that ends before `end_s`."""
    return end_s * 1_000_000 - 1 if microseconds else end_s * 1_000 - 1


def kline(
    book: Book, interval: str, span: tuple[int, int, Bar], closed: bool, now_us: int, microseconds: bool
) -> bytes:
    """`<symbol>@kline_<interval>`."""
    start_s, end_s, bar = span
    first, last = (bar.first_id, bar.last_id) if bar.trades else (-1, -1)
    symbol = book.instrument.symbol
    return (
        f'{{"e":"kline","E":{shown(now_us, microseconds)},"s":"{symbol}","k":{{'
        f'"t":{shown(start_s * 1_000_000, microseconds)},"T":{last_moment(end_s, microseconds)},'
        f'"s":"{symbol}","i":"{interval}","f":{first},"L":{last},'
        f'"o":"{decimal8(bar.open)}","c":"{decimal8(bar.close)}","h":"{decimal8(bar.high)}",'
        f'"l":"{decimal8(bar.low)}","v":"{decimal8(bar.volume)}","n":{bar.trades},'
        f'"x":{"true" if closed else "false"},"q":"{decimal8(bar.quote_volume // SCALE)}",'
        f'"V":"{decimal8(bar.taker_volume)}","Q":"{decimal8(bar.taker_quote_volume // SCALE)}","B":"0"}}}}'
    ).encode()


def rolling(book: Book, window_us: int, now_us: int) -> Bar:
    """Trades of the last `window_us`, to the second; flat at the last price when there were none."""
    end_s = now_us // 1_000_000 + 1
    bar = book.chart.window(end_s - window_us // 1_000_000, end_s)
    if bar is None:
        price = book.chart.last_price
        bar = Bar(price, price, price, price, 0, 0, 0, 0, 0, -1)
    return bar


def mini_ticker(book: Book, now_us: int, microseconds: bool) -> bytes:
    """`<symbol>@miniTicker`."""
    bar = rolling(book, DAY_US, now_us)
    return (
        f'{{"e":"24hrMiniTicker","E":{shown(now_us, microseconds)},"s":"{book.instrument.symbol}",'
        f'"c":"{decimal8(bar.close)}","o":"{decimal8(bar.open)}","h":"{decimal8(bar.high)}",'
        f'"l":"{decimal8(bar.low)}","v":"{decimal8(bar.volume)}",'
        f'"q":"{decimal8(bar.quote_volume // SCALE)}"}}'
    ).encode()


def percent(bar: Bar) -> str:
    """Change over the bar in percent with three decimals."""
    if not bar.open:
        return "0.000"
    thousandths = round((bar.close - bar.open) * 100_000 / bar.open)
    sign = "-" if thousandths < 0 else ""
    return f"{sign}{abs(thousandths) // 1_000}.{abs(thousandths) % 1_000:03d}"


def mean_price(bar: Bar) -> int:
    """Volume-weighted mean in units of 1e-8."""
    return bar.quote_volume // bar.volume if bar.volume else bar.close


def ticker(book: Book, window: str, now_us: int, microseconds: bool) -> bytes:
    """`<symbol>@ticker` (window "") or `<symbol>@ticker_<window>`."""
    span_us = WINDOWS_US[window] if window else DAY_US
    bar = rolling(book, span_us, now_us)
    first, last = (bar.first_id, bar.last_id) if bar.trades else (-1, -1)
    book.refresh()
    name = f"{window or '24hr'}Ticker"
    head = (
        f'{{"e":"{name}","E":{shown(now_us, microseconds)},"s":"{book.instrument.symbol}",'
        f'"p":"{decimal8(bar.close - bar.open)}","P":"{percent(bar)}","w":"{decimal8(mean_price(bar))}",'
    )
    if window:
        middle = (
            f'"o":"{decimal8(bar.open)}","h":"{decimal8(bar.high)}","l":"{decimal8(bar.low)}",'
            f'"c":"{decimal8(bar.close)}",'
        )
    else:
        middle = (
            f'"x":"{decimal8(bar.open)}","c":"{decimal8(bar.close)}","Q":"{decimal8(book.last_quantity)}",'
            f'"b":"{decimal8(book.bid)}","B":"{decimal8(book.bid_quantity)}",'
            f'"a":"{decimal8(book.ask)}","A":"{decimal8(book.ask_quantity)}",'
            f'"o":"{decimal8(bar.open)}","h":"{decimal8(bar.high)}","l":"{decimal8(bar.low)}",'
        )
    tail = (
        f'"v":"{decimal8(bar.volume)}","q":"{decimal8(bar.quote_volume // SCALE)}",'
        f'"O":{shown(now_us - span_us, microseconds)},"C":{shown(now_us, microseconds)},'
        f'"F":{first},"L":{last},"n":{bar.trades}}}'
    )
    return (head + middle + tail).encode()


def average_price(book: Book, now_us: int, microseconds: bool) -> bytes:
    """`<symbol>@avgPrice`: the mean over five minutes."""
    bar = rolling(book, AVERAGE_US, now_us)
    return (
        f'{{"e":"avgPrice","E":{shown(now_us, microseconds)},"s":"{book.instrument.symbol}","i":"5m",'
        f'"w":"{decimal8(mean_price(bar))}","T":{shown(book.last_us, microseconds)}}}'
    ).encode()


def levels(side: Sequence[Level]) -> str:
    """One side of a book as JSON."""
    return "[" + ",".join(f'["{decimal8(price)}","{decimal8(quantity)}"]' for price, quantity in side) + "]"


def partial_depth(book: Book, limit: int) -> bytes:
    """`<symbol>@depth<limit>`, and the body of REST depth."""
    bids, asks = book.depth(limit)
    return (f'{{"lastUpdateId":{book.update_id},"bids":{levels(bids)},"asks":{levels(asks)}}}').encode()


def depth_update(
    book: Book, first: int, bids: Sequence[Level], asks: Sequence[Level], now_us: int, microseconds: bool
) -> bytes:
    """`<symbol>@depth`: changed levels, update ids `first` to the book's."""
    return (
        f'{{"e":"depthUpdate","E":{shown(now_us, microseconds)},"s":"{book.instrument.symbol}",'
        f'"U":{first},"u":{book.update_id},"b":{levels(bids)},"a":{levels(asks)}}}'
    ).encode()
