"""exchange.line on real sockets: every way a connection can go wrong, and what the tape then holds."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.exchange.harness import (
    UNSTAMPED,
    YEN,
    Desk,
    Peer,
    Script,
    combined,
    desk,
    frame,
    quote,
    running,
    samples,
    scripted,
    trade,
    until,
)
from tradeback.exchange import fallback, requests
from tradeback.exchange.budget import Budget
from tradeback.ingest import context as words
from tradeback.model.limits import READ_BUFFER_BYTES, READ_BUFFER_BYTES_MAX
from tradeback.model.record import LINE_MASK, LINE_SHIFT, QUOTE, TRADE
from tradeback.path import layout as at
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


def sends(*frames: bytes, requests: int = 1) -> Script:
    """Acknowledge, send all in one piece, keep the connection open."""

    async def script(peer: Peer) -> None:
        await peer.subscribed(requests)
        await peer.send(*frames)
        await peer.hold()

    return script


def ids(world: Desk) -> list[int]:
    return [int(number) for number in world.rows["id"]]


async def test_asks_for_microseconds_and_subscribes_by_name(world: Desk) -> None:
    async with (
        scripted(sends(trade(7, symbol=YEN.symbol))) as exchange,
        running(world.line(exchange.endpoint, names=("BTCUSDT", YEN.symbol))) as line,
    ):
        await until(lambda: world.count == 1 and line.health().state == "ok")
        assert line.was_up.is_set()
    assert exchange.paths == ["/stream?timeUnit=MICROSECOND"]
    assert exchange.peers[0].requests == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "币安人生usdt@trade"], "id": 1}
    ]
    row = world.rows[0]
    assert (row["id"], row["symbol_id"], row["kind"]) == (7, YEN.id, TRADE)
    assert row["flags"] >> LINE_SHIFT == 0
    world.check_tape()


async def test_a_connection_full_of_streams_is_subscribed_within_the_limit(world: Desk) -> None:
    source = Synthetic(2, 500.0)
    server = await SimServer.start(source, SimConfig(start_after_streams=1_024))
    # Unknown names are accepted silently, as the exchange does.
    names = [*source.books, *(f"NAME{number}USDT" for number in range(1_022))]
    try:
        async with running(world.line(server.ws_url, names=names)) as line:
            await until(lambda: world.count > 10)
            assert line.counts.reconnects == 0
            assert server.hub.subscriptions == 1_024
    finally:
        await server.stop()
    assert requests.PACE_PERIOD_S > 1


async def test_pings_are_answered_with_their_payload(world: Desk) -> None:
    config = SimConfig(ping_interval_s=0.3, pong_timeout_s=0.25)
    server = await SimServer.start(Synthetic(2, 200.0), config)
    try:
        async with running(world.line(server.ws_url)) as line:
            await until(lambda: line.counts.pings >= 3)
            assert line.counts.reconnects == 0
            assert len(server.connections) == 1
    finally:
        await server.stop()


async def test_a_ping_between_trades(world: Desk) -> None:
    async with (
        scripted(sends(trade(1), frame(b"abc", 0x89), trade(2), frame(b"", 0x89))) as exchange,
        running(world.line(exchange.endpoint)),
    ):
        await until(lambda: world.count == 2 and len(exchange.peers[0].opcodes) == 2)
    assert exchange.peers[0].opcodes == [(0x0A, b"abc"), (0x0A, b"")]


async def test_pings_beyond_the_limit_of_messages_are_answered_together(
    world: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange counts pongs among its five messages a second, and cuts who sends more."""
    monkeypatch.setattr(requests, "PACE_PERIOD_S", 0.2)
    pings = [b"%d" % number for number in range(30)]
    async with (
        scripted(sends(*(frame(payload, 0x89) for payload in pings), trade(1))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: exchange.peers and (0x0A, pings[-1]) in exchange.peers[0].opcodes)
        assert line.counts.pings == 30
        # The subscription was the first of four in the window.
        assert exchange.peers[0].opcodes == [(0x0A, payload) for payload in (*pings[:3], pings[-1])]
        assert line.counts.reconnects == 0


async def test_frames_that_come_together_with_the_handshake(world: Desk) -> None:
    async with scripted(sends(trade(3))) as exchange:
        exchange.attach = frame(b"hello", 0x89) + trade(1) + trade(2)
        async with running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 3)
            assert line.counts.reconnects == 0
    assert ids(world) == [1, 2, 3]
    assert exchange.peers[0].opcodes == [(0x0A, b"hello")]


