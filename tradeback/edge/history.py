"""What is not on the hub's tape: bars from before it, and the state of the derived series where it begins.

The hub answers for both as an exchange would. So bars of before the tape, and those that somebody asks for
later, go the ways that they go in every engine (`exchange.backfill`).
"""

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import orjson

from tradeback.api.bus_packing import StatePart, unpack_bars, unpack_state
from tradeback.derive import seeds
from tradeback.derive.layout import RESOLUTIONS, Bars, Drained, empty_bars
from tradeback.exchange.backfill import Backfill
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.rest import Rest
from tradeback.model.clock import Clock
from tradeback.model.errors import ExchangeError, StoreError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.stores.ports import Position
from tradeback.stores.ports_bus import Bus
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.writer import Tape

ASK_S = 5.0
HISTORY_BARS = 1_000
AGAIN_S = (10.0, 60.0)
"""Pauses before the hub is asked once more for all of them."""
LATE_S = (0.0, 1.0, 3.0, 10.0, 60.0)
"""When after a symbol came the hub is asked for its bars."""
STORE_ROWS = 100
"""Bars given to the store at a time: more would hold the interpreter's lock too long."""
RETRY = Backoff(0.25, 10.0)
STATE_COUNT = 100
"""Symbols of which the state is asked for at once."""
ALWAYS_MS = 1 << 52


