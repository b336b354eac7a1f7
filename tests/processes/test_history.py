"""processes.history: klines by way of the engine; connections that it hands over."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.feed.harness import SYMBOLS, world
from tradeback.derive.lacking import Span
from tradeback.processes import history
from tradeback.processes.history import HistoryServer, KlinesOfEngine

BTC = SYMBOLS[0]


class Line:
    """The engine's end of the link."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> bool:
        self.sent.append(message)
        return True


async def test_what_is_lacking_is_asked_of_the_engine() -> None:
    line = Line()
    klines = KlinesOfEngine(lambda: [line])  # type: ignore[list-item]
    asked = asyncio.create_task(klines.fill(BTC, 1, [Span(60, 120)], 5, 30.0))
    while not line.sent:
        await asyncio.sleep(0)
    (message,) = line.sent
    assert message["ask"] == [1, 1, [[60, 120]], 5, 30.0]
    assert klines.take({"stored": [1, 1]})
    assert klines.generation(1, 1) == 1
    assert klines.generation(1, 2) == 0
    assert klines.take({"filled": message["fill"], "settled": True})
    assert await asked is True
    assert klines.take({"filled": message["fill"], "settled": True}), "late answers are nobody's"
    assert not klines.take({"bars": 1})


async def test_without_an_engine_nothing_comes() -> None:
    klines = KlinesOfEngine(list)
    assert await klines.fill(BTC, 1, [Span(60, 120)], 5, 30.0) is False


async def test_an_engine_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    klines = KlinesOfEngine(lambda: [Line()])  # type: ignore[list-item]
    async with asyncio.timeout(30):
        assert await klines.fill(BTC, 1, [Span(60, 120)], 5, -0.99) is False


async def test_with_a_new_engine_everything_may_have_changed() -> None:
    klines = KlinesOfEngine(list)
    before = klines.generation(1, 1)
    klines.met()
    assert klines.generation(1, 1) != before


GET = b"GET /udf/history?symbol=BTCUSDT&resolution=1&from=1&to=2 HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HistoryServer]:
    monkeypatch.setattr(history, "CONNECTIONS_MAX", 3)
    async with world(attach=False) as running:
        made = HistoryServer(running.context, KlinesOfEngine(list), lambda: None)
        await made.start()
        yield made
        await made.stop()


async def hand(server: HistoryServer, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the engine has read `data`."""
    ours, theirs = socket.socketpair()
    server.take(Line(), os.dup(theirs.fileno()), data)  # type: ignore[arg-type]
    theirs.close()
    return await asyncio.open_connection(sock=ours)


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, Any]:
    """Head and JSON of the next answer."""
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        return head, orjson.loads(await reader.readexactly(int(length.split(b":")[1])))


@pytest.mark.parametrize("line", [b"X\x00Y: a", b" folded: a", b"X: a\x01"])
async def test_what_is_no_request_is_answered_as_the_engine_does(server: HistoryServer, line: bytes) -> None:
    reader, writer = await hand(server, GET + b"\r\n")
    head, said = await answer_of(reader)
    assert head.startswith(b"HTTP/1.1 503")
    assert said["s"] == "error"
    writer.write(GET + line + b"\r\n\r\n")
    head, said = await answer_of(reader)
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert said["error"]["code"] == "bad_request"
    for name in (b"aiohttp", b"Python"):
        assert name not in head
    assert b"nosniff" in head
    writer.close()


async def test_many_idle_connections_make_room(server: HistoryServer) -> None:
    open_ones = []
    for _ in range(12):
        reader, writer = await hand(server, GET + b"\r\n")
        assert (await answer_of(reader))[0].startswith(b"HTTP/1.1 503")
        open_ones.append((reader, writer))
    async with asyncio.timeout(30):
        ends = [await reader.read() for reader, _ in open_ones[:8]]
    assert set(ends) == {b""}, "the oldest have gone"
    _, newest = open_ones[-1]
    assert not newest.is_closing()
    for _, writer in open_ones:
        writer.close()