def cut(peer: Peer) -> None:
    """Reset: no close frame, no FIN."""
    peer.writer.transport.abort()


async def after_cut(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1))
    await asyncio.sleep(0.01)
    cut(peer)


async def after_close_frame(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), frame(b"\x03\xe9maintenance", 0x88), trade(99))
    await peer.hold()


async def after_end(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), trade(2)[:40])


async def after_garbage(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), b"\xff\xffgarbage" * 10, trade(99))
    await peer.hold()


async def after_masked(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), b"\x81\x83abcdxyz")
    await peer.hold()


async def after_oversized(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), b"\x81\x7f" + (READ_BUFFER_BYTES_MAX + 1).to_bytes(8, "big"))
    await peer.hold()


async def after_long_control(peer: Peer) -> None:
    await peer.subscribed()
    await peer.send(trade(1), frame(b"x" * 126, 0x89))
    await peer.hold()


async def after_endless_fragments(peer: Peer) -> None:
    await peer.subscribed()
    part = b" " * 1_000_000
    await peer.send(trade(1), frame(part, 0x01), *(frame(part, 0x00) for _ in range(5)))
    await peer.hold()


@pytest.mark.parametrize(
    ("script", "words", "close_code"),
    [
        (after_cut, "", None),
        (after_close_frame, "the exchange closed: 1001 maintenance", None),
        (after_end, "the exchange closed the connection", None),
        (after_garbage, "(1002)", 1002),
        (after_masked, "(1002)", 1002),
        (after_oversized, "(1009)", 1009),
        (after_long_control, "(1002)", 1002),
        (after_endless_fragments, "(1009)", 1009),
    ],
)
async def test_what_was_whole_is_kept_and_the_line_comes_back(
    world: Desk, script: Script, words: str, close_code: int | None
) -> None:
    async with scripted(script, sends(trade(1), trade(2))) as exchange:
        async with running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 2 and line.health().state == "ok")
            assert line.counts.reconnects == 1
            assert line.counts.broken == (close_code is not None)
            assert line.health().last_error is None
        lost = world.log.of("line lost")
        assert len(lost) == 1
        assert words in lost[0]["error"]
        assert lost[0]["failures"] == 1
    assert ids(world) == [1, 2]
    world.check_tape()
    if close_code is not None:
        assert exchange.peers[0].opcodes[-1][0] == 8
        assert int.from_bytes(exchange.peers[0].opcodes[-1][1][:2], "big") == close_code


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!",
        b"HTTP/1.1 503 Busy\r\n\r\n<html>",
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\xff" * 600 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"x" * 70_000,
    ],
    ids=["429", "404", "503", "hangs_up", "ssh", "garbage", "wrong_key", "endless"],
)
async def test_a_refused_handshake_costs_a_back_off(world: Desk, answer: bytes) -> None:
    async with scripted(sends(trade(1))) as exchange:
        exchange.refuse = lambda attempt: answer if attempt <= 2 else None
        async with running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 1)
            assert line.counts.reconnects == 2
    assert exchange.attempts == 3
    assert world.log.of("line lost")[0]["error"]


async def test_retry_after_of_a_handshake_holds_all_lines_back(world: Desk) -> None:
    async with scripted(sends(trade(1))) as exchange:
        exchange.refuse = lambda attempt: (
            b"HTTP/1.1 429 Too Many\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n"
        )
        attempts = Budget(100, 1.0)
        async with running(world.line(exchange.endpoint, attempts=attempts)) as line:
            await until(lambda: line.counts.reconnects == 1)
            assert attempts.blocked_s(line._clock.steady_ns()) > 70
            await asyncio.sleep(0.06)  # several back-offs
            assert exchange.attempts == 1


async def test_nobody_listens(world: Desk) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with running(world.line(f"ws://127.0.0.1:{port}")) as line:
        await until(lambda: line.counts.reconnects >= 3)
        assert line.health().state == "down"
        assert "111" in (line.health().last_error or "") or "refused" in (line.health().last_error or "")


