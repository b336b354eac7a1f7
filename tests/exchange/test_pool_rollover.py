"""Rollovers, shutdowns and cuts of a whole pool on the simulated exchange: nothing lost, nothing doubled."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.exchange.harness import Desk, desk, samples, until
from tests.exchange.test_pool import all_up, at_work, check_runs, reconnects
from tradeback.exchange.pool import Pool
from tradeback.ingest import context as words
from tradeback.model.record import AGG, TRADE
from tradeback.model.symbols import Symbol
from tradeback.sim.channels import Hub
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import Connection, SimServer


class Census(dict[int, Connection]):
    """The simulator's connections, with the fewest and most there were since `begin`."""

    fewest = most = 0

    def begin(self) -> None:
        self.fewest = self.most = len(self)

    def __setitem__(self, number: int, connection: Connection) -> None:
        super().__setitem__(number, connection)
        self.most = max(self.most, len(self))

    def pop(self, number: int, *default: object) -> Connection:
        found = super().pop(number)
        self.fewest = min(self.fewest, len(self))
        return found


@pytest.fixture
def source() -> Synthetic:
    return Synthetic(4, 3_000.0, unicode_names=True, seed=5)


@pytest.fixture
def world(tmp_path: Path, source: Synthetic) -> Iterator[Desk]:
    symbols = [Symbol(number, name) for number, name in enumerate(source.books, 1)]
    with desk(tmp_path, symbols=symbols) as made:
        yield made


@asynccontextmanager
async def exchange_of(source: Synthetic, config: SimConfig) -> AsyncIterator[tuple[SimServer, Census]]:
    server = await SimServer.start(source, config)
    census = Census()
    server.connections = census
    try:
        yield server, census
    finally:
        await server.stop()


async def settle(world: Desk, source: Synthetic) -> None:
    """End the streams together and wait until everything under way has come."""
    source.attach(Hub())
    context = world.intake.context
    while True:
        before = sum(context.counter(words.MESSAGES, kind) for kind in words.KINDS)
        await asyncio.sleep(0.05)
        if before == sum(context.counter(words.MESSAGES, kind) for kind in words.KINDS):
            return


def check_complete(world: Desk, source: Synthetic) -> None:
    check_runs(world, source)
    for symbol in world.symbols:
        assert world.intake.context.missing_trades(symbol.id) == 0
    context = world.intake.context
    for kind in (TRADE, AGG):
        assert context.counter(words.SKIPPED_IDS, kind) == context.counter(words.LATE_FILLS, kind)
    world.check_tape()


@pytest.mark.parametrize("lines", [1, 2])
async def test_rollovers_under_load(world: Desk, source: Synthetic, lines: int) -> None:
    """Every connection is replaced again and again; with one line there is nobody to make up for a loss."""
    async with exchange_of(source, SimConfig(start_after_streams=12 * lines)) as (server, census):
        pool = world.pool(
            server.ws_url, list(source.books), lines,
            rollover_min_s=0.1, rollover_max_s=0.4, rollover_overlap_s=0.02,
        )  # fmt: skip
        async with at_work(pool):
            await all_up(pool)
            census.begin()
            planned = len(pool.lines)
            await until(lambda: all(line.counts.rollovers >= 2 for line in pool.lines), 20)
            assert reconnects(pool) == 0
            assert census.fewest >= planned
            assert census.most <= planned + 1, "one line at a time"
            await settle(world, source)
            check_complete(world, source)
            assert not world.log.of("line lost")
            values = {(name, label): value for name, label, value in samples(pool)}
            assert values["tradeback_line_rollovers", "a:trade:0"] >= 2
            repeats = sum(world.intake.context.line_counter(words.LINE_REPEATS, 0, k) for k in words.KINDS)
            assert repeats > 0, "the old and the new one overlapped"


async def test_a_shutdown_of_everything(world: Desk, source: Synthetic) -> None:
    async with exchange_of(source, SimConfig(start_after_streams=12)) as (server, census):
        pool = world.pool(server.ws_url, list(source.books), 1, rollover_overlap_s=0.02)
        async with at_work(pool):
            await all_up(pool)
            await until(lambda: world.count > 500)
            census.begin()
            old = list(census.values())
            server.announce_shutdown()
            await until(lambda: all(line.counts.rollovers == 1 for line in pool.lines))
            await until(lambda: len(census) == 3)
            assert (census.fewest, census.most) == (3, 4)
            assert not set(map(id, old)) & set(map(id, census.values()))
            assert [line.counts.shutdowns for line in pool.lines] == [1, 1, 1]
            assert reconnects(pool) == 0
            await until(lambda: world.count > 1_500)
            await settle(world, source)
            check_complete(world, source)


