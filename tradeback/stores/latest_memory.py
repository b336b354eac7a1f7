"""The role `latest` inside this process: dicts of bounded size whose values expire."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Generic, TypeVar

from tradeback.model.clock import Clock
from tradeback.model.errors import StoreError
from tradeback.stores.latest_values import newer_of
from tradeback.stores.ports import Levels, Price, SharedSession, StreamBatch, StreamSymbol

SYMBOLS_MAX = 65_536
BARS_MAX = 512
"""Answers of the bars route; up to half a MB each."""
SESSIONS_MAX = WATCHES_MAX = 100_000
STREAM_BYTES_MAX = 64 << 20
LISTENER_MESSAGES_MAX = 1_000

Value = TypeVar("Value")


class Expiring(Generic[Value]):
    """Values by key, each for its time, the least recently put one first to go when there are too many."""

    def __init__(self, clock: Clock, values_max: int) -> None:
        self._clock, self._max = clock, values_max
        self._held: OrderedDict[str, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: str, value: Value, ttl_s: float | None) -> None:
        """Keep for `ttl_s`; None: for as long as the value before would have been kept."""
        held = self._held.pop(key, None)
        if ttl_s is None and held is not None:
            until_ns = held[1]
        else:
            until_ns = self._clock.steady_ns() + int((ttl_s or 0.0) * 1e9)
        self._held[key] = value, until_ns
        if len(self._held) > self._max:
            self._held.popitem(last=False)

    def get(self, key: str) -> Value | None:
        """The value, unless its time is over."""
        held = self._held.get(key)
        if held is None:
            return None
        if held[1] <= self._clock.steady_ns():
            del self._held[key]
            return None
        return held[0]

    def drop(self, key: str) -> None:
        """Forget."""
        self._held.pop(key, None)

    def items(self) -> list[tuple[str, Value]]:
        """All that is not over; the rest is forgotten."""
        now_ns = self._clock.steady_ns()
        for key in [key for key, (_, until_ns) in self._held.items() if until_ns <= now_ns]:
            del self._held[key]
        return [(key, value) for key, (value, _) in self._held.items()]


class _Listeners(Generic[Value]):
    """Queues of those who listen; a full one loses its oldest."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Value | None]] = set()

    def tell(self, value: Value | None) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(value)

    def listen(self) -> AsyncIterator[Value]:
        queue: asyncio.Queue[Value | None] = asyncio.Queue(LISTENER_MESSAGES_MAX)
        self._queues.add(queue)  # at once: what is told before the first `anext` is not lost
        return self._messages(queue)

    async def _messages(self, queue: "asyncio.Queue[Value | None]") -> AsyncIterator[Value]:
        try:
            while (value := await queue.get()) is not None:
                yield value
        finally:
            self._queues.discard(queue)


