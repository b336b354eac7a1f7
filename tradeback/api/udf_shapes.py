"""TradingView's names for what we have: resolutions, grids, symbols, errors (udf.md)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any, Final

from aiohttp import web

from tradeback.api.describe import Answer, Param, ref
from tradeback.api.errors import ApiError, json_response
from tradeback.derive.layout import RESOLUTION_S
from tradeback.model.symbols import Symbol, SymbolTable

Json = dict[str, Any]

EXCHANGE: Final = "BINANCE"
TYPE: Final = "crypto"
SERVED: Final = ("1S", "1", "5", "15", "60", "240", "1D")
"""By index of our own resolutions: those that /history answers."""
OFFERED: Final = (*SERVED, "1W", "1M")
"""Those in the menu: the chart makes weeks and months out of days."""
BARS_MAX: Final = 20_000
SECONDS_MAX: Final = 1 << 42
"""Later than any bar, and in us still an int64."""
_SHORT: Final = {"S": "1S", "D": "1D", "W": "1W", "M": "1M"}
DAY_S: Final = 86_400
YEARS_END_S: Final = 253_402_300_799
"""The last second of the year 9999, beyond which there is no calendar here."""
_MONDAY_S: Final = 4 * DAY_S
"""The first Monday of 1970 was the fifth of January."""


class Refusal(Exception):
    """A domain answer with s:error: status 200, for the adapter reads nothing but the body."""


def refusal(message: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as the adapter understands it; the text is never empty."""
    response = json_response({"s": "error", "errmsg": message or "it did not work"}, status)
    response.headers.update(headers or {})
    return response


UNKNOWN_SYMBOL: Final = "unknown_symbol"
"""This very text brings up the chart's own picture for a symbol that is none."""
ERRORS: Final = {
    400: Answer("a parameter that is malformed", ref("UdfError")),
    401: Answer("a session is needed", ref("UdfError")),
    403: Answer("this session may not see it", ref("UdfError")),
    429: Answer("too many requests; Retry-After says when to come again", ref("UdfError")),
    503: Answer("the engine is starting, or older bars are being loaded", ref("UdfError")),
}


# Symbols.


def grid(step: str) -> tuple[int, int]:
    """(pricescale, minmov) of a tick given as a decimal string: the step is minmov / pricescale."""
    exact = Decimal(step).normalize()
    exponent = exact.as_tuple().exponent
    digits = max(0, -exponent) if isinstance(exponent, int) else 0
    return 10**digits, int(exact.scaleb(digits))


def ticker_of(symbol: Symbol) -> str:
    """What names it in all later requests."""
    return f"{EXCHANGE}:{symbol.symbol}"


def find(symbols: SymbolTable, text: str) -> Symbol:
    """The symbol of a name or ticker, whatever its case. Refusal for one that is unknown."""
    prefix, colon, name = text.strip().rpartition(":")
    symbol = symbols.find(name) if not colon or prefix.upper() == EXCHANGE else None
    if symbol is None:
        raise Refusal(UNKNOWN_SYMBOL)
    return symbol


def symbol_info(symbol: Symbol) -> Json:
    """The answer of /symbols. It must not hold `s`."""
    scale, minmov = grid(symbol.tick_size)
    return {
        "name": symbol.symbol,
        "ticker": ticker_of(symbol),
        "description": symbol.name,
        "type": TYPE,
        "exchange": EXCHANGE,
        "listed_exchange": EXCHANGE,
        "session": "24x7",
        "timezone": "Etc/UTC",
        "minmov": minmov,
        "pricescale": scale,
        "minmove2": 0,
        "fractional": False,
        "has_intraday": True,
        "intraday_multipliers": [name for name in SERVED if name.isdigit()],
        "has_daily": True,
        "daily_multipliers": ["1"],
        "has_weekly_and_monthly": False,
        "has_seconds": True,
        "seconds_multipliers": ["1"],
        "has_ticks": False,
        "has_empty_bars": False,
        "visible_plots_set": "ohlcv",
        "volume_precision": symbol.quantity_precision,
        "supported_resolutions": list(OFFERED),
        "data_status": "streaming",
        "format": "price",
    }


# Parameters.


def resolution_index(text: str) -> int:
    """The index of a resolution that /history answers. Refusal for others."""
    name = _SHORT.get(text, text)
    if name not in SERVED:
        served = ", ".join(SERVED)
        raise Refusal(f"resolution {text[:20]!r} is not served here; there are {served}")
    return SERVED.index(name)


def slot_start(text: str, time_s: int) -> int:
    """When the bar of any offered resolution began that holds a time. Refusal for others."""
    name = _SHORT.get(text, text)
    if name == "1W":
        return time_s - (time_s - _MONDAY_S) % (7 * DAY_S)
    if name == "1M":
        first = datetime.fromtimestamp(min(time_s, YEARS_END_S), UTC).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        return int(first.timestamp())
    return time_s - time_s % RESOLUTION_S[resolution_index(text)]


def number(name: str, about: str, *, required: bool = False, up: bool = True) -> Param[int | None]:
    """A number as charts send them: negative, fractional, with exponent. Rounded up (or down) and kept
    within 0 and SECONDS_MAX; None when it is left away."""
    schema: Json = {"type": "number"}
    return Param(name, about, schema, lambda query: _read_number(query, name, required, up), required)


def _read_number(query: Mapping[str, str], name: str, required: bool, up: bool) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        if required:
            raise ApiError(400, "bad_request", f"{name} is missing")
        return None
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ApiError(400, "bad_request", f"{name} is {text[:40]!r}; it must be a number")
    if value <= 0:
        return 0
    if value >= SECONDS_MAX:
        return SECONDS_MAX
    return int(value.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))
