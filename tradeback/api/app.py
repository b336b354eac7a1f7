"""The aiohttp application: routes, one error shape, limits. Make it, then give it to the front.

runner = make_runner(context)
await runner.setup()
front = Front(runner.server, feed.accept)
"""

from aiohttp import web

from tradeback.api.access import finish, guard
from tradeback.api.auth import AuthRoutes
from tradeback.api.bars import BarReader
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation
from tradeback.api.errors import error_response, errors_as_json
from tradeback.api.gaps import GapRoutes
from tradeback.api.health import HealthRoutes
from tradeback.api.market import MarketRoutes, listing
from tradeback.api.market_watch import MarketWatchRoutes
from tradeback.api.openapi import OpenApiRoutes
from tradeback.api.packing import PACKER, Packer
from tradeback.api.page import PageRoutes
from tradeback.api.request_metrics import RequestMetrics
from tradeback.api.runner import Runner
from tradeback.api.settlement_routes import SettlementRoutes
from tradeback.api.stats import StatsRoutes
from tradeback.api.udf import UdfRoutes, errors_as_udf
from tradeback.feed.negotiate import WS_PATH
from tradeback.model.limits import BODY_BYTES_MAX
from tradeback.version import VERSION

SHUTDOWN_S = 1.0
"""How long open requests may take when the engine stops."""
KEEP_ALIVE_S = 75.0
LINGERING_S = 2.0
"""How long a body that nobody wants is read and dropped, so that its sender sees the answer."""


def make_app(context: ServingContext) -> web.Application:
    """The application with all routes."""
    requests = RequestMetrics("engine")
    context.collectors.append(requests)
    app = web.Application(
        middlewares=[
            requests.count,
            errors_as_udf,
            errors_as_json,
            guard(lambda: context.access, context.config.server.read_timeout_s),
        ],
        client_max_size=BODY_BYTES_MAX,
    )
    app.on_response_prepare.append(finish(lambda: context.access))
    packer = app[PACKER] = Packer()
    app.on_cleanup.append(packer.close)
    bars = BarReader(context)
    app.add_routes(HealthRoutes(context).routes())
    app.add_routes(MarketRoutes(context, bars).routes())
    app.add_routes(UdfRoutes(context, bars).routes())
    app.add_routes(OpenApiRoutes().routes())
    app.add_routes(GapRoutes(context).routes())
    app.add_routes(SettlementRoutes(context).routes())
    app.add_routes(AuthRoutes(context).routes())
    app.add_routes(MarketWatchRoutes(context).routes())
    app.router.add_get(WS_PATH, _websocket_only)
    app.router.add_get("/api/v1", _list_routes)
    page = PageRoutes()
    app.add_routes(page.routes())
    app.add_routes(StatsRoutes(context, page.version).routes())
    return app


def make_runner(context: ServingContext) -> Runner:
    """A runner whose `server` makes aiohttp's protocols for the front, after `await runner.setup()`."""
    return Runner(
        make_app(context),
        head_seconds_max=context.config.server.read_timeout_s,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        lingering_time=LINGERING_S,
    )


@operation("Routes", tag="about", answers={200: Answer("a list", {"type": "string"}, "text/plain")})
async def _list_routes(request: web.Request) -> web.Response:
    """What is served here, as text."""
    rows = [f"{route['method']:4} {route['path']}" for route in listing(request.app)]
    text = "\n".join((f"tradeback {VERSION}", "", *rows, "", f"WebSocket feed: {WS_PATH}", ""))
    return web.Response(text=text)


@operation("The feed", tag="market", answers={426: "it is a WebSocket: ask for an upgrade"})
async def _websocket_only(request: web.Request) -> web.Response:
    """A WebSocket: market data in binary, control in JSON; docs/wire.md is its specification."""
    response = error_response(426, "upgrade_required", f"{WS_PATH} is a WebSocket; ask for an upgrade")
    response.headers["Upgrade"] = "websocket"
    return response
