"""One recorded line against exchanges that do what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.exchange.harness import CLOCK, QUICK, Logbook, Peer, Script, frame, scripted, until
from tests.recording.tools import A_TRADE, events, frames, marks, trade, writing
from tradeback.exchange.budget import Budget
from tradeback.exchange.streams import LinePlan
from tradeback.ops.log import RepeatLimiter
from tradeback.recording.line import Line
from tradeback.recording.writer import Writer

PLAN = LinePlan("trade", 0, 0, ("BTCUSDT", "ETHUSDT"))


def recorded(writer: Writer, endpoint: str, log: Logbook | None = None, **more: Any) -> Line:
    config = msgspec.structs.replace(QUICK, ws_endpoint=endpoint, **more)
    track = writer.track(A_TRADE)
    return Line(PLAN, config, CLOCK, track, Budget(10_000, 1.0), log or Logbook(), RepeatLimiter())


@asynccontextmanager
async def running(made: Line) -> AsyncIterator[Line]:
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_frames_and_answers_are_recorded_with_the_time_of_their_read(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(*(frame(trade(number)) for number in range(100)))
        await peer.hold()

    before_ns = CLOCK.wall_ns()
    async with scripted(script) as exchange, writing(tmp_path) as writer:
        async with running(recorded(writer, exchange.endpoint)) as line:
            await line.was_up.wait()
            await until(lambda: writer.counts.frames == 101)
        (path,), (peer,) = exchange.paths, exchange.peers
        assert path == "/stream?timeUnit=MICROSECOND"
        assert peer.requests[0]["params"] == ["btcusdt@trade", "ethusdt@trade"]
    answer, *found = frames(tmp_path)
    assert json.loads(answer.body)["id"] == 1
    assert [line.body for line in found] == [trade(number) for number in range(100)]
    assert len({line.recv_ns for line in found}) < 50, "one stamp for all frames of a read"
    assert before_ns < found[0].recv_ns <= found[-1].recv_ns < CLOCK.wall_ns()
    assert events(tmp_path) == ["begin", "connected", "lost", "end"]


async def test_pings_are_answered_and_not_recorded(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(b"1781", 0x89), frame(trade(1)))
        await peer.hold()

    async with (
        scripted(script) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint)),
    ):
        await until(lambda: exchange.peers and exchange.peers[0].opcodes)
        assert exchange.peers[0].opcodes == [(0x0A, b"1781")]
        await until(lambda: writer.counts.frames == 2)


async def test_fragments_are_put_together_and_odd_messages_kept(tmp_path: Path) -> None:
    whole = trade(7)

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(whole[:20], 0x01), frame(whole[20:50], 0x00), frame(whole[50:], 0x80))
        await peer.send(frame(b"\x00\xff", 0x82), frame(b"garbage"), frame(trade(8)))
        await peer.hold()

    async with (
        scripted(script) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint)),
    ):
        await until(lambda: writer.counts.frames == 4)
    assert [line.body for line in frames(tmp_path)][1:] == [whole, b"garbage", trade(8)]
    (odd,) = [fields for fields in marks(tmp_path) if fields["event"] == "odd"]
    assert (odd["opcode"], odd["base64"]) == (0x82, "AP8=")


async def test_a_cut_connection_comes_back_and_the_hole_is_marked(tmp_path: Path) -> None:
    numbers = iter(range(10_000))

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(*(frame(trade(next(numbers))) for _ in range(10)))
        await peer.send(frame(b"\x03\xe9going", 0x88))
        await peer.hold()

    log = Logbook()
    async with (
        scripted(script) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint, log)) as line,
    ):
        await until(lambda: line.counts.reconnects >= 3)
    bodies = [line.body for line in frames(tmp_path) if line.body.startswith(b'{"stream"')]
    assert bodies[:30] == [trade(number) for number in range(30)]
    told = [fields for fields in marks(tmp_path) if fields["event"] in ("connected", "lost")]
    assert [fields["event"] for fields in told[:6]] == ["connected", "lost"] * 3
    assert told[1]["reason"] == "the exchange closed: 1001 going"
    assert log.of("line lost")[0]["error"] == "the exchange closed: 1001 going"


async def test_a_silent_connection_is_replaced(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.hold()

    async with (
        scripted(script) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint, idle_timeout_s=0.08)) as line,
    ):
        await until(lambda: line.counts.reconnects >= 2)
        assert "silent for 0.08 s" in (line.last_error or "")


@pytest.mark.parametrize(
    "answer", [b'{"code":2,"msg":"Invalid request","id":1}', b'{"error":{"code":2},"id":1}']
)
async def test_a_refused_subscription_is_tried_again(tmp_path: Path, answer: bytes) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.receive()
        await peer.send(frame(answer))
        await peer.hold()

    async def accept(peer: Peer) -> None:
        await peer.subscribed()
        await peer.hold()

    async with (
        scripted(refuse, accept) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint)) as line,
    ):
        await line.was_up.wait()
        assert line.counts.reconnects == 1


async def test_a_refused_handshake_holds_all_back(tmp_path: Path) -> None:
    async def accept(peer: Peer) -> None:
        await peer.subscribed()
        await peer.hold()

    async with scripted(accept) as exchange, writing(tmp_path) as writer:
        exchange.refuse = lambda attempt: (
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
            if attempt == 1
            else None
        )
        made = recorded(writer, exchange.endpoint)
        begun = CLOCK.steady_ns()
        async with running(made) as line:
            await line.was_up.wait()
        assert CLOCK.steady_ns() - begun >= 9e8


def endless(first: int) -> Script:
    """Trades for ever, from `first` on, and an answer to everything."""

    async def script(peer: Peer) -> None:
        await peer.subscribed()

        async def send() -> None:
            number = first
            while True:
                await peer.send(frame(trade(number)))
                number += 1
                await asyncio.sleep(0.002)

        sending = asyncio.create_task(send())
        try:
            while True:
                if (await peer.receive())[0] == 1:
                    await peer.send(frame(b'{"result":true,"id":%d}' % peer.requests[-1]["id"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    return script


def ids_of(folder: Path) -> list[int]:
    """Of the recorded trades, in the order of the file."""
    bodies = [line.body for line in frames(folder) if b"@trade" in line.body]
    return [json.loads(body)["data"]["t"] for body in bodies]


async def test_an_old_connection_is_replaced_and_no_trade_is_missing(tmp_path: Path) -> None:
    log = Logbook()
    async with (
        scripted(endless(0), endless(5), endless(10)) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint, log, rollover_min_s=0.1, rollover_max_s=0.12)) as line,
    ):
        await until(lambda: line.counts.rollovers >= 2)
        assert (line.counts.reconnects, line.is_up) == (0, True)
        closing = exchange.peers[0].opcodes
        await until(lambda: closing and closing[-1][0] == 8)
    numbers = ids_of(tmp_path)
    assert set(numbers) == set(range(max(numbers) + 1))
    assert len(numbers) > len(set(numbers)), "both have recorded for a while"
    told = [event for event in events(tmp_path) if event in ("connected", "lost")]
    assert told[:3] == ["connected"] * 3
    assert told.count("lost") == 1, "the recorder's end"
    assert log.of("rolled over")[0]["reason"] == "age"


@pytest.mark.parametrize("spaces", [False, True], ids=["as ever", "with spaces"])
async def test_an_announced_shutdown_brings_the_next_one_up_at_once(tmp_path: Path, spaces: bool) -> None:
    event = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1781000000000}}'
    event = event.replace(b":", b": ") if spaces else event

    async def leaving(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(frame(trade(1)), frame(event), frame(trade(2)))
        await peer.hold()

    async with (
        scripted(leaving, endless(3)) as exchange,
        writing(tmp_path) as writer,
        running(recorded(writer, exchange.endpoint, rollover_overlap_s=3_600.0)) as line,
    ):
        await until(lambda: len(exchange.peers) == 2)
        exchange.peers[0].writer.close()
        await until(lambda: line.is_up and writer.counts.frames > 20)
    bodies = [line.body for line in frames(tmp_path)]
    assert event in bodies, "recorded like any other"
    assert {trade(1), trade(2), trade(3)} <= set(bodies)


async def test_lost_while_the_next_one_comes_up(tmp_path: Path) -> None:
    """There is a hole, and the marks say from when to when."""

    async def slow(peer: Peer) -> None:
        exchange.peers[0].writer.transport.abort()
        await until(lambda: not line.is_up)
        await endless(100)(peer)

    async with scripted(endless(0), slow) as exchange, writing(tmp_path) as writer:
        line = recorded(writer, exchange.endpoint)
        async with running(line):
            await until(lambda: writer.counts.frames > 3)
            await until(lambda: line.replace("test"))
            await until(lambda: line.counts.rollovers == 1)
            assert line.counts.reconnects == 1
    told = [event for event in events(tmp_path) if event in ("connected", "lost")]
    assert told in (["connected", "connected", "lost"], ["connected", "lost", "connected", "lost"])
