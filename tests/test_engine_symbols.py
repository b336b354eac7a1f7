"""engine: a market watch changed over HTTP is followed at once; what is configured again begins anew."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.exchange.harness import until
from tradeback.engine import Engine
from tradeback.exchange.wanted import Wanted
from tradeback.model.config import Config, ExchangeConfig, ServerConfig, TapeConfig
from tradeback.model.record import TRADE, UNWATCHED, Rows
from tradeback.ops.clock import SystemClock
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.tape.reader import TapeReader

HOUR_S = 3_600.0
"""Nothing happens by reading the watches now and then."""


@pytest.fixture
async def exchange() -> AsyncIterator[SimServer]:
    server = await SimServer.start(Synthetic(6, 1_000.0), SimConfig(connections_per_window=1_000))
    yield server
    await server.stop()


@asynccontextmanager
async def engine_of(folder: Path, exchange: SimServer, *symbols: str, **more: Any) -> AsyncIterator[Engine]:
    settings = {"watch_refresh_s": HOUR_S, "lines": 1, **more}
    lines = ExchangeConfig(
        ws_endpoint=exchange.ws_url, rest_endpoint=exchange.rest_url, symbols=symbols, backoff_first_s=0.01,
        backoff_max_s=0.05, **settings,
    )  # fmt: skip
    tape = TapeConfig(hot_rows=1 << 14)
    config = Config(server=ServerConfig(port=0), exchange=lines, tape=tape, data_dir=str(folder))
    engine = Engine(config, SystemClock())
    await engine.start()
    try:
        await until(lambda: engine.parts is not None, 60)
        await until(lambda: trades(engine, symbols[0]) > 5, 60)
        yield engine
    finally:
        await engine.stop()


def trades(engine: Engine, name: str) -> int:
    """How many are on the tape."""
    symbol = engine.symbols.find(name)
    return 0 if symbol is None else int((rows_of(engine, symbol.id)["kind"] == TRADE).sum())


def rows_of(engine: Engine, symbol_id: int) -> Rows:
    assert engine.tape is not None
    rows = engine.tape.read(1, engine.tape.next_sequence)
    mine: Rows = rows[rows["symbol_id"] == symbol_id]
    return mine


async def test_a_watch_is_followed_at_once(tmp_path: Path, exchange: SimServer) -> None:
    """By the session's own socket, too, which has asked for nothing."""
    async with engine_of(tmp_path, exchange, "BTCUSDT", watch_grace_s=0.2) as engine:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(engine.url, cookie_jar=jar) as http:
            async with http.post("/api/v1/marketwatch/ETHUSDT") as answer:
                assert answer.status == 201, await answer.text()
            await until(lambda: trades(engine, "ETHUSDT") > 5, 60)
            other = aiohttp.ClientSession(engine.url, cookie_jar=jar)  # a connection of its own
            async with other, other.ws_connect("/api/v1/ws") as socket:
                async with http.post("/api/v1/marketwatch/solusdt") as answer:
                    assert await answer.json() == {"symbols": ["ETHUSDT", "SOLUSDT"]}
                async with asyncio.timeout(60):
                    texts = ""
                    while "SOLUSDT" not in texts:
                        message = await socket.receive()
                        if message.type == aiohttp.WSMsgType.TEXT:
                            texts += message.data
                    sol = symbol_of(engine, "SOLUSDT").id
                    while message.type != aiohttp.WSMsgType.BINARY or sol not in ids_of(message.data):
                        message = await socket.receive()
            await until(lambda: trades(engine, "SOLUSDT") > 5, 60)
            async with http.post("/api/v1/marketwatch/NOPEUSDT") as answer:
                assert answer.status == 404
            async with http.delete("/api/v1/marketwatch/SOLUSDT") as answer:
                assert answer.status == 204
            await until(lambda: not symbol_of(engine, "SOLUSDT").is_active, 60)
            await until(lambda: wanted_of(engine).went == 1, 60)
            async with http.get("/api/v1/symbols") as answer:
                shown = {symbol["symbol"]: symbol["is_active"] for symbol in await answer.json()}
            assert shown == {"BTCUSDT": True, "ETHUSDT": True, "SOLUSDT": False}
            async with http.get("/api/v1/metrics") as answer:
                assert "tradeback_symbols_dropped_total 1" in await answer.text()
            async with http.get("/api/v1/health/detailed") as answer:
                parts = {part["name"]: part for part in (await answer.json())["components"]}
            assert parts["symbols"]["state"] == "ok"
            assert parts["line:a:trade:0"]["details"]["streams"] == 2


def ids_of(frame: bytes) -> set[int]:
    """The symbols of a version 1 frame."""
    return {number for number, _, _ in struct.iter_unpack("<Hdd", frame[6:])}


