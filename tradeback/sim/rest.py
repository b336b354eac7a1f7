"""REST on aiohttp: weights, headers, errors around the pure endpoints."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from math import ceil

import orjson
from aiohttp import web

from tradeback.model.clock import Clock
from tradeback.sim.book import Source
from tradeback.sim.config import SimConfig
from tradeback.sim.faults import RestAnswer
from tradeback.sim.rest_api import Context, Hides
from tradeback.sim.rest_query import Query, RestError
from tradeback.sim.rest_tickers import ALL_ENDPOINTS
from tradeback.sim.weights import Verdict, Weights

PREFIX = "/api/v3/"
ADDRESSES_MAX = 10_000
SLICE_NS = 250_000
"""How long an answer that comes in pieces may keep the market waiting at a time: klines take 5 to 70 ms."""
_UNITS = {"MICROSECOND": True, "microsecond": True, "MILLISECOND": False, "millisecond": False}


Spoil = Callable[[str, Mapping[str, str], RestAnswer], RestAnswer]
"""What a fault makes of an answer: (path, query, answer)."""


class _Limited(Exception):
    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.status)
        self.verdict = verdict


class RestServer:
    """Serves `ALL_ENDPOINTS` from a source's books."""

    def __init__(
        self,
        source: Source,
        config: SimConfig,
        clock: Clock,
        market_us: Callable[[], int],
        spoil: Spoil | None,
        hides: Hides | None = None,
    ) -> None:
        self._source, self._config, self._clock = source, config, clock
        self._market_us, self._spoil, self._hides = market_us, spoil, hides
        self._weights: dict[str, Weights] = {}
        self._runner: web.AppRunner | None = None
        self._making = asyncio.Lock()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; returns the port. OSError when it is taken."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        if self._spoil is not None:
            answer = self._spoil(request.path, dict(request.query), answer)
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            if answer.cut_bytes is not None:
                return await _broken(request, answer)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _answer(self, request: web.Request) -> RestAnswer:
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        endpoint = ALL_ENDPOINTS.get(request.path.removeprefix(PREFIX))
        if endpoint is None or not request.path.startswith(PREFIX):
            if "text/html" in request.headers.get("Accept", ""):
                return RestAnswer(404, b"<html><body><h2>404 Not found</h2></body></html>",
                                  {"Content-Type": "text/html"})  # fmt: skip
            return _refusal(404, -1000, "Path not found.", headers)
        if request.method != "GET":
            return _refusal(405, -1000, f"Request method '{request.method}' is not supported.", headers)
        weights = self._find_weights(request.remote or "")

        def charge(weight: int) -> None:
            verdict = weights.charge(weight, self._clock.wall_ns() // 1_000_000)
            headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = str(verdict.used)
            if verdict.status != 200:
                raise _Limited(verdict)

        try:
            unit = request.headers.get("X-MBX-TIME-UNIT", "MILLISECOND")
            if unit not in _UNITS:
                charge(1)
                raise RestError(
                    -1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
                )
            context = Context(
                self._source.books, self._config, self._market_us(), _UNITS[unit], charge, self._hides
            )
            try:
                body = endpoint(Query(request.query.items()), context)
            except RestError:
                if "X-MBX-USED-WEIGHT" not in headers:
                    charge(1)
                raise
        except RestError as error:
            return _refusal(error.status, error.code, str(error), headers)
        except _Limited as limited:
            return self._limit(limited.verdict, headers)
        return RestAnswer(200, body if isinstance(body, bytes) else await self._joined(body), headers)

    async def _joined(self, pieces: Iterator[bytes]) -> bytes:
        """Everything of `pieces`; the loop goes on between slices, of one answer at a time."""
        made = []
        async with self._making:
            begun_ns = self._clock.steady_ns()
            for piece in pieces:
                made.append(piece)
                if self._clock.steady_ns() - begun_ns > SLICE_NS:
                    await asyncio.sleep(0)
                    begun_ns = self._clock.steady_ns()
        return b"".join(made)

    def _limit(self, verdict: Verdict, headers: dict[str, str]) -> RestAnswer:
        headers["Retry-After"] = str(max(1, ceil(verdict.retry_after_s / self._config.life_rate)))
        if verdict.status == 418:
            message = (
                f"Way too much request weight used; IP banned until {verdict.banned_until_ms}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        else:
            message = (
                f"Too much request weight used; current limit is {self._config.weight_per_minute} request "
                "weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
            )
        return _refusal(verdict.status, -1003, message, headers)

    def _find_weights(self, address: str) -> Weights:
        found = self._weights.get(address)
        if found is None:
            if len(self._weights) >= ADDRESSES_MAX:
                del self._weights[next(iter(self._weights))]
            found = self._weights[address] = Weights(self._config)
        return found


async def _broken(request: web.Request, answer: RestAnswer) -> web.StreamResponse:
    """The connection breaks inside the answer, or before it."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    if answer.cut_bytes is not None and answer.cut_bytes >= 0:
        await response.prepare(request)
        await response.write(answer.body[: answer.cut_bytes])
    if request.transport is not None:
        request.transport.close()
    return response


def _refusal(status: int, code: int, message: str, headers: dict[str, str]) -> RestAnswer:
    return RestAnswer(status, orjson.dumps({"code": code, "msg": message}), headers)
