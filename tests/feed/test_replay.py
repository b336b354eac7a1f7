"""feed/replay on a real tape and port: resume from memory and disk, refusals, hand-over, slow readers."""

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.feed.harness import World
from tests.feed.test_slow_readers import LazyReader, frame
from tests.feed.v2_peer import ALL, Entry, Market, Peer, entries_of, expected, peer, tape_rows, taped
from tests.wire.reading import messages
from tradeback.feed import replay
from tradeback.feed.client import Client
from tradeback.model.config import FeedConfig
from tradeback.model.record import ROW_BYTES
from tradeback.ops.limits import raise_open_files
from tradeback.tape.segment import HEADER_BYTES, list_segments
from tradeback.wire import v2_layout as at
from tradeback.wire.frames import BINARY
from tradeback.wire.v2 import Decoder

NAMES = ("", "BTCUSDT", "ETHUSDT", "SOLUSDT")
SMALL = FeedConfig(send_buffer_bytes=4_096, lag_max_s=60.0)


async def ask_since(client: Peer, running: World, sequence: int, *names: str) -> None:
    """What a client does that comes back: resume, then subscribe. Reads up to `resumed` or its refusal."""
    await client.resume(running.tape.epoch, sequence)
    await client.send(type="subscribe", symbols=list(names) or ["*"], channels=list(ALL))
    await client.until(lambda: any(text["type"].startswith("resume") for text in client.texts))


@pytest.mark.parametrize("since", [1, 20, 1_500, 2_999, 3_000])
async def test_resume_brings_all_from_there_on_and_then_live(tmp_path: Path, since: int) -> None:
    market = Market(1)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.publish(market.rows(2_999))
        await ask_since(client, running, since, "BTCUSDT", "SOLUSDT")
        assert [text["type"] for text in client.texts] == ["subscribed", "resumed"]
        assert client.texts[1] == {
            "type": "resumed", "epoch": running.tape.epoch, "sequence": since, "until": 3_000,
        }  # fmt: skip
        running.publish(market.rows(500))
        wanted = expected(tape_rows(running, since), ids=(1, 3))
        await client.until(lambda: client.count == len(wanted))
        assert client.entries(snapshots=True) == expected(tape_rows(running, since), ids=(1, 3))
        assert running.feed.counts.resumed == 1


async def test_from_disk_far_beyond_the_hot_ring(tmp_path: Path) -> None:
    market = Market(2)
    async with taped(tmp_path, hot_rows=1 << 11, rows_per_segment=700) as running, peer(running.ws) as client:
        for _ in range(30):
            running.publish(market.rows(1_000))
        await ask_since(client, running, 5)
        running.publish(market.rows(100))
        await client.reach(30_101)
        assert client.entries() == expected(tape_rows(running, 5))
        flags = [frame.flags for frame in client.frames if not frame.is_heartbeat]
        assert flags == sorted(flags, reverse=True), "first replayed ones, then live ones"
        assert flags[0] == at.FRAME_REPLAY


async def test_after_a_restart_of_the_engine(tmp_path: Path) -> None:
    market = Market(3)
    async with taped(tmp_path) as running:
        running.publish(market.rows(4_000))
        epoch = running.tape.epoch
    async with taped(tmp_path, attach=False) as running, peer(running.ws) as client:
        assert running.tape.epoch == epoch
        assert not running.tape.in_memory(3_999), "the ring is empty"
        await ask_since(client, running, 1_234)
        await asyncio.sleep(0.01)
        assert client.order == ["subscribed", "resumed"], "nothing can be encoded yet"
        running.feed.attach_kernels()
        running.publish(market.rows(100))
        await client.reach(4_101)
        assert client.entries() == expected(tape_rows(running, 1_234))


