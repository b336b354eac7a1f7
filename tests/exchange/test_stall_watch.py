"""exchange.stall_watch: single streams that stall, on the simulated exchange; quiet ones are left alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.exchange.harness import (
    CLOCK,
    QUICK,
    Desk,
    Peer,
    agg,
    desk,
    frame,
    quote,
    samples,
    scripted,
    trade,
    until,
)
from tests.exchange.test_pool import all_up, at_work, check_runs, reconnects
from tests.exchange.test_pool_rollover import Census, check_complete, settle
from tradeback.exchange.pool import Pool
from tradeback.exchange.rest import Rest
from tradeback.exchange.stall_watch import StallWatch, parse_newest
from tradeback.model.errors import ExchangeError
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

FLOOR_S = 0.15


class Muted(FaultPlay):
    """Swallows the data of one stream on the connections that `on` names; acknowledgements pass."""

    def __init__(self) -> None:
        super().__init__([])
        self.stream = b""
        self.on: set[int] = set()
        self.swallowed = 0

    def on_frames(self, number: int, frames: list[bytes]) -> list[bytes]:
        if number not in self.on:
            return frames
        kept = [held for held in frames if self.stream not in held]
        self.swallowed += len(frames) - len(kept)
        return kept

    def mute(self, server: SimServer, stream: str, connections: int = 1) -> None:
        """From now on, on so many of the connections that carry it now."""
        self.stream = f'"stream":"{stream}"'.encode()
        carriers = [
            number
            for number, held in sorted(server.connections.items())
            if held._session is not None and stream in held._session.streams
        ]
        self.on = set(carriers[:connections])
        assert len(self.on) == connections


class AnswersRest:
    """REST that says what a test wants."""

    def __init__(self) -> None:
        self.newest: bytes | ExchangeError = b"[]"
        self.quotes: list[bytes] = [b"{}"]
        self.asked: list[str] = []

    async def page(self, path: str, query: dict[str, str]) -> bytes:
        self.asked.append(f"{path} {query['symbol']} {query['limit']}")
        if isinstance(self.newest, ExchangeError):
            raise self.newest
        return self.newest

    async def best_quote(self, symbol: str) -> bytes:
        self.asked.append(f"bookTicker {symbol}")
        return self.quotes.pop(0) if len(self.quotes) > 1 else self.quotes[0]


@pytest.fixture
def source() -> Synthetic:
    return Synthetic(4, 3_000.0, seed=5)


@pytest.fixture
def world(tmp_path: Path, source: Synthetic) -> Iterator[Desk]:
    symbols = [Symbol(number, name) for number, name in enumerate(source.books, 1)]
    with desk(tmp_path, symbols=symbols) as made:
        yield made


@asynccontextmanager
async def watching(world: Desk, pool: Pool, rest: Any, floor_s: float = FLOOR_S) -> AsyncIterator[StallWatch]:
    config = msgspec.structs.replace(QUICK, stall_after_s=floor_s)
    watch = StallWatch(pool.lines, world.intake, world.symbols, rest, CLOCK, config, world.log)
    task = watch.start()
    try:
        yield watch
        assert not task.done(), task.exception()
    finally:
        await watch.stop()


@asynccontextmanager
async def market(source: Synthetic, streams: int) -> AsyncIterator[tuple[SimServer, Muted, Rest]]:
    faults = Muted()
    server = await SimServer.start(source, SimConfig(start_after_streams=streams), faults=faults)
    server.connections = Census()
    rest = Rest(server.rest_url, CLOCK)
    try:
        yield server, faults, rest
    finally:
        await rest.close()
        await server.stop()


async def test_a_stream_that_stalls_on_one_line_costs_a_rollover_and_nothing_else(
    world: Desk, source: Synthetic
) -> None:
    name = next(iter(source.books))
    async with market(source, 24) as (server, faults, rest):
        pool = world.pool(server.ws_url, list(source.books), 2, rollover_overlap_s=0.02)
        async with at_work(pool), watching(world, pool, rest) as watch:
            await all_up(pool)
            await until(lambda: world.count > 1_000)
            server.connections.begin()  # type: ignore[attr-defined]
            faults.mute(server, f"{name.lower()}@trade")
            await until(lambda: sum(line.counts.rollovers for line in pool.lines) == 1)
            assert faults.swallowed > 0
            (line,) = (line for line in pool.lines if line.counts.stalls)
            assert line.plan.stream == "trade"
            assert (line.counts.stalls, line.counts.rollovers) == (1, 1)
            assert reconnects(pool) == 0
            await until(lambda: not watch.watchdog.stalled.any())
            seen = world.count
            await until(lambda: world.count > seen + 2_000)
            assert sum(line.counts.rollovers for line in pool.lines) == 1, "the new one is well"
            census = server.connections
            await until(lambda: len(census) == 6)
            assert (census.fewest, census.most) == (6, 7)  # type: ignore[attr-defined]
            assert watch.health().state == "ok"
            await settle(world, source)
            check_complete(world, source)
    (said,) = world.log.of("a stream has stalled")
    assert said == {"line": line.plan.name, "stream": f"{name.lower()}@trade"}
    assert world.log.of("rolled over")[0]["reason"] == f"{name.lower()}@trade stalled"


@pytest.mark.parametrize("kind", ["trade", "aggTrade", "bookTicker"])
async def test_with_one_line_the_exchange_is_asked(world: Desk, source: Synthetic, kind: str) -> None:
    name = next(iter(source.books))
    async with market(source, 12) as (server, faults, rest):
        pool = world.pool(server.ws_url, list(source.books), 1, rollover_overlap_s=0.02)
        async with at_work(pool), watching(world, pool, rest) as watch:
            await all_up(pool)
            await until(lambda: world.count > 1_500)
            faults.mute(server, f"{name.lower()}@{kind}")
            line = next(line for line in pool.lines if line.plan.stream == kind)
            await until(lambda: line.counts.rollovers == 1, 15)
            assert line.counts.stalls == 1
            assert watch.asked >= (2 if kind == "bookTicker" else 1)
            assert reconnects(pool) == 0
            assert [other.counts.stalls for other in pool.lines if other is not line] == [0, 0]
            await until(lambda: not watch.watchdog.stalled.any())
            if kind == "bookTicker":
                await settle(world, source)
                check_runs(world, source)


async def test_a_stream_stalled_on_both_lines_is_found_on_both(world: Desk, source: Synthetic) -> None:
    name = next(iter(source.books))
    async with market(source, 24) as (server, faults, rest):
        pool = world.pool(server.ws_url, list(source.books), 2, rollover_overlap_s=0.02)
        async with at_work(pool), watching(world, pool, rest):
            await all_up(pool)
            await until(lambda: world.count > 1_000)
            faults.mute(server, f"{name.lower()}@trade", 2)
            trades = [line for line in pool.lines if line.plan.stream == "trade"]
            await until(lambda: all(line.counts.rollovers == 1 for line in trades), 15)
            assert [line.counts.stalls for line in trades] == [1, 1]
            assert reconnects(pool) == 0


@asynccontextmanager
async def one_symbol(world: Desk, rest: Any) -> AsyncIterator[tuple[Pool, StallWatch]]:
    """Three connections that bring one symbol's trades for a while, and then are silent."""
    name = next(iter(world.symbols)).symbol

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        stream = peer.requests[0]["params"][0].partition("@")[2]
        for number in range(1, 31):
            if stream == "trade":
                await peer.send(trade(number, symbol=name))
            elif stream == "bookTicker":
                await peer.send(quote(number, symbol=name))
            else:
                await peer.send(agg(number, number, number, "1.00010000", symbol=name))
            await asyncio.sleep(0.005)
        while (await peer.receive())[0] != 8:
            await peer.send(frame(b'{"result":true,"id":%d}' % peer.requests[-1]["id"]))

    async with scripted(script) as exchange:
        pool = world.pool(exchange.endpoint, [name], 1)
        async with at_work(pool), watching(world, pool, rest, 0.05) as watch:
            await until(lambda: world.count == 90)
            yield pool, watch


