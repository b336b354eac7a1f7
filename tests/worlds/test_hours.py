"""Hours of a simulated market, in seconds: a client that loses its connection, or ends, at random moments and
resumes sees every trade exactly once."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from tests.flow.replaying import joined, symbols_of, trades_of
from tests.worlds.passing import PassingClock, PassingLoop, run
from tests.worlds.truth import Ending, Truth
from tradeback.client import Batch, Control, Event, Feed, Lost, Position, connect
from tradeback.engine import Engine
from tradeback.model.config import Config, ExchangeConfig, FeatureConfig, ServerConfig, TapeConfig
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.tape.reader import TapeReader

HOURS = 2.0
RATE = 1.5
SYMBOLS = 2
LOOK_S = 10.0
STAY_S, AWAY_S = 60.0, 240.0
"""Means of how long a connection stands, and of how long the program is away when it has ended."""


class Wanderer:
    """A program that keeps its position in whatever it stores, and its trades."""

    def __init__(self, url: str, loop: PassingLoop, seed: int) -> None:
        self.position: Position | None = None
        self.seen: dict[int, list[int]] = {}
        self.cuts = self.ends = self.resumed = 0
        self._url, self._loop, self._rng = url, loop, random.Random(seed)
        self._leaving = False
        self.feed: Feed | None = None
        """While the program runs."""

    async def run(self) -> None:
        """For ever, from where it was on."""
        while True:
            self._leaving = False
            async with connect(self._url, resume=self.position) as feed:
                self.feed = feed
                self._later = self._loop.call_later(self._rng.expovariate(1 / STAY_S), self._break, feed)
                try:
                    await self._use(feed)
                finally:
                    self._later.cancel()
            self.feed = None
            self.ends += 1
            await asyncio.sleep(self._rng.expovariate(1 / AWAY_S))

    async def _use(self, feed: Feed) -> None:
        async with aclosing(cast(AsyncGenerator[Event, None], feed.events())) as events:
            async for event in events:
                if isinstance(event, Lost):
                    raise AssertionError(f"refused: {event.reason}")
                if isinstance(event, Control):
                    self.resumed += event.type == "resumed"
                if isinstance(event, Batch) and not event.snapshot:
                    for symbol_id, number in zip(event.trades["symbol_id"], event.trades["id"], strict=True):
                        self.seen.setdefault(int(symbol_id), []).append(int(number))
                self.position = feed.position
                if self._leaving:
                    return

    def _break(self, feed: Feed) -> None:
        """Lose the connection again and again, or end."""
        line = feed._line
        if self._rng.random() < 0.4 or line is None:
            self._leaving = True
            return
        if not line.over:
            self.cuts += 1
            line.transport.disconnect(False)
        self._later = self._loop.call_later(self._rng.expovariate(1 / STAY_S), self._break, feed)


async def refusal(url: str, position: Position) -> tuple[Lost, Batch]:
    """What somebody with this position is told, and the first batch behind it."""
    lost: Lost | None = None
    async with connect(url, resume=position) as feed:
        async for event in feed.events():
            if isinstance(event, Lost):
                lost = event
            elif isinstance(event, Batch):
                assert lost is not None, "before it anything else was sent"
                return lost, event
    raise AssertionError("the iteration ended")


async def live(folder: Path, seed: int) -> tuple[Wanderer, Truth]:
    """The hours."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PassingLoop)
    clock = PassingClock(loop)
    market = Ending(Synthetic(SYMBOLS, RATE, seed, bursts=1.0), HOURS * 3_600)
    settings = SimConfig(start_after_streams=3 * SYMBOLS * 3)
    sim = await SimServer.start(market, settings, clock=clock)
    truth = Truth(sim.hub, market.books.values())
    engine = Engine(
        Config(
            server=ServerConfig(port=0),
            exchange=ExchangeConfig(
                ws_endpoint=sim.ws_url, rest_endpoint=sim.rest_url, symbols=("*",), lines=2,
                rollover_min_s=1_500.0, rollover_max_s=4_000.0,
            ),
            tape=TapeConfig(hot_rows=2_048),
            feature=FeatureConfig(aggregation_enabled=False, enigma_enabled=False),
            data_dir=str(folder),
        ),
        clock,
    )  # fmt: skip
    try:
        await engine.start()
        while sim.player is None or not sim.player.started.is_set():
            await asyncio.sleep(0.01)
        end_s = loop.time() + HOURS * 3_600 + 30.0
        wanderer = Wanderer(engine.url, loop, seed)
        wandering = asyncio.create_task(wanderer.run())
        assert engine.tape is not None
        try:
            while loop.time() < end_s or not caught_up(wanderer, engine):
                await asyncio.sleep(LOOK_S)
                if wandering.done():
                    wandering.result()
        finally:
            wandering.cancel()
            await asyncio.gather(wandering, return_exceptions=True)
        epoch, head = engine.tape.epoch, engine.tape.next_sequence
        for lie in (Position(epoch + 1, head - 5), Position(epoch, head + 5_000), Position(epoch + 7, 1)):
            lost, batch = await refusal(engine.url, lie)
            assert lost.held == lie
            assert batch.snapshot
            assert lost.now == (epoch, head)
        assert engine.parts is not None
        assert all(line.counts.rollovers >= 2 for line in engine.parts.pool.lines)
        assert sum(line.counts.reconnects for line in engine.parts.pool.lines) == 0
    finally:
        await engine.stop()
        await sim.stop()
    return wanderer, truth


def caught_up(wanderer: Wanderer, engine: Engine) -> bool:
    """Is it there, and has it everything that is on the tape?"""
    assert engine.tape is not None
    position = wanderer.feed.position if wanderer.feed is not None else None
    return position is not None and position.sequence >= engine.tape.next_sequence


@pytest.mark.parametrize("seed", [1])
def test_hours_of_going_away_and_coming_back(tmp_path: Path, seed: int) -> None:
    wanderer, truth = run(live(tmp_path, seed))
    assert wanderer.cuts > 15
    assert wanderer.ends > 5
    assert wanderer.resumed >= wanderer.cuts + wanderer.ends - 2
    told, _ = truth.told()
    rows = joined(TapeReader(tmp_path / "tape"))
    symbols = symbols_of(tmp_path)
    assert set(wanderer.seen) == {symbol.id for symbol in symbols.values()}
    for name, symbol in symbols.items():
        seen, taped = wanderer.seen[symbol.id], trades_of(rows, symbol.id)["id"].tolist()
        assert seen == taped[taped.index(seen[0]) :], f"{name}: a trade is missing, doubled or out of order"
        assert seen == [number for number in sorted(told[name].trades) if number >= seen[0]], name
        assert len(seen) > 100
