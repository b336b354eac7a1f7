"""One recorded connection against exchanges that do what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.exchange.harness import CLOCK, QUICK, Logbook, Peer, frame, scripted, until
from tests.recording.tools import A_TRADE, events, frames, marks, trade, writing
from tradeback.exchange.budget import Budget
from tradeback.exchange.streams import LinePlan
from tradeback.ops.log import RepeatLimiter
from tradeback.recording.connection import Connection
from tradeback.recording.writer import Writer

PLAN = LinePlan("trade", 0, 0, ("BTCUSDT", "ETHUSDT"))


def connection(writer: Writer, endpoint: str, log: Logbook | None = None, **more: Any) -> Connection:
    config = msgspec.structs.replace(QUICK, ws_endpoint=endpoint, **more)
    track = writer.track(A_TRADE)
    return Connection(PLAN, config, CLOCK, track, Budget(10_000, 1.0), log or Logbook(), RepeatLimiter())


@asynccontextmanager
async def running(made: Connection) -> AsyncIterator[Connection]:
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
        async with running(connection(writer, exchange.endpoint)) as line:
            await line.was_up.wait()
            await until(lambda: writer.counts.frames == 101)
        assert [json.loads(line.body)["id"] for line in frames(tmp_path)[:1]] == [1]
        (path,), (peer,) = exchange.paths, exchange.peers
        assert path == "/stream?timeUnit=MICROSECOND"
        assert peer.requests[0]["params"] == ["btcusdt@trade", "ethusdt@trade"]
    found = frames(tmp_path)[1:]
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
        running(connection(writer, exchange.endpoint)),
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
        running(connection(writer, exchange.endpoint)),
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
        running(connection(writer, exchange.endpoint, log)) as line,
    ):
        await until(lambda: line.reconnects >= 3)
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
        running(connection(writer, exchange.endpoint, idle_timeout_s=0.08)) as line,
    ):
        await until(lambda: line.reconnects >= 2)
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
        running(connection(writer, exchange.endpoint)) as line,
    ):
        await line.was_up.wait()
        assert line.reconnects == 1


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
        made = connection(writer, exchange.endpoint)
        begun = CLOCK.steady_ns()
        async with running(made) as line:
            await line.was_up.wait()
        assert CLOCK.steady_ns() - begun >= 9e8
