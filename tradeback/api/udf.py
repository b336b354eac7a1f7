"""TradingView's Universal Data Feed at /udf: the routes, and errors as the adapter understands them.

The stock adapter never looks at the status and reads every body as JSON, so each error here, whoever made
it, is `{"s":"error","errmsg":"..."}` with a text.
"""

import functools
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from tradeback.api.bars import BarReader
from tradeback.api.context import ServingContext
from tradeback.api.errors import Handler
from tradeback.api.udf_history import UdfHistory
from tradeback.api.udf_marks import UdfMarks
from tradeback.api.udf_quotes import UdfQuotes
from tradeback.api.udf_shapes import Refusal, refusal
from tradeback.api.udf_symbols import UdfSymbols

PREFIX = "/udf"
_KEPT = ("Allow", "Retry-After", "Set-Cookie", "Access-Control-Allow-Origin", "Vary", "WWW-Authenticate")


class UdfRoutes:
    """All handlers, over one context and the reader of bars."""

    def __init__(self, context: ServingContext, bars: BarReader) -> None:
        self._symbols = UdfSymbols(context)
        self._history = UdfHistory(context, bars)
        self._marks = UdfMarks(context, bars)
        self._quotes = UdfQuotes(context, bars)

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        handlers = (
            ("config", self._symbols.config),
            ("symbols", self._symbols.symbols),
            ("search", self._symbols.search),
            ("history", self._history.history),
            ("marks", self._marks.marks),
            ("timescale_marks", self._marks.timescale_marks),
            ("quotes", self._quotes.quotes),
            ("time", self._quotes.time),
        )
        return [web.get(f"{PREFIX}/{name}", _refusing(handler)) for name, handler in handlers]


def _refusing(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A refusal is an answer."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refusal as error:
            return refusal(str(error))

    return answer


@web.middleware
async def errors_as_udf(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost: turns every error below /udf, of whatever middleware, into s:error."""
    response = await handler(request)
    if response.status < 400 or not is_udf(request.path) or not isinstance(response, web.Response):
        return response
    try:
        said = orjson.loads(response.body if isinstance(response.body, bytes) else b"")
    except orjson.JSONDecodeError:
        said = {}
    if isinstance(said, dict) and said.get("s") == "error":
        return response
    error = said.get("error", {}) if isinstance(said, dict) else {}
    words = error.get("message") if isinstance(error, dict) else None
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    return refusal(str(words or response.reason or "it did not work"), response.status, headers)


def is_udf(path: str) -> bool:
    """Whether a path is one of the datafeed's."""
    return path == PREFIX or path.startswith(PREFIX + "/")
