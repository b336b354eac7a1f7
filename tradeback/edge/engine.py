"""The engine of an edge node: the same tape, port, feed and API; what fills the tape is a hub.

Order of a start: tape and port as in every engine; then the hub's symbols, the tape up to the stream's end,
what is derived from it; then feed and API go on with every batch that comes.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tradeback import attached, kernel_cache
from tradeback.api.context import ServingContext
from tradeback.edge.history import Adoption, EdgeHistory, HubRest, backfill_of
from tradeback.edge.hub import HubTape
from tradeback.edge.symbols import HubSymbols
from tradeback.edge.turn import Turn
from tradeback.engine import FIRST_COMPILE, Engine
from tradeback.feed.announce import announce
from tradeback.feed.server import Feed
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StartupError, StoreError
from tradeback.model.record import Rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops import memory
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import get_log
from tradeback.ops.tasks import end as end_tasks
from tradeback.stores.bus import nats_bus
from tradeback.stores.registry import OpenRegistry
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape import follow
from tradeback.tape.reader import TapeReader

if TYPE_CHECKING:
    from tradeback.edge.parts import EdgeParts
    from tradeback.stores.bus_nats import NatsBus

CONNECT_S = 2.0
"""How long a start waits for NATS before it goes on with what the last run knew."""
AHEAD_ROWS_MAX = 1_000_000
"""A client that comes from another edge may have so many records that are not here yet."""


def check(config: Config) -> None:
    """Refuse what an edge cannot do. Raises StartupError."""
    if not config.nats.url:
        raise StartupError("an edge needs NATS: set NATS_URL to the server to which the hub publishes")
    if not config.nats.jetstream:
        raise StartupError("an edge reads the hub's stream: unset NATS_JETSTREAM, here and at the hub")
    if config.feed.workers:
        raise StartupError("an edge is one process: unset FEED_WORKERS, and run more edges instead")


def prepare(config: Config) -> None:
    """Bring the tape's folder to whole records of the hub's epoch, before `Edge` is made."""
    follow.settle(Path(config.data_dir) / "tape")


class Lost:
    """A component that tells of records which nobody can give any more."""

    def __init__(self, words: str, since_ns: int) -> None:
        self._words, self._since_ns = words, since_ns

    def health(self) -> ComponentHealth:
        """Degraded: clients were told that they cannot resume."""
        return ComponentHealth("edge:lost", "degraded", self._since_ns, self._words)


class Edge(Engine):
    """`start`, `wait_stopped`, `stop`, as every engine; `wait_stopped` may raise Turn."""

    def __init__(self, config: Config, clock: Clock, lost: str = "") -> None:
        """`lost`: what the turn before this one has lost."""
        super().__init__(config, clock)
        self._lost = lost

    async def _come_up(
        self, context: ServingContext, feed: Feed, registry: OpenRegistry, series: SeriesSqlite
    ) -> None:
        """The hub, the tape up to its end, and everything that reads it."""
        tape, config, local = self.tape, self.config, self._registry
        assert tape is not None
        assert local is not None
        assert self._gap_store is not None
        bus = nats_bus(
            config.nats, logging.getLogger("tradeback.bus"), f"tradeback edge of {config.nats.node}"
        )
        self._closing.append(bus.close)
        symbols = HubSymbols(bus, config.nats.node, self.symbols, local, self.clock, get_log("hub"))
        context.components += [bus, symbols]
        if self._lost:
            context.components.append(Lost(self._lost, self.clock.wall_ns()))
        context.not_ready = lambda: [bus.last_error or symbols.last_error or "waiting for the hub's symbols"]
        if config.influx.url:
            self._log.warning("an edge writes to no server: INFLUX_URL means nothing here")
        await bus.start()
        if not kernel_cache.is_warm():
            self.progress(FIRST_COMPILE)
        loading = asyncio.create_task(asyncio.to_thread(_load_kernels))
        try:
            with suppress(StoreError):
                await bus.ready(CONNECT_S)
            await symbols.ask()
            await symbols.first()
        finally:
            await asyncio.gather(loading, return_exceptions=True)
        loading.result()
        from tradeback.edge.parts import EdgeParts

        parts = EdgeParts(config, self.clock, feed.path, tape, self.symbols, series, self._gap_store)
        self._closing.append(parts.stop)
        parts.lock()
        symbols.on_symbols += [parts.learn, lambda fresh: announce(feed, fresh)]
        hub = self._hub_tape(context, bus, symbols, parts)
        is_empty = tape.next_sequence == tape.oldest_sequence
        if not await self._follow(hub, symbols, tape_is_empty=is_empty):
            return
        rest = HubRest(bus, config.nats.node, self.clock)
        adoption = Adoption(rest, series, tape, self._log)
        if await asyncio.to_thread(adoption.is_needed):
            context.not_ready = lambda: [adoption.last_error or "taking over the hub's state"]
            await adoption.run()
        async with parts.copying:
            await self._serve(context, feed, parts)
        self._learn_history(context, rest, series, parts, symbols)
        await attached.start_settlements(context, self._closing)
        context.not_ready = None
        memory.give_back()

    async def _serve(self, context: ServingContext, feed: Feed, parts: "EdgeParts") -> None:
        """From what is on the tape so far, and then from what comes."""
        restored = await asyncio.to_thread(parts.restore)
        self._log.info("restored", how=restored.how, records=restored.records)
        feed.attach_kernels()
        feed.v2.ahead_max = AHEAD_ROWS_MAX
        context.derived, context.series, context.gaps = parts.derived, parts.sink, parts.gaps
        context.components += [parts.sink, parts.gaps]
        context.collectors += [parts.intake, parts.sink, parts.gaps]
        parts.intake.on_stall.append(lambda stalled: self._note_refusal(parts.intake.stalled))
        parts.start(self._fail)

    def _hub_tape(
        self, context: ServingContext, bus: "NatsBus", symbols: HubSymbols, parts: "EdgeParts"
    ) -> HubTape:
        """The hub's records, put on the tape as they come, with the symbols that they are of."""
        tape = self.tape
        assert tape is not None
        reader = TapeReader(Path(self.config.data_dir) / "tape")

        async def take(rows: Rows) -> None:
            ids = set(rows["symbol_id"].tolist()) - {0}
            unknown = {number for number in ids if self.symbols.by_id(number) is None}
            if unknown:
                await symbols.know(unknown)
            await parts.put(rows)
            if not all(_is_active(self.symbols, number) for number in ids):
                symbols.changed()  # the hub follows it again

        hub = HubTape(bus, self.config.nats, tape, reader.epochs, take, self.clock, get_log("hub"))
        context.components.append(hub)
        context.collectors.append(hub)
        context.not_ready = lambda: [
            hub.last_error or f"catching up with the hub, at record {tape.next_sequence}"
        ]
        return hub

    def _learn_history(
        self,
        context: ServingContext,
        rest: HubRest,
        series: SeriesSqlite,
        parts: "EdgeParts",
        symbols: HubSymbols,
    ) -> None:
        """Bars from before the tape: the newest now, others when they are asked for."""
        backfill = backfill_of(rest, series, self.clock, parts.derived.newest_us, get_log("backfill"))
        history = EdgeHistory(rest, series, self.symbols, self.clock, get_log("history"))
        # Only that there is something new: what the hub lacks now, it may have when somebody asks again.
        history.on_stored.append(lambda symbol_id, resolution: backfill.note(symbol_id, resolution, 0, 0))
        context.klines = backfill
        context.components += [history, backfill]
        context.collectors.append(backfill)
        symbols.on_symbols.append(history.learn)
        tasks = [asyncio.create_task(work) for work in (history.run(), history.run_late())]
        for task in tasks:
            task.add_done_callback(self._on_end)

        async def end() -> None:
            symbols.on_symbols.remove(history.learn)
            await end_tasks(tasks)
            await backfill.close()

        self._closing.append(end)

    async def _follow(self, hub: HubTape, symbols: HubSymbols, *, tape_is_empty: bool) -> bool:
        """Begin to follow; back when the stream's end is reached, or cannot be and there is a tape to serve.

        False: following has ended before that.
        """
        tasks = [asyncio.create_task(hub.run()), asyncio.create_task(symbols.watch())]
        for task in tasks:
            task.add_done_callback(self._on_end)

        async def end() -> None:
            await end_tasks(tasks)

        self._closing.append(end)
        events = [hub.caught_up] if tape_is_empty else [hub.caught_up, hub.unreachable]
        waiting = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait({*waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return any(event.is_set() for event in events)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            if isinstance(error, Turn):
                self._log.warning("the tape is opened anew", reason=str(error), lost=error.lost or None)
            self._fail(error)


def _is_active(symbols: SymbolTable, number: int) -> bool:
    found = symbols.by_id(number)
    return found is not None and found.is_active


def _load_kernels() -> None:
    """Compile the kernels or load them from the cache. In a thread."""
    from tradeback import warm

    warm.load()
    import tradeback.edge.parts  # noqa: F401
