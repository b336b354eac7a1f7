"""The loop whose time jumps: sleeps cost nothing, sockets and threads keep their order."""

import asyncio
import time

import pytest

from tests.worlds.passing import EPOCH_NS, Hang, PassingClock, PassingLoop, run

HOUR_S = 3_600.0
"""Of the loop, not of whoever waits for the test."""


async def _sleep_for_a_day() -> float:
    clock = PassingClock(asyncio.get_running_loop())
    for _ in range(24):
        await asyncio.sleep(HOUR_S)
    assert clock.wall_ns() - EPOCH_NS == pytest.approx(86_400e9)
    return asyncio.get_running_loop().time()


def test_a_day_passes_at_once() -> None:
    began = time.perf_counter()
    assert run(_sleep_for_a_day()) == pytest.approx(86_400)
    assert time.perf_counter() - began < 1.0


async def _talk() -> tuple[list[bytes], float]:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for number in range(100):
        writer.write(b"%d\n" % number)
        async with asyncio.timeout(0.5):
            assert await reader.readline() == b"%d\n" % number
    passed_s = asyncio.get_running_loop().time()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return heard, passed_s


def test_what_is_sent_arrives_before_time_moves() -> None:
    heard, passed_s = run(_talk())
    assert heard == [b"%d\n" % number for number in range(100)]
    assert passed_s < 0.5


async def _work() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PassingLoop)
    timer = asyncio.create_task(asyncio.sleep(HOUR_S))
    await asyncio.to_thread(time.sleep, 0.02)
    assert not loop.busy
    assert not timer.done()
    timer.cancel()
    return loop.time()


def test_the_clock_stands_while_a_thread_works() -> None:
    assert run(_work()) == 0.0


async def _wait_for_nothing() -> None:
    await asyncio.get_running_loop().create_future()


def test_waiting_for_nobody_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.worlds.passing.HANG_S", 0.01)
    with pytest.raises(Hang):
        run(_wait_for_nothing())
