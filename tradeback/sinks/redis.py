"""What is written to Redis, each by a drain of its own: newest prices with levels, and the stream `ticks`.

Prices and levels are those of the derived state, which the API answers with too: of every batch of the
tape, the symbols that its records touch, as they are now. After an outage everything is put at once, before
the tape is looked at. All of it is put again in time before it expires, however quiet a symbol is; so a
price that is gone means that no engine vouches for it.

The stream gets every record, oldest first, from where the stream itself says that it ends.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.enigma import FIB_NAMES, enigma_rows
from tradeback.derive.layout import States
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StoreError
from tradeback.model.record import TRADE, Rows
from tradeback.model.symbols import Symbol
from tradeback.ops.troubles import Troubles
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import Batch, DrainConfig, Source, Target, Written
from tradeback.stores.latest import latest_redis
from tradeback.stores.latest_values import NO_TRADE, number
from tradeback.stores.ports import Levels, Position, Price, StreamBatch, StreamSymbol
from tradeback.wire.v2_batch import BatchEncoder, pack

if TYPE_CHECKING:
    from tradeback.stores.latest_redis import LatestRedis

FLUSH_S = 0.1
LEVELS_S = 0.5
"""Levels of a symbol are put at most so often, and when it has traded."""
STREAM_ROWS = 1_000
"""Most records of one entry."""
SYMBOLS_PER_PUT = 100
"""Half a millisecond of the loop; between two of them others get their turn."""
ASK_AGAIN_S = 1.0
"""A symbol that nobody knows is asked for so often."""

Known = Callable[[], Iterable[Symbol]]
Open = Callable[[], "LatestRedis"]


class DerivedStates(Protocol):
    """What is asked of `derive.state.Derived`; loop thread only."""

    def latest_all(self) -> States:
        """A copy of the state of every symbol."""


class Symbols:
    """Symbols by id, asked for again when one is unknown, but not all the time."""

    def __init__(self, known: Known, clock: Clock) -> None:
        self._known, self._clock = known, clock
        self._held: dict[int, Symbol] = {}
        self._asked_ns = -(1 << 62)

    def get(self, symbol_id: int) -> Symbol | None:
        """The symbol, or None when nobody knows it."""
        found = self._held.get(symbol_id)
        if found is None and self._clock.steady_ns() - self._asked_ns > ASK_AGAIN_S * 1e9:
            self._held = {symbol.id: symbol for symbol in self._known()}
            self._asked_ns = self._clock.steady_ns()
            found = self._held.get(symbol_id)
        return found


class _Redis:
    """What both targets share: a store that is made anew for every `open`."""

    def __init__(self, make: Open) -> None:
        self._make = make
        self._store: LatestRedis | None = None

    async def _connect(self) -> "LatestRedis":
        await self.close()
        self._store = store = self._make()
        await store.check()
        return store

    @property
    def _opened(self) -> "LatestRedis":
        if self._store is None:
            raise StoreError("Redis: the client is closed")
        return self._store

    async def save(self, position: Position) -> None:
        """See Target. Nothing to do."""

    async def close(self) -> None:
        """See Target."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()