def lose_tail(folder: Path, keep: int) -> None:
    """A machine crash: the newest records of a stopped tape are gone, and with them how it ended."""
    (newest,) = list_segments(folder)
    os.truncate(newest.path, HEADER_BYTES + ROW_BYTES * keep)
    (folder / "state.json").unlink()


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("keep", [1_000, 999])
async def test_a_position_at_the_very_end_of_an_epoch(tmp_path: Path, keep: int, early: bool) -> None:
    """All that the client has seen is still there: it goes on in the epoch that follows. One record less
    and it has seen what never was."""
    market = Market(3)
    async with taped(tmp_path) as running:
        running.publish(market.rows(1_000))
        epoch = running.tape.epoch
    lose_tail(tmp_path, keep)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        assert running.tape.epoch != epoch
        running.publish(market.rows(200))
        if early:
            await client.resume(epoch, 1_001)
        await client.send(type="subscribe", symbols=["*"], channels=list(ALL))
        if not early:
            await client.resume(epoch, 1_001)
        if keep < 1_000:
            assert "is not of this tape" in (await client.answer("resume_refused"))["reason"]
            return
        answer = await client.answer("resumed")
        assert (answer["epoch"], answer["sequence"]) == (running.tape.epoch, 1_001)
        running.publish(market.rows(100))
        await client.until(lambda: bool(client.frames) and client.frames[-1].sequence >= 1_301)
        assert client.entries() == expected(tape_rows(running, 1_001))
        assert {frame.epoch for frame in client.frames} == {running.tape.epoch}
        other = next(number for number in (1, 2) if number not in (epoch, running.tape.epoch))
        async with peer(running.ws) as stranger:
            await stranger.resume(other, 1_001)
            await stranger.send(type="subscribe", symbols=["*"], channels=list(ALL))
            assert "is not of this tape" in (await stranger.answer("resume_refused"))["reason"]


async def test_after_a_subscribe_what_was_live_is_not_sent_twice(tmp_path: Path) -> None:
    market = Market(4)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.publish(market.rows(1_000))
        await client.subscribe("*")
        running.publish(market.rows(300))
        await client.reach(1_301)
        live = len(client.frames)
        await client.resume(running.tape.epoch, 400)
        answer = await client.answer("resumed")
        assert (answer["sequence"], answer["until"]) == (400, 1_001)
        running.publish(market.rows(200))
        await client.reach(1_501)
        assert client.entries(0) == expected(tape_rows(running, 1_001))
        assert client.entries(at.FRAME_REPLAY) == expected(tape_rows(running, 400, 1_001))
        assert [frame.flags for frame in client.frames[live:]][-1] == 0, "live again"


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("epoch", "sequence", "reason"),
    [
        (1, 5, "is not of this tape"),
        (0, 4_001, "is ahead of this tape, which is at 4000"),
        (0, 3, "is gone; the tape holds"),
    ],
)
async def test_refused(tmp_path: Path, epoch: int, sequence: int, reason: str, early: bool) -> None:
    market = Market(5)
    async with taped(tmp_path, hot_rows=1 << 11, rows_per_segment=600) as running, peer(running.ws) as client:
        running.publish(market.rows(3_999))
        await keep_newest(running, 3)
        if not early:
            await client.subscribe("*")
        await client.resume(running.tape.epoch ^ epoch, sequence)
        if early:
            await client.send(type="subscribe", symbols=["*"], channels=list(ALL))
        answer = await client.answer("resume_refused")
        assert reason in answer["reason"]
        running.publish(market.rows(50))
        await client.reach(4_050)
        kinds = [kind for kind in client.order if kind != "beat"]
        snapshots = [frame for frame in client.frames if frame.flags & at.FRAME_SNAPSHOT]
        assert len(snapshots) == 2 - early, "at the subscribe, and after a later refusal"
        assert kinds.index("resume_refused") < len(kinds) - 2, "snapshot and live records follow"
        assert client.entries() == expected(tape_rows(running, 4_000))
        assert running.feed.counts.resumes_refused == 1


async def keep_newest(running: World, segments: int) -> None:
    """Retention: only the newest segments stay."""
    keeper = running.tape._keeper
    removed = len(list_segments(running.tape.folder)) - segments
    async with asyncio.timeout(10):
        while len(keeper._held) < removed:
            await asyncio.sleep(0.001)  # its thread is still sealing
    for _ in range(removed):
        segment, _size = keeper._held.popleft()
        segment.path.unlink()
    assert running.tape.oldest_sequence > 1_000


async def test_subscriptions_that_began_apart_cannot_be_resumed_together(tmp_path: Path) -> None:
    market = Market(6)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.publish(market.rows(100))
        await client.subscribe("BTCUSDT")
        running.publish(market.rows(100))
        await client.subscribe("ETHUSDT")
        await client.resume(running.tape.epoch, 50)
        assert "began at different sequences" in (await client.answer("resume_refused"))["reason"]
        running.publish(market.rows(100))
        await client.reach(301)
        await client.send(type="unsubscribe", symbols="*")
        await ask_since(client, running, 250, "*")
        await client.answer("resumed")


