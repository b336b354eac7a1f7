"""A recording as the market: real frames, byte for byte, with their timing.

Market time is the exchange's: receive times are shifted by one constant per session so that its first
event time E falls on its receive time. A silence of more than a minute separates sessions; it is leapt
over. Aggregate trades are derived from the trades where the recording has none: consecutive trades with
the same T, m and p make one, sent just before the first trade that no longer belongs to it, or half a
second after its last one when no trade follows. Trades, aggregates and quotes that the recording has twice
(a recorder's connection was rolled over) are sent once: ids of a stream only rise.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from tradeback.sim.book import Book
from tradeback.sim.channels import Channel, Hub
from tradeback.sim.history import DAYS, History
from tradeback.sim.instrument import Instrument, known, split_name
from tradeback.sim.recording_files import Frame, list_files, read_file, read_merged
from tradeback.sim.text import SCALE, decimal8, units8

SCAN_FRAMES = 5_000
"""Frames per file that are looked at before the start, to learn the symbols and their grids."""
HISTORY_TRADES_PER_DAY = 1_500_000
AGG_WAIT_US = 500_000
SILENCE_MAX_US = 60_000_000
FIRST_AGG_ID = 1
_MS_TIME = re.compile(rb'("[ETO]":)(\d{13})(?=[,}])')
_KLINE_TIME = re.compile(rb'("[ETtO]":)(\d{13})(?=[,}])')
_EVENT_TIME = re.compile(rb'"E":(\d{13,16})[,}]')


def to_microseconds(payload: bytes, kline: bool = False) -> bytes:
    """The payload with every ms time in us: three zero digits more."""
    return (_KLINE_TIME if kline else _MS_TIME).sub(rb"\g<1>\g<2>000", payload)


def scale_us(time: int) -> int:
    """A time in ms or us, in us."""
    return time if time >= 10**14 else time * 1_000


class _Group:
    """The aggregate trade that is being gathered."""

    __slots__ = ("event", "first_id", "key", "last_id", "price_text", "quantity")

    def __init__(self, key: tuple[int, bool, str], event: int, trade_id: int, quantity: int) -> None:
        self.key, self.event, self.price_text = key, event, key[2]
        self.first_id = self.last_id = trade_id
        self.quantity = quantity


class _RecordedBook(Book):
    """One recorded symbol."""

    def __init__(self, instrument: Instrument, derives_aggs: bool) -> None:
        super().__init__(instrument)
        self.derives_aggs = derives_aggs
        self.group: _Group | None = None
        self.agg_channel: Channel | None = None


class Recording:
    """Source over a folder (or one file) of recorded frames; `files` is a pattern for names in the folder."""

    silence_max_us: int | None = SILENCE_MAX_US

    def __init__(self, path: str | Path, *, files: str = "*", seed: int = 1) -> None:
        scan = {file: list(islice(read_file(file), SCAN_FRAMES)) for file in list_files(Path(path), files)}
        self._files = [file for file, frames in scan.items() if frames]
        self._seed = seed
        if not self._files:
            raise ValueError(f"{path} holds no recorded combined-stream frames")
        first = [frame for frames in scan.values() for frame in frames]
        first.sort(key=lambda frame: frame.recv_ns)
        self._shifts = sorted((frames[0].recv_ns, _find_shift(frames)) for frames in scan.values() if frames)
        self._shift_us = self._shifts[0][1]
        self._first = first
        self.streams = Counter(frame.stream for frame in first)
        """Streams seen at the beginning of the files, with their counts."""
        self._books: dict[str, Book] = {}
        self._by_stream: dict[str, _RecordedBook] = {}
        for name in dict.fromkeys(frame.stream.partition("@")[0] for frame in first):
            self._add_book(name, [frame for frame in first if frame.stream.startswith(name + "@")])
        self._hub = Hub()
        self._frames: Iterator[Frame] = read_merged(self._files)
        self._next: Frame | None = None
        self._step()
        self._waiting: dict[_RecordedBook, int] = {}

    @property
    def books(self) -> dict[str, Book]:
        """State per symbol, in the order of their first frames."""
        return self._books

    def attach(self, hub: Hub) -> None:
        """Publish into `hub` from now on."""
        self._hub = hub
        for name, book in self._by_stream.items():
            book.agg_channel = hub.channel(f"{name}@aggTrade")

    def owns(self, stream: str) -> bool:
        """True for streams that the recording holds."""
        return stream in self.streams

    def begin(self, wall_us: int) -> int:
        """Market time begins with the first frame, whatever the time of day."""
        del wall_us
        start_us = self.next_us() or 0
        for book in self._by_stream.values():
            self._give_past(book, start_us // 1_000_000)
        self._first = []
        return start_us

    def skip_to(self, market_us: int) -> None:
        """Never: a recording's clock stands until it is played."""
        raise ValueError("a recording begins with its first frame")

    def next_us(self) -> int | None:
        """Market time of the next frame, or of an aggregate trade that waits for company."""
        due = None if self._next is None else self._next.recv_ns // 1_000 + self._shift_us
        if self._waiting:
            first = min(self._waiting.values())
            due = first if due is None else min(due, first)
        return due

    def advance(self, until_us: int, frames_max: int) -> int:
        """Publish the frames due up to `until_us`."""
        done = 0
        until_ns = (until_us - self._shift_us) * 1_000 + 999
        while self._next is not None and self._next.recv_ns <= until_ns and done < frames_max:
            if self._waiting:
                self._flush_groups(self._next.recv_ns // 1_000 + self._shift_us)
            done += self._publish(self._next)
            self._step()
            until_ns = (until_us - self._shift_us) * 1_000 + 999
        if self._waiting and (self._next is None or self._next.recv_ns > until_ns):
            done += self._flush_groups(until_us)
        return done

    def _step(self) -> None:
        """Look at the next frame; a new session has its own clock shift."""
        before, self._next = self._next, next(self._frames, None)
        if before is None or self._next is None:
            return
        if self._next.recv_ns - before.recv_ns > SILENCE_MAX_US * 1_000:
            begun = [shift for recv_ns, shift in self._shifts if recv_ns <= self._next.recv_ns]
            self._shift_us = begun[-1]

    def _publish(self, frame: Frame) -> int:
        name, _, kind = frame.stream.partition("@")
        book = self._by_stream.get(name)
        if book is None:
            book = self._add_book(name, [frame])
            book.agg_channel = self._hub.channel(f"{name}@aggTrade")
        sent: int | None = 0
        if kind == "trade":
            sent = self._on_trade(book, frame)
        elif kind == "bookTicker":
            sent = _on_quote(book, frame.payload)
        elif kind == "aggTrade" and not book.derives_aggs:
            sent = _on_agg(book, frame.payload)
        if sent is None:
            return 0
        channel = self._hub.find(frame.stream)
        if channel is not None:
            if channel.ms:
                channel.send(channel.ms, frame.payload)
            if channel.us:
                channel.send(channel.us, to_microseconds(frame.payload, kind.startswith("kline")))
        return sent + 1

    def _on_trade(self, book: _RecordedBook, frame: Frame) -> int | None:
        """Count a trade; the aggregate that it ends goes out before it. None: it has been sent already."""
        trade = orjson.loads(frame.payload)
        price, quantity = units8(trade["p"]), units8(trade["q"])
        trade_id, maker, time_us = trade["t"], trade["m"], scale_us(trade["T"])
        if trade_id != book.trades.next_id:
            if len(book.trades) and trade_id < book.trades.next_id:
                return None
            book.trades.begin(trade_id)
        book.trades.extend((time_us, price, quantity, maker))
        book.trades.trim()
        book.chart.add(time_us, price, quantity, maker, trade_id)
        book.last_us, book.last_quantity = time_us, quantity
        if not book.derives_aggs:
            return 0
        key, sent, group = (trade["T"], maker, trade["p"]), 0, book.group
        if group is not None and group.key == key and trade_id == group.last_id + 1:
            group.last_id, group.event = trade_id, trade["E"]
            group.quantity += quantity
        else:
            if group is not None:
                sent = self._send_group(book, group)
            book.group = _Group(key, trade["E"], trade_id, quantity)
        self._waiting[book] = frame.recv_ns // 1_000 + self._shift_us + AGG_WAIT_US
        return sent

    def _flush_groups(self, now_us: int) -> int:
        """Send aggregates that have waited long enough."""
        due = [book for book, until_us in self._waiting.items() if until_us <= now_us]
        for book in due:
            if book.group is not None:
                self._send_group(book, book.group)
                book.group = None
            del self._waiting[book]
        return len(due)

    def _send_group(self, book: _RecordedBook, group: _Group) -> int:
        time, maker, price_text = group.key
        agg_id, channel = book.aggs.next_id, book.agg_channel
        book.aggs.extend(
            (scale_us(time), units8(price_text), group.quantity, maker, group.first_id, group.last_id)
        )
        book.aggs.trim()
        assert channel is not None

        def payload(microseconds: bool) -> bytes:
            event, match = (
                (group.event, time) if not microseconds else (scale_us(group.event), scale_us(time))
            )
            return (
                f'{{"e":"aggTrade","E":{event},"s":"{book.instrument.symbol}","a":{agg_id},'
                f'"p":"{price_text}","q":"{decimal8(group.quantity)}","f":{group.first_id},'
                f'"l":{group.last_id},"T":{match},"m":{"true" if maker else "false"},"M":true}}'
            ).encode()

        channel.publish(payload)
        return 1

    def _add_book(self, name: str, frames: list[Frame]) -> _RecordedBook:
        symbol = _symbol_of(frames) or name.upper()
        instrument = known(symbol) or _learn(symbol, frames)
        has_trades = self.streams[f"{name}@trade"] > 0 or f"{name}@trade" in (f.stream for f in frames)
        derives = has_trades and not self.streams[f"{name}@aggTrade"]
        book = _RecordedBook(instrument, derives)
        book.aggs.begin(FIRST_AGG_ID)
        self._books[symbol] = self._by_stream[name] = book
        return book

    def _give_past(self, book: _RecordedBook, start_s: int) -> None:
        """Bars before the recording that end at its first trade's price."""
        kind = "@trade" if book.derives_aggs or self._has(book, "@trade") else "@aggTrade"
        stream = book.instrument.stream + kind
        first = next((frame for frame in self._first if frame.stream == stream), None)
        if first is None:
            return
        trade = orjson.loads(first.payload)
        next_id = trade["t"] if kind == "@trade" else trade["f"]
        anchor_s = min(start_s, scale_us(trade["T"]) // 1_000_000)
        price = units8(trade["p"])
        per_day = min(HISTORY_TRADES_PER_DAY, (next_id - 1) / (DAYS * 1.5))
        book.chart.history = History(
            self._seed, book.instrument, anchor_s=anchor_s, anchor_price=price, next_id=next_id,
            trades_per_day=per_day,
        )  # fmt: skip
        book.chart.last_price = price

    def _has(self, book: _RecordedBook, kind: str) -> bool:
        return self.streams[book.instrument.stream + kind] > 0


def _find_shift(frames: list[Frame]) -> int:
    """Microseconds to add to receive times to get the exchange's: first E minus its receive time."""
    for frame in frames:
        found = _EVENT_TIME.search(frame.payload)
        if found:
            return scale_us(int(found[1])) - frame.recv_ns // 1_000
    return 0


def _symbol_of(frames: list[Frame]) -> str | None:
    for frame in frames:
        symbol = orjson.loads(frame.payload).get("s")
        if isinstance(symbol, str):
            return symbol
    return None


def _amounts(payload: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (price, quantity) pairs of any frame."""
    for price_key, quantity_key in (("p", "q"), ("b", "B"), ("a", "A")):
        if isinstance(payload.get(price_key), str) and isinstance(payload.get(quantity_key), str):
            yield payload[price_key], payload[quantity_key]
    for side in ("b", "a"):
        if isinstance(payload.get(side), list):
            yield from payload[side]


def _learn(symbol: str, frames: list[Frame]) -> Instrument:
    """An instrument whose grid is the finest seen in prices and quantities."""
    price_decimals = step_decimals = 0
    price = lot = 0
    for frame in frames:
        for value, quantity in _amounts(orjson.loads(frame.payload)):
            price_decimals = max(price_decimals, len(value.partition(".")[2].rstrip("0")))
            step_decimals = max(step_decimals, len(quantity.partition(".")[2].rstrip("0")))
            price, lot = units8(value) or price, units8(quantity) or lot
    base, quote = split_name(symbol)
    tick, step = 10 ** (8 - min(8, price_decimals)), 10 ** (8 - min(8, step_decimals))
    return Instrument(symbol, base, quote, tick, step, price or SCALE, max(step, lot))


def _on_quote(book: Book, payload: bytes) -> int | None:
    """None: it has been sent already."""
    quote = orjson.loads(payload)
    if quote["u"] <= book.update_id:
        return None
    book.update_id = quote["u"]
    book.bid, book.bid_quantity = units8(quote["b"]), units8(quote["B"])
    book.ask, book.ask_quantity = units8(quote["a"]), units8(quote["A"])
    return 0


def _on_agg(book: Book, payload: bytes) -> int | None:
    """None: it has been sent already."""
    agg = orjson.loads(payload)
    if agg["a"] != book.aggs.next_id:
        if len(book.aggs) and agg["a"] < book.aggs.next_id:
            return None
        book.aggs.begin(agg["a"])
    row = (scale_us(agg["T"]), units8(agg["p"]), units8(agg["q"]), agg["m"], agg["f"], agg["l"])
    book.aggs.extend(row)
    book.aggs.trim()
    return 0
