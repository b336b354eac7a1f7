"""The aiohttp application: routes, one error shape, limits. Make it, then give it to the front.

runner = make_runner(context)
await runner.setup()
front = Front(runner.server, feed.accept)
"""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tradeback.api.context import ServingContext
from tradeback.api.errors import error_response, errors_as_json
from tradeback.api.gaps import GapRoutes
from tradeback.api.health import HealthRoutes
from tradeback.api.market import MarketRoutes, listing
from tradeback.feed.negotiate import WS_PATH
from tradeback.model.limits import BODY_BYTES_MAX
from tradeback.version import VERSION

SHUTDOWN_S = 1.0
"""How long open requests may take when the engine stops."""
KEEP_ALIVE_S = 75.0


def make_app(context: ServingContext) -> web.Application:
    """The application with all routes of this issue."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=BODY_BYTES_MAX)
    app.add_routes(HealthRoutes(context).routes())
    app.add_routes(MarketRoutes(context).routes())
    app.add_routes(GapRoutes(context).routes())
    app.router.add_get(WS_PATH, _websocket_only)
    app.router.add_get("/", _list_routes)
    return app


def make_runner(context: ServingContext) -> web.AppRunner:
    """A runner whose `server` makes aiohttp's protocols for the front, after `await runner.setup()`."""
    return web.AppRunner(
        make_app(context),
        access_log=None,
        handle_signals=False,
        logger=_http_log(),
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
    )


def _http_log() -> logging.Logger:
    """aiohttp's log, without the traceback that it writes for every request a client got wrong."""
    log = logging.getLogger("tradeback.http")
    if not log.filters:
        log.addFilter(_is_ours)
    return log


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def _list_routes(request: web.Request) -> web.Response:
    """What is served here, until there is a page."""
    rows = [f"{route['method']:4} {route['path']}" for route in listing(request.app)]
    text = "\n".join((f"tradeback {VERSION}", "", *rows, "", f"WebSocket feed: {WS_PATH}", ""))
    return web.Response(text=text)


async def _websocket_only(request: web.Request) -> web.Response:
    response = error_response(426, "upgrade_required", f"{WS_PATH} is a WebSocket; ask for an upgrade")
    response.headers["Upgrade"] = "websocket"
    return response