async def test_later_than_the_subscription_is_refused(tmp_path: Path) -> None:
    market = Market(6)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        await client.subscribe("BTCUSDT")
        running.publish(market.rows(100))
        await client.resume(running.tape.epoch, 50)
        assert "later than the subscription" in (await client.answer("resume_refused"))["reason"]


async def test_retention_that_overtakes_a_replay_closes_it(tmp_path: Path) -> None:
    market = Market(7)
    async with taped(tmp_path, SMALL, hot_rows=1 << 11, rows_per_segment=2_000) as running:
        running.publish(market.rows(20_000))
        with LazyReader(running) as lazy:
            client = await lazy_v2(lazy, since=(running.tape.epoch, 1))
            while not client.lagging:
                await asyncio.sleep(0)
            await keep_newest(running, 3)
            await lazy.ends()
            opcode, payload = messages(lazy.stream)[-1]
            assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 1013)
            assert b"retention" in payload
        await gone(running, client)


async def test_records_that_cannot_be_read_close_it(tmp_path: Path) -> None:
    market = Market(8)
    async with taped(tmp_path, hot_rows=1 << 11, rows_per_segment=100_000) as running:
        running.publish(market.rows(9_000))
        (segment,) = list_segments(running.tape.folder)
        with segment.path.open("r+b") as file:
            file.seek(64 + 64 * 3_000)
            file.write(b"\xff" * 8)
        async with peer(running.ws) as client:
            await ask_since(client, running, 2_000)
            with contextlib.suppress(Exception):
                await client.reach(9_001)
            assert client.ws.close_code == 1013
            assert client.entries() == expected(tape_rows(running, 2_000, 3_001))


@pytest.mark.parametrize("seed", range(6))
async def test_hand_over_to_live_while_records_keep_coming(tmp_path: Path, seed: int) -> None:
    """No hole and no double, wherever the replay begins and however the batches fall."""
    market, chance = Market(seed), random.Random(seed)
    async with taped(tmp_path, hot_rows=1 << 12, rows_per_segment=3_000) as running:
        running.publish(market.rows(20_000))
        stream = market.rows(20_000)
        async with contextlib.AsyncExitStack() as stack:
            begun: list[tuple[Peer, int, list[int]]] = []
            place = 0
            while place < len(stream):
                size = chance.choice((1, 3, 40, 300))
                running.publish(stream[place : place + size])
                place += size
                if len(begun) < 12 and chance.random() < 0.2:
                    client = await stack.enter_async_context(peer(running.ws))
                    since = chance.choice((1, chance.randrange(1, running.tape.next_sequence + 1)))
                    ids = chance.choice(([1, 2, 3], [2], [1, 3]))
                    names = ["*"] if len(ids) == 3 else [NAMES[number] for number in ids]
                    await ask_since(client, running, since, *names)
                    begun.append((client, since, ids))
                await asyncio.sleep(0)
            running.publish(market.rows(30))
            for client, since, ids in begun:
                wanted = expected(tape_rows(running, since), ids=ids)
                await client.until(lambda: client.count >= len(wanted))  # noqa: B023
                assert client.entries() == wanted
            assert len(begun) == 12
            await idle(running)


# Slow readers.


async def lazy_v2(
    lazy: LazyReader, *, since: tuple[int, int] | None = None, channels: str = '["trades","quotes"]'
) -> Client:
    """Connect a raw version 2 client that reads only when told to, subscribed to everything."""
    running = lazy.running
    known = set(running.feed.clients)
    await lazy.loop.sock_connect(lazy.sock, ("127.0.0.1", running.front.port))
    requests = b""
    if since is not None:
        requests += frame(b'{"type":"resume","epoch":%d,"sequence":%d}' % since)
    requests += frame(b'{"type":"subscribe","symbols":"*","channels":%s}' % channels.encode())
    await lazy.send(
        b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: tradeback.v2\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + requests
    )
    while b'"subscribed"' not in lazy.stream:
        await lazy.read()
    lazy.stream = lazy.stream.partition(b"\r\n\r\n")[2]
    (client,) = running.feed.clients - known
    return client


def frames_of(lazy: LazyReader) -> list[Any]:
    """All whole frames that came; the stream may end in the middle of one."""
    decoder = Decoder()
    for symbol in lazy.running.symbols:
        decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
    stream, place = lazy.stream, 0
    found = []
    while place + 4 <= len(stream):
        size, head = stream[place + 1], 2
        if size == 126:
            size, head = int.from_bytes(stream[place + 2 : place + 4], "big"), 4
        if place + head + size > len(stream):
            break
        if stream[place] & 15 == BINARY:
            found.append(decoder.decode(stream[place + head : place + head + size]))
        place += head + size
    return found