def wanted_of(engine: Engine) -> Wanted:
    assert engine.parts is not None
    assert engine.parts.wanted is not None
    return engine.parts.wanted


def symbol_of(engine: Engine, name: str) -> Any:
    found = engine.symbols.find(name)
    assert found is not None
    return found


async def test_a_symbol_that_is_configured_again(tmp_path: Path, exchange: SimServer) -> None:
    """For one run it was not: what went by then is no gap. Nobody follows it now says the registry."""
    async with engine_of(tmp_path, exchange, "BTCUSDT", "ETHUSDT") as engine:
        await until(lambda: trades(engine, "ETHUSDT") > 5, 60)
    async with engine_of(tmp_path, exchange, "BTCUSDT") as engine:
        await until(lambda: not symbol_of(engine, "ETHUSDT").is_active, 60)
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    active = {symbol.symbol: symbol.is_active for symbol in registry.symbols()}
    registry.close()
    assert active == {"BTCUSDT": True, "ETHUSDT": False}
    async with engine_of(tmp_path, exchange, "BTCUSDT", "ETHUSDT") as engine:
        eth = symbol_of(engine, "ETHUSDT")
        assert eth.is_active
        before = trades(engine, "ETHUSDT")
        await until(lambda: trades(engine, "ETHUSDT") > before + 5, 60)
        gaps = engine.parts.gaps if engine.parts is not None else None
        assert gaps is not None
        gaps.catch_up()
        span = gaps.ledger.span(eth.id)
        assert span is not None
        ids = rows_of(engine, eth.id)
        (place,) = [index for index, row in enumerate(ids) if row["kind"] == UNWATCHED]
        assert span[0] > max(ids["id"][:place][ids["kind"][:place] == TRADE]) + 1
        assert engine.parts is not None
        assert engine.parts.intake.context.missing_trades(eth.id) == 0
    rows = TapeReader(tmp_path / "tape").read(1, 1 << 20)
    assert [int(row["symbol_id"]) for row in rows[rows["kind"] == UNWATCHED]] == [eth.id]
    btc = rows["id"][(rows["symbol_id"] == 1) & (rows["kind"] == TRADE)]
    assert len(set(btc.tolist())) == len(btc)


async def test_bars_are_the_exchanges_in_spite_of_a_time_away(tmp_path: Path, exchange: SimServer) -> None:
    """Watched, dropped in the middle of all open bars, watched again: what went by comes from klines."""
    path = "/api/v1/marketwatch/ETHUSDT"
    async with engine_of(tmp_path, exchange, "BTCUSDT", watch_grace_s=0.05) as engine:
        wanted = wanted_of(engine)
        async with aiohttp.ClientSession(engine.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            assert (await http.post(path)).status == 201
            await learnt(engine, "ETHUSDT")
            assert (await http.delete(path)).status == 204
            await until(lambda: wanted.went == 1, 60)
            away = trades(engine, "BTCUSDT")
            await until(lambda: trades(engine, "BTCUSDT") > away + 100, 60)
            assert (await http.post(path)).status == 201
            await learnt(engine, "ETHUSDT")
            exchange._tasks[0].cancel()  # the market stands still; REST answers on
            await settled(engine)
            for resolution in ("1m", "1h", "1d"):
                await compare(http, exchange, "ETHUSDT", resolution)


async def learnt(engine: Engine, name: str) -> None:
    """The history is there (which takes seconds), and trades behind it."""
    wanted = wanted_of(engine)
    await until(lambda: wanted._learning, 60)
    await until(lambda: not wanted._learning, 60)
    before = trades(engine, name)
    await until(lambda: trades(engine, name) > before + 20, 60)


async def compare(http: aiohttp.ClientSession, exchange: SimServer, name: str, resolution: str) -> None:
    """The newest bars, the open one among them, with the exchange's own."""
    async with http.get(f"/api/v1/symbols/{name}/bars", params={"resolution": resolution}) as answer:
        shown = {bar["time"]: bar for bar in (await answer.json())["bars"]}
    query = {"symbol": name, "interval": resolution, "limit": "3"}
    async with http.get(f"{exchange.rest_url}/api/v3/klines", params=query) as answer:
        klines = [kline for kline in await answer.json() if kline[8]]
    assert klines
    for kline in klines:
        bar = shown[kline[0] // 1_000]
        held = [bar[key] for key in ("open", "high", "low", "close", "volume", "trade_count")]
        truth = [float(word) for word in (*kline[1:6], kline[8])]
        assert held == pytest.approx(truth), resolution


async def settled(engine: Engine) -> None:
    """The streams have ended: until everything under way is on the tape."""
    assert engine.tape is not None
    while True:
        before = engine.tape.next_sequence
        await asyncio.sleep(0.09)
        if engine.tape.next_sequence == before:
            return
