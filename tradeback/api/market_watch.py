"""Routes of the market watch: the symbols that a session follows, in display order."""

from typing import Any

import orjson
from aiohttp import web

from tradeback.api.access import Access, forbidden, need_session, permits, registry_away
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref
from tradeback.api.errors import ApiError, json_response
from tradeback.model.errors import StoreError
from tradeback.stores.market_watch import WatchFull
from tradeback.stores.ports import SessionRecord

PATH = "/api/v1/marketwatch"
AWAY = "the registry cannot be reached; Retry-After says when to try again"


class MarketWatchRoutes:
    """The handlers, over one context. Every change reaches the session's open sockets at once."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [
            web.get(PATH, self.listed),
            web.put(PATH, self.arrange),
            web.post(PATH + "/{symbol}", self.add),
            web.delete(PATH + "/{symbol}", self.remove),
        ]

    @operation(
        "Market watch",
        tag="sessions",
        answers={200: Answer("in display order", ref("MarketWatch")), 503: AWAY},
    )
    async def listed(self, request: web.Request) -> web.Response:
        """The user's own on every device; without a user the session's, which is made at the first use."""
        access = self._access()
        session = await need_session(access, request)
        return await self._answer(access, request, session, 200)

    @operation(
        "Arrange the market watch",
        tag="sessions",
        body="MarketWatch",
        answers={
            200: Answer("in the new order", ref("MarketWatch")),
            400: "the body is not what it must be; the message says what is wrong",
            404: "no such symbol",
            409: "more symbols than a watch holds",
            503: AWAY,
        },
    )
    async def arrange(self, request: web.Request) -> web.Response:
        """Make the watch these symbols in this order: what is new comes in, what is not named goes. Symbols
        that the session may not see stay as they are."""
        access = self._access()
        names = [self._name(access, name) for name in _read(await request.read())]
        symbols = list(dict.fromkeys(names))
        for name in symbols:
            if not permits(request, name):
                raise forbidden(name)
        session = await need_session(access, request)
        try:
            held = await access.watch.symbols(session.watch_id)
            hidden = [symbol for symbol in held if not permits(request, symbol)]
            await access.watch.arrange(session.watch_id, symbols, hidden)
        except WatchFull as error:
            raise ApiError(409, "watch_full", str(error)) from None
        except StoreError as error:
            raise registry_away(error) from error
        return await self._answer(access, request, session, 200)

    @operation(
        "Watch a symbol",
        tag="sessions",
        answers={
            200: Answer("it was there already", ref("MarketWatch")),
            201: Answer("it stands at the end now", ref("MarketWatch")),
            404: "no such symbol",
            409: "the watch is full",
            503: AWAY,
        },
    )
    async def add(self, request: web.Request) -> web.Response:
        """Put a symbol at the end. Open sockets of the session get it at once; a symbol that the engine does
        not follow yet is asked of the exchange."""
        access = self._access()
        name = self._named(access, request)
        session = await need_session(access, request)
        try:
            added = await access.watch.add(session.watch_id, name)
        except WatchFull as error:
            raise ApiError(409, "watch_full", str(error)) from None
        except StoreError as error:
            raise registry_away(error) from error
        return await self._answer(access, request, session, 201 if added else 200)

    @operation(
        "Watch a symbol no more",
        tag="sessions",
        answers={204: Answer("it is not there now"), 404: "no such symbol", 503: AWAY},
    )
    async def remove(self, request: web.Request) -> web.Response:
        """Take a symbol out, whether it was there or not. One that the exchange has dropped can be, too."""
        access = self._access()
        session = await need_session(access, request)
        name = request.match_info["symbol"].upper()
        try:
            removed = await access.watch.remove(session.watch_id, name)
        except StoreError as error:
            raise registry_away(error) from error
        if not removed:
            self._named(access, request)
        return _private(web.Response(status=204))

    async def _answer(
        self, access: Access, request: web.Request, session: SessionRecord, status: int
    ) -> web.Response:
        try:
            symbols = await access.watch.symbols(session.watch_id)
        except StoreError as error:
            raise registry_away(error) from error
        shown = [symbol for symbol in symbols if permits(request, symbol)]
        return _private(json_response({"symbols": shown}, status))

    def _named(self, access: Access, request: web.Request) -> str:
        name = self._name(access, request.match_info["symbol"])
        if not permits(request, name):
            raise forbidden(name)
        return name

    def _name(self, access: Access, asked: str) -> str:
        symbol = self._context.symbols.find(asked)
        name = symbol.symbol if symbol is not None else asked.upper()
        if symbol is None and not access.exists(name):
            raise ApiError(404, "unknown_symbol", f"no symbol {asked[:40]!r}; GET /api/v1/symbols lists them")
        return name

    def _access(self) -> Access:
        access: Access | None = self._context.access
        if access is None:
            raise ApiError(503, "not_ready", "there are no sessions here")
        return access


def _read(body: bytes) -> list[str]:
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        asked = None
    symbols = asked.get("symbols") if isinstance(asked, dict) and set(asked) == {"symbols"} else None
    if not isinstance(symbols, list) or not all(isinstance(name, str) for name in symbols):
        raise ApiError(400, "bad_request", 'the body must be JSON such as {"symbols":["BTCUSDT","ETHUSDT"]}')
    return symbols


def _private(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    return response
