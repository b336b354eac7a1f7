"""The exchange's REST: public market data, inside its weight limit, with its errors as ours.

Paths, weights and error shapes: binance.md section 7.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp
import orjson

from tradeback.derive import klines as kline_reader
from tradeback.derive.layout import Bars
from tradeback.exchange.budget import Budget
from tradeback.model.clock import Clock
from tradeback.model.errors import ExchangeError, RateLimited
from tradeback.model.limits import REST_WEIGHT_PER_MINUTE
from tradeback.model.symbols import Symbol
from tradeback.stores.ports import SymbolRecord

_WEIGHTS = {
    "time": 1,
    "exchangeInfo": 20,
    "klines": 2,
    "historicalTrades": 25,
    "aggTrades": 4,
    "ticker/bookTicker": 2,
}
_NO_SUCH_SYMBOL = (-1121, -1100)
"""Invalid symbol, and characters that no symbol has."""
_MICROSECONDS = {"X-MBX-TIME-UNIT": "MICROSECOND"}
BODY_BYTES_MAX = 64 * 1024 * 1024
"""exchangeInfo of all symbols has a few MB; anything beyond this is no answer to be read."""
TIMEOUT_S = 20.0
RETRY_AFTER_S = 60.0
"""When the exchange asks to wait without saying how long: its limits are per minute."""
RETRY_AFTER_MAX_S = 3 * 86_400.0
"""Its longest ban."""


class NoExchange(ExchangeError):
    """The address answers, but not as an exchange: trying again will not help."""


class Rest:
    """One session. Made on the loop; `close` it.

    Every request raises RateLimited for 429 and 418, NoExchange for an answer that no exchange gives, and
    ExchangeError for the rest: errors by their status and code, status 0 when nothing answers.
    """

    def __init__(self, endpoint: str, clock: Clock) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._clock = clock
        self._budget = Budget(REST_WEIGHT_PER_MINUTE, 60.0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=10.0)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "tradeback"})
        self.requests = 0
        self.errors = 0

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    async def time_us(self) -> int:
        """The exchange's clock, us."""
        answer = await self._get("time", {})
        if not isinstance(answer, dict) or not isinstance(answer.get("serverTime"), int):
            raise NoExchange(f"{self.endpoint} does not tell the time: it is no exchange")
        return int(answer["serverTime"]) * 1000

    async def symbols(self) -> list[SymbolRecord]:
        """Every symbol the exchange knows, with its grid."""
        answer = await self._get("exchangeInfo", {"showPermissionSets": "false"})
        if not isinstance(answer, dict) or not isinstance(answer.get("symbols"), list):
            raise NoExchange(f"{self.endpoint} has no exchangeInfo: it is no exchange")
        try:
            return [_record(entry) for entry in answer["symbols"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise NoExchange(f"{self.endpoint} lists symbols in a form that is not the exchange's") from error

    async def symbol(self, name: str) -> SymbolRecord | None:
        """One symbol with its grid, None when the exchange does not have it. As heavy as all of them, but
        a small answer, which holds nobody up."""
        try:
            answer = await self._get("exchangeInfo", {"symbol": name, "showPermissionSets": "false"})
            found = [_record(entry) for entry in answer["symbols"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise NoExchange(f"{self.endpoint} describes {name} as no exchange does") from error
        except ExchangeError as error:
            if error.status == 400 and error.code in _NO_SUCH_SYMBOL:
                return None
            raise
        return next((record for record in found if record.symbol == name), None)

    async def klines(
        self,
        symbol: Symbol,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int,
    ) -> Bars:
        """Klines by open time, start and end inclusive, ascending, as EXCHANGE bars without symbol and
        resolution; volumes in the symbol's lots. They are read in a thread that leaves the loop alone."""
        query = {"symbol": symbol.symbol, "interval": interval, "limit": str(limit)}
        if start_ms is not None:
            query["startTime"] = str(start_ms)
        if end_ms is not None:
            query["endTime"] = str(end_ms)
        body = await self._ask("klines", query)
        try:
            return await asyncio.to_thread(kline_reader.read, body, symbol.lot_digits)
        except ValueError as error:
            self.errors += 1
            words = f"{self.endpoint} answers klines of {symbol.symbol} that are none: {error}"
            raise ExchangeError(words) from error

    async def page(self, path: Literal["historicalTrades", "aggTrades"], query: Mapping[str, str]) -> bytes:
        """A page of trades or aggregates as JSON, times in us; `repair_pages` reads it."""
        return await self._ask(path, query, _MICROSECONDS)

    async def best_quote(self, symbol: str) -> bytes:
        """Best bid and ask of a symbol as the exchange writes them; they have no id and no time."""
        return await self._ask("ticker/bookTicker", {"symbol": symbol})

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        """The JSON of an answer."""
        body = await self._ask(path, query)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            self.errors += 1
            raise NoExchange(
                f"{self.endpoint}/api/v3/{path} answered no JSON: it is no exchange", status=200
            ) from error

    async def _ask(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an answer with status 200, when the weight limit has let it be asked for."""
        wait_s = self._budget.take(self._clock.steady_ns(), _WEIGHTS[path])
        while wait_s:
            # The exchange may ask for more patience while this request waits for its turn.
            await asyncio.sleep(wait_s)
            wait_s = self._budget.blocked_s(self._clock.steady_ns())
        self.requests += 1
        address = f"{self.endpoint}/api/v3/{path}"
        try:
            async with self._session.get(address, params=query, headers=headers) as response:
                body = await _read(response)
                if response.status != 200:
                    raise self._refusal(path, response, body)
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.errors += 1
            words = str(error) or type(error).__name__
            raise ExchangeError(f"{self.endpoint} cannot be reached: {words}") from error
        except ExchangeError:
            self.errors += 1
            raise

    def _refusal(self, path: str, response: aiohttp.ClientResponse, body: bytes) -> ExchangeError:
        """What an answer with another status says."""
        if response.status in (418, 429):
            wait_s = retry_after_s(response.headers.get("Retry-After"), RETRY_AFTER_S)
            self._budget.block(self._clock.steady_ns(), wait_s)
            return RateLimited(
                f"the exchange asks to wait {wait_s:g} s ({response.status})",
                status=response.status,
                retry_after_s=wait_s,
            )
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        code = answer.get("code") if isinstance(answer, dict) else None
        words = f" {code} {str(answer['msg'])[:200]}" if code is not None and "msg" in answer else ""
        return ExchangeError(
            f"{self.endpoint}/api/v3/{path} answered {response.status}{words}",
            status=response.status,
            code=code if isinstance(code, int) else 0,
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body; ExchangeError when it is longer than any answer can be."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise ExchangeError(f"{response.url.origin()} answers without end", status=response.status)
    return b"".join(parts)


def retry_after_s(header: str | None, otherwise: float) -> float:
    """Seconds of a Retry-After header, at least 1; `otherwise` when it is missing or no finite number."""
    try:
        seconds = float(header or "")
    except ValueError:
        return otherwise
    return min(max(1.0, seconds), RETRY_AFTER_MAX_S) if seconds == seconds else otherwise


def _record(entry: Mapping[str, Any]) -> SymbolRecord:
    """One symbol of exchangeInfo. Filters that are missing (old symbols) leave the finest grid."""
    filters = {part.get("filterType"): part for part in entry.get("filters", ())}
    price = filters.get("PRICE_FILTER", {})
    lot = filters.get("LOT_SIZE", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    return SymbolRecord(
        symbol=str(entry["symbol"]),
        base_currency=str(entry.get("baseAsset", "")),
        quote_currency=str(entry.get("quoteAsset", "")),
        is_active=entry.get("status") == "TRADING",
        tick_size=_grid(price.get("tickSize")),
        step_size=_grid(lot.get("stepSize")),
        min_notional=str(notional.get("minNotional", "0")),
        min_quantity=str(lot.get("minQty", "0")),
        max_quantity=str(lot.get("maxQty", "0")),
    )


def _grid(step: Any) -> str:
    """A step of zero switches the rule off: then the exchange's eight decimals are the grid."""
    text = str(step or "0")
    return text if text.strip("0.") else "0.00000001"
