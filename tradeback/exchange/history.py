"""What happened before the tape began, from the exchange's klines: levels, open bars, closed bars.

In the background, inside the REST weight limit, live data never waits. For every symbol: a boundary is
announced on the tape, the klines up to it are fetched once it has passed, and what they say is put on the
tape as seeds, so that a replay of the tape needs no exchange. Closed bars for charts go to the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tradeback.derive import seeds
from tradeback.derive.layout import RESOLUTION_S, Bars, resolution_index
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.intake import Intake
from tradeback.exchange.rest import Rest
from tradeback.model.clock import Clock
from tradeback.model.config import FeatureConfig
from tradeback.model.errors import ExchangeError, RateLimited, StoreError, TapeError
from tradeback.model.record import Rows
from tradeback.model.symbols import Symbol
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.stores.ports import SeriesStore

if TYPE_CHECKING:
    from tradeback.derive.state import Derived

HISTORY_BARS = 1_000
"""Closed bars fetched for each resolution: one request of weight 2."""
RESOLUTIONS = ("1m", "1h", "1d", "5m", "15m", "4h", "1s")
"""In the order in which charts miss them most."""
LEVEL_MONTHS = 1_000
AT_ONCE = 3
SETTLE_US = 2_000_000
"""How long after the boundary its klines are asked for: the exchange's database trails its streams."""
BOUNDARY_WAIT_S = 30.0
"""A market that stands still (a recording that has ended) never passes the boundary."""
RETRY = Backoff(1.0, 60.0)
STORE_ROWS = 100
"""Bars given to the store at a time: taking 1,000 apart holds the interpreter's lock for 4 ms."""


