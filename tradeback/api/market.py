"""Market-data routes: symbols, latest price, bars, ticks, Enigma.

What needs the disk runs in a thread; what reads the derived state runs on the loop, where it is written.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from aiohttp import web

from tradeback.api.context import BarSeries, ServingContext
from tradeback.api.errors import ApiError, json_bytes, json_response, raw_response
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
from tradeback.derive.bars import is_whole
from tradeback.derive.layout import RESOLUTIONS
from tradeback.model.errors import TradebackError
from tradeback.model.limits import BARS_PER_ANSWER_MAX, TICKS_PER_ANSWER_MAX
from tradeback.model.record import TRADE
from tradeback.model.symbols import Symbol
from tradeback.tape.reader import TapeReader

TICKS_DEFAULT = 500
TICKS_WINDOW_US = 3_600 * 1_000_000
"""Ticks without `from` begin this long before `to`, or before now."""
ALWAYS_S = 1 << 42
"""Later than any bar, and in us still an int64."""
LOOK_BACK_FIRST_US = 1_000_000
LOOK_BACK_MAX_US = 10_000_000_000_000
"""116 days; the tape is kept for a week."""
LOOK_BACK_ROWS_MAX = 1 << 24
READINGS_MAX = 3
"""How often a price is looked up anew when trades are repaired meanwhile."""

Answer = TypeVar("Answer")

_log = logging.getLogger("tradeback.api")


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
            return json_response(await self._price_at(symbol, at_ms))
        state = self._derived().latest(symbol.id)
        found = price_json(symbol, state) if state is not None else None
        if found is None:
            raise _not_yet(symbol, "price")
        return json_response(found)

    async def enigma(self, request: web.Request) -> web.Response:
        """Enigma and its Fibonacci levels as of the latest trade."""
        features = self._context.config.feature
        _wants(features.enigma_enabled, "Enigma levels", "enigma_enabled")
        symbol = self._symbol(request)
        found = self._derived().enigma(symbol.id)
        if found is None:
            raise _not_yet(symbol, "Enigma")
        return json_response(enigma_json(symbol, found))

    async def bars(self, request: web.Request) -> web.Response:
        """Bars, ascending, the open one included; the newest BARS_PER_ANSWER_MAX when there are more."""
        features = self._context.config.feature
        _wants(features.aggregation_enabled, "bars", "aggregation_enabled")
        symbol = self._symbol(request)
        name = one_of(request.query, "resolution", "1m", RESOLUTIONS)
        from_us, to_us = time_range(request.query)
        span_s = _seconds_up(from_us or 0), ALWAYS_S if to_us is None else _seconds_up(to_us)
        ask = symbol.id, RESOLUTIONS.index(name), *span_s, BARS_PER_ANSWER_MAX
        ledger = self._context.gaps.ledger if self._context.gaps is not None else None
        fills = ledger.fills if ledger is not None else 0
        try:
            rows, complete = await self._series().bars(*ask, newest=True)
        except TradebackError as error:
            _log.warning("bars of %s cannot be read: %s", symbol.symbol, error)
            raise ApiError(503, "not_ready", "bars cannot be read now; try again in a moment") from error
        if ledger is not None and ledger.fills == fills:
            # The ledger proves more than the neighbours among the bars do: where a bar begins with klines,
            # and at the edges of the answer. Not if trades came meanwhile that these bars may lack.
            complete = complete | is_whole(rows) & ledger.proved(symbol.id, rows["first_id"], rows["last_id"])
        return raw_response(await _in_thread(lambda: json_bytes({"bars": bars_json(rows, complete)})))

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
        return raw_response(await _in_thread(partial(self._read_ticks, symbol.id, limit, *cursor)))

    async def _price_at(self, symbol: Symbol, at_ms: int) -> Json:
        """The last trade up to a time. It is complete when the one with the next id is on the tape: that
        came later, or it would be the answer. So the newest trade of a symbol is never proved."""
        read = partial(self._read_price_at, symbol, at_ms)
        if self._context.gaps is None:
            return price_at_json(symbol, await _in_thread(read), False)
        ledger = self._context.gaps.ledger
        fills = -1
        for _ in range(READINGS_MAX):
            if ledger.fills == fills:
                break
            fills = ledger.fills
            trade = await _in_thread(read)
        number = int(trade["id"])
        stable = ledger.fills == fills  # else a trade that was repaired meanwhile may be the right one
        complete = stable and ledger.holds(symbol.id, number) and ledger.holds(symbol.id, number + 1)
        return price_at_json(symbol, trade, complete)

    def _read_price_at(self, symbol: Symbol, at_ms: int) -> np.void:
        """Look back from `at_ms` in ever longer steps, so that a busy symbol costs a second of the tape."""
        reader = self._reader()
        end_us, width_us = (at_ms + 1) * 1_000, LOOK_BACK_FIRST_US
        while end_us > 0 and width_us <= LOOK_BACK_MAX_US:
            begin_us = max(0, end_us - width_us)
            rows = reader.symbol_rows(
                symbol.id, kinds=(TRADE,), from_us=begin_us, to_us=end_us, rows_max=LOOK_BACK_ROWS_MAX
            )
            if len(rows):
                found: np.void = rows[np.argmax(rows["id"])]
                return found
            end_us, width_us = begin_us, 10 * width_us
        raise ApiError(404, "no_trade", f"the tape holds no trade of {symbol.symbol} at or before that time")

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
        following = write_cursor(from_us, to_us, int(rows["id"][limit])) if more else None
        return json_bytes({"ticks": ticks_json(rows[:limit]), "next": following})

    def _symbol(self, request: web.Request) -> Symbol:
        name = request.match_info["symbol"]
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them")
        return symbol

    def _series(self) -> BarSeries:
        series: BarSeries | None = self._context.series
        if series is None:
            raise ApiError(
                503, "not_ready", "the engine is still starting, see /health/ready; try again in a moment"
            )
        return series

    def _derived(self) -> DerivedSeries:
        derived: DerivedSeries | None = self._context.derived
        if derived is None:
            raise ApiError(
                503, "not_ready", "the engine is still starting, see /health/ready; try again in a moment"
            )
        return derived


def _wants(enabled: bool, what: str, key: str) -> None:
    """Refuse what the configuration switches off, naming the switch."""
    if not enabled:
        switch = f"feature.{key} (FEATURE_{key.upper()})"
        raise ApiError(404, "disabled", f"{what} are switched off here: {switch} is false")


def _seconds_up(time_us: int) -> int:
    """The first whole second that is not before; slots of bars are whole seconds."""
    return -(-time_us // 1_000_000)


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
