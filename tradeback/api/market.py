"""Market-data routes: symbols, latest price, bars, ticks, Enigma.

What needs the disk runs in a thread; what reads the derived state runs on the loop, where it is written.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from aiohttp import web

from tradeback.api.bars import BarsInMemory, PendingBars, series_of
from tradeback.api.context import ServingContext
from tradeback.api.errors import ApiError, json_response
from tradeback.api.params import milliseconds, one_of, read_cursor, time_range, whole_number, write_cursor
from tradeback.api.shapes import (
    DerivedSeries,
    Json,
    bars_json,
    enigma_json,
    price_at_json,
    price_json,
    symbol_json,
    ticks_json,
)
from tradeback.derive.layout import RESOLUTIONS
from tradeback.model.limits import BARS_PER_ANSWER_MAX, TICKS_PER_ANSWER_MAX
from tradeback.model.record import TRADE
from tradeback.model.symbols import Symbol
from tradeback.tape.reader import TapeReader

TICKS_DEFAULT = 500
TICKS_WINDOW_US = 3_600 * 1_000_000
"""Ticks without `from` begin this long before `to`, or before now."""
ALWAYS_US = 1 << 62
LOOK_BACK_FIRST_US = 1_000_000
LOOK_BACK_MAX_US = 10_000_000_000_000
"""116 days; the tape is kept for a week."""
LOOK_BACK_ROWS_MAX = 1 << 24

Answer = TypeVar("Answer")


class MarketRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

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

    async def symbols(self, request: web.Request) -> web.Response:
        """All symbols by id."""
        return json_response([symbol_json(symbol) for symbol in self._context.symbols])

    async def price(self, request: web.Request) -> web.Response:
        """Latest price, or with `at` (unix ms) the last trade at or before that time; see shapes."""
        symbol = self._symbol(request)
        at_ms = milliseconds(request.query, "at")
        if at_ms is not None:
            return json_response(await _in_thread(partial(self._read_price_at, symbol, at_ms)))
        state = self._derived().latest(symbol.id)
        found = price_json(symbol, state) if state is not None else None
        if found is None:
            raise _not_yet(symbol, "price")
        return json_response(found)

    async def enigma(self, request: web.Request) -> web.Response:
        """Enigma and its Fibonacci levels as of the latest trade."""
        symbol = self._symbol(request)
        found = self._derived().enigma(symbol.id)
        if found is None:
            raise _not_yet(symbol, "Enigma")
        return json_response(enigma_json(symbol, found))

    async def bars(self, request: web.Request) -> web.Response:
        """Bars, ascending, the open one included; the newest BARS_PER_ANSWER_MAX when there are more."""
        symbol = self._symbol(request)
        name = one_of(request.query, "resolution", "1m", RESOLUTIONS)
        from_us, to_us = time_range(request.query)
        begin, end = from_us or 0, ALWAYS_US if to_us is None else to_us
        memory = self._memory(symbol.id, RESOLUTIONS.index(name))
        found = await _in_thread(partial(self._read_bars, memory, begin, end))
        return json_response({"bars": found})

    async def ticks(self, request: web.Request) -> web.Response:
        """Trades in order of id, `limit` at a time; `next` is the cursor of the following page or null.

        Without `from`: the hour before `to`, or before now. A cursor carries the range it began with.
        """
        symbol = self._symbol(request)
        limit = whole_number(request.query, "limit", TICKS_DEFAULT, TICKS_PER_ANSWER_MAX)
        cursor = read_cursor(request.query, 3)
        if cursor is None:
            from_us, to_us = time_range(request.query)
            if from_us is None:
                end_us = self._context.clock.wall_ns() // 1_000 if to_us is None else to_us
                from_us = max(0, end_us - TICKS_WINDOW_US)
            cursor = [from_us, to_us, None]
        return json_response(await _in_thread(partial(self._read_ticks, symbol.id, limit, *cursor)))

    def _read_price_at(self, symbol: Symbol, at_ms: int) -> Json:
        """Look back from `at_ms` in ever longer steps, so that a busy symbol costs a second of the tape."""
        reader = self._reader()
        end_us, width_us = (at_ms + 1) * 1_000, LOOK_BACK_FIRST_US
        while end_us > 0 and width_us <= LOOK_BACK_MAX_US:
            begin_us = max(0, end_us - width_us)
            rows = reader.symbol_rows(
                symbol.id, kinds=(TRADE,), from_us=begin_us, to_us=end_us, rows_max=LOOK_BACK_ROWS_MAX
            )
            if len(rows):
                return price_at_json(symbol, rows[np.argmax(rows["id"])])
            end_us, width_us = begin_us, 10 * width_us
        raise ApiError(404, "no_trade", f"the tape holds no trade of {symbol.symbol} at or before that time")

    def _reader(self) -> TapeReader:
        if self._context.reader is None:
            raise ApiError(503, "not_ready", "the tape cannot be read yet; try again in a moment")
        return self._context.reader

    def _read_bars(self, memory: BarsInMemory, from_us: int, to_us: int) -> list[Json]:
        store = self._context.series
        rows = series_of(memory, store, from_us, min(to_us, ALWAYS_US), BARS_PER_ANSWER_MAX)
        return bars_json(rows, from_us, to_us, BARS_PER_ANSWER_MAX)

    def _read_ticks(
        self, symbol_id: int, limit: int, from_us: int | None, to_us: int | None, from_id: int | None
    ) -> Json:
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
        following = write_cursor(from_us, to_us, int(rows["id"][limit])) if more else None
        return {"ticks": ticks_json(rows[:limit]), "next": following}

    def _memory(self, symbol_id: int, resolution: int) -> BarsInMemory:
        """What memory holds of a series, all of one moment."""
        context, derived = self._context, self._derived()
        sequence = context.tape.next_sequence - 1
        in_flight = context.pending_bars() if context.pending_bars is not None else ()
        return BarsInMemory(
            symbol_id=symbol_id,
            resolution=resolution,
            opened=derived.bars_open(symbol_id, resolution),
            sequence=sequence,
            pending=(*in_flight, PendingBars(derived.closed(symbol_id, resolution), sequence)),
        )

    def _symbol(self, request: web.Request) -> Symbol:
        name = request.match_info["symbol"]
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them")
        return symbol

    def _derived(self) -> DerivedSeries:
        derived: DerivedSeries | None = self._context.derived
        if derived is None:
            raise ApiError(503, "not_ready", "the kernels are still loading; try again in a moment")
        return derived


async def _in_thread(work: Callable[[], Answer]) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(None, work)


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
