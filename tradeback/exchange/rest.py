"""The exchange's REST: public market data, inside its weight limit, with its errors as ours.

Paths, weights and error shapes: binance.md section 7.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from tradeback.exchange.budget import Budget
from tradeback.model.errors import ExchangeError, RateLimited
from tradeback.model.limits import REST_WEIGHT_PER_MINUTE
from tradeback.stores.ports import SymbolRecord

_WEIGHTS = {"time": 1, "exchangeInfo": 20, "klines": 2}
BODY_BYTES_MAX = 64 * 1024 * 1024
"""exchangeInfo of all symbols has a few MB; anything beyond this is no answer to be read."""
TIMEOUT_S = 20.0


class Rest:
    """One session. Made on the loop; `close` it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
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
            raise ExchangeError(f"{self.endpoint} does not tell the time: is it Binance's REST?")
        return int(answer["serverTime"]) * 1000

    async def symbols(self) -> list[SymbolRecord]:
        """Every symbol the exchange knows, with its grid."""
        answer = await self._get("exchangeInfo", {"showPermissionSets": "false"})
        if not isinstance(answer, dict) or not isinstance(answer.get("symbols"), list):
            raise ExchangeError(f"{self.endpoint} has no exchangeInfo: is it Binance's REST?")
        return [_record(entry) for entry in answer["symbols"]]

    async def klines(
        self,
        symbol: str,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int,
    ) -> Sequence[Any]:
        """Klines by open time, start and end inclusive, ascending; each an array of twelve."""
        query = {"symbol": symbol, "interval": interval, "limit": str(limit)}
        if start_ms is not None:
            query["startTime"] = str(start_ms)
        if end_ms is not None:
            query["endTime"] = str(end_ms)
        answer = await self._get("klines", query)
        if not isinstance(answer, list):
            raise ExchangeError(f"klines of {symbol}: not a list")
        return answer

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        wait_s = self._budget.take(time.monotonic_ns(), _WEIGHTS[path])
        if wait_s:
            await asyncio.sleep(wait_s)
        self.requests += 1
        try:
            async with self._session.get(f"{self.endpoint}/api/v3/{path}", params=query) as response:
                body = await response.content.read(BODY_BYTES_MAX)
                while not response.content.at_eof() and len(body) < BODY_BYTES_MAX:
                    body += await response.content.read(BODY_BYTES_MAX - len(body))
                return self._answer(path, response, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.errors += 1
            words = str(error) or type(error).__name__
            raise ExchangeError(f"{self.endpoint} cannot be reached: {words}") from error
        except ExchangeError:
            self.errors += 1
            raise

    def _answer(self, path: str, response: aiohttp.ClientResponse, body: bytes) -> Any:
        if response.status in (418, 429):
            wait_s = _seconds(response.headers.get("Retry-After"))
            self._budget.block(time.monotonic_ns(), wait_s)
            raise RateLimited(
                f"the exchange asks to wait {wait_s:g} s ({response.status})",
                status=response.status,
                retry_after_s=wait_s,
            )
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if response.status != 200 or answer is None:
            code = answer.get("code", 0) if isinstance(answer, dict) else 0
            words = f" {code} {answer.get('msg')}" if isinstance(answer, dict) else ""
            raise ExchangeError(
                f"{self.endpoint}/api/v3/{path} answered {response.status}{words}",
                status=response.status,
                code=code if isinstance(code, int) else 0,
            )
        return answer


def _seconds(header: str | None) -> float:
    try:
        return max(1.0, float(header or 60))
    except ValueError:
        return 60.0


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