async def test_a_handshake_without_end_is_given_up_and_its_late_answer_ignored(world: Desk) -> None:
    late = asyncio.Event()
    attempts = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        await late.wait()
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server:
        endpoint = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with running(world.line(endpoint, connect_timeout_s=0.05)) as line:
            await until(lambda: len(attempts) >= 2)
            assert line.last_error
            assert line.current is None
        late.set()
        for writer in attempts:
            await writer.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"error":{"code":2,"msg":"Invalid request: too many streams"},"id":1}',
        b'{"code":2,"msg":"Invalid request: too many streams","id":1}',
        b'{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 4096"}}',
        b'{"code":3,"msg":"Invalid JSON"}',
        b'{"error":"no","id":1}',
    ],
)
async def test_a_refused_subscription_is_said_and_tried_again(world: Desk, answer: bytes) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.receive()
        await peer.send(frame(answer))
        await peer.hold()

    async with scripted(refuses, sends(trade(1))) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: world.count == 1)
        assert line.counts.malformed == 0
    (lost,) = world.log.of("line lost")
    assert "the exchange refused a request" in lost["error"]


async def test_data_before_the_acknowledgement_is_taken(world: Desk) -> None:
    async def early(peer: Peer) -> None:
        await peer.receive()
        await peer.send(trade(1), frame(b'{"result":null,"id":1}'), trade(2))
        await peer.hold()

    async with scripted(early) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: world.count == 2)
        await until(lambda: line.health().state == "ok")