def trades_of(frames: list[Any]) -> list[Entry]:
    return [entry for frame in frames for entry in entries_of(frame) if entry[0] == "trade"]


def fill_v2(running: World, market: Market, client: Client) -> None:
    """Publish until the client's socket is full."""
    for _ in range(2_000):
        if client.lagging:
            return
        running.publish(market.rows(100))
    raise AssertionError("the socket never filled")


async def idle(running: World) -> None:
    """Until nobody is catching up any more."""
    async with asyncio.timeout(5):
        while len(running.feed.v2.replays):
            await asyncio.sleep(0)


async def gone(running: World, client: Client) -> None:
    async with asyncio.timeout(5):
        while client in running.feed.clients:
            await asyncio.sleep(0.001)


async def test_a_slow_reader_loses_no_trade_and_gets_the_latest_quotes(tmp_path: Path) -> None:
    market = Market(20)
    async with taped(tmp_path, SMALL, hot_rows=1 << 16) as running:
        with LazyReader(running) as lazy:
            client = await lazy_v2(lazy)
            fill_v2(running, market, client)
            assert client.group is None
            running.publish(market.rows(10_000))
            end = running.tape.next_sequence
            async with asyncio.timeout(10):
                while client.lagging or client.replay is not None or client.unsent_bytes():
                    try:
                        lazy.stream += lazy.sock.recv(65_536)
                    except BlockingIOError:
                        await asyncio.sleep(0)
            running.publish(market.rows(5))
            while not (frames := frames_of(lazy)) or frames[-1].sequence < end + 5:
                await lazy.read()
            rows = tape_rows(running)
            assert trades_of(frames) == expected(rows, ["trades"]), "every trade, in order"
            quotes = np.concatenate([frame.quotes for frame in frames])
            sent = expected(rows, ["quotes"])
            assert len(quotes) < len(sent) / 2, "conflated"
            assert len(quotes) + int(quotes["skipped"].sum()) == len(sent), "the left out ones are counted"
            assert running.feed.v2.replays.quotes_left_out == int(quotes["skipped"].sum())
            for symbol_id in (1, 2, 3):
                newest = [entry for entry in sent if entry[1] == symbol_id][-1]
                last = quotes[quotes["symbol_id"] == symbol_id][-1]
                assert (last["bid"], last["ask"]) == (newest[2], newest[4])
            counts = running.feed.counts
            assert counts.lagged >= counts.caught_up >= 1
            assert counts.aborted == 0


async def test_a_stuck_reader_costs_a_cursor_then_1013_and_resumes(tmp_path: Path) -> None:
    market = Market(21)
    config = FeedConfig(send_buffer_bytes=4_096, lag_max_s=0.08)
    async with taped(tmp_path, config, hot_rows=1 << 13) as running:
        with LazyReader(running) as lazy:
            client = await lazy_v2(lazy, channels='["trades","quotes","gaps"]')
            fill_v2(running, market, client)
            waiting = client.unsent_bytes()
            running.publish(market.rows(2_000))
            assert client.unsent_bytes() == waiting, "nothing is queued for it"
            await gone(running, client)
            await lazy.ends()
            frames = frames_of(lazy)
            epoch, sequence = frames[-1].epoch, frames[-1].sequence
            got = [entry for one in frames for entry in entries_of(one)]
        assert running.feed.counts.aborted == 1
        assert not running.feed.lagging
        running.publish(market.rows(20_000))
        async with peer(running.ws) as again:
            await ask_since(again, running, sequence)
            assert again.texts[-1]["epoch"] == epoch
            await again.reach(running.tape.next_sequence)
            assert got + again.entries() == expected(tape_rows(running))


