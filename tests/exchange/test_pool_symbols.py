"""Symbols come and go on a pool at work: the others lose nothing, and the exchange's limits are kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.exchange.harness import Desk, desk, until
from tests.exchange.test_pool import all_up, reconnects, run_of
from tests.exchange.test_pool_rollover import exchange_of, settle
from tradeback.exchange import requests
from tradeback.exchange.placement import Placement
from tradeback.exchange.pool import Pool
from tradeback.exchange.streams import STREAMS, stream_name
from tradeback.model.record import AGG, TRADE
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

STEADY, MOVING = 12, 200
FEW = 40
PLACES = 64
FASTER = 4.0
RATE = 2_500.0


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange's limits per second, and what keeps us inside them, hold for a quarter of one."""
    monkeypatch.setattr(requests, "PACE_PERIOD_S", requests.PACE_PERIOD_S / FASTER)


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Synthetic:
    return Synthetic(getattr(request, "param", FEW), RATE, unicode_names=True, seed=9)


@pytest.fixture
def world(tmp_path: Path, source: Synthetic) -> Iterator[Desk]:
    symbols = [Symbol(number, name) for number, name in enumerate(source.books, 1)]
    with desk(tmp_path, symbols=symbols, hot_rows=1 << 15) as made:
        yield made


