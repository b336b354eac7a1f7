"""A client that does not read is bounded, served conflated when it reads again, and in the end aborted."""

import asyncio
import contextlib
import socket
import struct
from collections import defaultdict
from decimal import Decimal

import aiohttp

from tests.feed.harness import MemoryTape, Trade, World, entries, subscribe, world
from tests.wire.reading import messages
from tradeback.feed.client import Client
from tradeback.model.config import FeedConfig
from tradeback.wire.frames import BINARY, TEXT
from tradeback.wire.v1 import decode_v1

UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SMALL = FeedConfig(send_buffer_bytes=4_096, lag_max_s=60.0)


def frame(payload: bytes) -> bytes:
    """A client's text frame with a mask of zeros."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0x80 | 126)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class LazyReader:
    """A raw client with a small receive buffer that reads only when it is told to."""

    def __init__(self, running: World) -> None:
        self.running = running
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.sock.setblocking(False)
        self.stream = b""
        self.loop = asyncio.get_running_loop()

    def __enter__(self) -> "LazyReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    async def connect(self, *names: str) -> Client:
        """Connect and subscribe; the feed's object for this client."""
        known = set(self.running.feed.clients)
        await self.loop.sock_connect(self.sock, ("127.0.0.1", self.running.front.port))
        listed = ",".join(f'"{name}"' for name in names)
        await self.send(UPGRADE + frame(b'{"type":"subscribe","symbols":[%s]}' % listed.encode()))
        while b'"subscribed"' not in self.stream:
            await self.read()
        self.stream = self.stream.partition(b"\r\n\r\n")[2]
        (client,) = self.running.feed.clients - known
        return client

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def read(self) -> bool:
        """Read some; False at the end of the connection."""
        async with asyncio.timeout(5):
            data = await self.loop.sock_recv(self.sock, 65_536)
        self.stream += data
        return bool(data)

    async def read_until_live(self, client: Client) -> None:
        """Read until the feed counts this client as live again, and all that was sent."""
        async with asyncio.timeout(10):
            while client.lagging or client.unsent_bytes():
                try:
                    self.stream += self.sock.recv(65_536)
                except BlockingIOError:
                    await asyncio.sleep(0)
        self.running.trade((3, 4_242.0, 1.0))  # a mark that ends the stream
        while not self.entries() or self.entries()[-1][1] != 4_242.0:
            await self.read()

    async def ends(self) -> int:
        """Read to the end of the connection, which a reset may be; the bytes that came in all."""
        with contextlib.suppress(ConnectionError):
            while await self.read():
                pass
        return len(self.stream)

    def entries(self) -> list[Trade]:
        """All entries of the whole frames that came."""
        stream, place, found = self.stream, 0, []
        while place + 2 <= len(stream):
            size, head = stream[place + 1], 2
            if size == 126:
                size, head = int.from_bytes(stream[place + 2 : place + 4], "big"), 4
            if place + head + size > len(stream):
                break
            if stream[place] == 0x80 | BINARY:
                found += decode_v1(stream[place + head : place + head + size]).tolist()
            place += head + size
        return found


def fill(running: World, client: Client, symbols: int = 3) -> None:
    """Trade until the client's socket is full."""
    for turn in range(20_000):
        if client.lagging:
            return
        running.trade(*(_trade(turn, place % symbols + 1) for place in range(30)))
    raise AssertionError("the socket never filled")


def _trade(turn: int, symbol_id: int) -> Trade:
    return symbol_id, 100.0 + turn % 1_000 / 100, (turn % 97 + 1) / 1_000


def volumes(trades: list[Trade]) -> dict[int, Decimal]:
    """Exact sum per symbol."""
    sums: dict[int, Decimal] = defaultdict(Decimal)
    for symbol_id, _, quantity in trades:
        sums[symbol_id] += Decimal(repr(quantity))
    return dict(sums)


async def test_a_reader_that_comes_back_gets_what_it_missed_conflated_and_exact() -> None:
    async with world(SMALL, tape=MemoryTape(1 << 16)) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "ETHUSDT", "SOLUSDT")
            fill(running, client)
            assert client.group is None, "no part in any group"
            for turn in range(1_000):
                running.trade(_trade(turn, 1), _trade(turn, 2))
            published = list(running.published)
            await lazy.read_until_live(client)
            got = lazy.entries()[:-1]
            assert len(got) < len(published) - 1_500, "conflated"
            assert volumes(got) == volumes(published), "volumes add up exactly"
            for symbol_id in (1, 2, 3):
                assert [e for e in got if e[0] == symbol_id][-1][1] == [
                    e for e in published if e[0] == symbol_id
                ][-1][1], "the last price is the last price"
            running.trade((1, 5.0, 5.0))
            while lazy.entries()[-1] != (1, 5.0, 5.0):
                await lazy.read()


async def test_one_lagging_client_costs_nothing_per_batch() -> None:
    async with world(SMALL) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "ETHUSDT", "SOLUSDT")
            fill(running, client)
            encoded, waiting = running.feed.v1.fanout.encoded, client.unsent_bytes()
            running.trade(*(_trade(turn, 1) for turn in range(100)))
            assert running.feed.v1.fanout.encoded == encoded, "nobody else wants it: nothing is encoded"
            assert client.unsent_bytes() == waiting, "nothing is queued"