async def test_a_quiet_symbol_is_left_alone(world: Desk) -> None:
    rest = AnswersRest()
    rest.newest = b'[{"a":30,"l":30,"T":1}]'
    async with one_symbol(world, rest) as (pool, watch):
        await until(lambda: watch.acquitted >= 4)
        assert [line.counts.stalls for line in pool.lines] == [0, 0, 0]
        assert [line.counts.rollovers for line in pool.lines] == [0, 0, 0]
        assert watch.health().state == "ok"
        values = {(name, label): value for name, label, value in samples(watch)}
        assert values["tradeback_watchdog_acquitted", ""] >= 4
        assert values["tradeback_watchdog_stalled", "a"] == 0
    assert not world.log.of("stalled")
    assert {asked.split()[0] for asked in rest.asked} == {"aggTrades", "bookTicker"}


async def test_a_symbol_that_was_never_traded(world: Desk) -> None:
    rest = AnswersRest()
    async with one_symbol(world, rest) as (pool, watch):
        await until(lambda: watch.acquitted >= 3)
        assert [line.counts.stalls for line in pool.lines] == [0, 0, 0]


async def test_questions_without_an_answer_prove_nothing(world: Desk) -> None:
    rest = AnswersRest()
    rest.newest = ExchangeError("it is away")
    async with one_symbol(world, rest) as (pool, watch):
        await until(lambda: watch.unanswered >= 3)
        assert [line.counts.rollovers for line in pool.lines] == [0, 0, 0]
        rest.newest = b'{"code":-1}'
        await until(lambda: watch.unanswered >= 4)
    assert world.log.of("does not say what is new")


