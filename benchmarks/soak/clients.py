"""The clients of a soak, in a process of their own: v2 and v1, one that drops its connection and resumes.

The process answers `sample` with what its clients have seen: latency since the last question, losses, breaks.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from benchmarks.harness.children import Pipe
from benchmarks.soak.ledger import Ledger, Twins
from tradeback.client import Batch, BatchV1, Control, Event, Feed, Lost, Position, connect
from tradeback.model.record import REPAIRED, TRADE
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_frame import GAP_UNREPAIRABLE

Sample = dict[str, Any]


@dataclass(frozen=True)
class Cast:
    """Who takes part."""

    url: str
    one_symbol: str
    copies: int = 1
    """How many v2 clients take everything."""
    drop_s: tuple[float, float] = (3.0, 12.0)
    """The dropping client leaves after a time from this range."""
    seed: int = 1


class _Full:
    """A v2 client: latency by its own receive stamps, trades by id."""

    def __init__(self, name: str, cast_: Cast, symbols: tuple[str, ...], channels: tuple[str, ...]) -> None:
        self.name = name
        self.ledger = Ledger()
        self.events = self.breaks = self.resumed = self.refused = 0
        self.up = asyncio.Event()
        self.twins: Twins | None = None
        self.feed: Feed | None = None
        self._cast, self._symbols, self._channels = cast_, symbols, channels
        self._window_us: list[int] = []
        self._leaving = False

    async def run(self) -> None:
        """For ever; after `leave` by another connection, from the same position on."""
        position: Position | None = None
        while True:
            feed = connect(self._cast.url, self._symbols, channels=self._channels, version=2, resume=position)
            async with feed:
                self.feed = feed
                async with aclosing(cast(AsyncGenerator[Event, None], feed.events())) as events:
                    async for event in events:
                        self._take(event)
                        if self._leaving:
                            self._leaving, position = False, feed.position
                            break
            self.breaks += 1

    def leave(self) -> None:
        """Go, as a program that ends and is started again."""
        self._leaving = True

    def cut(self) -> None:
        """Lose the connection, as by a network that fails; the client has no word for that."""
        line = self.feed._line if self.feed is not None else None
        if line is not None and not line.over:
            line.transport.disconnect(False)

    def _take(self, event: Event) -> None:
        if isinstance(event, Batch):
            if not event.snapshot:
                self._batch(event)
        elif isinstance(event, Lost):
            self.refused += 1
        elif isinstance(event, Control):
            self.breaks += event.type == "disconnected"
            self.resumed += event.type == "resumed"
            if event.type == "subscribed":
                self.up.set()

    def _batch(self, batch: Batch) -> None:
        trades, now_s = batch.trades, time.monotonic()
        self.events += len(trades) + len(batch.quotes)
        for number, trade_id, first_id, flags in zip(
            *(trades[name].tolist() for name in ("symbol_id", "id", "first_id", "flags")), strict=True
        ):
            self.ledger.trade(number, trade_id, first_id, flags, now_s)
        if self.twins is not None:
            for number, price, quantity in batch.entries.tolist():
                self.twins.v2(number, price, quantity)
        for gap in batch.gaps:
            if gap["state"] == GAP_UNREPAIRABLE and gap["stream"] == TRADE:
                self.ledger.give_up(int(gap["symbol_id"]), int(gap["first_id"]), int(gap["last_id"]))
        live = len(batch.quotes) or (len(trades) and not (trades["flags"] & REPAIRED).all())
        if live and not batch.replay:
            self._window_us.append(batch.recv_ns // 1_000 - batch.engine_recv_us)

    def window(self) -> dict[str, float]:
        """Receive at the engine to receive here since the last call: p50, p99 and greatest, us."""
        held, self._window_us = self._window_us, []
        if not held:
            return {}
        p50, p99, most = np.percentile(held, (50, 99, 100)).tolist()
        return {"p50": p50, "p99": p99, "max": most}


class _Simple:
    """A v1 client, whose entries are compared with those of v2."""

    name = "v1 all"

    def __init__(self, cast_: Cast, twins: Twins) -> None:
        self.up = asyncio.Event()
        self.events = self.breaks = 0
        self._cast, self._twins = cast_, twins

    async def run(self) -> None:
        """For ever."""
        async with connect(self._cast.url, ("*",), version=1) as feed:
            async for event in feed.events():
                if isinstance(event, BatchV1):
                    for number, price, volume in event.entries.tolist():
                        if volume:
                            self._twins.v1(number, price, volume)
                            self.events += 1
                elif isinstance(event, Control):
                    self.breaks += event.type == "disconnected"
                    if event.type == "subscribed":
                        self.up.set()


class Clients:
    """All of them."""

    def __init__(self, cast_: Cast) -> None:
        self._cast, self.twins = cast_, Twins()
        everything = ("trades", "quotes", "gaps")
        names = ["v2 all", *(f"v2 all {number}" for number in range(2, cast_.copies + 1))]
        self.full = [_Full(name, cast_, ("*",), everything) for name in names]
        self.full[0].twins = self.twins
        self.full.append(_Full("v2 one symbol", cast_, (cast_.one_symbol,), ("trades", "enigma", "gaps")))
        self.dropping = _Full("v2 dropping", cast_, ("*",), everything)
        self.full.append(self.dropping)
        self.simple = _Simple(cast_, self.twins)
        self.everyone: list[_Full | _Simple] = [*self.full, self.simple]
        self._may_drop = True

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs for ever."""
        return [*(client.run() for client in self.everyone), self._drop()]

    async def up(self) -> None:
        """Until all are subscribed."""
        await asyncio.gather(*(client.up.wait() for client in self.everyone))

    async def _drop(self) -> None:
        rng = random.Random(self._cast.seed)
        while True:
            await asyncio.sleep(rng.uniform(*self._cast.drop_s))
            if self._may_drop:
                rng.choice((self.dropping.cut, self.dropping.leave))()

    def sample(self, dropping: bool) -> Sample:
        """What they have seen so far; `dropping`: whether the dropping one goes on with that."""
        self._may_drop = dropping
        self.twins.match()
        now_s, ledgers = time.monotonic(), [client.ledger for client in self.full]
        return {
            "windows": {client.name: client.window() for client in self.full},
            "events": self.full[0].events,
            "holes": sum(ledger.holes for ledger in ledgers),
            "lost": sum(ledger.lost(now_s) for ledger in ledgers),
            "doubled": sum(ledger.doubled for ledger in ledgers),
            "trades": sum(ledger.trades for ledger in ledgers),
            "repaired": self.full[0].ledger.repaired,
            "unrepairable": self.full[0].ledger.unrepairable,
            "stood_in": self.full[0].ledger.stood_in,
            "breaks": self.dropping.breaks,
            "resumed": self.dropping.resumed,
            "refused": sum(client.refused for client in self.full),
            "strange_breaks": sum(client.breaks for client in self.everyone if client is not self.dropping),
            "v1_compared": self.twins.compared,
            "v1_conflated": self.twins.conflated,
            "v1_differs": self.twins.differs,
        }