class HubRest:
    """The hub in the place of an exchange's REST: what `Backfill` asks of it."""

    def __init__(self, bus: Bus, node: str, clock: Clock) -> None:
        self.endpoint = f"hub {node}"
        self._bus, self._node, self._clock = bus, node, clock

    async def klines(
        self,
        symbol: Symbol,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int,
    ) -> Bars:
        """Complete bars by time, start and end inclusive, as EXCHANGE bars. Raises ExchangeError."""
        ask = {
            "symbol": symbol.symbol,
            "resolution": interval,
            "from": -(-(start_ms or 0) // 1_000),
            "to": None if end_ms is None else end_ms // 1_000 + 1,
            "limit": limit,
        }
        try:
            return unpack_bars(await self._ask("history", ask))
        except ValueError as error:
            raise ExchangeError(f"{self.endpoint}: {error}") from error

    async def time_us(self) -> int:
        """This machine's clock: the hub is asked only before the first trade."""
        return self._clock.wall_ns() // 1_000

    async def state(self, first: int) -> StatePart:
        """The derived state of some symbols. Raises ExchangeError."""
        try:
            return unpack_state(await self._ask("state", {"first": first, "count": STATE_COUNT}))
        except ValueError as error:
            raise ExchangeError(f"{self.endpoint}: {error}") from error

    async def _ask(self, verb: str, ask: dict[str, object]) -> bytes:
        try:
            return await self._bus.request(f"tradeback.req.{verb}.{self._node}", orjson.dumps(ask), ASK_S)
        except (StoreError, TimeoutError) as error:
            raise ExchangeError(f"{self.endpoint} does not answer: {error}") from error


def backfill_of(
    rest: HubRest, series: SeriesSqlite, clock: Clock, newest_us: Callable[[], int], log: Log
) -> Backfill:
    """Bars on demand, out of the hub."""
    return Backfill(cast(Rest, rest), series, clock, newest_us, log)  # it asks for what HubRest has


class EdgeHistory:
    """Closed bars of every symbol once, then what is asked for. Loop thread."""

    def __init__(
        self, rest: HubRest, series: SeriesSqlite, symbols: SymbolTable, clock: Clock, log: Log
    ) -> None:
        self._rest, self._series, self._symbols, self._clock, self._log = rest, series, symbols, clock, log
        self._since_ns = clock.wall_ns()
        self._state: State = "starting"
        self.last_error: str | None = None
        self.fetched = 0
        self._late: list[tuple[float, int]] = []
        """A heap: when (loop's time) the bars of a symbol are to be fetched that came after the start."""
        self._came = asyncio.Event()
        self.on_stored: list[Callable[[int, int], None]] = []
        """Called with symbol id and resolution of which bars were stored."""

    async def run(self) -> None:
        """The newest closed bars of all symbols; asked for until the hub answers.

        And again a little later: the hub may have started just before, and learns its own history meanwhile.
        """
        for pause_s in (*AGAIN_S, None):
            self.fetched = 0
            for symbol in list(self._symbols):
                await self._fetch_all(symbol)
                self.fetched += 1
            if self._state != "ok":
                self._state, self._since_ns = "ok", self._clock.wall_ns()
                self._log.info("history complete", symbols=self.fetched)
            self.last_error = None
            if pause_s is not None:
                await asyncio.sleep(pause_s)

    def learn(self, symbols: Iterable[Symbol]) -> None:
        """These have come, or come again: their closed bars are fetched, too, by `run_late`.

        Several times, for the hub learns them only now itself.
        """
        now_s = asyncio.get_running_loop().time()
        for symbol in symbols:
            for pause_s in LATE_S if symbol.is_active else ():
                heapq.heappush(self._late, (now_s + pause_s, symbol.id))
        self._came.set()

    async def run_late(self) -> None:
        """Closed bars of symbols that come, for ever."""
        while True:
            left_s = self._late[0][0] - asyncio.get_running_loop().time() if self._late else None
            if left_s is not None and left_s <= 0:
                _, number = heapq.heappop(self._late)
                symbol = self._symbols.by_id(number)
                if symbol is not None:
                    await self._fetch_all(symbol)
                    self.last_error = None
                continue
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._came.wait()

    async def _fetch_all(self, symbol: Symbol) -> None:
        for resolution in RESOLUTIONS:
            await self._fetch(symbol, resolution)

    async def _fetch(self, symbol: Symbol, resolution: str) -> None:
        failures = 0
        while True:
            try:
                bars = await self._rest.klines(symbol, resolution, limit=HISTORY_BARS)
                bars = seeds.history_bars(symbol, resolution, bars, ALWAYS_MS)
                for first in range(0, len(bars), STORE_ROWS):
                    await asyncio.to_thread(self._series.put_history, bars[first : first + STORE_ROWS])
                for tell in self.on_stored if len(bars) else ():
                    tell(symbol.id, RESOLUTIONS.index(resolution))
                return
            except ExchangeError as error:
                self.last_error = str(error)
            except Exception as error:  # the boundary to a store: whatever it raises, live data goes on
                self.last_error = f"the series store refuses closed bars: {error}"
            failures += 1
            await asyncio.sleep(RETRY.delay_s(failures, 0.5))

    def health(self) -> ComponentHealth:
        """Starting while bars are being fetched."""
        words = self.last_error
        if self._state != "ok":
            words = f"{self.fetched} of {len(self._symbols)} symbols with closed bars; {words or 'going on'}"
        return ComponentHealth("history", self._state, self._since_ns, words)


class Adoption:
    """Takes over the hub's derived state where this tape does not reach back to where that began."""

    def __init__(self, rest: HubRest, series: SeriesSqlite, tape: Tape, log: Log) -> None:
        self._rest, self._series, self._tape, self._log = rest, series, tape, log
        self.last_error: str | None = None

    def is_needed(self) -> bool:
        """Whether neither the store nor the tape alone leads to the state. In a thread."""
        tape, held = self._tape, self._series.load().position
        if held.sequence == 0 or not tape.oldest_sequence - 1 <= held.sequence < tape.next_sequence:
            return tape.oldest_sequence > 1
        epoch, sequence = tape.resume(held.epoch, held.sequence + 1)
        fits = sequence == held.sequence + 1 and (epoch == held.epoch or epoch == tape.epoch)
        return not fits and tape.oldest_sequence > 1

    async def run(self) -> None:
        """Until the hub has told it, and the tape holds everything up to there and behind."""
        failures = 0
        while True:
            try:
                parts = await self._whole()
                position = parts[0].position
                self._check(position)
                await asyncio.to_thread(self._store, parts)
                self._log.info("took over the hub's state", sequence=position.sequence)
                self.last_error = None
                return
            except ExchangeError as error:
                self.last_error = str(error)
            failures += 1
            await asyncio.sleep(RETRY.delay_s(failures, 0.5))

    async def _whole(self) -> list[StatePart]:
        """The state of all symbols as of one position."""
        parts = [await self._rest.state(0)]
        while (done := sum(len(part.states) for part in parts)) < parts[0].symbols:
            part = await self._rest.state(done)
            if part.position != parts[0].position or not len(part.states):
                parts = [await self._rest.state(0)]  # the store has moved on
                continue
            parts.append(part)
        if parts[0].position.sequence == 0:
            raise ExchangeError(f"{self._rest.endpoint} has stored no state yet")
        return parts

    def _check(self, position: Position) -> None:
        """ExchangeError unless the tape holds what follows on `position`."""
        tape = self._tape
        if position.epoch != tape.epoch:
            raise ExchangeError(f"{self._rest.endpoint} is in another epoch")
        if position.sequence < tape.oldest_sequence - 1:
            raise ExchangeError(f"{self._rest.endpoint} has stored no state of what the stream begins with")
        if tape.next_sequence <= position.sequence:
            raise ExchangeError(f"waiting for record {position.sequence}, up to which the hub's state goes")

    def _store(self, parts: list[StatePart]) -> None:
        """In a thread."""
        states = np.concatenate([part.states for part in parts])
        held = np.concatenate([part.parts for part in parts])
        self._series.begin_rebuild()
        self._series.write(Drained(empty_bars(0), held, states, False), parts[0].position)
