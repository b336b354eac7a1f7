"""Version 2 for tests: a market on a real tape, and a client of another make that keeps all it gets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.feed.harness import World, world
from tests.tape.helpers import config
from tradeback.derive.state import Derived
from tradeback.model.config import FeedConfig
from tradeback.model.record import (
    AGG,
    BUYER_MAKER,
    GAP,
    LATE,
    LINE_LOCAL,
    LINE_SHIFT,
    QUOTE,
    REPAIRED,
    TRADE,
    Rows,
    empty_rows,
)
from tradeback.tape.writer import Tape
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_frame import Frame

ALL = ("trades", "quotes", "gaps")
KINDS = {"trades": TRADE, "quotes": QUOTE, "gaps": GAP}
GRIDS = {1: (2, 5), 2: (2, 4), 3: (2, 3)}
Entry = tuple[Any, ...]


class Market:
    """Records of three symbols as the engine writes them: trades with rising ids, quotes, some gaps."""

    def __init__(self, seed: int = 1, symbols: Iterable[int] = (1, 2, 3)) -> None:
        self.random = np.random.default_rng(seed)
        self.symbols = tuple(symbols)
        self.ids = dict.fromkeys(self.symbols, 1_000)
        self.now_us = 1_700_000_000_000_000

    def rows(self, count: int) -> Rows:
        """The next records."""
        random, rows = self.random, empty_rows(count)
        kinds = random.choice([TRADE, QUOTE, GAP, AGG], count, p=[0.55, 0.35, 0.05, 0.05])
        rows["kind"], rows["symbol_id"] = kinds, random.choice(self.symbols, count)
        self.now_us += count * 100
        rows["recv_ns"] = (self.now_us + np.arange(count) * 100) * 1_000
        rows["exchange_us"] = np.where(kinds == QUOTE, 0, rows["recv_ns"] // 1_000 - 300)
        rows["flags"] = np.where(kinds == TRADE, random.choice([0, BUYER_MAKER, REPAIRED | LATE], count), 0)
        rows["flags"] |= np.where(kinds == GAP, LINE_LOCAL << LINE_SHIFT, 0).astype(np.uint8)
        scales = np.array([10.0 ** GRIDS.get(symbol_id, (2, 3))[1] for symbol_id in range(10)])
        scale = scales[rows["symbol_id"]]
        cents, lots = random.integers(1, 10**7, count), random.integers(1, 999, count)
        rows["price"], rows["quantity"] = cents / 100, lots / scale
        quotes, gaps = kinds == QUOTE, kinds == GAP
        rows["ask"][quotes] = ((cents + 1) / 100)[quotes]
        rows["ask_quantity"][quotes] = ((lots + 3) / scale)[quotes]
        for symbol_id in self.symbols:
            own = (rows["symbol_id"] == symbol_id) & ~quotes
            rows["id"][own] = self.ids[symbol_id] + 1 + np.arange(own.sum())
            self.ids[symbol_id] += int(own.sum())
        rows["ask"][gaps] = (rows["id"] + lots)[gaps]
        rows["ask_quantity"][gaps] = TRADE
        rows["quantity"][gaps], rows["price"][gaps] = (lots % 3 + 1)[gaps], (lots + 1)[gaps]
        return rows


def expected(rows: Rows, channels: Iterable[str] = ALL, ids: Iterable[int] | None = None) -> list[Entry]:
    """What a client gets of tape rows, in order."""
    kinds = {KINDS[channel] for channel in channels}
    wanted = None if ids is None else set(ids)
    found: list[Entry] = []
    for us, _, number, price, quantity, ask, ask_quantity, symbol_id, kind, flags, _ in rows.tolist():
        if kind not in kinds or (wanted is not None and symbol_id not in wanted):
            continue
        if kind == TRADE:
            found.append(("trade", symbol_id, number, us, price, quantity, flags & 15))
        elif kind == QUOTE:
            found.append(("quote", symbol_id, price, quantity, ask, ask_quantity))
        else:
            found.append(("gap", symbol_id, number, int(ask), int(quantity), int(price), us))
    return found


def entries_of(frame: Frame) -> list[Entry]:
    """The same of a frame."""
    found: list[tuple[int, Entry]] = []
    names = ["place", "symbol_id", "id", "exchange_us", "price", "quantity", "flags"]
    for place, *values, flags in zip(*(frame.trades[name].tolist() for name in names), strict=True):
        found.append((place, ("trade", *values, flags & 15)))
    for kind, array, names in (
        ("quote", frame.quotes, ["place", "symbol_id", "bid", "bid_quantity", "ask", "ask_quantity"]),
        (
            "gap",
            frame.gaps,
            ["place", "symbol_id", "first_id", "last_id", "state", "missing", "exchange_us"],
        ),
    ):
        for place, *values in zip(*(array[name].tolist() for name in names), strict=True):
            found.append((place, (kind, *values)))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


class Peer:
    """A version 2 client. `frames` and `texts` are what came, `order` is both."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.decoder = Decoder()
        self.decoder.accelerate()
        self.frames: list[Frame] = []
        self.texts: list[dict[str, Any]] = []
        self.order: list[str] = []
        self.held: list[list[Entry]] = []
        """The entries of every frame."""
        self.count = 0
        """Entries of all frames but snapshots."""

    async def send(self, **message: Any) -> None:
        await self.ws.send(orjson.dumps(message).decode())

    async def subscribe(self, *names: str, channels: Iterable[str] = ALL) -> dict[str, Any]:
        """Subscribe and read up to the answer."""
        await self.send(type="subscribe", symbols=list(names), channels=list(channels))
        return await self.answer("subscribed")

    async def resume(self, epoch: int, sequence: int) -> None:
        await self.send(type="resume", epoch=epoch, sequence=sequence)

    async def answer(self, kind: str) -> dict[str, Any]:
        """Read up to the next text of this type."""
        seen = len(self.texts)
        await self.until(lambda: any(text["type"] == kind for text in self.texts[seen:]))
        return next(text for text in self.texts[seen:] if text["type"] == kind)

    async def until(self, done: Callable[[], bool]) -> None:
        """Read until `done`."""
        async with asyncio.timeout(10):
            while not done():
                self.take(await self.ws.recv())

    def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            frame = self.decoder.decode(message)
            self.frames.append(frame)
            self.held.append(entries_of(frame))
            self.order.append("beat" if frame.is_heartbeat else "frame")
            if not frame.flags & at.FRAME_SNAPSHOT:
                self.count += len(self.held[-1])
            return
        text = orjson.loads(message)
        for symbol in text["symbols"].values() if text["type"] == "subscribed" else ():
            self.decoder.learn(symbol["id"], symbol["price_precision"], symbol["quantity_precision"])
        self.texts.append(text)
        self.order.append(text["type"])

    async def reach(self, sequence: int) -> None:
        """Read until everything before `sequence` has come; replays may lie behind what came live."""
        await self.until(lambda: bool(self.frames) and self.frames[-1].sequence >= sequence)

    def entries(self, flags: int | None = None, *, snapshots: bool = False) -> list[Entry]:
        """All that came, in order; with `flags` only from frames that have exactly these."""
        found: list[Entry] = []
        for frame, entries in zip(self.frames, self.held, strict=True):
            if flags is None and not snapshots and frame.flags & at.FRAME_SNAPSHOT:
                continue
            if flags is None or frame.flags == flags:
                found += entries
        return found


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    """Connected."""
    options: dict[str, Any] = {"subprotocols": [Subprotocol("tradeback.v2")], "compression": None}
    async with websockets.connect(url, max_queue=None, **options) as ws:
        yield Peer(ws)


@asynccontextmanager
async def taped(
    folder: Path,
    feed: FeedConfig | None = None,
    *,
    hot_rows: int = 1 << 14,
    rows_per_segment: int = 5_000,
    attach: bool = True,
    **tape_options: Any,
) -> AsyncIterator[World]:
    """A world over a real tape in `folder`, with the series that snapshots come from."""
    import tradeback.derive.row_kernel  # noqa: F401  as the engine's thread does

    tape_config = config(rows_per_segment, hot_rows, **tape_options)
    derived = Derived()
    with Tape.open(folder, tape_config) as tape:
        async with world(feed, tape=tape, attach=attach, known=lambda: derived) as running:
            for symbol in running.symbols:
                derived.add_symbol(symbol)
            running.context.derived = derived
            yield running


def tape_rows(running: World, first: int = 1, end: int | None = None) -> Rows:
    """Everything on the tape from `first` to `end` (exclusive)."""
    parts = [empty_rows(0)]
    place, end = first, running.tape.next_sequence if end is None else end
    while place < end:
        rows = running.tape.read(place, end - place)
        assert len(rows), f"record {place} is not there"
        parts.append(rows)
        place += len(rows)
    joined: Rows = np.concatenate(parts)
    return joined