class LatestMemory:
    """`ports.LatestStore` in memory. Loop thread only."""

    def __init__(
        self, clock: Clock, *, price_ttl_s: float = 60.0, bars_ttl_s: float = 1.0, watch_ttl_s: float = 300.0,
        stream_entries: int = 5_000,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._price_ttl_s, self._bars_ttl_s, self._watch_ttl_s = price_ttl_s, bars_ttl_s, watch_ttl_s
        self._prices: Expiring[Price] = Expiring(clock, SYMBOLS_MAX)
        self._levels: Expiring[Levels] = Expiring(clock, SYMBOLS_MAX)
        self._bars: Expiring[bytes] = Expiring(clock, BARS_MAX)
        self._sessions: Expiring[SharedSession] = Expiring(clock, SESSIONS_MAX)
        self._watches: Expiring[list[str]] = Expiring(clock, WATCHES_MAX)
        self._stream: deque[tuple[str, StreamBatch]] = deque(maxlen=stream_entries)
        self._stream_bytes = self._stream_count = 0
        self._positions: dict[int, int] = {}
        self._symbols: dict[int, StreamSymbol] = {}
        self._price_listeners: _Listeners[list[Price]] = _Listeners()
        self._ended_listeners: _Listeners[str] = _Listeners()

    async def put_prices(
        self, prices: Sequence[Price], levels: Sequence[Levels] = (), *, publish: bool = True
    ) -> int:
        """See `ports.LatestStore`."""
        absent = 0
        for price in prices:
            held_price = self._prices.get(price.symbol)
            absent += held_price is None
            kept, fresh = newer_of(price, held_price)
            if kept is not None:
                self._prices.put(price.symbol, kept, self._price_ttl_s if fresh else None)
        for each in levels:
            held = self._levels.get(each.symbol)
            if held is None or held.trade_id <= each.trade_id:
                self._levels.put(each.symbol, each, self._price_ttl_s)
        if publish and prices:
            self._price_listeners.tell(list(prices))
        return absent

    async def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See `ports.LatestStore`."""
        found = ((symbol, self._prices.get(symbol)) for symbol in symbols)
        return {symbol: price for symbol, price in found if price is not None}

    async def levels(self, symbol: str) -> Levels | None:
        """See `ports.LatestStore`."""
        return self._levels.get(symbol)

    def listen_prices(self) -> AsyncIterator[list[Price]]:
        """See `ports.LatestStore`."""
        return self._price_listeners.listen()

    async def put_bars(self, symbol: str, resolution: str, answer: bytes) -> None:
        """See `ports.LatestStore`."""
        self._bars.put(f"{symbol}:{resolution}", answer, self._bars_ttl_s)

    async def bars(self, symbol: str, resolution: str) -> bytes | None:
        """See `ports.LatestStore`."""
        return self._bars.get(f"{symbol}:{resolution}")

    async def put_session(self, token_hash: str, session: SharedSession) -> None:
        """See `ports.LatestStore`."""
        left_s = session.expires_at / 1e3 - self._clock.wall_ns() / 1e9
        if left_s > 0:
            self._sessions.put(token_hash, session, left_s)
        else:
            self._sessions.drop(token_hash)

    async def session(self, token_hash: str) -> SharedSession | None:
        """See `ports.LatestStore`."""
        return self._sessions.get(token_hash)

    async def drop_session(self, token_hash: str) -> None:
        """See `ports.LatestStore`."""
        self._sessions.drop(token_hash)
        self._ended_listeners.tell(token_hash)

    def listen_ended(self) -> AsyncIterator[str]:
        """See `ports.LatestStore`."""
        return self._ended_listeners.listen()

    async def put_watches(self, watches: Mapping[str, Sequence[str]]) -> None:
        """See `ports.LatestStore`."""
        for watch_id, symbols in watches.items():
            if symbols:
                self._watches.put(watch_id, sorted(set(symbols)), self._watch_ttl_s)
            else:
                self._watches.drop(watch_id)

    async def watch(self, watch_id: str) -> list[str]:
        """See `ports.LatestStore`."""
        return list(self._watches.get(watch_id) or ())

    async def watched_by_all(self) -> frozenset[str]:
        """See `ports.LatestStore`."""
        return frozenset(symbol for _, symbols in self._watches.items() for symbol in symbols)

    async def append(self, batch: StreamBatch, *, begins: bool = True) -> bool:
        """See `ports.LatestStore`."""
        if not self._stream and not begins:
            raise StoreError("the stream is gone")
        held = self._positions.get(batch.epoch, 0) if self._stream else 0
        if held >= batch.last:
            return False
        if held >= batch.first:
            raise StoreError(f"records {batch.first} to {held} are in the stream already")
        while self._stream and (
            len(self._stream) == self._stream.maxlen
            or self._stream_bytes + len(batch.frames) > STREAM_BYTES_MAX
        ):
            self._stream_bytes -= len(self._stream.popleft()[1].frames)
        self._stream_count += 1
        self._stream.append((f"{self._stream_count}-0", batch))
        self._stream_bytes += len(batch.frames)
        self._positions[batch.epoch] = batch.last
        return True

    async def stream_positions(self) -> dict[int, int]:
        """See `ports.LatestStore`."""
        return dict(self._positions) if self._stream else {}

    async def read_stream(self, after: str = "0", count: int = 100) -> list[tuple[str, StreamBatch]]:
        """See `ports.LatestStore`."""
        number = int(after.partition("-")[0])
        return [each for each in self._stream if int(each[0].partition("-")[0]) > number][:count]

    async def put_symbols(self, symbols: Sequence[StreamSymbol]) -> None:
        """See `ports.LatestStore`."""
        self._symbols |= {symbol.id: symbol for symbol in symbols}

    async def stream_symbols(self) -> list[StreamSymbol]:
        """See `ports.LatestStore`."""
        return [self._symbols[symbol_id] for symbol_id in sorted(self._symbols)]

    async def close(self) -> None:
        """See `ports.LatestStore`."""
        self._price_listeners.tell(None)
        self._ended_listeners.tell(None)