class PricesTarget(_Redis):
    """Newest prices and levels."""

    def __init__(
        self, make: Open, derived: DerivedStates, symbols: Symbols, ttl_s: float, *, enigma: bool = True
    ) -> None:
        super().__init__(make)
        self._derived, self._symbols, self._ttl_s, self._enigma = derived, symbols, ttl_s, enigma
        self._again: asyncio.Task[None] | None = None
        self._kept: set[str] = set()
        """Symbols whose price was put since `open`."""
        self._moved: NDArray[np.bool_] = np.zeros(1 << 16, np.bool_)
        """By symbol id: traded since its levels were put."""

    async def open(self) -> Position | None:
        """See Target."""
        await self._connect()
        self._kept.clear()
        await self._put_all()
        self._again = asyncio.get_running_loop().create_task(self._put_again())
        return None

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        states, rows = self._derived.latest_all(), batch.rows
        self._moved[rows["symbol_id"][rows["kind"] == TRADE]] = True
        if await self._put(states[np.isin(states["symbol_id"], rows["symbol_id"])]):
            await self._put_all()  # Redis was restarted without anybody noticing
        return Written()

    async def close(self) -> None:
        """See Target."""
        if self._again is not None:
            self._again.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._again
            self._again = None
            with contextlib.suppress(StoreError):
                await self._put_levels()
        await super().close()

    async def _put_again(self) -> None:
        """Levels now and then, and everything before it expires. Whether Redis is there is the drain's
        business: what fails here is put the next time."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._ttl_s / 3
        while True:
            await asyncio.sleep(min(LEVELS_S, self._ttl_s / 3))
            with contextlib.suppress(StoreError):
                if loop.time() >= due:
                    await self._put_all(publish=False)
                    due = loop.time() + self._ttl_s / 3
                else:
                    await self._put_levels()

    async def _put_all(self, *, publish: bool = True) -> None:
        states = self._derived.latest_all()
        self._moved[states["symbol_id"]] = True
        await self._put(states, publish=publish)
        await self._put_levels()

    async def _put(self, states: States, *, publish: bool = True) -> bool:
        """Prices. True when Redis has lost some that were put since `open`."""
        lost = False
        for start in range(0, len(states), SYMBOLS_PER_PUT):
            prices = prices_from(states[start : start + SYMBOLS_PER_PUT], self._symbols)
            absent = await self._opened.put_prices(prices, publish=publish)
            names = {price.symbol for price in prices}
            lost |= absent > len(names - self._kept)
            self._kept |= names
        return lost

    async def _put_levels(self) -> None:
        """Those of the symbols that have traded since."""
        while self._enigma and self._moved.any():
            states = self._derived.latest_all()
            states = states[self._moved[states["symbol_id"]]][:SYMBOLS_PER_PUT]
            if not len(states):
                self._moved[:] = False
                return
            self._moved[states["symbol_id"]] = False
            try:
                await self._opened.put_prices((), levels_from(states, self._symbols))
            except BaseException:
                self._moved[states["symbol_id"]] = True
                raise


class StreamTarget(_Redis):
    """All records, as batches of frames."""

    def __init__(self, make: Open, source: Source, symbols: Symbols, entries_max: int) -> None:
        super().__init__(make)
        self._source, self._symbols = source, symbols
        self._rows_max = entries_max * STREAM_ROWS
        self._encoder = BatchEncoder()
        self._begins = False
        """Whether the stream was empty and nothing was appended since."""
        self._learned: NDArray[np.bool_] = np.zeros(1 << 16, np.bool_)

    async def open(self) -> Position | None:
        """See Target. What the stream would not keep anyway is passed over."""
        store = await self._connect()
        await asyncio.to_thread(self._encoder.attach)
        positions = await store.stream_positions()
        self._begins = not positions
        self._learned[:] = False
        held = self._held(positions)
        first = max(self._source.oldest_sequence, self._source.next_sequence - self._rows_max)
        if held is not None and held.sequence + 1 >= first:
            return held
        if first <= self._source.oldest_sequence:
            return None
        epoch, _ = self._source.read_with_epoch(first - 1, 1)
        return Position(epoch, first - 1)

    def _held(self, positions: dict[int, int]) -> Position | None:
        """The furthest position in the stream that is one of this tape: others may write there too."""
        found = [Position(epoch, last) for epoch, last in positions.items() if self._is_ours(epoch, last)]
        return max(found, key=lambda position: position.sequence, default=None)

    def _is_ours(self, epoch: int, last: int) -> bool:
        found, sequence = self._source.resume(epoch, last + 1)
        if found == epoch or sequence <= last:  # the end of an epoch may be lost with the machine
            return True
        if not self._source.oldest_sequence <= last < self._source.next_sequence:
            return False
        return self._source.read_with_epoch(last, 1)[0] == epoch

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        store = self._opened
        await self._learn(store, batch.rows)
        frames = pack(self._encoder.frames(batch.rows, batch.epoch, batch.first_sequence))
        made = StreamBatch(batch.epoch, batch.first_sequence, batch.last_sequence, frames)
        await store.append(made, begins=self._begins)
        self._begins = False
        return Written()

    async def _learn(self, store: "LatestRedis", rows: Rows) -> None:
        """Names and grids of symbols that come for the first time: no reader can do without."""
        new = ~self._learned[rows["symbol_id"]]
        if not new.any():
            return
        came = []
        for symbol_id in np.unique(rows["symbol_id"][new]).tolist():
            symbol = self._symbols.get(symbol_id)
            if symbol is None:
                raise StoreError(f"the registry does not know symbol {symbol_id} yet")
            digits = symbol.price_precision, symbol.quantity_precision
            self._encoder.learn(symbol_id, *digits)
            came.append(StreamSymbol(symbol_id, symbol.symbol, *digits))
        await store.put_symbols(came)
        self._learned[[symbol.id for symbol in came]] = True


def prices_from(states: States, symbols: Symbols) -> list[Price]:
    """The states as the price route answers them; symbols without a name or any price are left out."""
    made = []
    numbers = [_numbers(states[name]) for name in ("price", "quantity", "bid", "ask")]
    others = (states[name].tolist() for name in ("symbol_id", "trade_id", "exchange_us", "quote_recv_ns"))
    for price, quantity, bid, ask, symbol_id, trade_id, exchange_us, quote_ns in zip(
        *numbers, *others, strict=True
    ):
        symbol = symbols.get(symbol_id)
        if symbol is None:
            continue
        if trade_id > NO_TRADE:
            if quote_ns <= 0:
                bid = ask = None
            timestamp = exchange_us // 1_000
        elif quote_ns > 0:
            price = quantity = None
            timestamp = quote_ns // 1_000_000
        else:
            continue
        made.append(Price(symbol.symbol, price, bid, ask, quantity, timestamp, trade_id, quote_ns // 1_000))
    return made


def _numbers(column: NDArray[np.float64]) -> list[float | None]:
    """Floats as JSON can hold them; None for infinity and what is no number."""
    values: list[float | None] = column.tolist()
    return values if np.isfinite(column).all() else [number(value) for value in values]


def levels_from(states: States, symbols: Symbols) -> list[Levels]:
    """The levels of the states that have traded."""
    made = []
    rows = enigma_rows(states)
    values = (_numbers(rows[name]) for name in ("level", "ath", "atl"))
    fibs = rows["fib"].tolist() if np.isfinite(rows["fib"]).all() else map(_numbers, rows["fib"])
    for symbol_id, level, ath, atl, fib, trade_id in zip(
        rows["symbol_id"].tolist(), *values, fibs, rows["trade_id"].tolist(), strict=True
    ):
        symbol = symbols.get(symbol_id)
        if symbol is not None:
            named = dict(zip(FIB_NAMES, fib, strict=True))
            made.append(Levels(symbol.symbol, level, ath, atl, named, trade_id))
    return made


def redis_drains(
    config: Config, source: Source, derived: DerivedStates, known: Known, clock: Clock, log: logging.Logger
) -> list[Drain]:
    """The drains into Redis, not started; none when `redis.addr` is empty.

    `source` must end where `derived` does. `known`: all symbols now. Raises StartupError when the client
    library is not installed.
    """
    if not config.redis.addr:
        return []
    symbols = Symbols(known, clock)
    aside = Path(config.data_dir) / "set-aside"

    def make() -> "LatestRedis":
        return latest_redis(config, clock)

    make()  # connects to nothing, but says what is not installed
    prices = PricesTarget(
        make, derived, symbols, config.redis.price_ttl_s, enigma=config.feature.enigma_enabled
    )
    stream = StreamTarget(make, source, symbols, config.redis.stream_entries)
    often = DrainConfig(batch_age_s=FLUSH_S, in_flight=1, latest_only=True)
    # One at a time: an entry that overtakes another would be taken for its repetition.
    in_order = DrainConfig(batch_rows=STREAM_ROWS, batch_age_s=FLUSH_S, in_flight=1)
    troubles = Troubles(clock)

    def drain(name: str, target: Target, how: DrainConfig) -> Drain:
        path = aside / f"redis-{name}.jsonl"
        return Drain(f"redis:{name}", source, target, how, clock, log, path, troubles=troubles)

    return [drain("prices", prices, often), drain("ticks", stream, in_order)]