async def test_no_acknowledgement(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ANSWER_WAIT_S", 0.03)

    async def mute(peer: Peer) -> None:
        await peer.hold()

    async with scripted(mute, sends(trade(1))) as exchange, running(world.line(exchange.endpoint)):
        await until(lambda: world.count == 1)
    assert "did not acknowledge" in world.log.of("line lost")[0]["error"]


async def test_cut_while_subscribing(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PACE_PERIOD_S", 0.1)

    async def cuts(peer: Peer) -> None:
        await peer.receive()
        cut(peer)

    names = [f"NAME{number}USDT" for number in range(900)]
    async with (
        scripted(cuts, sends(trade(1), requests=5)) as exchange,
        running(world.line(exchange.endpoint, names=names)),
    ):
        await until(lambda: world.count == 1)
    assert len(world.log.of("line lost")) == 1


async def test_a_silent_exchange_is_replaced(world: Desk) -> None:
    async with (
        scripted(sends(trade(1)), sends(trade(1), trade(2))) as exchange,
        running(world.line(exchange.endpoint, idle_timeout_s=0.08)),
    ):
        await until(lambda: world.count == 2)
    assert "silent for 0.08 s" in world.log.of("line lost")[0]["error"]


async def test_pings_alone_are_no_silence(world: Desk) -> None:
    async def pings(peer: Peer) -> None:
        await peer.subscribed()
        for _ in range(12):
            await peer.send(frame(b"p", 0x89))
            await asyncio.sleep(0.03)
        await peer.send(trade(1))
        await peer.hold()

    async with (
        scripted(pings) as exchange,
        running(world.line(exchange.endpoint, idle_timeout_s=0.15)) as line,
    ):
        await until(lambda: world.count == 1)
        assert line.counts.reconnects == 0


MALFORMED = (
    combined("btcusdt@trade", '{"e":"trade","E":1,"s":"BTCUSDT","t":-5,"p":"1","q":"1","T":1,"m":true}'),
    combined("btcusdt@trade", '{"e":"trade","E":1,"s":"BTCUSDT","t":5,"p":"nan","q":"1","T":1,"m":true}'),
    combined("yyy@trade", '{"e":"trade","E":1,"s":"YYY","t":5,"p":"1","q":"1","T":1,"m":true}'),
    combined("btcusdt@trade", '[1,2,{"'),
    frame(b""),
    frame(b"\xff\xfe not utf-8"),
    frame(b"[" * 5_000),
    frame(b"null"),
    frame(b'{"stream":"btcusdt@kline_1s","data":{"e":"kline","s":"BTCUSDT"}}'),
)


async def test_malformed_frames_cost_no_neighbour_and_no_order(world: Desk) -> None:
    frames = []
    for number in range(200):
        frames += [trade(number + 1), MALFORMED[number % len(MALFORMED)]]
    # Odd but right: another key order, a space, an extra key, an escape.
    odd = combined(
        "btcusdt@trade",
        '{"s":"BTC\\u0055SDT","e":"trade","T":1781000000123,"q":"1.5","x":[{}], "p":"2.5","t":201,'
        '"m":true,"E":1781000000124}',
    )
    async with (
        scripted(sends(*frames, odd, frame(b"\x01\x02", 0x82), trade(202))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 202)
        counts = line.counts
        assert (counts.malformed, counts.fallbacks, counts.odd_frames) == (200, 91, 1)
        assert counts.reconnects == 0
    assert ids(world) == list(range(1, 203))
    row = world.rows[200]
    assert (row["price"], row["quantity"], row["exchange_us"]) == (2.5, 1.5, 1_781_000_000_123_000)
    # The log got a sample, not 200 lines.
    dropped = world.log.of("frame dropped")
    assert len(dropped) == 1
    assert dropped[0]["line"] == "a:trade:0"
    assert "not an id" in dropped[0]["reason"]
    world.check_tape()


async def test_fragments_are_joined_in_order(world: Desk) -> None:
    whole = [trade(2)[4:], trade(3)[4:], trade(5)[4:]]
    pieces = [
        trade(1),
        frame(whole[0][:50], 0x01),
        frame(b"", 0x00),
        frame(b"ping", 0x89),
        frame(whole[0][50:], 0x80),
        frame(whole[1], 0x01),
        frame(b"", 0x80),
        trade(4),
        frame(b"stray", 0x80),
        *(frame(bytes((byte,)), 0x01 if not place else 0x00) for place, byte in enumerate(whole[2])),
        frame(b"", 0x80),
        trade(6),
    ]
    async with scripted(sends(*pieces)) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: world.count == 6)
        assert line.counts.odd_frames == 1
        assert line.counts.reconnects == 0
    assert ids(world) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [READ_BUFFER_BYTES - 8, READ_BUFFER_BYTES, READ_BUFFER_BYTES_MAX])
async def test_a_message_larger_than_the_arena(world: Desk, size: int) -> None:
    head, tail = trade(2)[4:-1].rsplit(b',"M":true', 1)
    big = head + b',"x":"' + b"y" * (size - len(head) - len(tail) - 18) + b'","M":true' + tail + b"}"
    big += b" " * (size - len(big))
    assert len(big) == size
    async with (
        scripted(sends(trade(1), frame(big), trade(3))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 3)
        assert line.counts.reconnects == 0
    assert ids(world) == [1, 2, 3]


async def test_a_byte_at_a_time(world: Desk) -> None:
    async def drips(peer: Peer) -> None:
        await peer.subscribed()
        for byte in trade(1) + frame(b"p", 0x89) + trade(2) + quote(5):
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await peer.hold()

    async with scripted(drips) as exchange, running(world.line(exchange.endpoint)):
        await until(lambda: world.count == 3)
    assert [int(kind) for kind in world.rows["kind"]] == [TRADE, TRADE, QUOTE]


async def test_the_shutdown_is_noticed(world: Desk) -> None:
    event = '{"e":"serverShutdown","E":1781000000000}'
    async with (
        scripted(sends(frame(event.encode()), combined("!serverShutdown", event), trade(1))) as exchange,
        running(world.line(exchange.endpoint)) as line,
    ):
        await until(lambda: world.count == 1)
        assert line.counts.shutdowns == 2
        assert line.counts.malformed == 0


async def test_a_wrong_sample_switches_to_the_slow_path(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    right = fallback.decode_event

    def wrong(event: dict[str, object], symbols: object) -> object:
        rows, event_us = right(event, symbols)  # type: ignore[arg-type]
        if not world.intake.view[words.ALL_TO_SIDE]:
            rows["price"] += 1
        return rows, event_us

    monkeypatch.setattr(fallback, "decode_event", wrong)
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        # In reads of their own: a sample is the first frame of a read.
        await until(lambda: line.health().state == "ok")
        await peer.send(trade(1), trade(2))
        await more.wait()
        await peer.send(trade(3), trade(4))
        await until(lambda: line.counts.shadow_differs)
        await peer.send(trade(5), trade(6))
        await peer.hold()

    async with scripted(script) as exchange:
        line = world.line(exchange.endpoint)
        async with running(line):
            await until(lambda: line.connections and line.connections[0].reader)
            reader = line.connections[0].reader
            assert reader is not None
            reader._words[at.READER_SAMPLE_IN] = 3  # after the two acknowledging reads at most
            await until(lambda: world.count == 2)
            reader._words[at.READER_SAMPLE_IN] = 1
            more.set()
            await until(lambda: world.count == 6)
            assert line.counts.shadow_checked >= 1
            assert line.counts.shadow_differs == 1
            assert world.intake.view[words.ALL_TO_SIDE] == 1
            assert line.counts.fallbacks >= 2, "from the next frame on"
    assert ids(world) == [1, 2, 3, 4, 5, 6]
    assert set(world.rows["price"]) == {64250.01}
    assert len(world.log.of("kernel and slow path disagree")) == 1


async def test_the_slow_path_puts_the_same_records_on_the_tape(tmp_path: Path) -> None:
    frames = [
        frame
        for number in range(300)
        for frame in (
            trade(number + 1),
            trade(number + 1, symbol=YEN.symbol),
            quote(number * 3 + 1),
            trade(number + 1) if number % 7 == 0 else quote(number * 3 + 2, symbol="ETHUSDT"),
            MALFORMED[number % len(MALFORMED)],
        )
    ]
    found = []
    for mode in (0, 1):
        with desk(tmp_path / str(mode)) as world:
            world.intake.view[words.ALL_TO_SIDE] = mode
            async with (
                scripted(sends(*frames, trade(1_000))) as exchange,
                running(world.line(exchange.endpoint, number=1)) as line,
            ):
                await until(lambda: world.count and ids(world)[-1] == 1_000)
                assert line.counts.fallbacks == (1_201 + 135 if mode else 135)
            world.check_tape()
            assert {int(flags & LINE_MASK) >> LINE_SHIFT for flags in world.rows["flags"]} == {1}
            found.append(world.rows[list(UNSTAMPED)].copy())
            counters = [world.intake.context.counter(words.DUPLICATES, kind) for kind in words.KINDS]
            assert sum(counters) == 43
    assert np.array_equal(found[0], found[1])


async def test_more_rows_than_a_batch_and_the_rings_end(tmp_path: Path) -> None:
    # 5,000 trades in pieces of every size go round a ring of 2,048 twice; some pieces end with it.
    sizes = (1, 700, 1346, 1, 2048, 904)
    with desk(tmp_path, hot_rows=2048) as world:

        async def script(peer: Peer) -> None:
            await peer.subscribed()
            number = 1
            for size in sizes:
                await peer.send(*(trade(number + place) for place in range(size)))
                number += size
                await until(lambda sent=number: world.count == sent - 1)  # type: ignore[misc]
                await peer.send(trade(number)[:9])
                await asyncio.sleep(0.01)
                await peer.send(trade(number)[9:])
                number += 1
            await peer.hold()

        async with scripted(script) as exchange, running(world.line(exchange.endpoint)):
            await until(lambda: world.count == sum(sizes) + len(sizes))
        assert ids(world) == list(range(1, world.count + 1))


async def test_half_a_frame_at_the_rings_start(tmp_path: Path) -> None:
    """The next slot is the ring's first, nothing can be taken, and there is no more to pull."""
    with desk(tmp_path, hot_rows=1024) as world:

        async def script(peer: Peer) -> None:
            await peer.subscribed()
            await peer.send(*(trade(number) for number in range(1, 1024)))
            await until(lambda: world.count == 1023)
            await peer.send(trade(1024)[:20])
            await asyncio.sleep(0.01)
            await peer.send(trade(1024)[20:], trade(7))
            await peer.hold()

        async with scripted(script) as exchange, running(world.line(exchange.endpoint)) as line:
            await until(lambda: world.count == 1024)
            assert world.tape.next_sequence & 1023 == 1
            assert line.health().state == "ok"


async def test_the_metrics_of_a_line(world: Desk) -> None:
    async with scripted(after_cut, sends(trade(1), trade(2), frame(b"", 0x89))) as exchange:
        pool = world.pool(exchange.endpoint, ["BTCUSDT"])
        line = pool.lines[0]
        async with running(line):
            await until(lambda: line.counts.pings == 1 and line.health().state == "ok")
            text = {(name, label): value for name, label, value in samples(pool)}
            assert text["tradeback_line_reconnects", "a:trade:0"] == 1
            assert text["tradeback_line_pings", "a:trade:0"] == 1
            assert text["tradeback_line_up", "a:trade:0"] == 1
            assert text["tradeback_line_up", "a:aggTrade:0"] == 0
            sent = len(trade(1)) * 2 + len(trade(2)) + 2 + 2 * len(frame(b'{"result":null,"id":1}'))
            assert text["tradeback_line_bytes", "a:trade:0"] == sent == line.bytes_read
            assert text["tradeback_line_reads", "a:trade:0"] == line.reads >= 2
