"""cli.doctor_exchange: reachability, symbols and clock, against doubles and the simulator."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from tradeback.cli import doctor_exchange
from tradeback.cli.children import Child
from tradeback.cli.doctor import Finding
from tradeback.model.config import Config, ExchangeConfig


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_an_exchange_that_cannot_be_reached_names_the_demo(closed_port: int) -> None:
    here = f"127.0.0.1:{closed_port}"
    config = Config(exchange=ExchangeConfig(ws_endpoint=f"ws://{here}", rest_endpoint=f"http://{here}"))
    findings = await doctor_exchange.check_exchange(config)
    assert [found.state for found in findings] == ["fail", "fail"]
    assert all("tradeback demo" in found.remedy for found in findings)


@asynccontextmanager
async def clock_double(ahead_ms: int, answer: str = '{{"serverTime":{}}}') -> AsyncIterator[str]:
    """REST whose clock is `ahead_ms` before ours."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                body = answer.format(time.time_ns() // 1_000_000 + ahead_ms).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(body) + body)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("ahead_ms", "state"), [(0, "ok"), (400, "ok"), (-60_000, "warn"), (60_000, "warn")])
async def test_the_clocks_offset_is_within_its_bound(ahead_ms: int, state: str) -> None:
    async with clock_double(ahead_ms) as url:
        import aiohttp

        async with aiohttp.ClientSession(url) as http:
            bound_ms, offset_ms = await doctor_exchange._sample_clock(http)
        config = Config(exchange=ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint=url))
        rest, clock, *_ = await doctor_exchange.check_exchange(config)
    assert abs(offset_ms + ahead_ms) <= bound_ms + 0.1
    assert rest.state == "ok"
    assert clock.state == state


@pytest.mark.parametrize("answer", ['{{"time":1}}', "no json {}", '{{"serverTime":null}}', "[]"])
async def test_rest_that_is_no_exchange_is_a_fault(answer: str) -> None:
    async with clock_double(0, answer) as url:
        config = Config(exchange=ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint=url))
        rest, _ = await doctor_exchange.check_exchange(config)
    assert rest.state == "fail"


@asynccontextmanager
async def market() -> AsyncIterator[ExchangeConfig]:
    simulator = await Child.start("the simulator", ("sim", "--port", "0", "--announce"), os.environ)
    try:
        where = await simulator.announcement(60)
        yield ExchangeConfig(ws_endpoint=where["ws"], rest_endpoint=where["rest"])
    finally:
        await simulator.stop()


async def test_the_simulated_exchange(closed_port: int) -> None:
    async with market() as exchange:

        async def asked(**changes: object) -> list[Finding]:
            return await doctor_exchange.check_exchange(Config(exchange=replace(exchange, **changes)))

        async def symbols(**changes: object) -> Finding:
            (found,) = (each for each in await asked(**changes) if each.check == "symbols")
            return found

        sound = await asked(symbols=("BTCUSDT", "ETHUSDT"))
        missing = await symbols(symbols=("BTCUSDT", "NOPEUSDT", "ETHUSDT", "BNBUSDT", "NADAUSDT"))
        tight = await symbols(symbols=("BTCUSDT",), max_connections=6)
        apart = await asked(symbols=("*",), ws_endpoint_b=f"ws://127.0.0.1:{closed_port}")
    assert [found.state for found in sound] == ["ok"] * 4, sound
    assert [found.check for found in sound] == ["exchange REST", "clock", "symbols", "exchange streams"]
    assert "lines A and B" in sound[-1].found
    assert (missing.state, missing.remedy) == ("fail", "correct EXCHANGE_SYMBOLS")
    assert missing.found.endswith("not have NOPEUSDT, NADAUSDT")
    assert (tight.state, "EXCHANGE_MAX_CONNECTIONS to 7" in tight.remedy) == ("warn", True), tight
    line_a, line_b = (found for found in apart if found.check == "exchange streams")
    assert (line_a.state, line_b.state) == ("ok", "fail")
    assert "(line B) cannot be reached" in line_b.found


@pytest.mark.parametrize(
    ("status", "remedy"), [(451, "another endpoint"), (418, "banned"), (403, "firewall")]
)
async def test_a_refusal_by_status_has_its_remedy(status: int, remedy: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        exchange = ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint=url)
        rest, *_ = await doctor_exchange.check_exchange(Config(exchange=exchange))
    assert (rest.state, f"HTTP {status}" in rest.found, remedy in rest.remedy) == ("fail", True, True), rest