@asynccontextmanager
async def at_work(pool: Pool) -> AsyncIterator[Pool]:
    failed: list[BaseException] = []

    def watch(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            failed.append(task.exception())  # type: ignore[arg-type]

    pool.start(watch)
    try:
        yield pool
        assert failed == []
    finally:
        await pool.stop()


def held_by(server: SimServer) -> list[set[str]]:
    """The streams of every connection, as the exchange counts them."""
    return [set(one._session.streams) for one in server.connections.values() if one._session is not None]


def is_as_wanted(server: SimServer, pool: Pool, lines: int) -> bool:
    """Each shard's streams on as many connections as there are lines, and nothing else anywhere."""
    expected = [
        {stream_name(name, stream) for name in names}
        for names in pool.placement.shards.values()
        for stream in STREAMS
        for _ in range(lines)
    ]
    held = held_by(server)
    return len(held) == len(expected) and all(held.count(one) == expected.count(one) for one in held)


async def settle_steady(world: Desk, source: Synthetic, names: list[str]) -> None:
    """Every trade and aggregate of these symbols once, from the first to the last."""
    symbols = [symbol for symbol in world.symbols if symbol.symbol in names]
    await until(lambda: all(len(run_of(world, AGG, symbol.id)) > 5 for symbol in symbols), 60)
    await settle(world, source)
    for symbol in symbols:
        for kind in (TRADE, AGG):
            got = run_of(world, kind, symbol.id)
            assert sorted(got) == list(range(min(got), min(got) + len(got))), (symbol.symbol, kind)
        assert world.intake.context.missing_trades(symbol.id) == 0


@pytest.mark.parametrize("source", [STEADY + MOVING], indirect=True)
@pytest.mark.parametrize("lines", [1, 2])
async def test_two_hundred_come_and_go(world: Desk, source: Synthetic, lines: int) -> None:
    """While connections roll over and new ones open and close. The simulator cuts whoever breaks a limit."""
    rng = random.Random(lines)
    names = list(source.books)
    steady, moving = names[:STEADY], names[STEADY:]
    config = SimConfig(
        life_rate=FASTER, start_after_streams=3 * STEADY * lines, streams_per_connection_max=PLACES
    )
    async with exchange_of(source, config) as (server, _):
        pool = world.pool(
            server.ws_url, steady, lines, rollover_min_s=0.3, rollover_max_s=0.8, rollover_overlap_s=0.02
        )
        pool.placement = Placement({0: steady}, lines, 6 * 4 + 1, PLACES)
        async with at_work(pool):
            await all_up(pool)
            came: set[str] = set()
            for round_ in range(6):
                out = rng.sample(sorted(came), len(came) // 2)
                await pool.remove(out)
                came -= set(out)
                fresh = [name for name in moving if name not in came]
                chosen = fresh if round_ == 4 else rng.sample(fresh, rng.randrange(5, 60))
                added = pool.add(chosen)
                assert len(added) == len(chosen), "there was room"
                came |= set(added)
                if round_ % 2:
                    async with asyncio.timeout(30):
                        await pool.carried(added)
                else:
                    await until(lambda least=world.count + 300: world.count > least, 30)  # type: ignore[misc]
            async with asyncio.timeout(30):
                await pool.carried(came)
            await until(lambda: is_as_wanted(server, pool, lines), 30)
            assert {pool.placement.shard_of(name) for name in steady} == {0}, "nobody has moved"
            assert reconnects(pool) == 0, "no limit was broken"
            await until(lambda: any(line.counts.rollovers for line in pool.lines), 30)
            await pool.remove(moving)
            await until(lambda: is_as_wanted(server, pool, lines), 30)
            assert len(pool.lines) == len(server.connections) == 3 * lines
            await settle_steady(world, source, steady)
            assert {int(number) for number in world.rows["symbol_id"]} > set(range(1, STEADY + 1))
    world.check_tape()


async def test_a_line_that_is_down_brings_them_when_it_is_back(world: Desk, source: Synthetic) -> None:
    """Changes reach connections that are being opened, that break, and that open later."""
    rng = random.Random(3)
    names = list(source.books)[:40]
    steady, moving = names[:8], names[8:]
    async with exchange_of(source, SimConfig(life_rate=FASTER, start_after_streams=48)) as (server, _):
        pool = world.pool(server.ws_url, steady, 2, rollover_min_s=0.3, rollover_max_s=0.8)
        async with at_work(pool):
            await all_up(pool)
            came: set[str] = set()
            for _ in range(6):
                line = rng.choice([line for line in pool.lines if line.plan.line == 1])
                if line.current is not None and line.current.transport is not None:
                    line.current.transport.underlying_transport.abort()
                gone, fresh = set(rng.sample(sorted(came), len(came) // 3)), rng.sample(moving, 6)
                await pool.remove(gone)
                came = (came - gone) | set(pool.add(fresh)) | (set(fresh) & (came - gone))
                await until(lambda least=world.count + 60: world.count > least, 30)  # type: ignore[misc]
            async with asyncio.timeout(30):
                await pool.carried(came)
            await until(lambda: is_as_wanted(server, pool, 2), 30)
            assert set(pool.placement.shards[0]) == set(steady) | came
            await settle_steady(world, source, steady)


async def test_the_first_symbol_of_all_and_the_last(world: Desk, source: Synthetic) -> None:
    """A pool may begin with nothing, and end with nothing."""
    names = list(source.books)[:3]
    lines_seen: list[tuple[int, int]] = []
    async with exchange_of(source, SimConfig(life_rate=FASTER, start_after_streams=3)) as (server, _):
        pool = world.pool(server.ws_url, [], 2)
        pool.on_lines.append(lambda came, went: lines_seen.append((len(came), len(went))))
        async with at_work(pool):
            await pool.delivering()
            assert pool.lines == []
            assert pool.add(names) == names
            assert pool.add(names) == [], "they are carried already"
            async with asyncio.timeout(30):
                await pool.carried(names)
            await until(lambda: world.count > 50, 30)
            await until(lambda: is_as_wanted(server, pool, 2), 30)
            stalls = len(world.intake.on_stall)
            await pool.remove(names)
            async with asyncio.timeout(30):
                await pool.carried(names)  # nobody waits for what is not wanted
            await until(lambda: not server.connections, 30)
            assert pool.lines == []
            assert len(world.intake.on_stall) == stalls - 6, "nobody calls lines that are gone"
    assert lines_seen == [(6, 0), (0, 6)]


async def test_a_full_pool_says_how_much_it_takes(world: Desk, source: Synthetic) -> None:
    names = list(source.books)
    async with exchange_of(source, SimConfig(life_rate=FASTER, start_after_streams=-1)) as (server, _):
        pool = world.pool(server.ws_url, names[:4], 1)
        pool.placement = Placement({0: names[:4]}, 1, 7, 5)
        async with at_work(pool):
            await all_up(pool)
            assert pool.placement.room == 6
            added = pool.add(names[4:40])
            assert added == names[4:10]
            assert pool.add(names[20:30]) == []
            async with asyncio.timeout(30):
                await pool.carried(added)
            await until(lambda: is_as_wanted(server, pool, 1), 30)
            assert [line.plan.name for line in pool.lines[3:]] == [f"a:{stream}:1" for stream in STREAMS]


async def test_a_refused_change_costs_a_rollover_and_no_data(world: Desk, source: Synthetic) -> None:
    """The exchange refuses more streams than it allows: whoever asked is replaced, again and again if need
    be, and delivers on."""
    names = list(source.books)[:8]
    config = SimConfig(life_rate=FASTER, start_after_streams=12, streams_per_connection_max=6)
    async with exchange_of(source, config) as (server, _):
        pool = world.pool(server.ws_url, names[:4], 1, rollover_overlap_s=0.02)
        async with at_work(pool):
            await all_up(pool)
            assert pool.add(names[4:]) == names[4:]
            await until(lambda: all(line.counts.rollovers_failed > 0 for line in pool.lines), 30)
            assert world.log.of("subscriptions cannot be changed")
            await pool.remove(names[6:])
            async with asyncio.timeout(30):
                await pool.carried(names[4:6])
            await until(lambda: is_as_wanted(server, pool, 1), 30)
            assert reconnects(pool) == 0
            await settle_steady(world, source, names[:4])
