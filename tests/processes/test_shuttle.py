"""processes.shuttle over a real socket: history stays, everything else goes back, nothing is lost."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tradeback.feed.passage import may_go
from tradeback.processes.shuttle import Shuttle

HISTORY = b"GET /udf/history?n=%d HTTP/1.1\r\nHost: x\r\n\r\n"
OTHER = b"GET /udf/quotes?n=1 HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class World:
    port: int = 0
    head_seconds_max: float = 30.0
    back: list[bytes] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def made() -> AsyncIterator[World]:
    world = World()
    world.gate.set()

    async def history(request: web.Request) -> web.Response:
        await world.gate.wait()
        world.answered.append(request.query["n"])
        return web.Response(text="x" * 100_000 + request.query["n"])

    def go_back(transport: Any, data: bytes) -> None:
        world.back.append(data)
        transport.abort()

    app = web.Application()
    app.router.add_get("/udf/history", history)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    loop = asyncio.get_running_loop()
    make = runner.server
    assert make is not None
    server = await loop.create_server(
        lambda: Shuttle(make(), go_back, world.head_seconds_max), "127.0.0.1", 0, family=socket.AF_INET
    )
    world.port = server.sockets[0].getsockname()[1]
    yield world
    server.close()
    await runner.cleanup()


async def answer_of(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        return (await reader.readexactly(int(length.split(b":")[1]))).decode().lstrip("x")


async def test_request_after_request_on_one_connection(made: World) -> None:
    reader, writer = await made.connect()
    for number in range(50):
        writer.write(HISTORY % number)
        assert await answer_of(reader) == str(number)
    assert made.back == []
    writer.close()


async def test_requests_that_come_together_or_in_pieces(made: World) -> None:
    reader, writer = await made.connect()
    writer.write(b"".join(HISTORY % number for number in range(20)))
    assert [await answer_of(reader) for _ in range(20)] == [str(number) for number in range(20)]
    for byte in HISTORY % 77:
        writer.write(bytes([byte]))
        await writer.drain()
    assert await answer_of(reader) == "77"
    writer.close()


async def test_another_request_goes_back_with_what_follows(made: World) -> None:
    reader, writer = await made.connect()
    writer.write(HISTORY % 1)
    assert await answer_of(reader) == "1"
    writer.write(OTHER + HISTORY % 2)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    assert b"".join(made.back).startswith(OTHER)
    assert made.answered == ["1"]
    writer.close()


async def test_what_comes_while_an_answer_is_made_waits(made: World) -> None:
    reader, writer = await made.connect()
    made.gate.clear()
    writer.write(HISTORY % 1)
    await writer.drain()
    writer.write(OTHER)
    await writer.drain()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert made.back == []
    made.gate.set()
    assert await answer_of(reader) == "1"
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    assert made.back == [OTHER]
    writer.close()


async def test_a_head_without_end_goes_back(made: World) -> None:
    reader, writer = await made.connect()
    writer.write(HISTORY % 1)
    assert await answer_of(reader) == "1"
    writer.write(b"GET /udf/history?" + b"n" * 20_000)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    assert len(made.back) == 1
    writer.close()


async def test_a_head_that_drips_is_cut_but_no_answer_that_takes_long(made: World) -> None:
    made.head_seconds_max = 0.05
    reader, writer = await made.connect()
    made.gate.clear()
    writer.write(HISTORY % 1 + b"GET /udf/hist")
    await writer.drain()
    for _ in range(20):
        await asyncio.sleep(0.01)
    made.gate.set()
    assert await answer_of(reader) == "1"
    async with asyncio.timeout(30):
        slow = await reader.read()
    assert slow.startswith(b"HTTP/1.1 408")
    assert b'"s":"error"' in slow
    assert made.back == []
    writer.close()


@pytest.mark.parametrize(
    ("head", "goes"),
    [
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nHost: x", True),
        (b"GET /api/v1/symbols/BTCUSDT/bars HTTP/1.1\r\nHost: x", True),
        (b"GET /api/v1/symbols/BTCUSDT/bars?from=1 HTTP/1.1\r\nHost: x\r\nAccept: */*", True),
        (b"GET /udf/history HTTP/1.1", False),
        (b"GET /udf/historyx?a HTTP/1.1", False),
        (b"POST /udf/history?symbol=X HTTP/1.1", False),
        (b"GET /udf/history?symbol=X HTTP/1.0", False),
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nCookie: a=b", False),
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nAUTHORIZATION: Bearer x", False),
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nOrigin: https://x", False),
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nContent-Length: 5", False),
        (b"GET /udf/history?symbol=X HTTP/1.1\r\nUpgrade: websocket", False),
        (b"GET /api/v1/symbols/BTC%2FUSDT/bars HTTP/1.1", False),
        (b"GET /api/v1/symbols/BTCUSDT/ticks HTTP/1.1", False),
        (b"GET /api/v1/symbols/a/../bars HTTP/1.1", False),
        (b"GET /api/v1/symbols HTTP/1.1", False),
    ],
)
def test_which_requests_may_go(head: bytes, goes: bool) -> None:
    assert may_go(head) is goes
