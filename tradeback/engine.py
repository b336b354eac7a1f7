"""The only place that wires: read it and you have seen the flow.

    exchange lines -> intake (decode, arbitrate) -> tape -> readers: feed, derived series
                                                     \\-> stand-ins, series sink, API: behind own cursors

Order of a start: tape, port, then (in the background) kernels and symbol table, what the last run knew,
the lines, the history. The port answers from the first moment; `/health/ready` says when all is there.
What stands beside this flow only when it is configured is in `attached`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tradeback import attached, kernel_cache
from tradeback.api.access import Access, owner_of
from tradeback.api.app import make_runner
from tradeback.api.context import ServingContext
from tradeback.api.gate import SocketGate
from tradeback.api.runner import Runner
from tradeback.exchange.listing import Listing
from tradeback.feed.announce import announce
from tradeback.feed.front import Front
from tradeback.feed.server import Feed
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StartupError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops import memory
from tradeback.ops.log import get_log
from tradeback.ops.runtime import Runtime
from tradeback.serving import make_access, make_feed
from tradeback.stores.gaps_sqlite import GapsSqlite
from tradeback.stores.registry import OpenRegistry, open_registry
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.health import TapeHealth
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

if TYPE_CHECKING:
    from tradeback.exchange.line import Line
    from tradeback.parts import Parts
    from tradeback.processes.hub import Hub

REQUESTS_S = 2.0
"""How long requests that have come may still take when the engine stops."""
FIRST_COMPILE = "compiling kernels, once, about 5 s"


class Engine:
    """One engine: `start`, `wait_stopped`, `stop`. See the module for the flow."""

    def __init__(self, config: Config, clock: Clock, hub: "Hub | None" = None) -> None:
        """`hub`: the other processes of this run; without one everything happens in this process."""
        self.config, self.clock, self._hub = config, clock, hub
        self.progress: Callable[[str], None] = lambda line: None
        self.symbols = SymbolTable()
        self.tape: Tape | None = None
        self.parts: Parts | None = None
        """Everything that needs kernels; None until they are loaded."""
        self._log = get_log("engine")
        self._closing: list[Callable[[], Awaitable[None] | None]] = []
        self._bring_up: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[None] | None = None
        self._front: Front | None = None
        self._runner: Runner | None = None
        self._feed: Feed | None = None
        self._tape_health: TapeHealth | None = None
        self._gap_store: GapsSqlite | None = None
        self._registry: RegistrySqlite | None = None

    @property
    def url(self) -> str:
        """Where HTTP is served; a server on all addresses is reached through the loopback one."""
        host = self.config.server.host
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
        shown = everywhere.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{self._front.port if self._front else self.config.server.port}"

    async def start(self) -> None:
        """Open tape and port. Raises StartupError for what cannot work; the rest comes up behind the port."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        folder = Path(self.config.data_dir)
        self.tape = tape = Tape.open(folder / "tape", self.config.tape)
        self._closing.append(tape.close)
        for note in tape.notes:
            self._log.info(note)
        registry = RegistrySqlite(folder / "registry.sqlite")
        self._closing.append(registry.close)
        for symbol in registry.symbols():
            self.symbols.put(symbol)
        self._registry = registry
        opened = open_registry(self.config, registry, self.clock, self._log)
        self._closing.append(opened.close)
        series = SeriesSqlite(folder / "series.sqlite")
        self._closing.append(series.close)
        self._gap_store = gaps = GapsSqlite(folder / "gaps.sqlite")
        self._closing.append(gaps.close)
        reader = TapeReader(folder / "tape")
        context = ServingContext(
            config=self.config,
            clock=self.clock,
            symbols=self.symbols,
            tape=tape,
            reader=reader,
        )
        feed = make_feed(self.config, self.clock, self.symbols, tape, lambda: context.derived)
        context.feed = feed
        self._tape_health = health = TapeHealth(tape, self.clock)
        context.components += [health, feed]
        if opened.copy is not None:
            context.components.append(opened.copy)
        context.collectors += [health, feed, Runtime("engine")]
        if self._hub is not None:
            context.components += self._hub.components
            context.reported = self._hub.series.others
            context.collectors.append(self._hub)
        context.access = access = make_access(self.config, self.clock, feed, opened.accounts, self._log)
        context.owner_of = owner_of
        context.collectors += [access, access.attendance]
        if self._hub is not None:
            access.tell_workers = self._hub.tell_workers
        if self.config.redis.addr:
            attached.share(context, opened.accounts, self._closing)
        await self._open_port(context, feed, access)
        self._bring_up = asyncio.create_task(self._come_up(context, feed, opened, series))
        self._bring_up.add_done_callback(self._on_bring_up_done)
        if self.config.spin:
            self._closing.append(_spin(loop))

    async def wait_stopped(self) -> None:
        """Until the engine cannot go on: raises what ended it."""
        assert self._failed is not None, "start comes first"
        await asyncio.shield(self._failed)

    async def stop(self, *, restarting: bool = False) -> None:
        """Close everything in the order of the flow; also after a start that failed or was cancelled.

        `restarting`: another engine will take this one's place, which clients are told. On sockets that a
        supervisor holds it will take new connections, too; else they are refused from now on.
        """
        if self._feed is not None:
            self._feed.turn_away(restarting=restarting)
        if self._front is not None and restarting and self._hub is not None:
            await self._front.close()
        elif self._front is not None:
            self._front.turning_away = True
        if self._runner is not None:
            await self._runner.drain(REQUESTS_S)
        if self._bring_up is not None:
            self._bring_up.cancel()
            await asyncio.gather(self._bring_up, return_exceptions=True)
        closing, self._closing = self._closing, []
        failures = []
        for close in reversed(closing):
            try:
                ended = close()
                if ended is not None:
                    await ended
            except Exception as error:
                # Whatever it is, the parts below still have to be closed: the tape is the last of them.
                self._log.error("a part did not close", error=str(error), kind=type(error).__name__)
                failures.append(error)
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            self._failed.exception()  # whoever waited has seen it; nobody else needs a warning
        if failures:
            raise failures[0]

    async def _open_port(self, context: ServingContext, feed: Feed, access: Access) -> None:
        runner = make_runner(context)
        await runner.setup()
        self._closing.append(runner.cleanup)
        assert runner.server is not None
        front = Front(
            runner.server,
            feed.accept,
            head_seconds_max=self.config.server.read_timeout_s,
            write_seconds_max=self.config.server.write_timeout_s,
        )
        front.gate = SocketGate(access)
        front.shed = runner.shed
        if self._hub is None:
            await front.open(self.config.server.host, self.config.server.port)
        else:
            front.hand_over = self._hub.hand_over
            front.hand_history, self._hub.adopt = self._hub.hand_history, front.adopt
            await front.serve(self._hub.sockets)
        self._front, self._feed, self._runner = front, feed, runner
        feed.start()
        access.sessions.start()
        self._closing.append(access.sessions.stop)
        access.attendance.start()
        self._closing.append(access.attendance.stop)
        self._closing.append(front.close)
        self._closing.append(feed.close)

    async def _come_up(
        self, context: ServingContext, feed: Feed, registry: OpenRegistry, series: SeriesSqlite
    ) -> None:
        """Kernels and symbol table side by side, then everything that needs both."""
        listing = Listing(self.config.exchange, self._log, self.clock)
        self._closing.append(listing.close)
        context.not_ready = lambda: [f"waiting for {registry.missing or listing.waiting_for}"]
        if not kernel_cache.is_warm():
            self.progress(FIRST_COMPILE)
        parts_module = asyncio.create_task(asyncio.to_thread(_load_kernels))
        try:
            wanted = await listing.symbols(registry.ids)
        finally:
            await asyncio.gather(parts_module, return_exceptions=True)
        parts_module.result()
        if registry.copy is not None:
            registry.copy.start()
        await self._wire(context, feed, series, listing, registry, wanted)
        memory.give_back()

    async def _wire(
        self,
        context: ServingContext,
        feed: Feed,
        series: SeriesSqlite,
        listing: Listing,
        registry: OpenRegistry,
        wanted: list[Symbol],
    ) -> None:
        from tradeback.parts import Parts

        assert self.tape is not None
        before = (self.symbols.find(symbol.symbol) for symbol in wanted)
        returning = [symbol.id for symbol in before if symbol is not None and not symbol.is_active]
        for symbol in wanted:
            self.symbols.put(symbol)
        hub = self._hub
        parts = Parts(
            self.config,
            self.clock,
            feed.path,
            self.tape,
            self.symbols,
            series,
            listing.rest,
            wanted,
            recorded=hub.series if hub is not None else None,
            gap_store=self._gap_store,
        )
        restored = await asyncio.to_thread(parts.restore)
        self._log.info("restored", how=restored.how, records=restored.records, reason=restored.reason or None)
        feed.attach_kernels()
        if returning:
            # Nobody followed them in the last run: what went by since then is not missing.
            parts.intake.begin_anew(returning, self.clock.wall_ns())
        self._watch_symbols(context, feed, parts, listing, registry)
        _show(context, parts)
        parts.intake.on_stall.append(lambda stalled: self._note_refusal(parts.intake.stalled))
        if hub is not None:
            self._closing.append(hub.close)
            hub.series.serve_klines(parts.backfill, self.symbols)
            hub.start(feed.path, self.tape.next_sequence)
        else:
            attached.start_drains(context, series, parts.derived, self._closing)
        if self.config.nats.url:
            await attached.answer_on_bus(context, series, self._closing)
        await attached.start_settlements(context, self._closing)
        context.not_ready = None
        self.parts = parts
        # Behind the port in the order of closing: clients see the last records before they go.
        self._closing.append(parts.stop)
        parts.start(self._fail)

    def _watch_symbols(
        self, context: ServingContext, feed: Feed, parts: "Parts", listing: Listing, registry: OpenRegistry
    ) -> None:
        """Symbols in market watches are subscribed, too, and everyone is told of them."""

        async def here() -> Sequence[str]:
            return await registry.accounts.watched_by_all(self.clock.wall_ns())

        async def elsewhere() -> Collection[str]:
            ask = context.access.watch.elsewhere if context.access is not None else None
            return await ask() if ask is not None else ()

        def replace_lines(came: "Sequence[Line]", went: "Sequence[Line]") -> None:
            context.components[:] = [part for part in context.components if part not in went]
            context.components.extend(came)

        waiting = registry.copy.waiting if registry.copy is not None else ()
        wanted = parts.watch_symbols((here, elsewhere), registry.ids, listing.records, waiting)
        wanted.on_symbols.append(lambda symbols: announce(feed, symbols))
        if context.access is not None:
            context.access.exists = wanted.lists
            context.access.on_watch_change.append(wanted.changed)
        hub = self._hub
        if hub is not None:
            wanted.on_symbols.append(lambda symbols: hub.symbols_came())
        if registry.copy is not None:
            registry.copy.on_assigned.append(wanted.changed)
        parts.pool.on_lines.append(replace_lines)
        context.components.append(wanted)
        context.collectors.append(wanted)

    def _note_refusal(self, reason: str | None) -> None:
        if self._tape_health is not None:
            self._tape_health.refusal = reason
        if reason is not None:
            self._log.error("the tape refuses records; lines wait", reason=reason)

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _on_bring_up_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, StartupError):
            self._log.error("the engine cannot come up", error=str(error), kind=type(error).__name__)
        self._fail(error)


def _show(context: ServingContext, parts: "Parts") -> None:
    """What routes, health and metrics see of the parts."""
    context.derived = parts.derived
    context.series = parts.sink
    context.klines = parts.backfill
    context.components += [parts.sink, parts.history, parts.backfill, parts.stalls, parts.clock_offset]
    context.components += parts.pool.lines
    if parts.gaps is not None and parts.repair is not None:
        context.gaps = parts.gaps
        context.components += [parts.gaps, parts.repair]
        context.collectors += [parts.gaps, parts.repair]
    context.collectors += [parts.intake, parts.pool, parts.stalls, parts.clock_offset]
    context.collectors += [parts.stand_ins, parts.sink, parts.backfill]


def _load_kernels() -> None:
    """Compile the kernels or load them from the cache, and all that stands on them. Runs in a thread."""
    from tradeback import warm

    warm.load()
    import tradeback.parts  # noqa: F401


def _spin(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Keep the loop from sleeping: waking a halted core costs more than all our code together.

    Returns what ends it.
    """
    spinning = True

    def again() -> None:
        if spinning:
            loop.call_soon(again)

    def end() -> None:
        nonlocal spinning
        spinning = False

    again()
    return end
