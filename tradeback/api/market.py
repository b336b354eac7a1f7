"""Market-data routes: symbols, latest price, bars, ticks, Enigma.

What needs the disk runs in a thread; what reads the derived state runs on the loop, where it is written.
"""

from functools import partial
from typing import Any

from aiohttp import web

from tradeback.api.access import permits
from tradeback.api.bar_text import objects_text
from tradeback.api.bars import Ask, BarReader, starting
from tradeback.api.context import ServingContext
from tradeback.api.describe import SAME, Answer, choice, milliseconds, operation, ref, seconds, whole, word
from tradeback.api.errors import ApiError, json_bytes, json_response
from tradeback.api.packing import PACKER, unchanged
from tradeback.api.params import read_cursor, time_range, write_cursor
from tradeback.api.price_at import price_at
from tradeback.api.shapes import (
    DerivedSeries,
    enigma_json,
    price_at_json,
    price_json,
    symbol_json,
    ticks_json,
)
from tradeback.derive.layout import NO_ID, RESOLUTIONS
from tradeback.model.limits import BARS_PER_ANSWER_MAX, TICKS_PER_ANSWER_MAX
from tradeback.model.record import TRADE
from tradeback.model.symbols import Symbol
from tradeback.tape.reader import TapeReader

TICKS_DEFAULT = 500
TICKS_WINDOW_US = 3_600 * 1_000_000
"""Ticks without `from` begin this long before `to`, or before now."""
ALWAYS_S = 1 << 42
"""Later than any bar, and in us still an int64."""
FINAL = "private, max-age=86400"
"""Bars that are closed and proved complete never change."""
LAST_TRADE_ID = "Last-Trade-Id"
"""Where bars end and a feed goes on: whoever joins the two counts later trades only."""

AT = milliseconds("at", "the last trade at or before this time, unix ms; without it the latest price")
RESOLUTION = choice("resolution", "1m", RESOLUTIONS, "length of a bar; days begin at 00:00 UTC")
FROM = seconds("from", "unix seconds, inclusive; older bars are fetched from the exchange if need be")
TO = seconds("to", "unix seconds, exclusive")
TICKS_FROM = seconds("from", "unix seconds, inclusive; without it one hour before `to`, or before now")
LIMIT = whole("limit", TICKS_DEFAULT, TICKS_PER_ANSWER_MAX, "at most so many ticks")
CURSOR = word("cursor", "`next` of the page before; it carries the range")
STARTING = "the engine is still starting, or nothing is known of the symbol yet"
UNKNOWN = "no such symbol"
MALFORMED = "a parameter that is malformed; the message names it"


class MarketRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext, bars: BarReader) -> None:
        self._context, self._bars = context, bars

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        prefix = "/api/v1/symbols"
        return [
            web.get(prefix, self.symbols),
            web.get(prefix + "/{symbol}/price", self.price),
            web.get(prefix + "/{symbol}/bars", self.bars),
            web.get(prefix + "/{symbol}/ticks", self.ticks),
            web.get(prefix + "/{symbol}/enigma", self.enigma),
        ]

    @operation("All symbols", tag="market", answers={200: Answer("by id", ref("Symbols")), 304: SAME})
    async def symbols(self, request: web.Request) -> web.Response:
        """All symbols by id, those that do not trade any more included."""
        seen = (symbol for symbol in self._context.symbols if permits(request, symbol.symbol))
        body = json_bytes([symbol_json(symbol) for symbol in seen])
        return await request.app[PACKER].answer(request, body, cache="no-cache")

    @operation(
        "Price of a symbol",
        tag="market",
        takes=(AT,),
        answers={
            200: Answer("the latest price, or with `at` the one at that time", ref("Price")),
            400: MALFORMED,
            404: "no such symbol, or no trade at or before that time",
            503: STARTING,
        },
    )
    async def price(self, request: web.Request) -> web.Response:
        """Latest price, or with `at` (unix ms) the last trade at or before that time; see shapes."""
        symbol = self._symbol(request)
        at_ms = AT.read(request.query)
        if at_ms is not None:
            found_at = await price_at(self._context, symbol, at_ms)
            return json_response(price_at_json(symbol, found_at.trade, found_at.complete))
        state = self._derived().latest(symbol.id)
        found = price_json(symbol, state) if state is not None else None
        if found is None:
            raise _not_yet(symbol, "price")
        return json_response(found)

    @operation(
        "Enigma of a symbol",
        tag="market",
        answers={
            200: Answer("level and Fibonacci levels", ref("Enigma")),
            404: "no such symbol, or Enigma is switched off",
            503: STARTING,
        },
    )
    async def enigma(self, request: web.Request) -> web.Response:
        """Enigma and its Fibonacci levels as of the latest trade."""
        features = self._context.config.feature
        _wants(features.enigma_enabled, "Enigma levels", "enigma_enabled")
        symbol = self._symbol(request)
        found = self._derived().enigma(symbol.id)
        if found is None:
            raise _not_yet(symbol, "Enigma")
        return json_response(enigma_json(symbol, found))

    @operation(
        "Bars of a symbol",
        tag="market",
        takes=(RESOLUTION, FROM, TO),
        answers={
            200: Answer(
                "ascending, the running bar included",
                ref("Bars"),
                headers={"ETag": "of these bars", LAST_TRADE_ID: "highest trade id in the last of them"},
            ),
            304: Answer("the bars are those that the client has"),
            400: MALFORMED,
            404: "no such symbol, or bars are switched off",
            503: STARTING,
        },
    )
    async def bars(self, request: web.Request) -> web.Response:
        """Bars, ascending, the running one included; the newest BARS_PER_ANSWER_MAX when there are more.

        With `from`, what the store lacks is fetched from the exchange; `loading` is true while not all came.
        """
        features = self._context.config.feature
        _wants(features.aggregation_enabled, "bars", "aggregation_enabled")
        symbol = self._symbol(request)
        resolution = RESOLUTIONS.index(RESOLUTION.read(request.query))
        from_us, to_us = time_range(request.query)
        span_s = _seconds_up(from_us or 0), ALWAYS_S if to_us is None else _seconds_up(to_us)
        ask = Ask(symbol, resolution, *span_s, BARS_PER_ANSWER_MAX, deep=from_us is not None)
        window = await self._bars.window(ask)
        cache = FINAL if window.is_final and window.count else "no-cache"
        loading = not window.settled
        tag = f"b-{window.tag()}-{loading:d}"
        body = b""
        if not unchanged(request, tag):
            (texts,) = await self._bars.text(window, objects_text)
            body = b'{"bars":[%s],"loading":%s}' % (b",".join(texts), b"true" if loading else b"false")
            if from_us is None and to_us is None and self._context.share_bars is not None:
                self._context.share_bars(symbol.symbol, RESOLUTIONS[resolution], body)
        response = await request.app[PACKER].answer(request, body, tag=tag, cache=cache)
        if window.last_id > NO_ID:
            response.headers[LAST_TRADE_ID] = str(window.last_id)
        return response

    @operation(
        "Single trades of a symbol",
        tag="market",
        takes=(TICKS_FROM, TO, LIMIT, CURSOR),
        answers={
            200: Answer("in order of id, from the tape", ref("Ticks")),
            304: Answer("the ticks are those that the client has"),
            400: MALFORMED,
            404: UNKNOWN,
            503: STARTING,
        },
    )
    async def ticks(self, request: web.Request) -> web.Response:
        """Trades in order of id, `limit` at a time; `next` is the cursor of the following page or null.

        Without `from`: the hour before `to`, or before now. A cursor carries the range it began with.
        """
        symbol = self._symbol(request)
        limit = LIMIT.read(request.query)
        cursor = read_cursor(request.query, 3)
        if cursor is None:
            from_us, to_us = time_range(request.query)
            if from_us is None:
                end_us = self._context.clock.wall_ns() // 1_000 if to_us is None else to_us
                from_us = max(0, end_us - TICKS_WINDOW_US)
            cursor = [from_us, to_us, None]
        body = await self._context.reads.run(partial(self._read_ticks, symbol.id, limit, *cursor))
        return await request.app[PACKER].answer(request, body, cache="no-cache")

    def _reader(self) -> TapeReader:
        if self._context.reader is None:
            raise ApiError(503, "not_ready", "the tape cannot be read yet; try again in a moment")
        return self._context.reader

    def _read_ticks(
        self, symbol_id: int, limit: int, from_us: int | None, to_us: int | None, from_id: int | None
    ) -> bytes:
        rows = self._reader().symbol_rows(
            symbol_id,
            kinds=(TRADE,),
            from_us=from_us,
            to_us=to_us,
            from_id=from_id,
            rows_max=limit + 1,
            by_id=True,
        )
        more = len(rows) > limit
        # Right behind the last one: what is repaired between two pages is on the next.
        following = write_cursor(from_us, to_us, int(rows["id"][limit - 1]) + 1) if more else None
        return json_bytes({"ticks": ticks_json(rows[:limit]), "next": following})

    def _symbol(self, request: web.Request) -> Symbol:
        name = request.match_info["symbol"]
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them")
        return symbol

    def _derived(self) -> DerivedSeries:
        derived: DerivedSeries | None = self._context.derived
        if derived is None:
            raise starting()
        return derived


def _wants(enabled: bool, what: str, key: str) -> None:
    """Refuse what the configuration switches off, naming the switch."""
    if not enabled:
        switch = f"feature.{key} (FEATURE_{key.upper()})"
        raise ApiError(404, "disabled", f"{what} are switched off here: {switch} is false")


def _seconds_up(time_us: int) -> int:
    """The first whole second that is not before; slots of bars are whole seconds."""
    return -(-time_us // 1_000_000)


def _not_yet(symbol: Symbol, what: str) -> ApiError:
    return ApiError(503, "not_ready", f"no {what} of {symbol.symbol} is known yet: no trade has come")


def listing(app: web.Application) -> list[dict[str, Any]]:
    """All routes of an application: method and path."""
    found = []
    for resource in app.router.resources():
        for route in resource:
            if route.method != "HEAD":
                found.append({"method": route.method, "path": resource.canonical})
    return found
