"""feed/server at its end: who is behind gets what it missed, then everybody is told, and nobody is let in."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
import websockets

from tests.feed.harness import MemoryTape, subscribe, world
from tests.feed.test_server import closed
from tests.feed.test_slow_readers import SMALL, LazyReader, fill, volumes
from tests.feed.v2_peer import Market, expected, peer, tape_rows, taped
from tradeback.feed import server


@pytest.mark.parametrize("restarting", [False, True])
async def test_the_code_says_whether_it_comes_back(restarting: bool) -> None:
    async with world() as running:
        ws = await running.connect()
        await subscribe(ws, "BTCUSDT")
        running.feed.turn_away(restarting=restarting)
        await running.feed.close()
        assert await closed(ws) == (1012 if restarting else 1001)
        assert ws.close_reason


async def test_who_comes_now_is_refused_and_told_when_to_come_again() -> None:
    async with world() as running:
        here = await running.connect()
        running.feed.turn_away()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await running.connect()
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0
        running.trade((1, 100.0, 1.0))
        await here.close()


async def test_the_front_refuses_whatever_comes_while_what_is_open_goes_on() -> None:
    async with world() as running, aiohttp.ClientSession(running.http) as http:
        async with http.get("/api/v1/health/live") as live:
            assert live.status == 200
        running.front.turning_away = True
        async with http.get("/api/v1/health/live") as live:
            assert live.status == 200, "on the connection that was open"
        async with aiohttp.ClientSession(running.http) as fresh:
            for path in ("/api/v1/health/live", "/api/v1/ws", "/udf/history"):
                async with fresh.get(path) as answer:
                    assert answer.status == 503
                    assert int(answer.headers["Retry-After"]) > 0
                    assert answer.headers["Connection"] == "close"
        with pytest.raises(websockets.InvalidStatus):
            await running.connect()


async def test_a_slow_reader_of_version_1_gets_what_it_missed_before_the_close() -> None:
    async with world(SMALL, tape=MemoryTape(1 << 16)) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "ETHUSDT", "SOLUSDT")
            fill(running, client)
            running.trade((1, 100.0, 1.0), (3, 7.0, 2.0))
            closing = asyncio.create_task(running.feed.close())
            await lazy.ends()
            await closing
            assert volumes(lazy.entries()) == volumes(list(running.published))
            assert b"the server is stopping" in lazy.stream[-40:], "the CLOSE comes last"


async def test_a_resume_of_version_2_ends_before_the_close(tmp_path: Path) -> None:
    async with taped(tmp_path) as running:
        market = Market()
        for _ in range(20):
            running.publish(market.rows(500))
        async with peer(running.ws) as client:
            await client.resume(running.tape.epoch, 1)
            await client.subscribe("*")
            assert len(running.feed.v2.replays) == 1, "it is on its way"
            closing = asyncio.create_task(running.feed.close())
            with pytest.raises(websockets.ConnectionClosed):
                await client.until(lambda: False)
            await closing
            assert client.ws.close_code == 1001
            assert client.entries() == expected(tape_rows(running))


async def test_one_that_takes_nothing_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_S", 0.05)
    monkeypatch.setattr(server, "FAREWELL_S", 0.05)
    async with world(SMALL, tape=MemoryTape(1 << 16)) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "ETHUSDT", "SOLUSDT")
            fill(running, client)
            quick = await running.connect()
            await subscribe(quick, "BTCUSDT")
            told = asyncio.create_task(closed(quick))
            await asyncio.wait_for(running.feed.close(), 30)
            assert await told == 1001
            assert not running.feed.clients
