"""Rollover of single lines: the new connection first, and what happens when either of the two fails."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.exchange.harness import (
    CLOCK,
    QUICK,
    Desk,
    Peer,
    Script,
    combined,
    desk,
    frame,
    running,
    scripted,
    trade,
    until,
)
from tradeback.exchange import keeper, requests
from tradeback.exchange.budget import Budget
from tradeback.exchange.line import Line
from tradeback.exchange.streams import LinePlan
from tradeback.ops.log import RepeatLimiter

SHUTDOWN = combined("!serverShutdown", '{"e":"serverShutdown","E":1781000000000}')


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


def ids(world: Desk) -> list[int]:
    return [int(number) for number in world.rows["id"]]


async def answer_all(peer: Peer) -> None:
    """Acknowledge whatever the client asks."""
    try:
        while True:
            if (await peer.receive())[0] == 1:
                await peer.send(frame(b'{"result":true,"id":%d}' % peer.requests[-1]["id"]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def sends(*frames: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(*frames)
        await answer_all(peer)

    return script


async def test_new_before_old(world: Desk) -> None:
    open_when_second_came = []

    async def second(peer: Peer) -> None:
        await peer.subscribed()
        open_when_second_came.append(not exchange.peers[0].writer.is_closing())
        await peer.send(trade(1), trade(2))
        await answer_all(peer)

    async with (
        scripted(sends(trade(1)), second) as exchange,
        running(world.line(exchange.endpoint, rollover_min_s=0.05, rollover_max_s=0.06)) as line,
    ):
        await until(lambda: line.counts.rollovers >= 1)
        assert line.counts.reconnects == 0
        assert line.health().state == "ok"
        assert (line.health().details or {})["rollovers"] >= 1
        closing = exchange.peers[0].opcodes
        await until(lambda: closing and closing[-1][0] == 8)
        assert int.from_bytes(closing[-1][1][:2], "big") == 1000, "closed politely"
    assert open_when_second_came[0]
    assert ids(world) == [1, 2]
    assert world.log.of("rolled over")[0]["reason"] == "age"


async def test_ages_are_drawn_between_the_two(world: Desk) -> None:
    async with scripted(answer_all) as exchange:
        ages = []
        for _ in range(12):
            line = world.line(exchange.endpoint, rollover_min_s=100.0, rollover_max_s=200.0)
            async with running(line):
                await line.was_up.wait()
                ages.append((line._due_ns - CLOCK.steady_ns()) / 1e9)
    assert all(99 < age < 200 for age in ages)
    assert max(ages) - min(ages) > 5


async def test_what_the_old_one_had_queued_is_taken(world: Desk) -> None:
    """The old connection is behind: its data come out only when it is asked whether that was all."""

    async def behind(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(trade(1))
        while (await peer.receive())[0] != 1:
            pass
        assert peer.requests[-1]["method"] == "GET_PROPERTY"
        await peer.send(trade(2), trade(3), frame(b'{"result":true,"id":2}'))
        await answer_all(peer)

    async with (
        scripted(behind, sends(trade(4))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 1)
        await until(lambda: line.replace("test"))
        await until(lambda: line.counts.rollovers == 1)
    assert sorted(ids(world)) == [1, 2, 3, 4]


async def test_an_old_one_that_does_not_answer_is_closed_all_the_same(
    world: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(trade(1))
        await peer.hold()

    async with (
        scripted(mute, sends(trade(2))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 1)
        monkeypatch.setattr(requests, "ANSWER_WAIT_S", 0.03)
        await until(lambda: line.replace("test"))
        await until(lambda: line.counts.rollovers == 1)
        assert line.counts.rollovers_failed == 0


async def test_a_shutdown_is_answered_at_once(world: Desk) -> None:
    async with (
        scripted(sends(trade(1), SHUTDOWN, SHUTDOWN), sends(trade(2))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: line.counts.rollovers == 1)
        assert (line.counts.shutdowns, line.counts.reconnects) == (2, 0)
        await until(lambda: len(line.connections) == 1)
    assert len(exchange.peers) == 2
    assert ids(world) == [1, 2]
    assert world.log.of("rolled over")[0]["reason"] == "shutdown"


async def test_a_shutdown_does_not_wait_for_the_overlap(world: Desk) -> None:
    async with (
        scripted(sends(trade(1), SHUTDOWN), sends(trade(2))) as exchange,
        running(world.line(exchange.endpoint, rollover_overlap_s=2.0)) as line,
    ):
        begin_ns = CLOCK.steady_ns()
        await until(lambda: line.counts.rollovers == 1)
        assert CLOCK.steady_ns() - begin_ns < 1_500_000_000


async def test_a_shutdown_of_the_new_one_too(world: Desk) -> None:
    scripts = (sends(trade(1), SHUTDOWN), sends(trade(2), SHUTDOWN), sends(trade(3)))
    async with scripted(*scripts) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: line.counts.rollovers == 2)
        assert line.counts.reconnects == 0
    assert ids(world) == [1, 2, 3]


async def test_refused_handshakes_leave_the_old_one(world: Desk) -> None:
    async with scripted(sends(trade(1)), sends(trade(2))) as exchange:
        exchange.refuse = lambda attempt: (
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" if attempt in (2, 3) else None
        )
        async with running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 1)
            await until(lambda: line.replace("test"))
            await until(lambda: line.counts.rollovers == 1)
            assert (line.counts.rollovers_failed, line.counts.reconnects) == (2, 0)
            assert len(line.connections) == 1
        assert exchange.attempts == 4
    assert world.log.of("rollover failed")


async def test_retry_after_holds_the_rollovers_of_all_lines_back(world: Desk) -> None:
    attempts = Budget(100, 1.0)
    async with scripted(sends(trade(1))) as exchange:
        exchange.refuse = lambda attempt: (
            b"HTTP/1.1 429 Too Many\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n" if attempt > 1 else None
        )
        async with running(world.line(exchange.endpoint, attempts=attempts)) as line:
            await until(lambda: world.count == 1)
            await until(lambda: line.replace("test"))
            await until(lambda: line.counts.rollovers_failed == 1)
            assert attempts.blocked_s(CLOCK.steady_ns()) > 70
            await asyncio.sleep(0.06)  # several back-offs
            assert exchange.attempts == 2
            assert line.health().state == "ok"


async def test_a_new_one_that_delivers_nothing_is_given_up(
    world: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "DELIVER_WAIT_S", 0.05)

    async def steady(peer: Peer) -> None:
        await peer.subscribed()
        asking = asyncio.create_task(answer_all(peer))
        number = 0
        while not asking.done():
            number += 1
            await peer.send(trade(number))
            await asyncio.sleep(0.004)

    async with (
        scripted(steady, answer_all, steady) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count > 3)
        await until(lambda: line.replace("test"))
        await until(lambda: line.counts.rollovers == 1)
        assert (line.counts.rollovers_failed, line.counts.reconnects) == (1, 0)
    assert "delivers nothing" in world.log.of("rollover failed")[0]["error"]
    got = ids(world)
    assert sorted(got) == list(range(1, len(got) + 1))


async def test_quiet_streams_are_replaced_too(world: Desk) -> None:
    async with scripted(answer_all) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: line.current is not None)
        await until(lambda: line.replace("test"))
        await until(lambda: line.counts.rollovers == 1)
        assert line.counts.rollovers_failed == 0


async def test_the_old_one_is_lost_while_the_new_one_comes_up(world: Desk) -> None:
    async def slow(peer: Peer) -> None:
        exchange.peers[0].writer.transport.abort()
        await until(lambda: not line.is_up)
        await peer.subscribed()
        await peer.send(trade(2))
        await answer_all(peer)

    async with scripted(sends(trade(1)), slow) as exchange:
        line = world.line(exchange.endpoint)
        async with running(line):
            await until(lambda: world.count == 1)
            await until(lambda: line.replace("test"))
            await until(lambda: line.is_up and world.count == 2)
            assert (line.counts.reconnects, line.counts.rollovers) == (1, 1)
            assert len(exchange.peers) == 2


async def test_both_are_lost(world: Desk) -> None:
    async def dies(peer: Peer) -> None:
        await peer.subscribed()
        for held in exchange.peers:
            held.writer.transport.abort()

    async with (
        scripted(sends(trade(1)), dies, sends(trade(2))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 1)
        await until(lambda: line.replace("test"))
        await until(lambda: world.count == 2 and line.is_up)
        assert line.counts.reconnects == 1
        assert len(line.connections) == 1
    assert ids(world) == [1, 2]


async def test_a_line_that_waits_for_its_turn_and_is_lost_does_not_wait_longer(world: Desk) -> None:
    turn = asyncio.Lock()
    await turn.acquire()
    async with scripted(sends(trade(1)), sends(trade(2))) as exchange:
        config = msgspec.structs.replace(QUICK, ws_endpoint=exchange.endpoint)
        line = Line(
            LinePlan("trade", 0, 0, ("BTCUSDT",)), config, CLOCK, world.intake, world.symbols,
            Budget(100, 1.0), world.log, RepeatLimiter(), turn,
        )  # fmt: skip
        async with running(line):
            await until(lambda: world.count == 1)
            await until(lambda: line.replace("test"))
            await until(lambda: line._roll is not None)
            assert len(line.connections) == 1, "not its turn"
            exchange.peers[0].writer.transport.abort()
            await until(lambda: world.count == 2)
            assert (line.counts.reconnects, line.counts.rollovers) == (1, 0)


async def test_nothing_is_replaced_while_the_line_is_down(world: Desk) -> None:
    line = world.line("ws://127.0.0.1:1")
    line.replace("test")
    assert line._wanted is None


async def test_a_rollover_ends_with_the_line(world: Desk) -> None:
    stuck = asyncio.Event()

    async def never(peer: Peer) -> None:
        stuck.set()
        await peer.hold()

    async with scripted(sends(trade(1)), never) as exchange:
        async with running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 1)
            await until(lambda: line.replace("test"))
            await stuck.wait()
        assert line.connections == []
        assert not line._turn.locked()
