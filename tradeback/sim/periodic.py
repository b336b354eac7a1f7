"""Streams that tick by the market's clock: klines, tickers, averages, depth. Pure.

Nothing is made that nobody listens to. Kline pushes come 300 ms after the full second, because a trade
may be sent up to a quarter of a second after it matched, and a bar that is said to be closed is closed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tradeback.sim import payloads
from tradeback.sim.book import Book, Source
from tradeback.sim.channels import Channel, Hub
from tradeback.sim.chart import INTERVALS, bucket_end, bucket_start
from tradeback.sim.ladder import Watch
from tradeback.sim.synthetic_book import SyntheticBook

TICK_US = 100_000
KLINE_DELAY_TICKS = 3
_ZONE = re.compile(r"([+-])(\d{1,2}):(\d{2})")
_DEPTH = re.compile(r"depth(5|10|20)?")
Task = Callable[[int, int], None]
"""Called with (tick number of the market's clock, market time in us)."""


def zone_offset_s(text: str) -> int | None:
    """Seconds of a time zone "+08:00", "-3:30", "8" or "0"; None when outside -12:00..+14:00 or no zone."""
    match = _ZONE.fullmatch(text)
    if match:
        sign, hours, minutes = match.groups()
        seconds = int(hours) * 3_600 + int(minutes) * 60
        seconds = -seconds if sign == "-" else seconds
    elif re.fullmatch(r"[+-]?\d{1,2}", text):
        seconds = int(text) * 3_600
    else:
        return None
    return seconds if -43_200 <= seconds <= 50_400 else None


class Periodic:
    """Publishes the periodic streams of a source into a hub."""

    def __init__(self, source: Source, hub: Hub) -> None:
        self._source, self._hub = source, hub
        self._by_stream = {book.instrument.stream: book for book in source.books.values()}
        self._tasks: dict[str, Task] = {}
        hub.on_change = self.on_change

    def on_change(self, name: str) -> None:
        """The listeners of `name` have changed."""
        channel = self._hub.find(name)
        if channel is None:
            return
        if not channel.listeners:
            task = self._tasks.pop(name, None)
            if isinstance(task, _Diff):
                task.close()
        elif name not in self._tasks and not self._source.owns(name):
            made = self._make(name, channel)
            if made is not None:
                self._tasks[name] = made

    def tick(self, now_us: int) -> None:
        """The market's clock stands at `now_us`, a multiple of TICK_US."""
        number = now_us // TICK_US
        for task in self._tasks.values():
            task(number, now_us)

    def _make(self, name: str, channel: Channel) -> Task | None:
        stream, _, rest = name.partition("@")
        kind, _, option = rest.partition("@")
        if stream.startswith("!") and rest == "arr":
            return self._make_all(stream[1:], channel)
        book = self._by_stream.get(stream)
        if book is None:
            return None
        if kind.startswith("kline_") and kind[6:] in INTERVALS:
            offset_s = zone_offset_s(option) if option else 0
            return None if offset_s is None else _Kline(book, channel, kind[6:], offset_s)
        depth = _DEPTH.fullmatch(kind)
        if depth and option in ("", "100ms"):
            every = 1 if option else 10
            if depth[1]:
                return _Second(channel, _partial(book, int(depth[1])), every)
            return _Diff(book, channel, every) if isinstance(book, SyntheticBook) else None
        maker = _ticker_maker(kind, book) if not option else None
        return _Second(channel, maker) if maker else None

    def _make_all(self, kind: str, channel: Channel) -> Task | None:
        makers = [(book, _ticker_maker(kind, book)) for book in self._by_stream.values()]
        if kind == "ticker" or any(maker is None for _, maker in makers):
            return None
        return _All(channel, [(book, maker) for book, maker in makers if maker is not None])


Maker = Callable[[int, bool], bytes]


def _ticker_maker(kind: str, book: Book) -> Maker | None:
    if kind == "miniTicker":
        return lambda now_us, us: payloads.mini_ticker(book, now_us, us)
    if kind == "avgPrice":
        return lambda now_us, us: payloads.average_price(book, now_us, us)
    if kind == "ticker":
        return lambda now_us, us: payloads.ticker(book, "", now_us, us)
    window = kind.removeprefix("ticker_")
    if kind != window and window in payloads.WINDOWS_US:
        return lambda now_us, us: payloads.ticker(book, window, now_us, us)
    return None


def _partial(book: Book, limit: int) -> Maker:
    return lambda now_us, us: payloads.partial_depth(book, limit)


@dataclass(slots=True)
class _Second:
    """One payload every `every` ticks."""

    channel: Channel
    make: Maker
    every: int = 10

    def __call__(self, number: int, now_us: int) -> None:
        if number % self.every == 0:
            self.channel.publish(lambda us: self.make(now_us, us))


class _All:
    """An array of the symbols that traded since the last one."""

    def __init__(self, channel: Channel, makers: list[tuple[Book, Maker]]) -> None:
        self._channel, self._makers = channel, makers
        self._seen = [0] * len(makers)

    def __call__(self, number: int, now_us: int) -> None:
        if number % 10:
            return
        changed = []
        for index, (book, make) in enumerate(self._makers):
            if book.trades.next_id != self._seen[index]:
                self._seen[index] = book.trades.next_id
                changed.append(make)
        if changed:
            self._channel.publish(lambda us: b"[" + b",".join(make(now_us, us) for make in changed) + b"]")


class _Kline:
    """Pushes of one kline stream: the bar that has just closed, then the one that runs."""

    def __init__(self, book: Book, channel: Channel, interval: str, offset_s: int) -> None:
        self._book, self._channel = book, channel
        self._interval, self._offset_s = interval, offset_s
        self._every = 10 if interval == "1s" else 20
        self._start_s: int | None = None

    def __call__(self, number: int, now_us: int) -> None:
        if number % self._every != KLINE_DELAY_TICKS:
            return
        start_s = bucket_start(self._interval, now_us // 1_000_000, self._offset_s)
        if self._start_s is None:
            self._start_s = start_s
        while self._start_s < start_s:
            self._push(self._start_s, now_us, closed=True)
            self._start_s = bucket_end(self._interval, self._start_s, self._offset_s)
        self._push(start_s, now_us, closed=False)

    def _push(self, start_s: int, now_us: int, closed: bool) -> None:
        end_s = bucket_end(self._interval, start_s, self._offset_s)
        book, interval = self._book, self._interval
        span = next(book.chart.rows(interval, start_s, end_s, self._offset_s), None)
        if span is not None:
            self._channel.publish(lambda us: payloads.kline(book, interval, span, closed, now_us, us))


class _Diff:
    """One diff depth stream of a synthetic book."""

    def __init__(self, book: SyntheticBook, channel: Channel, every: int) -> None:
        self._book, self._channel, self._every = book, channel, every
        book.refresh()
        tick = book.instrument.tick
        self._watch = Watch(book.update_id, book.bid // tick, book.ask // tick)
        book.watches.append(self._watch)

    def close(self) -> None:
        """Nobody listens any more."""
        self._book.watches.remove(self._watch)

    def __call__(self, number: int, now_us: int) -> None:
        book, watch = self._book, self._watch
        if number % self._every or book.update_id == watch.update_id:
            return
        book.refresh()
        bids, asks = book.ladder.changes(book, watch)
        first = watch.update_id + 1
        self._channel.publish(lambda us: payloads.depth_update(book, first, bids, asks, now_us, us))
        tick = book.instrument.tick
        watch.reset(book.update_id, book.bid // tick, book.ask // tick)
