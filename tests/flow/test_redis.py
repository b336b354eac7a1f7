"""A whole run beside Redis: what stands there equals the tape and the routes, over kills of both."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from tests.flow.running import Engine, running_engine, running_market, until
from tests.servers.kinds import RedisServer
from tests.servers.process import ask
from tests.test_engine import engine_for, status
from tradeback.model.config import RedisConfig
from tradeback.model.record import GAP, QUOTE, TRADE
from tradeback.ops.clock import SystemClock
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.stores.latest_redis import LatestRedis
from tradeback.stores.ports import StreamBatch
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_batch import unpack

WITHIN_S = 60.0
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def head_of(engine: Engine) -> int:
    return engine.tape().next_sequence - 1


async def component(engine: Engine, name: str) -> dict[str, Any]:
    detailed = await engine.get("/api/v1/health/detailed")
    found = [part for part in detailed["components"] if part["name"] == name]
    return dict(found[0]) if found else {"state": "none", "details": {"position": 0}}


async def drained(engine: Engine) -> None:
    """Both sinks are where the tape ends."""

    async def done() -> bool:
        parts = [await component(engine, f"sink:redis:{name}") for name in ("prices", "ticks")]
        head = head_of(engine)
        # The cache moves with prices only: the newest records may be none.
        return parts[1]["details"]["position"] == head and all(part["state"] == "ok" for part in parts)

    await until(done, "Redis to hold the whole tape", WITHIN_S)


async def batches_of(store: LatestRedis) -> list[StreamBatch]:
    """The whole stream."""
    batches, after = [], "0"
    while part := await store.read_stream(after, 1_000):
        batches += [batch for _, batch in part]
        after = part[-1][0]
    return batches


async def assert_equal(engine: Engine, store: LatestRedis) -> None:
    for name in SYMBOLS:

        async def same(name: str = name) -> bool:
            route = await engine.get(f"/api/v1/symbols/{name}/price")
            held = (await store.prices([name]))[name]._asdict()
            return bool({key: held[key] for key in route} == route)

        await until(same, "the price that the route answers", WITHIN_S)

        async def levels(name: str = name) -> bool:
            enigma = await engine.get(f"/api/v1/symbols/{name}/enigma")
            held = await store.levels(name)
            return held is not None and (held.level, held.ath, held.atl, held.fib_levels, held.trade_id) == (
                enigma["level"], enigma["ath"], enigma["atl"], enigma["fib_levels"], enigma["trade_id"],
            )  # fmt: skip

        await until(levels, "the levels that the route answers", WITHIN_S)
    batches: list[StreamBatch] = []

    async def all_there() -> bool:
        # Asked for anew: what the dead exchange had sent may still be on its way.
        batches[:] = await batches_of(store)
        return batches[-1].last == head_of(engine)

    await until(all_there, "the stream to end where the tape does", WITHIN_S)
    assert [batch.first for batch in batches] == [1, *(batch.last + 1 for batch in batches[:-1])]
    rows = engine.tape().read(1, batches[-1].last)
    assert batches[-1].last == len(rows)
    decoder = Decoder()
    for symbol in await store.stream_symbols():
        decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
    await asyncio.to_thread(decoder.accelerate)
    frames = [decoder.decode(frame) for batch in batches for frame in unpack(batch.frames)]
    for kind, name, values in ((TRADE, "trades", "price"), (QUOTE, "quotes", "bid")):
        held = np.concatenate([getattr(frame, name) for frame in frames])
        wanted = rows[rows["kind"] == kind]
        assert held["symbol_id"].tolist() == wanted["symbol_id"].tolist()
        assert held[values].tolist() == wanted["price"].tolist()
        if kind == TRADE:
            assert held["id"].tolist() == wanted["id"].tolist()
    assert sum(len(frame.gaps) for frame in frames) == int((rows["kind"] == GAP).sum())


async def test_redis_equals_the_tape_over_kills_of_both(tmp_path: Path) -> None:
    settings = {"EXCHANGE_SYMBOLS": ",".join(SYMBOLS)}
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        settings["REDIS_ADDR"] = server.address
        data_dir = tmp_path / "data"
        async with running_market(tmp_path, 2, 1_000) as market:
            async with running_engine(data_dir, market.announced, **settings) as engine:
                await until(lambda: head_of(engine) > 2_000, "a tape", WITHIN_S)
                await until(lambda: b":0" not in ask(server.port, b"XLEN ticks\r\n"), "a stream", WITHIN_S)
                server.kill()
                at = head_of(engine)
                await until(lambda: head_of(engine) > at + 1_000, "trades during the outage", WITHIN_S)
                await asyncio.to_thread(server.heal)
                await until(lambda: is_up(engine), "Redis again", WITHIN_S)
            # Here the engine, and the recorder with it, was killed in full stream.
            async with running_engine(data_dir, market.announced, **settings) as engine:
                at = head_of(engine)
                await until(lambda: head_of(engine) > at + 1_000, "trades after the kill", WITHIN_S)
                session = await cookie_of(engine, "BTCUSDT")
                await market.kill()
                await drained(engine)
                store = LatestRedis(RedisConfig(addr=server.address), SystemClock())
                try:
                    await assert_equal(engine, store)
                    await until(lambda: held(store, session), "the session and its watch", WITHIN_S)
                finally:
                    await store.close()
                await engine.stop()


async def test_an_engine_that_is_alone_drains_itself(tmp_path: Path, redis_server: RedisServer) -> None:
    ask(redis_server.port, b"FLUSHALL\r\n")
    config = RedisConfig(addr=redis_server.address)
    store = LatestRedis(config, SystemClock())
    exchange = await SimServer.start(Synthetic(2, 400.0), SimConfig(connections_per_window=1_000))
    engine = engine_for(tmp_path, exchange, redis=config)
    await engine.start()
    try:

        async def there() -> bool:
            return len(await store.prices(SYMBOLS)) == len(SYMBOLS) and bool(await store.stream_positions())

        await until(there, "prices", WITHIN_S)

        async def shared() -> bool:
            assert await status(engine, "/symbols/BTCUSDT/bars?resolution=1s") == 200
            return (await store.bars("BTCUSDT", "1s") or b"").startswith(b'{"bars":[')

        await until(shared, "an answer of bars", WITHIN_S)
    finally:
        await engine.stop()
        await exchange.stop()
        await store.close()


async def is_up(engine: Engine) -> bool:
    return bool((await component(engine, "sink:redis:ticks"))["state"] == "ok")


async def cookie_of(engine: Engine, symbol: str) -> str:
    """Watch a symbol as somebody new; the token."""
    async with (
        aiohttp.ClientSession(engine.url) as http,
        http.post(f"/api/v1/marketwatch/{symbol}") as answer,
    ):
        text = await answer.text()
        assert answer.status < 300, text
        return answer.cookies["session_token"].value


async def held(store: LatestRedis, token: str) -> bool:
    from tradeback.stores.sessions import token_hash

    key = token_hash(token)
    return await store.session(key) is not None and await store.watch(key) == ["BTCUSDT"]
