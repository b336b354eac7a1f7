"""exchange.pool: all lines together, one or two per stream, against the simulated exchange."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.exchange.harness import Desk, desk, samples, until
from tradeback.exchange.pool import Pool
from tradeback.ingest import context as words
from tradeback.model.record import AGG, LINE_SHIFT, QUOTE, TRADE
from tradeback.model.symbols import Symbol
from tradeback.sim.channels import Hub
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer


@asynccontextmanager
async def at_work(pool: Pool) -> AsyncIterator[Pool]:
    ended: list[asyncio.Task[None]] = []
    pool.start(ended.append)
    try:
        yield pool
        assert ended == []
    finally:
        await pool.stop()
    assert len(ended) == len(pool.lines)


@pytest.fixture
def source() -> Synthetic:
    return Synthetic(4, 3_000.0, unicode_names=True, seed=5)


@pytest.fixture
def world(tmp_path: Path, source: Synthetic) -> Iterator[Desk]:
    symbols = [Symbol(number, name) for number, name in enumerate(source.books, 1)]
    with desk(tmp_path, symbols=symbols) as made:
        yield made


async def all_up(pool: Pool) -> None:
    """Every line, so that all are subscribed."""
    await until(lambda: all(line.was_up.is_set() for line in pool.lines))


def reconnects(pool: Pool) -> int:
    return sum(line.counts.reconnects for line in pool.lines)


def run_of(world: Desk, kind: int, symbol_id: int) -> list[int]:
    rows = world.rows
    return [int(i) for i in rows["id"][(rows["kind"] == kind) & (rows["symbol_id"] == symbol_id)]]


def check_runs(world: Desk, source: Synthetic) -> None:
    """Every id of trades and aggregates once, and with the price and quantity the exchange keeps."""
    for symbol in world.symbols:
        for kind in (TRADE, AGG):
            got = run_of(world, kind, symbol.id)
            assert len(set(got)) == len(got)
            assert sorted(got) == list(range(min(got), min(got) + len(got))), (symbol.symbol, kind)
        quotes = run_of(world, QUOTE, symbol.id)
        assert quotes == sorted(set(quotes))


@pytest.mark.parametrize("lines", [1, 2])
async def test_each_trade_once(world: Desk, source: Synthetic, lines: int) -> None:
    streams = 3 * 4 * lines
    server = await SimServer.start(source, SimConfig(start_after_streams=streams))
    names = list(source.books)
    try:
        async with at_work(world.pool(server.ws_url, names, lines)) as pool:
            await asyncio.wait_for(pool.delivering(), 10)
            await all_up(pool)
            assert len(server.connections) == 3 * lines
            await until(lambda: world.count > 3_000)
            # The streams end together, so that the runs can be compared.
            source.attach(Hub())
            sent = sum(connection.frames_sent for connection in server.connections.values())
            context = world.intake.context

            def arrived() -> int:
                return sum(context.counter(words.MESSAGES, kind) for kind in words.KINDS)

            await until(lambda: arrived() + 3 * lines == sent)
            check_runs(world, source)
            dropped = sum(context.counter(words.DUPLICATES, kind) for kind in words.KINDS)
            assert world.count + dropped == arrived()
            assert (dropped > 0) == (lines == 2)
            brought = {int(flags) >> LINE_SHIFT for flags in world.rows["flags"]}
            assert brought <= set(range(lines))
            values = {(name, label): value for name, label, value in samples(pool)}
            assert len([key for key in values if key[0] == "tradeback_line_up"]) == 3 * lines
            assert all(values["tradeback_line_up", line.plan.name] == 1 for line in pool.lines)
            assert values["tradeback_line_malformed", "a:trade:0"] == 0
    finally:
        await server.stop()
    world.check_tape()


async def test_a_line_that_is_cut_costs_nothing_when_there_are_two(world: Desk, source: Synthetic) -> None:
    server = await SimServer.start(source, SimConfig(start_after_streams=24))
    try:
        async with at_work(world.pool(server.ws_url, list(source.books), 2)) as pool:
            await all_up(pool)
            for round_ in range(4):
                await until(lambda least=1_000 * (round_ + 1): world.count > least)  # type: ignore[misc]
                for line in pool.lines[3 * (round_ % 2) :][:3]:
                    assert line.current is not None
                    line.current.transport.underlying_transport.abort()
                await until(lambda cuts=3 * (round_ + 1): reconnects(pool) == cuts)  # type: ignore[misc]
                await until(lambda: all(line.health().state == "ok" for line in pool.lines))
            await until(lambda: all(world.intake.context.missing_trades(s.id) == 0 for s in world.symbols))
            for symbol in world.symbols:
                got = np.array(run_of(world, TRADE, symbol.id))
                assert len(np.unique(got)) == len(got)
                assert got.max() - got.min() + 1 == len(got)
    finally:
        await server.stop()


async def test_one_line_of_two_is_enough_to_deliver(world: Desk, source: Synthetic) -> None:
    """Host B cannot be reached: nothing waits for it."""
    server = await SimServer.start(source, SimConfig(start_after_streams=12))
    try:
        pool = world.pool(server.ws_url, list(source.books), 2, ws_endpoint_b="ws://127.0.0.1:1")
        async with at_work(pool):
            await asyncio.wait_for(pool.delivering(), 10)
            await until(lambda: world.count > 500)
            states = {line.plan.name[0]: line.health().state for line in pool.lines}
            assert states["a"] == "ok"
            assert states["b"] != "ok"
    finally:
        await server.stop()