async def test_memory_of_a_stuck_reader_is_bounded() -> None:
    async with world(SMALL) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("*")
            for turn in range(3_000):
                running.trade(*(_trade(turn, place % 3 + 1) for place in range(30)))
            assert client.lagging
            assert client.transport.get_write_buffer_size() <= 30 * 18 + 16, "the rest of one batch"
            assert client.unsent_bytes() < 64 * 1024


async def test_a_stuck_reader_is_aborted_while_twenty_others_see_everything() -> None:
    config = FeedConfig(send_buffer_bytes=16_384, lag_max_s=0.08)
    async with world(config, tape=MemoryTape(1 << 16)) as running, aiohttp.ClientSession() as session:
        others = [await session.ws_connect(running.ws) for _ in range(20)]
        for ws in others:
            await ws.send_json({"type": "subscribe", "symbols": ["*"]})
            await ws.receive_json(timeout=5)
        seen: list[list[Trade]] = [[] for _ in others]

        async def follow(place: int) -> None:
            while len(seen[place]) < 24_000:
                seen[place] += decode_v1(await others[place].receive_bytes(timeout=5)).tolist()

        with LazyReader(running) as lazy:
            stuck = await lazy.connect("*")
            followers = [asyncio.create_task(follow(place)) for place in range(20)]
            for turn in range(800):
                running.trade(*(_trade(turn, place % 3 + 1) for place in range(30)))
                while any(len(found) < len(running.published) for found in seen):
                    await asyncio.sleep(0)
            await asyncio.gather(*followers)
            async with asyncio.timeout(10):
                while stuck in running.feed.clients:
                    await asyncio.sleep(0.01)
            assert _counted(running, "tradeback_feed_aborted") == 1
            for found in seen:
                assert found == running.published, "every trade, in order, one entry each"
            assert await lazy.ends() < 24_000 * 18
        for ws in others:
            await ws.close()


def _counted(running: World, name: str) -> object:
    return {family.name: family.samples[0][1] for family in running.feed.collect()}[name]


async def test_a_reader_whose_cursor_left_the_hot_ring_is_closed_with_1013() -> None:
    async with world(SMALL, tape=MemoryTape(1 << 10)) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "ETHUSDT", "SOLUSDT")
            fill(running, client)
            for turn in range(1_100):
                running.trade(_trade(turn, 1))
            while await lazy.read():
                pass
            *_, (opcode, payload) = messages(lazy.stream)
            assert opcode == 8
            assert int.from_bytes(payload[:2], "big") == 1013


async def test_requests_of_a_lagging_client_wait_and_volumes_stay_right() -> None:
    async with world(SMALL, tape=MemoryTape(1 << 16)) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT")
            fill(running, client, symbols=1)
            await lazy.send(frame(b'{"type":"subscribe","symbols":["SOLUSDT"]}'))
            running.trade((3, 7.0, 1.0), (1, 200.0, 1.0))
            assert client.lagging
            before = list(running.published)
            while b'"SOLUSDT"' not in lazy.stream:
                await lazy.read()
            await lazy.read_until_live(client)
            got = lazy.entries()
            assert volumes([e for e in got if e[0] == 1]) == volumes([e for e in before if e[0] == 1])
            assert [e for e in got if e[0] == 3] == [(3, 7.0, 0.0), (3, 4_242.0, 1.0)], "snapshot, then live"


async def test_a_client_that_asks_without_reading_cannot_pile_up_answers() -> None:
    async with world(SMALL) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT")
            ping = frame(b'{"type":"ping"}')
            with contextlib.suppress(BlockingIOError):
                while lazy.sock.send(ping * 10):
                    await asyncio.sleep(0)
            assert client.lagging
            held = client.transport.get_write_buffer_size() + sum(map(len, client.deferred or []))
            assert held < 400_000


async def test_enigma_of_a_lagging_client_is_the_latest_when_it_drains() -> None:
    values = {1: {"symbol": "BTCUSDT", "level": 0.0}}
    config = FeedConfig(send_buffer_bytes=4_096, lag_max_s=60.0, enigma_interval_s=0.005)
    async with world(config, tape=MemoryTape(1 << 16), enigma_of=values.get) as running:
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "SOLUSDT")
            await lazy.send(frame(b'{"type":"subscribe","symbols":["BTCUSDT"],"channels":["enigma"]}'))
            while b'"enigma"' not in lazy.stream:
                await lazy.read()
            fill(running, client, symbols=1)
            values[1]["level"] = 77.25
            while not client.enigma_missed:
                await asyncio.sleep(0.001)
            await lazy.read_until_live(client)
            texts = [payload for opcode, payload in messages(lazy.stream) if opcode == TEXT]
            assert b"77.25" in texts[-1]


async def test_tidy_after_a_peer_that_vanishes() -> None:
    async with world(SMALL) as running, running.connect() as ws:
        await subscribe(ws, "ETHUSDT")
        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT")
            fill(running, client, symbols=1)
            reset = struct.pack("ii", 1, 0)
            lazy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        async with asyncio.timeout(5):
            while client in running.feed.clients:
                await asyncio.sleep(0.001)
        assert _counted(running, "tradeback_feed_lagging") == 0
        running.trade((2, 1.5, 1.0))
        assert await entries(ws, 1) == [(2, 1.5, 1.0)]
