"""The route that says what is missing: gaps of trades and aggregates, with what became of them."""

from aiohttp import web

from tradeback.api.access import permits
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, choice, operation, ref, seconds, whole, word
from tradeback.api.errors import ApiError, json_bytes
from tradeback.api.packing import PACKER
from tradeback.api.params import read_cursor, time_range, write_cursor
from tradeback.api.shapes import gap_json
from tradeback.derive.completeness_gap import STATE_NAMES
from tradeback.stores.gaps_sqlite import GapQuery

GAPS_DEFAULT = 500
GAPS_MAX = 5_000
_STATES = {name: state for state, name in STATE_NAMES.items()}

SYMBOL = word("symbol", "only gaps of this symbol", example="BTCUSDT")
STATE = choice("state", "", tuple(_STATES), "only gaps in this state")
FROM = seconds("from", "unix seconds: gaps that touch the span from here")
TO = seconds("to", "unix seconds, exclusive: to here")
LIMIT = whole("limit", GAPS_DEFAULT, GAPS_MAX, "at most so many gaps")
CURSOR = word("cursor", "`next` of the page before; it carries the filters")


class GapRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [web.get("/api/v1/gaps", self.gaps)]

    @operation(
        "What is missing, or was",
        tag="market",
        takes=(SYMBOL, STATE, FROM, TO, LIMIT, CURSOR),
        answers={
            200: Answer("in the order in which they were noted", ref("Gaps")),
            304: Answer("the gaps are those that the client has"),
            400: "a parameter that is malformed; the message names it",
            404: "no such symbol",
            503: "the engine is still starting",
        },
    )
    async def gaps(self, request: web.Request) -> web.Response:
        """Gaps in the order in which they were noted, `limit` at a time; `next` as of /ticks.

        `symbol`, `state`, and `from`, `to` in unix seconds: gaps that touch this span, from the last record
        before them to the first behind them, or to when they were noted.
        """
        source = self._context.gaps
        if source is None:
            raise ApiError(
                503, "not_ready", "the engine is still starting, see /health/ready; try again in a moment"
            )
        limit = LIMIT.read(request.query)
        words = read_cursor(request.query, 9)
        if words is None:
            state = STATE.read(request.query)
            words = [*time_range(request.query), self._symbol_id(request), _STATES.get(state), *5 * [None]]
        from_us, to_us, symbol_id, wanted, *place = words
        after = tuple(word for word in place if word is not None)
        query = GapQuery(
            symbol_id=symbol_id,
            from_us=from_us,
            to_us=to_us,
            states=() if wanted is None else (wanted,),
            after=after if len(after) == 5 else None,
            limit=limit + 1,
        )
        found = await source.find(query)
        following = None
        if len(found) > limit:
            last = found[limit - 1]
            place = [last.opened_ns, last.symbol_id, last.stream, last.first_id, last.last_id]
            following = write_cursor(from_us, to_us, symbol_id, wanted, *place)
        named = ((self._name(gap.symbol_id), gap) for gap in found[:limit])
        listed = [gap_json(name, gap) for name, gap in named if permits(request, name)]
        body = json_bytes({"gaps": listed, "next": following})
        return await request.app[PACKER].answer(request, body, cache="no-cache")

    def _symbol_id(self, request: web.Request) -> int | None:
        name = SYMBOL.read(request.query)
        if not name:
            return None
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them")
        return symbol.id

    def _name(self, symbol_id: int) -> str:
        symbol = self._context.symbols.by_id(symbol_id)
        return symbol.symbol if symbol is not None else str(symbol_id)