async def test_a_replay_whose_client_does_not_read_gives_its_slot_away(tmp_path: Path) -> None:
    market = Market(22)
    async with taped(tmp_path, SMALL, hot_rows=1 << 12) as running, contextlib.AsyncExitStack() as stack:
        running.publish(market.rows(15_000))
        lazies = [stack.enter_context(LazyReader(running)) for _ in range(2 * replay.SLOTS_MAX)]
        stuck = [await lazy_v2(lazy, since=(running.tape.epoch, 1)) for lazy in lazies]
        while not all(client.lagging for client in stuck):
            await asyncio.sleep(0.001)
        assert len(running.feed.v2.replays) == len(stuck)
        held = max(client.transport.get_write_buffer_size() for client in stuck)
        assert held < replay.ROWS_PER_STEP * at.ENTRY_BYTES_MAX, "one step waits for a client at the most"
        async with peer(running.ws) as good:
            await ask_since(good, running, 1)
            await good.reach(running.tape.next_sequence)
            assert good.entries() == expected(tape_rows(running))
        for lazy, client in zip(lazies, stuck, strict=True):
            async with asyncio.timeout(10):
                while client.replay is not None or client.unsent_bytes():
                    try:
                        lazy.stream += lazy.sock.recv(65_536)
                    except BlockingIOError:
                        await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                lazy.stream += lazy.sock.recv(65_536)
        for lazy in lazies:
            assert trades_of(frames_of(lazy)) == expected(tape_rows(running), ["trades"])


async def test_enigma_waits_until_a_replay_is_through(tmp_path: Path) -> None:
    """An Enigma message names the tape's head: before the replay it would make a client skip the rest."""
    market = Market(23)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.publish(market.rows(12_000))
        await client.resume(running.tape.epoch, 100)
        await client.send(type="subscribe", symbols=["*"], channels=[*ALL, "enigma"])
        await client.until(lambda: sum(len(frame.enigma) for frame in client.frames) == 3)
        positions = [frame.sequence for frame in client.frames]
        assert positions == sorted(positions)
        assert client.entries() == expected(tape_rows(running, 100))


CROWD = min(1_000, (raise_open_files(6_000) - 1_000) // 4)
"""Clients of either sort, as far as the open files allow: two of them for each client."""


async def test_a_crowd_of_stuck_clients_costs_the_good_ones_nothing(tmp_path: Path) -> None:
    market = Market(24)
    config = FeedConfig(send_buffer_bytes=4_096, lag_max_s=1.0, clients_max=4 * CROWD)
    async with taped(tmp_path, config, hot_rows=1 << 15, rows_per_segment=100_000) as running:
        async with contextlib.AsyncExitStack() as stack:
            lazies = [stack.enter_context(LazyReader(running)) for _ in range(CROWD)]
            stuck = [await lazy_v2(lazy) for lazy in lazies]
            good = [await stack.enter_async_context(peer(running.ws)) for _ in range(CROWD)]
            for client in good:
                await client.subscribe("*", channels=["trades", "quotes"])
            readers = [asyncio.create_task(reading(client)) for client in good]
            aborted, rows = 0, 0
            async with asyncio.timeout(120):
                while aborted < CROWD:
                    running.publish(market.rows(20))
                    rows += 20
                    await asyncio.sleep(0.002)
                    aborted = running.feed.counts.aborted
            assert running.feed.counts.lagged >= CROWD
            assert not any(client in running.feed.clients for client in stuck if not client.closing)
            end = running.tape.next_sequence
            for client in good:
                async with asyncio.timeout(60):
                    while not client.frames or client.frames[-1].sequence < end:
                        await asyncio.sleep(0.002)
            wanted = expected(tape_rows(running), ["trades"])
            for client in good:
                assert [entry for entry in client.entries() if entry[0] == "trade"] == wanted
            await idle(running)
            assert not running.feed.lagging
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        async with asyncio.timeout(10):
            while running.feed.clients:
                await asyncio.sleep(0.005)
        assert running.feed.v2.fanout.groups == 0


async def reading(client: Peer) -> None:
    """Take whatever comes."""
    while True:
        client.take(await client.ws.recv())


async def test_every_rung_has_its_number(tmp_path: Path) -> None:
    market = Market(25)
    async with taped(tmp_path, SMALL, hot_rows=1 << 12) as running:
        running.publish(market.rows(8_000))
        with LazyReader(running) as lazy:
            client = await lazy_v2(lazy, since=(running.tape.epoch, 1))
            while not client.lagging:
                await asyncio.sleep(0)
            found = {family.name: family.samples[0][1] for family in running.feed.collect()}
            assert found["tradeback_feed_lagging"] == 1
            assert found["tradeback_feed_catching_up"] == 1
            assert found["tradeback_feed_resumed"] == 1
            assert 0 < running.feed.v2.replays.records < 8_000
        await gone(running, client)
        await idle(running)