def serve(pipe: Pipe, cast_: Cast) -> None:
    """The process: says "up" when all clients are subscribed, then answers ("sample", dropping)."""
    import uvloop

    uvloop.run(_serve(pipe, cast_))


async def _serve(pipe: Pipe, cast_: Cast) -> None:
    # Every feed loads this after some thousand frames; 100 MB in the middle of a soak would look like a leak.
    await asyncio.to_thread(Decoder().accelerate)
    clients, loop = Clients(cast_), asyncio.get_running_loop()
    gone = loop.create_future()

    def answer() -> None:
        try:
            _, dropping = pipe.recv()
            pipe.send(clients.sample(dropping))
        except (EOFError, OSError):
            if not gone.done():
                gone.set_result(None)

    work = [asyncio.ensure_future(one) for one in clients.work()]
    up = asyncio.ensure_future(clients.up())
    await asyncio.wait([*work, up], return_when=asyncio.FIRST_COMPLETED)
    if up.done():
        pipe.send("up")
        loop.add_reader(pipe.fileno(), answer)
        await asyncio.wait([*work, gone], return_when=asyncio.FIRST_COMPLETED)
    for one in (*work, up):
        if one.done():
            one.result()  # whoever failed says why
        one.cancel()
    await asyncio.gather(*work, up, return_exceptions=True)
