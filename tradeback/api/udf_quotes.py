"""UDF's /quotes and /time (udf.md 7)."""

from typing import Any

import numpy as np
from aiohttp import web

from tradeback.api.bars import Ask, BarReader
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref, word
from tradeback.api.errors import ApiError, json_response
from tradeback.api.shapes import price_json
from tradeback.api.udf_shapes import ERRORS, EXCHANGE, UNKNOWN_SYMBOL, Refusal, find, ticker_of
from tradeback.derive.bars import volumes
from tradeback.derive.layout import Bars, resolution_index
from tradeback.model.symbols import Symbol

SYMBOLS_MAX = 200
DAY = resolution_index("1d")
SYMBOLS = word("symbols", "tickers, separated by commas", example="BINANCE:BTCUSDT", required=True)
Json = dict[str, Any]


class UdfQuotes:
    """The handlers, over one context and the reader of bars."""

    def __init__(self, context: ServingContext, bars: BarReader) -> None:
        self._context, self._bars = context, bars

    @operation(
        "Prices of several symbols",
        tag="udf",
        takes=(SYMBOLS,),
        answers={200: Answer("one entry for each, in the order asked", ref("UdfQuotes")), **ERRORS},
    )
    async def quotes(self, request: web.Request) -> web.Response:
        """Last price, best bid and ask, and the day so far; what is not known is left out."""
        names = [name for name in SYMBOLS.read(request.query).split(",") if name]
        if not names:
            raise ApiError(400, "bad_request", "symbols is empty; name some, separated by commas")
        if len(names) > SYMBOLS_MAX:
            raise ApiError(400, "bad_request", f"symbols has {len(names)} names; {SYMBOLS_MAX} at the most")
        return json_response({"s": "ok", "d": [await self._quote(name) for name in names]})

    @operation(
        "The server's clock",
        tag="udf",
        answers={200: Answer("unix seconds, a bare number", {"type": "integer"}, "text/plain")},
    )
    async def time(self, request: web.Request) -> web.Response:
        """Unix seconds as bare text."""
        now_s = self._context.clock.wall_ns() // 1_000_000_000
        return web.Response(text=str(now_s), headers={"Cache-Control": "no-store"})

    async def _quote(self, name: str) -> Json:
        try:
            symbol = find(self._context.symbols, name)
        except Refusal:
            return {"s": "error", "n": name, "v": {}, "errmsg": UNKNOWN_SYMBOL}
        state = self._context.derived.latest(symbol.id) if self._context.derived is not None else None
        price = price_json(symbol, state) if state is not None else None
        if price is None or price["price"] is None:
            return {"s": "error", "n": name, "v": {}, "errmsg": "no trade of it has come yet"}
        return {"s": "ok", "n": name, "v": quote_json(symbol, price, await self._days(symbol))}

    async def _days(self, symbol: Symbol) -> Bars | None:
        """The daily bars of today and yesterday, as far as they are known."""
        if not self._context.config.feature.aggregation_enabled:
            return None
        ask = Ask(symbol, DAY, 1 << 41, 1 << 41, 2, countback=2, deep=False)
        return (await self._bars.window(ask, wait_s=0.0)).rows()


def quote_json(symbol: Symbol, price: Json, days: Bars | None) -> Json:
    """The values of a quote; bid and ask of zero, and days that are not known, are left out."""
    found: Json = {
        "lp": price["price"],
        "short_name": symbol.symbol,
        "exchange": EXCHANGE,
        "description": symbol.name,
        "original_name": ticker_of(symbol),
    }
    if price["bid"] and price["ask"]:
        found |= {"bid": price["bid"], "ask": price["ask"], "spread": price["ask"] - price["bid"]}
    if days is None or not len(days):
        return found
    today = days[-1]
    found |= {
        "open_price": float(today["open"]),
        "high_price": float(today["high"]),
        "low_price": float(today["low"]),
        "volume": float(volumes(days)[-1]),
    }
    if len(days) > 1 and np.isfinite(days["close"][-2]) and days["close"][-2] > 0:
        before = float(days["close"][-2])
        change = price["price"] - before
        found |= {"prev_close_price": before, "ch": change, "chp": 100.0 * change / before}
    return found
