"""UDF's /config, /symbols and /search: what the chart may offer and what a symbol is (udf.md 2 and 3)."""

from aiohttp import web

from tradeback.api.access import permits
from tradeback.api.context import ServingContext
from tradeback.api.describe import SAME, Answer, operation, ref, whole, word
from tradeback.api.errors import json_bytes, json_response
from tradeback.api.packing import PACKER
from tradeback.api.udf_shapes import ERRORS, EXCHANGE, OFFERED, TYPE, find, symbol_info, ticker_of
from tradeback.model.symbols import Symbol

SEARCH_DEFAULT = 30
SEARCH_MAX = 1_000
MINUTE = "private, max-age=60"
"""A new tick or symbol shows within a minute."""

SYMBOL = word("symbol", "name or ticker, in any case", example="BINANCE:BTCUSDT", required=True)
QUERY = word("query", "what the user typed; empty: everything", example="BTC")
KIND = word("type", "only symbols of this type; empty: all", example=TYPE)
FROM_EXCHANGE = word("exchange", "only symbols of this exchange; empty: all", example=EXCHANGE)
LIMIT = whole("limit", SEARCH_DEFAULT, SEARCH_MAX, "at most so many")

CONFIG = {
    "supports_search": True,
    "supports_group_request": False,
    "supports_marks": True,
    "supports_timescale_marks": True,
    "supports_time": True,
    "supported_resolutions": list(OFFERED),
    "exchanges": [
        {"value": "", "name": "All exchanges", "desc": ""},
        {"value": EXCHANGE, "name": EXCHANGE, "desc": "Binance Spot"},
    ],
    "symbols_types": [{"name": "All types", "value": ""}, {"name": "Crypto", "value": TYPE}],
}


class UdfSymbols:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

    @operation(
        "What this datafeed can do",
        tag="udf",
        answers={200: Answer("the configuration", ref("UdfConfig")), 304: SAME},
    )
    async def config(self, request: web.Request) -> web.Response:
        """Which endpoints there are, and the resolutions of the menu."""
        return await request.app[PACKER].answer(request, json_bytes(CONFIG), cache=MINUTE)

    @operation(
        "One symbol",
        tag="udf",
        takes=(SYMBOL,),
        answers={
            200: Answer("the symbol; for one that is unknown s:error", ref("UdfSymbolOrError")),
            304: SAME,
            **ERRORS,
        },
    )
    async def symbols(self, request: web.Request) -> web.Response:
        """What the chart must know to draw it."""
        symbol = find(self._context.symbols, SYMBOL.read(request.query))
        return await request.app[PACKER].answer(request, json_bytes(symbol_info(symbol)), cache=MINUTE)

    @operation(
        "Symbols that fit",
        tag="udf",
        takes=(QUERY, KIND, FROM_EXCHANGE, LIMIT),
        answers={200: Answer("a bare array, the best fit first", ref("UdfFound")), **ERRORS},
    )
    async def search(self, request: web.Request) -> web.Response:
        """Those whose name begins with the query first, then those that contain it."""
        query = request.query
        limit, wanted = LIMIT.read(query), QUERY.read(query).strip().upper()
        kind, exchange = KIND.read(query).lower(), FROM_EXCHANGE.read(query).upper()
        if kind not in ("", TYPE) or exchange not in ("", EXCHANGE):
            return json_response([])
        ranked = [
            (rank, symbol.symbol, symbol)
            for symbol in self._context.symbols
            if symbol.is_active and permits(request, symbol.symbol)
            if (rank := fit(symbol, wanted)) is not None
        ]
        ranked.sort(key=lambda entry: entry[:2])
        return json_response([found_json(symbol) for _, _, symbol in ranked[:limit]])


def fit(symbol: Symbol, wanted: str) -> int | None:
    """How well a symbol fits an upper-cased text, 0 best; None when it does not."""
    names = (symbol.symbol.upper(), ticker_of(symbol).upper(), symbol.name.upper())
    if wanted in names:
        return 0
    if any(name.startswith(wanted) for name in names):
        return 1
    return 2 if any(wanted in name for name in names) else None


def found_json(symbol: Symbol) -> dict[str, str]:
    """One line of the search."""
    return {
        "symbol": symbol.symbol,
        "full_name": ticker_of(symbol),
        "description": symbol.name,
        "exchange": EXCHANGE,
        "ticker": ticker_of(symbol),
        "type": TYPE,
    }
