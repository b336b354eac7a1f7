"""Redis behind drains, on the real server: whatever happens, prices are the newest, the stream is whole."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.servers.kinds import RedisServer
from tests.servers.process import ask
from tests.sinks.drain_world import MemoryTape, SystemTime, trades, until
from tests.sinks.redis_world import LOG, NAMES, World
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol
from tradeback.sinks import redis as sink
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_until import Until
from tradeback.sinks.redis import Symbols, prices_from, redis_drains
from tradeback.stores import redis_client
from tradeback.stores.ports import StreamBatch


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung server is noticed sooner."""
    monkeypatch.setattr(redis_client, "REST_S", 0.05)


@pytest.fixture
def world(redis_server: RedisServer, tmp_path: Path) -> World:
    ask(redis_server.port, b"FLUSHALL\r\n")
    return World(redis_server, tmp_path)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one's own that writes everything down at once: a crash loses nothing it confirmed."""
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


async def stopped(*drains: Drain) -> None:
    for drain in drains:
        await drain.stop()


async def test_prices_levels_and_stream_are_those_of_the_tape(world: World) -> None:
    world.trade(3_000)
    world.prices.start()
    world.ticks.start()
    await world.reached()
    world.trade(2_000)
    await world.reached()
    await stopped(world.prices, world.ticks)
    await world.assert_prices()
    batches = await world.assert_stream()
    assert len(batches) < 20, "one entry per flush, not per record"
    assert max(batch.last - batch.first + 1 for batch in batches) == sink.STREAM_ROWS


@pytest.mark.parametrize("outage", ["kill", "pause", "restart"])
async def test_after_an_outage_in_full_stream_everything_is_there_once(
    durable: RedisServer, tmp_path: Path, outage: str
) -> None:
    world = World(durable, tmp_path)
    world.trade(4_000)
    world.prices.start()
    world.ticks.start()
    await until(lambda: world.ticks.position.sequence >= 1_000, 60.0)
    if outage == "restart":
        await asyncio.to_thread(durable.restart)
    else:
        getattr(durable, outage)()
    world.trade(4_000)
    if outage != "restart":
        for drain in (world.prices, world.ticks):
            await until(lambda drain=drain: drain.health().state == "down", 60.0)  # type: ignore[misc]
            assert len(drain._flights) <= 1
        assert world.ticks.lag_records > 1_000
        await asyncio.to_thread(durable.heal)
    world.trade(1_000)
    await world.reached()
    for drain in (world.prices, world.ticks):
        await until(lambda drain=drain: drain.health().state == "ok", 60.0)  # type: ignore[misc]
    await stopped(world.prices, world.ticks)
    await world.assert_prices()
    await world.assert_stream()


async def test_a_server_that_lost_its_data_is_filled_again(world: World) -> None:
    world.trade(3_000)
    world.prices.start()
    world.ticks.start()
    await world.reached()
    world.server.kill()
    world.trade(1_000)
    await until(lambda: world.ticks.health().state == "down", 60.0)
    await asyncio.to_thread(world.server.heal)
    await world.reached()
    await until(lambda: world.prices.health().state == "ok", 60.0)
    await stopped(world.prices, world.ticks)
    await world.assert_prices()
    await world.assert_stream()


async def test_a_loss_that_nobody_noticed_is_made_good(world: World) -> None:
    """A restart between two flushes: every call succeeds, but everything is gone."""
    world.trade(3_000)
    world.prices.start()
    world.ticks.start()
    await world.reached()
    ask(world.server.port, b"FLUSHALL\r\n")
    world.append(trades(1, 1_000_000))
    store = world.store()
    async with asyncio.timeout(60):
        while len(await store.prices(NAMES)) < len(NAMES) or not await store.stream_symbols():
            await asyncio.sleep(0.01)
    await store.close()
    await until(lambda: world.ticks.opens == 2 and world.ticks.health().state == "ok", 60.0)
    await world.reached()
    await stopped(world.prices, world.ticks)
    await world.assert_prices()
    await world.assert_stream()


async def test_killed_sinks_leave_no_hole_and_no_double(world: World) -> None:
    world.trade(6_000)
    slow = replace(world.ticks._config, catch_up_rows_s=20_000.0)
    for goal in (700, 2_300, 4_000):
        drain = world.drains()[1]
        drain._config = drain._reader._config = slow
        drain.start()
        await until(lambda drain=drain, goal=goal: drain.position.sequence >= goal, 60.0)  # type: ignore[misc]
        assert drain._task is not None
        drain._task.cancel()
        await asyncio.wait({drain._task})
    world.ticks.start()
    world.prices.start()
    await world.reached()
    await stopped(world.prices, world.ticks)
    await world.assert_stream()


