"""Newest prices into Redis: one script per flush against a pipeline of SETs with expiry; keys a second.

    pytest benchmarks/bench_redis.py
    TRADEBACK_BENCH=full pytest benchmarks/bench_redis.py

Both ways begin with the same prices, make the same JSON, put it into the same server in the same run with
the same library and loop, and leave the same values. Ours also sees to it that the newer value wins.
`extra_info["keys_per_s_script"]` is the figure to look at, with `times_pipeline`. Server and client share a
core, so that all that either does counts. The drains' own cost: `us_per_record` of processor time, prices
and stream together, from a tape in memory.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from tests.derive.world import symbol
from tests.servers.kinds import RedisServer
from tests.servers.process import find_binary
from tests.sinks.drain_world import MemoryTape, SystemTime
from tradeback.derive.state import Derived
from tradeback.model.config import Config, RedisConfig
from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.sinks.redis import redis_drains
from tradeback.stores.latest_redis import LatestRedis
from tradeback.stores.latest_values import price_bytes
from tradeback.stores.ports import Price

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
FLUSHES = 400 if FULL else 40
ROUNDS = 15 if FULL else 7
SYMBOLS = 500
TTL_MS = 60_000

pytestmark = pytest.mark.skipif(find_binary("redis-server") is None, reason="redis-server is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as made:
        yield made


def flushes(keys: int) -> list[list[Price]]:
    """Every flush moves all symbols."""
    return [
        [
            Price(
                f"SYM{number}USDT", 61_234.56 + flush * 0.01, 61_234.55, 61_234.57, 0.00123,
                1_700_000_000_000 + flush, flush * 10 + 1, 1_700_000_000_000_000 + flush,
            )
            for number in range(keys)
        ]
        for flush in range(FLUSHES)
    ]  # fmt: skip


async def by_pipeline(client: Any, prices: list[Price]) -> None:
    """One SET with expiry per key, in one pipeline: the library's own way."""
    async with client.pipeline(transaction=False) as pipe:
        for price in prices:
            pipe.set(f"price:{price.symbol}", price_bytes(price), px=TTL_MS)
        await pipe.execute()


async def by_script(store: LatestRedis, prices: list[Price]) -> None:
    """What the sink does."""
    await store.put_prices(prices, publish=False)


async def put(server: RedisServer, way: str, wanted: list[list[Price]]) -> float:
    """Seconds for all flushes, one after the other."""
    store = LatestRedis(RedisConfig(addr=server.address), SystemTime())
    library: Any = redis.asyncio.Redis(host=server.host, port=server.port, protocol=2)
    await library.flushall()
    who, one = (library, by_pipeline) if way == "pipeline" else (store, by_script)
    await one(who, wanted[0])
    began = time.perf_counter()
    for prices in wanted:
        await one(who, prices)
    took = time.perf_counter() - began
    held = await store.prices([price.symbol for price in wanted[-1]])
    assert list(held.values()) == wanted[-1]
    await store.close()
    await library.aclose()
    return took


@pytest.mark.parametrize("keys", [50, SYMBOLS])
def test_prices(benchmark: BenchmarkFixture, server: RedisServer, keys: int) -> None:
    """Keys a second, both ways in turn in every round, the best round of each; the values are read back."""
    wanted = flushes(keys)
    seconds: dict[str, list[float]] = {way: [] for way in ("pipeline", "script")}

    def run() -> None:
        for way, took in seconds.items():
            took.append(uvloop.run(put(server, way, wanted)))

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    for way, took in seconds.items():
        benchmark.extra_info[f"keys_per_s_{way}"] = round(keys * FLUSHES / min(took))
    benchmark.extra_info["times_pipeline"] = round(min(seconds["pipeline"]) / min(seconds["script"]), 2)


def market(count: int) -> Rows:
    """Trades and quotes of all symbols, half and half."""
    rows = empty_rows(count)
    place = np.arange(count)
    rows["symbol_id"] = place // 2 % SYMBOLS + 1
    rows["kind"] = np.where(place % 2 == 0, QUOTE, TRADE)
    rows["id"], rows["exchange_us"] = place + 1, 1_700_000_000_000_000 + place * 37
    rows["recv_ns"] = rows["exchange_us"] * 1_000
    rows["price"], rows["ask"] = 61_234.56 + place % 997 * 0.01, 61_235.56 + place % 997 * 0.01
    rows["quantity"] = 0.001 + place % 89 * 0.001
    return rows


async def drained(server: RedisServer, folder: Path, seconds: float, per_s: int) -> tuple[float, int]:
    """Processor seconds of this process, and records, for a live stream of `per_s` records a second."""
    config = Config(redis=RedisConfig(addr=server.address), data_dir=str(folder))
    tape, derived = MemoryTape(), Derived(SYMBOLS)
    known = [symbol(symbol_id) for symbol_id in range(1, SYMBOLS + 1)]
    for each in known:
        derived.add_symbol(each)
    rows = market(int(seconds * per_s))
    drains = redis_drains(config, tape, derived, lambda: known, SystemTime(), logging.getLogger("bench"))
    tape.append(rows[:SYMBOLS])
    for drain in drains:
        drain.start()
    while any(drain.position.sequence < SYMBOLS for drain in drains):
        await asyncio.sleep(0.01)
    # The tape in memory copies itself with every append: prepared before, so that only its end moves.
    tape.append(rows[SYMBOLS:])
    whole, tape.rows = tape.rows, tape.rows[:SYMBOLS]
    began_s, cpu_s = time.perf_counter(), time.process_time()
    while len(tape.rows) < len(whole):
        end = min(len(whole), SYMBOLS + int((time.perf_counter() - began_s) * per_s))
        piece = np.ascontiguousarray(whole[len(tape.rows) : end])
        tape.rows = whole[:end]
        derived.on_rows(int(piece.ctypes.data), len(piece))
        await asyncio.sleep(0.01)
    while any(drain.position.sequence < len(whole) for drain in drains):
        await asyncio.sleep(0.01)
    cpu_s = time.process_time() - cpu_s
    for drain in drains:
        await drain.stop()
    return cpu_s, len(whole) - SYMBOLS


def test_cost_of_the_drains(benchmark: BenchmarkFixture, server: RedisServer, tmp_path: Path) -> None:
    """Share of one core for 20,000 records a second of 500 symbols."""
    found: list[tuple[float, int]] = []
    seconds, per_s = (10.0 if FULL else 2.0), 20_000

    def run() -> None:
        found.append(uvloop.run(drained(server, tmp_path, seconds, per_s)))

    benchmark.pedantic(run, rounds=1)  # type: ignore[no-untyped-call]
    cpu_s, records = found[-1]
    benchmark.extra_info["us_per_record"] = round(cpu_s / records * 1e6, 2)
    benchmark.extra_info["share_of_core"] = round(cpu_s / (records / per_s), 4)
