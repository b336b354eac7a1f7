"""exchange.rest: answers, errors and limits, of the simulated exchange and of servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.exchange.harness import BTC, CLOCK
from tradeback.exchange import rest as rest_module
from tradeback.exchange.budget import Budget
from tradeback.exchange.rest import RETRY_AFTER_MAX_S, NoExchange, Rest, retry_after_s
from tradeback.model.errors import ExchangeError, RateLimited
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

Handler = Callable[[web.Request], web.StreamResponse]
KLINE = [
    1781000000000, "1.0", "2.0", "0.5", "1.5", "10", 1781000000999, "12", 3, "5", "6", "0",
]  # fmt: skip


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[tuple[Rest, list[web.Request]]]:
    """REST of a server that answers everything with `handler`."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        return handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest = Rest(f"http://127.0.0.1:{runner.addresses[0][1]}/", CLOCK)
    try:
        yield rest, requests
    finally:
        await rest.close()
        await runner.cleanup()


class Patience:
    """Stands in for asyncio.sleep and the steady clock of a Rest: time passes only by waiting."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.waits: list[float] = []

    def wall_ns(self) -> int:
        return self.now_ns

    def steady_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_ns += int(seconds * 1e9) + 1
        await asyncio.sleep(0)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    made = Patience()
    monkeypatch.setattr(
        rest_module, "asyncio", SimpleNamespace(sleep=made.sleep, to_thread=asyncio.to_thread)
    )
    return made


async def test_the_simulated_exchange() -> None:
    server = await SimServer.start(Synthetic(3, 100.0, unicode_names=True), SimConfig(start_after_streams=0))
    rest = Rest(server.rest_url, CLOCK)
    try:
        assert abs(await rest.time_us() - CLOCK.wall_ns() // 1_000) < 5_000_000
        records = await rest.symbols()
        assert [record.symbol for record in records] == list(server.source.books)
        assert records[0].tick_size == "0.01000000"
        assert records[0].step_size == "0.00001000"
        assert all(record.is_active for record in records)
        start_ms = CLOCK.wall_ns() // 1_000_000 // 60_000 * 60_000 - 600_000
        rows = await rest.klines(BTC, "1m", start_ms=start_ms, end_ms=start_ms + 299_999, limit=60)
        assert rows["slot_us"].tolist() == [1_000 * (start_ms + 60_000 * number) for number in range(5)]
        with pytest.raises(ExchangeError, match="-1121") as refused:
            await rest.klines(Symbol(9, "NOPEUSDT"), "1m", limit=1)
        assert (refused.value.status, refused.value.code) == (400, -1121)
        assert not isinstance(refused.value, NoExchange)
        assert (rest.requests, rest.errors) == (4, 1)
    finally:
        await rest.close()
        await server.stop()


@pytest.mark.parametrize("status", [429, 418])
async def test_a_limit_is_obeyed_by_every_request(status: int, patience: Patience) -> None:
    answers = [web.Response(status=status, headers={"Retry-After": "7"}, text="{}")]

    def handler(request: web.Request) -> web.Response:
        return answers.pop() if answers else web.json_response({"serverTime": 1781000000123})

    async with answering(handler) as (rest, requests):
        rest._clock, rest._budget = patience, Budget(100, 60.0)
        with pytest.raises(RateLimited, match="wait 7 s") as limited:
            await rest.time_us()
        assert (limited.value.retry_after_s, limited.value.status) == (7.0, status)
        assert patience.waits == []
        # The caller's patience does not matter: the next request waits.
        assert await rest.time_us() == 1781000000123000
        assert patience.waits == [7.0]
        assert len(requests) == 2
        assert rest.errors == 1


async def test_who_waits_already_waits_on_when_a_limit_comes(patience: Patience) -> None:
    async with answering(lambda request: web.json_response({"serverTime": 1})) as (rest, _):
        rest._clock, rest._budget = patience, Budget(1, 10.0)
        await rest.time_us()
        second = asyncio.create_task(rest.time_us())
        while not patience.waits:
            await asyncio.sleep(0)
        rest._budget.block(patience.now_ns, 30.0)
        await second
        assert patience.waits == [pytest.approx(10.0), pytest.approx(30.0)]


async def test_requests_stay_inside_the_weight_limit(patience: Patience) -> None:
    async with answering(lambda request: web.json_response([KLINE])) as (rest, requests):
        rest._clock, rest._budget = patience, Budget(20, 60.0)
        for _ in range(25):
            assert (await rest.klines(BTC, "1m", limit=1))["close"].tolist() == [1.5]
        assert len(requests) == 25
        assert patience.waits == [pytest.approx(60.0), pytest.approx(60.0)]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b'{"code":-1121,"msg":"Invalid symbol."}', "-1121 Invalid symbol."),
        (500, b"<html>oops", "500"),
        (503, b"", "503"),
        (403, b"[1]", "403"),
        (404, b'{"code":"x","msg":5}', "404"),
        (400, b'{"code":-1100}', "400"),
    ],
)
async def test_errors_of_an_exchange(status: int, body: bytes, words: str) -> None:
    async with answering(lambda request: web.Response(status=status, body=body)) as (rest, _):
        with pytest.raises(ExchangeError, match=words) as error:
            await rest.time_us()
        assert error.value.status == status
        assert rest.endpoint in str(error.value)
        assert not isinstance(error.value, NoExchange)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>It works!</h1></html>", b"", b"null", b"[]", b"5", b"{}", b'{"serverTime":"soon"}',
        b'{"symbols":5}', b'{"symbols":[1]}', b'{"symbols":[{}]}',
        b'{"symbols":[{"symbol":"A","filters":5}]}',
        b'{"symbols":[{"symbol":"A","filters":[5]}]}', b'{"symbols":[null]}', b"\xff\xfe",
    ],
)  # fmt: skip
async def test_an_answer_that_no_exchange_gives(body: bytes) -> None:
    async with answering(lambda request: web.Response(body=body)) as (rest, _):
        for ask in (rest.time_us, rest.symbols):
            with pytest.raises(NoExchange, match=r"no exchange|not the exchange's"):
                await ask()


@pytest.mark.parametrize(
    "rows",
    [
        5, {"code": 1}, [5], [[]], [KLINE, KLINE[:11]],
        *([[*KLINE[:place], wrong, *KLINE[place + 1 :]]] for place, wrong in (
            (0, "1"), (0, -1), (0, True), (0, None), (8, "3"), (8, 2.5), (1, 1.0), (2, "nan"), (3, "x"),
            (4, None), (5, "-1"), (5, "inf"), (9, ""), (10, [])
        )),
    ],
)  # fmt: skip
async def test_klines_that_are_none(rows: Any) -> None:
    async with answering(lambda request: web.json_response(rows)) as (rest, _):
        with pytest.raises(ExchangeError, match="klines of BTCUSDT"):
            await rest.klines(BTC, "1m", limit=5)


async def test_a_grid_of_zero_is_the_finest() -> None:
    entry = {
        "symbol": "币USDT", "status": "BREAK", "baseAsset": "币", "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.00000000"},
            {"filterType": "LOT_SIZE", "stepSize": "0", "minQty": "1", "maxQty": "9"},
            {"filterType": "MIN_NOTIONAL", "minNotional": "5"},
            {"filterType": "NEW_THING"},
        ],
    }  # fmt: skip
    bare = {"symbol": "OLDUSDT"}
    async with answering(lambda request: web.json_response({"symbols": [entry, bare]})) as (rest, requests):
        first, second = await rest.symbols()
        assert requests[0].query == {"showPermissionSets": "false"}
    assert (first.tick_size, first.step_size) == ("0.00000001", "0.00000001")
    assert (first.symbol, first.is_active, first.min_notional) == ("币USDT", False, "5")
    assert (first.min_quantity, first.max_quantity) == ("1", "9")
    assert (second.tick_size, second.step_size, second.is_active) == ("0.00000001", "0.00000001", False)


async def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "BODY_BYTES_MAX", 1_000)
    async with answering(lambda request: web.Response(body=b"[" + b" " * 5_000)) as (rest, _):
        with pytest.raises(ExchangeError, match="without end"):
            await rest.time_us()


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_what_is_no_http_cannot_be_reached(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        rest = Rest(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", CLOCK)
        with pytest.raises(ExchangeError, match="cannot be reached") as error:
            await rest.time_us()
        assert error.value.status == 0
        await rest.close()


@given(st.text(max_size=12) | st.floats().map(str) | st.integers().map(str))
def test_retry_after_is_always_a_wait(header: str) -> None:
    assert 1.0 <= retry_after_s(header, 60.0) <= RETRY_AFTER_MAX_S


def test_retry_after() -> None:
    assert [retry_after_s(text, 60.0) for text in ("7", "0", "-5", "nan", "Wed, 21 Oct 2026", None)] == [
        7.0, 1.0, 1.0, 60.0, 60.0, 60.0,
    ]  # fmt: skip