async def test_the_newest_prices_come_before_the_past(world: World) -> None:
    world.trade(9_000)
    world.ticks._config = world.ticks._reader._config = replace(world.ticks._config, catch_up_rows_s=10_000.0)
    world.ticks.start()
    world.prices.start()
    store = world.store()
    async with asyncio.timeout(60):
        while not await store.levels(NAMES[-1]):
            await asyncio.sleep(0.005)
    await world.assert_prices()
    assert (await store.stream_positions()).get(7, 0) < world.end, "while the stream is still being filled"
    await store.close()
    await stopped(world.prices, world.ticks)


async def test_a_quiet_symbol_lives_as_long_as_its_engine(redis_server: RedisServer, tmp_path: Path) -> None:
    ask(redis_server.port, b"FLUSHALL\r\n")
    world = World(redis_server, tmp_path, price_ttl_s=0.3)
    world.trade(500)
    world.prices.start()
    store = world.store()
    await until(lambda: world.prices.position.sequence == world.end, 60.0)
    begun = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < begun + 0.8:
        assert len(await store.prices(NAMES)) == len(NAMES)
        await asyncio.sleep(0.02)
    await world.prices.stop()
    async with asyncio.timeout(60):
        while await store.prices(NAMES):
            await asyncio.sleep(0.01)
    await store.close()


