"""History answered by the recorder, so that no chart ever makes the feed wait: the engine hands connections
over.

It has the bars already. What it lacks, klines that are fetched on demand, the engine fetches for it. Only
requests that need no session come here (`feed.passage`); limits per client are counted here, as in the
engine.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tradeback.api.bars import BarReader
from tradeback.api.context import BarSeries, GapSource, ServingContext, TapePosition
from tradeback.api.errors import ApiError, Handler, errors_as_json
from tradeback.api.headers import protect, vary
from tradeback.api.market import MarketRoutes
from tradeback.api.origins import Proxies
from tradeback.api.packing import PACKER, Packer
from tradeback.api.rates import Rate, Rates
from tradeback.api.request_metrics import RequestMetrics
from tradeback.api.runner import Runner
from tradeback.api.shapes import DerivedSeries
from tradeback.api.udf import UdfRoutes, errors_as_udf
from tradeback.derive.lacking import Span
from tradeback.model.config import Config
from tradeback.model.errors import TradebackError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.ops.limits import open_files
from tradeback.processes.accepted import transport_of
from tradeback.processes.link import Link, Message
from tradeback.processes.shuttle import Shuttle

ROUTES = ("/udf/history", "/api/v1/symbols/{symbol}/bars")
BURST_SECONDS = 4
KEEP_ALIVE_S = 75.0
CONNECTIONS_MAX = 2_048
"""Beyond so many, or half of the descriptors, connections between two requests are closed for new ones."""


class KlinesOfEngine:
    """`api.context.Klines` over the link to the engine. Loop thread."""

    def __init__(self, links: Callable[[], Sequence[Link]]) -> None:
        self._links = links
        self._generations: dict[tuple[int, int], int] = {}
        self._met = 0
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._count = 0

    def generation(self, symbol_id: int, resolution: int) -> int:
        """Rises whenever klines of this series were stored, or may have been while nobody told."""
        return self._generations.get((symbol_id, resolution), 0) + self._met

    async def fill(
        self, symbol: Symbol, resolution: int, spans: Sequence[Span], bars_wanted: int, wait_s: float
    ) -> bool:
        """See `exchange.backfill.Backfill`. False without an engine."""
        links = self._links()
        if not links:
            return False
        self._count = number = self._count + 1
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        ask = [symbol.id, resolution, [list(span) for span in spans], bars_wanted, wait_s]
        try:
            links[0].send({"fill": number, "ask": ask})
            async with asyncio.timeout(wait_s + 1.0):
                settled: bool = await asked
                return settled
        except TimeoutError:
            return False
        finally:
            del self._asked[number]

    def take(self, message: Message) -> bool:
        """A message of the engine; False when it is about something else."""
        if "filled" in message:
            asked = self._asked.get(message["filled"])
            if asked is not None and not asked.done():
                asked.set_result(bool(message["settled"]))
            return True
        if "stored" in message:
            series = message["stored"][0], message["stored"][1]
            self._generations[series] = self._generations.get(series, 0) + 1
            return True
        return False

    def met(self) -> None:
        """An engine has come: what it or its predecessor stored meanwhile is not known."""
        self._met += 1 << 32


class HistoryServer:
    """Owned by the recorder: `start`, `take`, `stop`. Loop thread."""

    def __init__(self, context: ServingContext, klines: KlinesOfEngine, catch_up: Callable[[], None]) -> None:
        """`catch_up` reads the tape up to the newest record."""
        self._context, self._catch_up = context, catch_up
        self.klines = context.klines = klines
        self._rates = Rates(_rates(context.config))
        self._proxies = Proxies(())
        self._runner: Runner | None = None
        self._connections_max = min(CONNECTIONS_MAX, open_files()[0] // 2)
        self._arriving: set[asyncio.Task[None]] = set()
        self.taken = self.returned = 0
        self.requests = RequestMetrics("recorder")

    async def start(self) -> None:
        """Make the application."""
        app = web.Application(middlewares=[self.requests.count, errors_as_udf, errors_as_json, self._guard])
        app[PACKER] = packer = Packer()
        app.on_cleanup.append(packer.close)
        app.on_response_prepare.append(self._protect)
        bars = BarReader(self._context)
        routes = (*UdfRoutes(self._context, bars).routes(), *MarketRoutes(self._context, bars).routes())
        app.add_routes([route for route in routes if route.path in ROUTES])
        self._runner = Runner(app, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=1.0)
        await self._runner.setup()

    def take(self, link: Link, descriptor: int, data: bytes) -> None:
        """Serve the connection on which `data` has been read by the engine at the other end of `link`."""
        self.taken += 1
        self._make_room()
        task = asyncio.create_task(self._serve(link, socket.socket(fileno=descriptor), data))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def stop(self) -> None:
        """Answer what was asked, and end."""
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    def _make_room(self) -> None:
        """Whoever opens thousands of connections takes descriptors from nobody: the store needs some."""
        runner = self._runner
        server = runner.server if runner is not None else None
        if runner is not None and server is not None and len(server.connections) >= self._connections_max:
            runner.shed()

    async def _serve(self, link: Link, sock: socket.socket, data: bytes) -> None:
        def go_back(transport: Any, seen: bytes) -> None:
            self.returned += 1
            descriptor = transport.get_extra_info("socket").fileno()
            link.send({"back": True}, seen, (descriptor,))
            # Only this process's descriptor: the connection lives on in the engine, if there is one.
            transport.abort()

        assert self._runner is not None
        assert self._runner.server is not None
        make: Any = self._runner.server
        transport = await transport_of(sock)
        if transport is None:
            return
        shuttle = Shuttle(make(), go_back, self._context.config.server.read_timeout_s)
        transport.set_protocol(shuttle)
        shuttle.connection_made(transport)
        shuttle.data_received(data)

    async def _protect(self, request: web.Request, response: web.StreamResponse) -> None:
        protect(response, private=False)
        if self._context.config.server.origins:
            vary(response, "Origin")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """As many requests as a client may have, answered as of the newest record."""
        peer = self._proxies.client(request.remote or "", lambda name: [])
        wait_s = self._rates.take("history", peer.key, self._context.clock.steady_ns())
        if wait_s:
            message = f"too many requests of this kind from {peer.key}; come again in {wait_s} s"
            raise ApiError(429, "too_many_requests", message, {"Retry-After": str(wait_s)})
        try:
            self._catch_up()
        except TradebackError as error:
            raise ApiError(503, "not_ready", "bars cannot be read now; try again in a moment") from error
        return await handler(request)


def of_recorder(
    config: Config,
    symbols: SymbolTable,
    tape: TapePosition,
    derived: DerivedSeries,
    series: BarSeries,
    gaps: GapSource,
    links: Callable[[], Sequence[Link]],
    catch_up: Callable[[], None],
) -> HistoryServer:
    """A server over what the recorder has; `links` to engines."""
    context = ServingContext(
        config=config,
        clock=SystemClock(),
        symbols=symbols,
        tape=tape,
        derived=derived,
        series=series,
        gaps=gaps,
    )
    return HistoryServer(context, KlinesOfEngine(links), catch_up)


def _rates(config: Config) -> dict[str, Rate]:
    per_second = config.limit.history_per_second
    return {"history": Rate(per_second, BURST_SECONDS * per_second)}
