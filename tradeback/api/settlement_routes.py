"""Routes of settlements: ask for one, read one by its id, list one's own."""

from typing import Any

import orjson
from aiohttp import web

from tradeback.api.access import forbidden, need_session, permits
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref, whole
from tradeback.api.errors import ApiError, json_response
from tradeback.api.settlement import SettlementDesk, settlement_json
from tradeback.model.symbols import Symbol

PATH = "/api/v1/settlements"
TIME_MAX_MS = 99_999_999_999_999
NAME_LETTERS_MAX = 40
LIST_DEFAULT, LIST_MAX = 100, 1_000

LIMIT = whole("limit", LIST_DEFAULT, LIST_MAX, "at most so many, the newest first")
UNAVAILABLE = "settlements cannot be kept now, or the engine is still starting"


class SettlementRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [
            web.post(PATH, self.ask),
            web.get(PATH, self.listed),
            web.get(PATH + "/{id}", self.one),
        ]

    @operation(
        "Ask for the price at a time",
        tag="settlements",
        body="SettlementRequest",
        answers={
            200: Answer("the one that the same user or session has asked for before", ref("Settlement")),
            201: Answer("a new one", ref("Settlement"), headers={"Location": "where it is read"}),
            400: "the body is not what it must be; the message says what is wrong",
            404: "no such symbol",
            408: "the body took too long",
            413: "the body is too large",
            503: UNAVAILABLE,
        },
    )
    async def ask(self, request: web.Request) -> web.Response:
        """Once that time has passed and the tape is proved complete there, the price, its trade id and the
        proof are kept, and pushed to the open WebSockets of the same user, or of the session of who has not
        logged in, as {"type": "settlement", ...}.

        Where trades are missing for good the status is `incomplete`, with the reason. A time in the past is
        settled at once if it can be.
        """
        symbol, at_ms = self._read(await request.read())
        if not permits(request, symbol.symbol):
            raise forbidden(symbol.symbol)
        owner = await self._owner(request)
        settlement, new = await self._desk().take(owner, symbol, at_ms)
        response = json_response(settlement_json(settlement), 201 if new else 200)
        response.headers["Location"] = f"{PATH}/{settlement.id}"
        return response

    @operation(
        "One settlement",
        tag="settlements",
        answers={
            200: Answer("how it stands", ref("Settlement")),
            404: "no settlement has this id",
            503: UNAVAILABLE,
        },
    )
    async def one(self, request: web.Request) -> web.Response:
        """By the id that asking for it answered. A user's own are for him alone; one that was asked for
        without a log-in may be read by whoever knows the id."""
        found = await self._desk().find(request.match_info["id"])
        if found is None or (found.is_users and found.owner != self._context.owner_of(request)):
            raise ApiError(404, "not_found", "no settlement has this id; old ones are forgotten")
        if not permits(request, found.symbol):
            raise forbidden(found.symbol)
        return json_response(settlement_json(found))

    @operation(
        "One's own settlements",
        tag="settlements",
        takes=(LIMIT,),
        answers={
            200: Answer("the newest first", ref("Settlements")),
            400: "a parameter that is malformed; the message names it",
            404: "there are none here (a replay)",
            503: UNAVAILABLE,
        },
    )
    async def listed(self, request: web.Request) -> web.Response:
        """Those of the user on all devices, or of the session of who has not logged in; none without one."""
        limit, owner = LIMIT.read(request.query), self._context.owner_of(request)
        found = await self._desk().listed(owner, limit) if owner else []
        shown = [settlement_json(one) for one in found if permits(request, one.symbol)]
        return json_response({"settlements": shown})

    def _desk(self) -> SettlementDesk:
        desk: SettlementDesk | None = self._context.settlements
        if desk is None and self._context.no_settlements:
            raise ApiError(404, "disabled", self._context.no_settlements)
        if desk is None:
            raise ApiError(503, "not_ready", "the engine is still starting; try again in a moment")
        return desk

    async def _owner(self, request: web.Request) -> str:
        """Whose it will be; a session is made for who has none. Empty: there are none."""
        access = self._context.access
        if access is None:
            return self._context.owner_of(request) or ""
        return (await need_session(access, request)).watch_id

    def _read(self, body: bytes) -> tuple[Symbol, int]:
        try:
            asked: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise _bad('the body must be JSON such as {"symbol":"BTCUSDT","time":1700000000000}') from error
        if not isinstance(asked, dict):
            raise _bad("the body must be a JSON object")
        unknown = sorted(set(asked) - {"symbol", "time"})
        if unknown:
            raise _bad(f"the body holds {unknown[0][:40]!r}; it may hold symbol and time")
        name, at_ms = asked.get("symbol"), asked.get("time")
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LETTERS_MAX:
            raise _bad("symbol is missing or no name")
        if isinstance(at_ms, float) and at_ms.is_integer():
            at_ms = int(at_ms)  # JSON knows one kind of numbers
        if type(at_ms) is not int or not 0 <= at_ms <= TIME_MAX_MS:
            raise _bad("time is missing or no time in unix milliseconds")
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them")
        return symbol, at_ms


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", message)