async def test_a_line_is_not_replaced_again_and_again(world: Desk) -> None:
    """REST names ids that never come, higher ones all the time: every replacement waits twice as long."""
    rest = AnswersRest()
    number = 30

    async def page(path: str, query: dict[str, str]) -> bytes:
        nonlocal number
        number += 1
        return b'[{"a":%d,"l":%d}]' % (number, number)

    rest.page = page  # type: ignore[method-assign]
    async with one_symbol(world, rest) as (pool, watch):
        line = next(line for line in pool.lines if line.plan.stream == "trade")
        await until(lambda: line.counts.rollovers >= 2)
        cools = [held for _, held in watch._cool.values()]
        assert max(cools) >= 0.2
        assert watch.health().details is not None


async def test_while_the_tape_refuses_nothing_is_suspected(world: Desk) -> None:
    rest = AnswersRest()
    async with one_symbol(world, rest) as (_, watch):
        world.intake.stalled = "the disk is full"
        asked = len(rest.asked)
        for _ in range(8):
            await asyncio.sleep(0.03)  # more than half a floor each
        assert len(rest.asked) <= asked + 1, "one may have been on its way"
        assert not watch.watchdog.stalled.any()
        world.intake.stalled = None
        await until(lambda: len(rest.asked) > asked + 1)


async def test_two_quotes_that_differ_prove_a_stall(world: Desk) -> None:
    rest = AnswersRest()
    rest.newest = b'[{"a":30,"l":30}]'
    rest.quotes = [b'{"bidPrice":"1"}', b'{"bidPrice":"2"}']
    async with one_symbol(world, rest) as (pool, watch):
        line = next(line for line in pool.lines if line.plan.stream == "bookTicker")
        await until(lambda: line.counts.rollovers == 1)
        assert [other.counts.rollovers for other in pool.lines if other is not line] == [0, 0]
        assert line.counts.stalls == 1
        await until(lambda: not watch.watchdog.stalled.any())


@pytest.mark.parametrize(
    "body", [b"", b"{}x", b'{"code":-1121,"msg":"no"}', b"[1]", b'[{"a":1}]', b'[{"a":null,"l":2}]', b"7"]
)
def test_answers_that_are_none(body: bytes) -> None:
    with pytest.raises(ExchangeError):
        parse_newest(body)


def test_answers() -> None:
    assert parse_newest(b"[]") is None
    assert parse_newest(b'[{"a":7,"p":"1","f":8,"l":9}]') == (7, 9)


async def test_a_symbol_that_goes_on_purpose_is_no_stall(world: Desk, source: Synthetic) -> None:
    """Its silence is not asked about; those that stay are watched on, and one that comes as of then."""
    names = list(source.books)
    going, coming = names[1], names[3]
    async with market(source, 18) as (server, faults, rest):
        pool = world.pool(server.ws_url, names[:3], 2, rollover_overlap_s=0.02)
        async with at_work(pool), watching(world, pool, rest) as watch:
            await all_up(pool)
            await until(lambda: world.count > 1_000)
            watch.follow(pool.lines, [going])
            await pool.remove([going])
            pool.add([coming])
            await asyncio.wait_for(pool.carried([coming]), 30)
            watch.follow(pool.lines)
            assert (watch.health().details or {})["streams"] == 9
            for _ in range(10):
                await until(lambda least=world.count + 100: world.count > least, 30)  # type: ignore[misc]
                await asyncio.sleep(FLOOR_S / 4)
            assert [line.counts.stalls for line in pool.lines] == [0] * 6
            faults.mute(server, f"{coming.lower()}@trade")
            await until(lambda: sum(line.counts.rollovers for line in pool.lines) == 1, 30)
            await until(lambda: not watch.watchdog.stalled.any(), 30)
    (said,) = world.log.of("a stream has stalled")
    assert said["stream"] == f"{coming.lower()}@trade"