async def test_the_daily_cut_never_comes(world: Desk, source: Synthetic) -> None:
    """The exchange cuts at an age of 0.8 s; rollovers between 0.2 and 0.5 s are always in time."""
    config = SimConfig(start_after_streams=12, connection_life_s=0.8)
    async with exchange_of(source, config) as (server, _):
        pool = world.pool(
            server.ws_url, list(source.books), 1,
            rollover_min_s=0.2, rollover_max_s=0.5, rollover_overlap_s=0.02,
        )  # fmt: skip
        async with at_work(pool):
            await until(lambda: all(line.counts.rollovers >= 4 for line in pool.lines), 20)
            assert reconnects(pool) == 0
            await settle(world, source)
            check_complete(world, source)


async def test_random_cuts_of_single_connections(world: Desk, source: Synthetic) -> None:
    """One line or the other, at any moment, while connections also roll over."""
    rng = random.Random(11)
    async with exchange_of(source, SimConfig(start_after_streams=24)) as (server, _):
        pool = world.pool(
            server.ws_url, list(source.books), 2,
            rollover_min_s=0.2, rollover_max_s=0.5, rollover_overlap_s=0.02,
        )  # fmt: skip
        async with at_work(pool):
            await all_up(pool)
            for _ in range(24):
                stream = rng.choice(("trade", "bookTicker", "aggTrade"))
                pair = rng.sample([line for line in pool.lines if line.plan.stream == stream], 2)
                # Redundant from when both are up and what was on its way before has come.
                await until(lambda both=pair: all(line.is_up for line in both))  # type: ignore[misc]
                await until(lambda least=world.count + 150: world.count > least)  # type: ignore[misc]
                victim, other = pair
                if victim.current is not None and other.is_up:
                    victim.current.transport.underlying_transport.abort()
            await until(lambda: all(line.is_up for line in pool.lines))
            assert reconnects(pool) > 10
            await settle(world, source)
            check_complete(world, source)


async def test_each_line_may_go_elsewhere(world: Desk, source: Synthetic) -> None:
    other = await SimServer.start(source, SimConfig(start_after_streams=-1))
    try:
        async with exchange_of(source, SimConfig(start_after_streams=-1)) as (server, census):
            pool = world.pool(server.ws_url, list(source.books), 2, ws_endpoint_b=other.ws_url)
            async with at_work(pool):
                await all_up(pool)
                assert (len(census), len(other.connections)) == (3, 3)
                ends = {(line.health().details or {})["endpoint"] for line in pool.lines}
                assert ends == {server.ws_url, other.ws_url}
    finally:
        await other.stop()


async def test_the_exchanges_limit_of_attempts_is_kept(world: Desk, source: Synthetic) -> None:
    """Connections that die at once, for a while: the pool never tries more often than its budget says."""
    config = SimConfig(start_after_streams=-1, connections_per_window=40, connection_window_s=300.0)
    async with exchange_of(source, config) as (server, census):
        pool = limited(world.pool(server.ws_url, list(source.books), 2, rollover_overlap_s=0.01), 30)
        async with at_work(pool):
            await all_up(pool)
            while len(server._attempts) < 30:
                for connection in list(census.values()):
                    connection.close(1001, "maintenance")
                for line in pool.lines:
                    line.replace("test")
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)  # several back-offs
            assert len(server._attempts) == 30, "the thirty-first waits for the window"


def limited(pool: Pool, attempts: int) -> Pool:
    """Give the pool a smaller budget than the exchange's, to see that it is kept."""
    from tradeback.exchange.budget import Budget

    budget = Budget(attempts, 300.0)
    for line in pool.lines:
        line._attempts = budget
    return pool


def test_two_lines_tell_who_was_first(world: Desk) -> None:
    """What the pool shows of the kernel's counts: names and sums."""
    pool = world.pool("ws://127.0.0.1:1", ["BTCUSDT"], 2)
    context = world.intake.context
    counts, sums = context.line_lag(1, TRADE)
    counts[3] += 8
    sums[0] += 8 * 4
    context.streams[1, TRADE - 1, 1] = 90
    context.streams[1, TRADE - 1, 3] = 8
    context.words[words.LINE_LOSSES + 4 + TRADE] = 8
    found = {}
    for family in pool.collect():
        for labels, value in family.samples:
            found[family.name, labels.get("line"), labels.get("stream")] = value
    assert found["tradeback_line_wins", "a", "trade"] == 90
    assert found["tradeback_line_losses", "b", "trade"] == 8
    lag = found["tradeback_line_lag_seconds", "b", "trade"]
    assert np.array_equal(lag.counts, counts)  # type: ignore[union-attr]
    lead = found["tradeback_line_lead_seconds", "a", "trade"]
    assert np.array_equal(lead.counts, counts)  # type: ignore[union-attr]
    assert not found["tradeback_line_lead_seconds", "b", "trade"].total  # type: ignore[union-attr]
    a, b = (
        next(line for line in pool.lines if line.plan.name == f"{name}:trade:0").health().details or {}
        for name in ("a", "b")
    )
    assert (a["wins"], a["losses"], b["losses"]) == (90, 0, 8)
    assert a["lag_ms"] is None
    assert a["lead_ms"] == b["lag_ms"] == {"p50": 0.004, "p90": 0.004, "p99": 0.004}
    assert replace(pool.lines[0].health(), state="ok").details == a
