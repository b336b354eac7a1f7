"""A feed on a real port, over a tape in memory, for tests: append trades, read sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import websockets
from aiohttp import web
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tradeback.api.app import make_runner
from tradeback.api.context import ServingContext
from tradeback.feed.front import Front
from tradeback.feed.server import Feed
from tradeback.model.config import Config, FeatureConfig, FeedConfig
from tradeback.model.record import TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.path.path import Path
from tradeback.wire.v1 import decode_v1

Trade = tuple[int, float, float]
"""Symbol id, price, quantity."""

SYMBOLS = (
    Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01000000", step_size="0.00001000"),
    Symbol(2, "ETHUSDT", "ETH", "USDT", tick_size="0.01000000", step_size="0.00010000"),
    Symbol(3, "SOLUSDT", "SOL", "USDT", tick_size="0.01000000", step_size="0.00100000"),
)


class MemoryTape:
    """The hot ring of a tape and nothing behind it."""

    def __init__(self, hot_rows: int = 1 << 13) -> None:
        self.epoch = 7
        self.hot_rows = hot_rows
        self.rows: Rows = empty_rows(hot_rows)
        self.rows_address = int(self.rows.ctypes.data)
        self.next_sequence = 1

    def append(self, rows: Rows) -> int:
        """Append records; returns the first sequence."""
        first = self.next_sequence
        self.rows[np.arange(first, first + len(rows)) & (self.hot_rows - 1)] = rows
        self.next_sequence += len(rows)
        return first


def rows_of(trades: Iterable[Trade], *, kind: int = TRADE, flags: int = 0, first_id: int = 1) -> Rows:
    """Records of trades as they come from one socket read, ids rising by one."""
    listed = list(trades)
    rows = empty_rows(len(listed))
    if listed:
        rows["symbol_id"], rows["price"], rows["quantity"] = zip(*listed, strict=True)
    rows["kind"], rows["flags"] = kind, flags
    rows["id"] = np.arange(first_id, first_id + len(rows))
    rows["recv_ns"] = time.time_ns()
    rows["exchange_us"] = rows["recv_ns"] // 1_000
    return rows


@dataclass
class World:
    """A running front, feed and application."""

    tape: Any
    feed: Feed
    front: Front
    context: ServingContext
    symbols: SymbolTable
    published: list[Trade] = field(default_factory=list)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.front.port}/api/v1/ws"

    def trade(self, *trades: Trade) -> None:
        """Append trades and publish them, as the engine does after a socket read."""
        self.publish(rows_of(trades, first_id=len(self.published) + 1))
        self.published.extend(trades)

    def publish(self, rows: Rows) -> None:
        """Append records and hand them on in pieces that are contiguous in the ring, as a read's are."""
        start, tape = 0, self.tape
        while start < len(rows):
            room = tape.hot_rows - (tape.next_sequence & (tape.hot_rows - 1))
            piece = rows[start : start + room]
            first = tape.append(piece)
            self.feed.path.serve(first, len(piece))
            if self.context.derived is not None:
                derived: Any = self.context.derived
                address = tape.rows_address + 64 * (first & (tape.hot_rows - 1))
                derived.on_rows(address, len(piece))
            start += len(piece)

    def connect(self, **options: Any) -> Any:
        """A client of another make."""
        options.setdefault("subprotocols", [Subprotocol("tradeback.v1")])
        return websockets.connect(self.ws, compression=None, **options)


@asynccontextmanager
async def world(
    feed_config: FeedConfig | None = None,
    *,
    tape: Any = None,
    attach: bool = True,
    front_options: dict[str, Any] | None = None,
    context_options: dict[str, Any] | None = None,
    features: FeatureConfig | None = None,
    **feed_options: Any,
) -> AsyncIterator[World]:
    """Everything up; torn down at the end."""
    config = Config(feed=feed_config or FeedConfig(), feature=features or FeatureConfig())
    clock = SystemClock()
    symbols = SymbolTable.of(SYMBOLS)
    tape = tape or MemoryTape()
    feed = Feed(config.feed, clock, symbols, Path(tape), features=config.feature, **feed_options)
    context = ServingContext(config, clock, symbols, tape, **(context_options or {}))
    context.feed = feed
    context.components.append(feed)
    context.collectors.append(feed)
    runner = make_runner(context)
    await runner.setup()
    assert runner.server is not None
    front = Front(runner.server, feed.accept, **(front_options or {}))
    await front.open("127.0.0.1", 0)
    feed.start()
    if attach:
        feed.attach_kernels()
    try:
        yield World(tape, feed, front, context, symbols)
    finally:
        await front.close()
        await feed.close()
        await runner.cleanup()


@asynccontextmanager
async def fronted(app: web.Application) -> AsyncIterator[str]:
    """An application behind a front that serves no feed; yields where."""
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    front = Front(runner.server, lambda request: None)
    await front.open("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{front.port}"
    finally:
        await front.close()
        await runner.cleanup()


async def subscribe(ws: ClientConnection, *names: str, **more: Any) -> dict[str, Any]:
    """Subscribe and return the answer."""
    return await ask(ws, {"type": "subscribe", "symbols": list(names), **more})


async def ask(ws: ClientConnection, message: object) -> dict[str, Any]:
    """Send JSON, return the next text message, decoded."""
    import orjson

    await ws.send(orjson.dumps(message).decode())
    return await text(ws)


async def text(ws: ClientConnection) -> dict[str, Any]:
    """The next message, which must be JSON text."""
    import orjson

    async with asyncio.timeout(5):
        message = await ws.recv()
    assert isinstance(message, str), f"binary where text was expected: {message!r}"
    answer: dict[str, Any] = orjson.loads(message)
    return answer


async def entries(ws: ClientConnection, count: int) -> list[Trade]:
    """The next `count` v1 entries; a frame may not reach beyond them."""
    found: list[Trade] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            message = await ws.recv()
            assert isinstance(message, bytes), f"text where binary was expected: {message!r}"
            found.extend(decode_v1(message).tolist())
    assert len(found) == count
    return found


async def get(world: World, path: str) -> tuple[int, Any]:
    """Status and decoded JSON of a GET."""
    async with aiohttp.ClientSession() as session, session.get(world.http + path) as answer:
        return answer.status, await answer.json()