async def test_the_stream_keeps_what_it_can_and_begins_there(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Records that would be trimmed at once are not even sent."""
    ask(redis_server.port, b"FLUSHALL\r\n")
    world = World(redis_server, tmp_path, stream_entries=3)
    world.trade(10_000)
    world.ticks.start()
    world.prices.start()
    await world.reached()
    batches = await world.assert_stream(first=world.end - 1_000)
    assert batches[0].first == world.end - 3 * sink.STREAM_ROWS + 1
    await stopped(world.ticks)
    world.trade(5_000)
    world.ticks = world.drains()[1]
    world.ticks.start()
    await world.reached()
    batches = await world.batches()
    assert world.end - 3_000 + 1 in [batch.first for batch in batches], "the rest was left out"
    await stopped(world.prices, world.ticks)


async def test_another_tape_in_the_same_stream_is_left_alone(world: World) -> None:
    store = world.store()
    other = StreamBatch(99, 1, 500_000, b"")
    await store.append(other)
    world.trade(2_500)
    world.ticks.start()
    await until(lambda: world.ticks.position.sequence == world.end, 60.0)
    await world.ticks.stop()
    ours = [batch for batch in await world.batches() if batch.epoch == 7]
    assert (ours[0].first, ours[-1].last) == (1, world.end)
    assert await store.stream_positions() == {99: 500_000, 7: world.end}
    await store.close()


async def test_a_tape_that_lost_its_end_goes_on_in_its_new_epoch(world: World) -> None:
    world.trade(1_000)
    world.ticks.start()
    await until(lambda: world.ticks.position.sequence == world.end, 60.0)
    await world.ticks.stop()
    end = world.end
    world.tape.lose_tail(100)
    world.trade(300)
    world.ticks = world.drains()[1]
    world.ticks.start()
    await until(lambda: world.ticks.position.sequence == world.end, 60.0)
    await world.ticks.stop()
    found = [(batch.epoch, batch.first, batch.last) for batch in await world.batches()]
    assert max(last for epoch, _, last in found if epoch == 7) == end
    new = [(first, last) for epoch, first, last in found if epoch == 8]
    assert (new[0][0], new[-1][1]) == (end - 100 + 1, world.end)


FAULTS = [
    ("password", {"password": "hunter2-wrong"}, "correct REDIS_PASSWORD"),
    ("password", {}, "set REDIS_PASSWORD"),
    ("none", {"password": "hunter2-none"}, "unset REDIS_PASSWORD"),
    ("none", {"db": 99}, "correct REDIS_DB"),
    ("replica", {}, "set REDIS_ADDR to the primary"),
    ("full", {}, "raise maxmemory"),
]


@pytest.mark.parametrize(("kind", "redis", "remedy"), FAULTS)
async def test_what_is_wrong_is_said_in_one_line_with_the_remedy(
    kind: str, redis: dict[str, object], remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    redis_server: RedisServer,
) -> None:  # fmt: skip
    options = {
        "password": ("--requirepass", "correct-horse"),
        "replica": ("--replicaof", f"127.0.0.1 {redis_server.port}"),
        "full": ("--maxmemory", "1"),
        "none": (),
    }[kind]
    with RedisServer(tmp_path / "redis", *options) as server:
        world = World(server, tmp_path, **redis)
        world.trade(200)
        with caplog.at_level(logging.DEBUG):
            for drain in (world.prices, world.ticks):
                drain.start()
                await until(lambda drain=drain: drain.health().state == "down", 60.0)  # type: ignore[misc]
                error = drain.health().last_error or ""
                assert remedy in error
                assert "\n" not in error
                await drain.stop()
        warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warned) == 1, "once for the server, whoever notices it and however often"
        assert all(remedy in record.getMessage() for record in warned)
        assert "hunter2" not in caplog.text
        assert "correct-horse" not in caplog.text


async def test_what_is_no_redis_is_named(tmp_path: Path, redis_server: RedisServer) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        world = World(redis_server, tmp_path, addr=f"127.0.0.1:{port}")
        world.ticks.start()
        await until(lambda: world.ticks.health().state == "down", 60.0)
        assert "no Redis: correct REDIS_ADDR" in (world.ticks.health().last_error or "")
        await world.ticks.stop()


async def test_a_mended_server_is_used_without_a_restart(tmp_path: Path) -> None:
    """Out of memory, then with room again."""
    with RedisServer(tmp_path / "redis", "--maxmemory", "1mb") as server:
        world = World(server, tmp_path)
        world.trade(500)
        world.prices.start()
        world.ticks.start()
        await until(lambda: world.ticks.health().state == "down", 60.0)
        assert b"+OK" in ask(server.port, b"CONFIG SET maxmemory 0\r\n")
        await world.reached()
        await stopped(world.prices, world.ticks)
        await world.assert_prices()
        await world.assert_stream()


def test_without_an_address_there_are_no_drains(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    world_less = redis_drains(config, MemoryTape(), object(), list, SystemTime(), LOG)  # type: ignore[arg-type]
    assert world_less == []


def test_unknown_symbols_are_asked_for_now_and_then() -> None:
    asked = []

    def known() -> list[Symbol]:
        asked.append(1)
        return [Symbol(1, "A")]

    symbols = Symbols(known, SystemTime())
    assert [symbols.get(2) for _ in range(100)] == [None] * 100
    assert len(asked) == 1
    found = symbols.get(1)
    assert found is not None
    assert found.symbol == "A"
    assert len(asked) == 1


def test_prices_are_those_of_the_price_route() -> None:
    from tests.derive.world import symbol
    from tradeback.api.shapes import price_json
    from tradeback.derive.layout import empty_states

    states = empty_states(4)
    states["symbol_id"] = [1, 2, 3, 4]
    states["trade_id"], states["price"] = [5, -1, 7, -1], [1.5, 0.0, np.inf, 0.0]
    states["quantity"], states["exchange_us"] = 2.5, 1_700_000_000_123_456
    states["bid"], states["ask"] = 1.25, 1.75
    states["quote_recv_ns"] = [0, 1_700_000_000_999_999_999, 5_000_000, 0]
    symbols = Symbols(lambda: [symbol(number) for number in (1, 2, 3, 4)], SystemTime())
    found = {each.symbol: each._asdict() for each in prices_from(states, symbols)}
    for state in states:
        route = price_json(symbol(int(state["symbol_id"])), state)
        if route is None:
            assert symbol(int(state["symbol_id"])).symbol not in found
        else:
            ours = found[route["symbol"]]
            assert {name: ours[name] for name in route} == route


def test_levels_are_those_of_symbols_that_traded_and_have_a_name() -> None:
    from tests.derive.world import symbol
    from tradeback.derive.layout import empty_states
    from tradeback.sinks.redis import levels_from

    states = empty_states(3)
    states["symbol_id"], states["trade_id"] = [1, 2, 3], [5, -1, 7]
    states["price"], states["ath"], states["atl"] = 2.0, 3.0, 1.0
    (found,) = levels_from(states, Symbols(lambda: [symbol(1), symbol(2)], SystemTime()))
    assert (found.symbol, found.level, found.ath, found.atl, found.trade_id) == ("S1USDT", 50.0, 3.0, 1.0, 5)
    assert found.fib_levels["50"] == 2.0
    assert sink._numbers(np.array([1.5, np.inf, np.nan, -np.inf])) == [1.5, None, None, None]


def test_a_tape_until() -> None:
    tape, end = MemoryTape(), [1]
    tape.append(trades(10))
    source = Until(tape, lambda: end[0])
    assert source.next_sequence == 1
    assert len(source.read_with_epoch(1, 5)[1]) == 0
    end[0] = 4
    assert (source.next_sequence, source.oldest_sequence) == (4, 1)
    assert source.read_with_epoch(2, 100)[1]["id"].tolist() == [2, 3]
    end[0] = 100
    assert source.next_sequence == 11
    assert source.resume(7, 3) == (7, 3)