class History:
    """Owned by the engine; `run` once the lines deliver."""

    def __init__(
        self,
        symbols: Sequence[Symbol],
        rest: Rest,
        intake: Intake,
        derived: "Derived",
        store: SeriesStore,
        clock: Clock,
        features: FeatureConfig,
        log: Log,
    ) -> None:
        self._symbols, self._rest, self._intake = symbols, rest, intake
        self._derived, self._store, self._clock = derived, store, clock
        self._features, self._log = features, log
        self._since_ns = clock.wall_ns()
        self._state: State = "starting"
        self.last_error: str | None = None
        self.seeded = self.fetched = self.given_up = 0
        self.on_covered: list[Callable[[int, int, int, int], None]] = []
        """Called with symbol id, resolution and the span (unix seconds) whose klines were stored."""

    async def run(self) -> None:
        """Seed every symbol, then fetch closed bars. Ends when all is there."""
        if self._features.enigma_enabled:
            await self._for_all(self._seed_levels)
        if self._features.aggregation_enabled:
            await self._seed_bars()
            await self._for_all(self._fetch_bars)
        self._state, self._since_ns = "ok", self._clock.wall_ns()
        self._log.info("history complete", symbols=len(self._symbols))

    def health(self) -> ComponentHealth:
        """Starting while klines are being fetched; the words say how far it is."""
        words = self.last_error
        if self._state != "ok":
            done = f"{self.seeded} of {len(self._symbols)} symbols seeded, {self.fetched} with closed bars"
            words = f"{done}; {self.last_error}" if self.last_error else done
        return ComponentHealth("history", self._state, self._since_ns, words)

    async def _for_all(self, work: Callable[[Symbol], Awaitable[None]]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(symbol: Symbol) -> None:
            async with gate:
                await self._persist(work, symbol)

        await asyncio.gather(*(one(symbol) for symbol in self._symbols))

    async def _persist(self, work: Callable[[Symbol], Awaitable[None]], symbol: Symbol) -> None:
        """Try until it works; a request that the exchange calls wrong is given up."""
        failures = 0
        while True:
            try:
                await work(symbol)
            except RateLimited as error:
                self.last_error = str(error)
                await asyncio.sleep(error.retry_after_s)
            except (ExchangeError, TapeError, StoreError) as error:
                self.last_error = f"{symbol.symbol}: {error}"
                if isinstance(error, ExchangeError) and error.status in (400, 403, 404):
                    self.given_up += 1
                    self._log.warning("history given up", symbol=symbol.symbol, error=str(error))
                    return
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures, 0.5))
            else:
                return

    async def _seed_levels(self, symbol: Symbol) -> None:
        months = await self._rest.klines(symbol, "1M", limit=LEVEL_MONTHS)
        levels = seeds.levels_of(months)
        if levels is not None:
            await self._put(seeds.levels_row(symbol.id, *levels, recv_ns=self._clock.wall_ns()))

    async def _seed_bars(self) -> None:
        """Announce a boundary for all symbols, wait until the exchange has passed it, seed each."""
        newest_us = max(await self._time_us(), self._derived.newest_us())
        wanted_us = -(-newest_us // 1_000_000) * 1_000_000
        for symbol in self._symbols:
            await self._put(seeds.boundary_row(symbol.id, wanted_us, recv_ns=self._clock.wall_ns()))
        boundaries = {symbol.id: self._derived.boundary_us(symbol.id) for symbol in self._symbols}
        if not await self._passed(max(boundaries.values(), default=0) + SETTLE_US):
            self.last_error = "the market stands still: open bars hold only what was seen"
            self._log.warning(self.last_error)
            return

        async def seed(symbol: Symbol) -> None:
            await self._seed_symbol(symbol, boundaries[symbol.id])

        await self._for_all(seed)

    async def _passed(self, time_us: int) -> bool:
        """Wait until the exchange's clock shows `time_us`; False when it has stood for BOUNDARY_WAIT_S."""
        newest_us, moved_ns = 0, self._clock.steady_ns()
        while True:
            now_us = await self._time_us()
            if now_us >= time_us:
                return True
            now_ns = self._clock.steady_ns()
            if now_us > newest_us:
                newest_us, moved_ns = now_us, now_ns
            elif now_ns - moved_ns > BOUNDARY_WAIT_S * 1e9:
                return False
            await asyncio.sleep(min(max((time_us - now_us) / 1e6, 0.05), 1.0))

    async def _time_us(self) -> int:
        """The exchange's clock; asked until it answers."""
        failures = 0
        while True:
            try:
                return await self._rest.time_us()
            except ExchangeError as error:
                self.last_error = str(error)
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures, 0.5))

    async def _put(self, rows: Rows) -> None:
        """Append seeds and see them on the tape. TapeError when it refuses some: put them all again."""
        await self._intake.flowing()
        self._intake.append(rows)
        await self._intake.flowing()

    async def _seed_symbol(self, symbol: Symbol, boundary_us: int) -> None:
        klines = {}
        for piece in seeds.seed_ranges(boundary_us):
            klines[piece.interval] = await self._rest.klines(
                symbol, piece.interval, start_ms=piece.start_ms, end_ms=piece.end_ms, limit=piece.limit
            )
        rows = seeds.bar_rows(symbol, boundary_us, klines, recv_ns=self._clock.wall_ns())
        if len(rows):
            await self._put(rows)
        self.seeded += 1

    async def _store_bars(self, bars: Bars) -> None:
        """Store closed bars. StoreError when the store refuses: it is tried again, live data goes on."""
        try:
            for first in range(0, len(bars), STORE_ROWS):
                await asyncio.to_thread(self._store.put_history, bars[first : first + STORE_ROWS])
        except Exception as error:  # the boundary to a store: whatever it raises, live data goes on
            raise StoreError(f"the series store refuses closed bars: {error}") from error

    async def _fetch_bars(self, symbol: Symbol) -> None:
        closed_before_ms = await self._rest.time_us() // 1000
        for resolution in RESOLUTIONS:
            klines = await self._rest.klines(symbol, resolution, limit=HISTORY_BARS)
            bars = seeds.history_bars(symbol, resolution, klines, closed_before_ms)
            await self._store_bars(bars)
            await self._cover(symbol, resolution, klines, closed_before_ms)
        self.fetched += 1

    async def _cover(self, symbol: Symbol, resolution: str, klines: Bars, closed_before_ms: int) -> None:
        """Note what was asked for, so that nobody asks again; fewer than asked: there is nothing older."""
        if not len(klines):
            return
        index = resolution_index(resolution)
        slots_s = klines["slot_us"] // 1_000_000
        from_s = int(slots_s.min()) if len(klines) >= HISTORY_BARS else 0
        newest_s = min(int(slots_s.max()) + RESOLUTION_S[index], closed_before_ms // 1_000)
        to_s = newest_s - newest_s % RESOLUTION_S[index]
        if from_s >= to_s:
            return
        try:
            await asyncio.to_thread(self._store.cover, symbol.id, index, from_s, to_s)
        except Exception as error:  # the boundary to a store: whatever it raises, live data goes on
            raise StoreError(f"the series store refuses to note what it holds: {error}") from error
        for tell in self.on_covered:
            tell(symbol.id, index, from_s, to_s)
