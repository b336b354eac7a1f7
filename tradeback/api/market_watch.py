"""Routes of the market watch: the symbols that a session follows, in display order."""

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
        name = self._name(access, request)
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
            self._name(access, request)
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

    def _name(self, access: Access, request: web.Request) -> str:
        asked = request.match_info["symbol"]
        symbol = self._context.symbols.find(asked)
        name = symbol.symbol if symbol is not None else asked.upper()
        if symbol is None and not access.exists(name):
            raise ApiError(404, "unknown_symbol", f"no symbol {asked[:40]!r}; GET /api/v1/symbols lists them")
        if not permits(request, name):
            raise forbidden(name)
        return name

    def _access(self) -> Access:
        access: Access | None = self._context.access
        if access is None:
            raise ApiError(503, "not_ready", "there are no sessions here")
        return access


def _private(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    return response
