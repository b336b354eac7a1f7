"""HTTP of the real engine, against what the exchange itself answers."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.flow import oracle
from tests.flow.running import Engine, running_engine, running_market, until
from tests.flow.watching import Watcher

SYMBOLS = 4
PAGE = 50
SETTLED_S = 3
"""Seconds older than this have all their trades, here and at the exchange."""
COMPONENTS = {"tape", "feed", "store:series", "history"}


@dataclass
class World:
    """A running engine, with a subscriber, and its exchange."""

    engine: Engine
    exchange: str
    """Address of the exchange's REST."""
    watcher: Watcher

    async def ask(self, path: str, **query: Any) -> Any:
        """The exchange's answer."""
        query = {name: str(value) for name, value in query.items()}
        async with aiohttp.ClientSession(self.exchange) as http, http.get(path, params=query) as answer:
            assert answer.status == 200, await answer.text()
            return json.loads(await answer.text())

    async def refused(self, path: str) -> tuple[int, str]:
        """Status and code of an error."""
        async with aiohttp.ClientSession(self.engine.url) as http, http.get(path) as answer:
            return answer.status, (await answer.json())["error"]["code"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_market(tmp_path, SYMBOLS, 2_000) as market, running_engine(
        tmp_path / "data", market.announced
    ) as engine:  # fmt: skip
        watcher = await Watcher.subscribe(engine.feed_url)
        await engine.history_complete()
        yield World(engine, market.announced["rest"], watcher)
        await watcher.close()
        await engine.stop()


async def test_every_route_answers_as_the_exchange_would(world: World) -> None:
    await check_symbols(world)
    for symbol in world.watcher.ids.values():
        await check_price_and_enigma(world, symbol)
        await check_ticks(world, symbol)
        await check_bars(world, symbol)
    await check_health(world)
    await check_metrics(world)
    assert await world.refused("/api/v1/symbols/NOPEUSDT/price") == (404, "unknown_symbol")
    assert (await world.refused("/api/v1/symbols/BTCUSDT/bars?resolution=7m"))[0] == 400
    assert (await world.refused("/api/v1/symbols/BTCUSDT/ticks?limit=-1"))[0] == 400
    assert (await world.refused("/api/v1/nowhere"))[0] == 404


async def check_symbols(world: World) -> None:
    listed = await world.engine.get("/api/v1/symbols")
    known = {held["symbol"]: held for held in (await world.ask("/api/v3/exchangeInfo"))["symbols"]}
    assert [held["id"] for held in listed] == list(range(1, SYMBOLS + 1))
    assert {held["symbol"] for held in listed} == set(known)
    for held in listed:
        info = known[held["symbol"]]
        filters = {one["filterType"]: one for one in info["filters"]}
        assert (held["base_currency"], held["quote_currency"]) == (info["baseAsset"], info["quoteAsset"])
        assert held["is_active"] is True
        assert Decimal(held["tick_size"]) == Decimal(filters["PRICE_FILTER"]["tickSize"])
        assert Decimal(held["step_size"]) == Decimal(filters["LOT_SIZE"]["stepSize"])
        assert Decimal(1).scaleb(-held["price_precision"]) == Decimal(held["tick_size"]).normalize()
        assert Decimal(1).scaleb(-held["quantity_precision"]) == Decimal(held["step_size"]).normalize()


async def check_price_and_enigma(world: World, symbol: str) -> None:
    price = await world.engine.get(f"/api/v1/symbols/{symbol.lower()}/price")
    assert price["symbol"] == symbol
    assert 0 < price["bid"] < price["ask"]
    assert price["volume"] > 0
    assert abs(price["timestamp"] / 1_000 - time.time()) < 10
    enigma = await world.engine.get(f"/api/v1/symbols/{symbol}/enigma")
    (trade,) = await world.ask("/api/v3/historicalTrades", symbol=symbol, fromId=enigma["trade_id"], limit=1)
    assert (enigma["current_price"], enigma["timestamp"]) == (float(trade["price"]), trade["time"])
    months = [kline for kline in await world.ask("/api/v3/klines", symbol=symbol, interval="1M") if kline[8]]
    assert enigma["ath"] == max(float(kline[2]) for kline in months)
    assert enigma["atl"] == min(float(kline[3]) for kline in months)
    level, fibonacci = oracle.enigma(trade["price"], repr(enigma["ath"]), repr(enigma["atl"]))
    assert enigma["level"] == pytest.approx(float(level), rel=1e-14)
    assert enigma["fib_levels"] == {
        name: pytest.approx(float(value), rel=1e-14) for name, value in fibonacci.items()
    }


async def check_ticks(world: World, symbol: str) -> None:
    """Two pages: consecutive ids, each as the exchange says; the price at a time is the last before it."""
    path = f"/api/v1/symbols/{symbol}/ticks"

    async def two_pages() -> bool:
        return bool((await world.engine.get(path, limit=PAGE))["next"])

    await until(two_pages, f"{PAGE} trades of {symbol}")
    first = await world.engine.get(path, limit=PAGE)
    second = await world.engine.get(path, limit=PAGE, cursor=first["next"])
    ticks = first["ticks"] + second["ticks"]
    asked = {"symbol": symbol, "fromId": ticks[0]["id"], "limit": len(ticks)}
    theirs = await world.ask("/api/v3/historicalTrades", **asked)
    for tick, trade in zip(ticks, theirs, strict=True):
        assert tick == {
            "id": trade["id"],
            "price": float(trade["price"]),
            "quantity": float(trade["qty"]),
            "side": "sell" if trade["isBuyerMaker"] else "buy",
            "time": trade["time"],
            "repaired": False,
        }
    moment = ticks[PAGE // 2]["time"]
    last = [tick for tick in ticks if tick["time"] <= moment][-1]
    found = await world.engine.get(f"/api/v1/symbols/{symbol}/price", at=moment)
    assert (found["trade_id"], found["price"]) == (last["id"], last["price"])
    assert (found["volume"], found["timestamp"]) == (last["quantity"], last["time"])


async def check_bars(world: World, symbol: str) -> None:
    """Bars of the past, of the start, and since: as the exchange's klines, as far as these have settled."""
    now_s = (await world.ask("/api/v3/time"))["serverTime"] // 1_000
    for resolution, size_s in oracle.SECONDS.items():
        klines = await world.ask("/api/v3/klines", symbol=symbol, interval=resolution, limit=100)
        end_s = (now_s - SETTLED_S) // size_s * size_s
        wanted = {kline[0] // 1_000: oracle.bar_of_kline(kline) for kline in klines if kline[8]}
        wanted = {slot: bar for slot, bar in wanted.items() if slot < end_s}
        begin_s = klines[0][0] // 1_000
        query = {"resolution": resolution, "from": begin_s, "to": end_s}
        answer = await world.engine.get(f"/api/v1/symbols/{symbol}/bars", **query)
        shown = {
            bar["time"]: oracle.BarValues(*(bar[name] for name in oracle.BarValues._fields))
            for bar in answer["bars"]
        }
        assert all(begin_s <= slot < end_s for slot in shown)
        for slot in sorted(wanted.keys() | shown.keys()):
            assert shown.get(slot) == wanted.get(slot), f"{symbol} {resolution} slot {slot}, now {now_s}"


async def check_health(world: World) -> None:
    engine = world.engine
    for path in ("/api/v1/health/live", "/api/v1/health/ready", "/api/v1/health"):
        assert (await engine.get(path))["status"] == "ok", path
    detailed = await engine.get("/api/v1/health/detailed")
    names = {part["name"] for part in detailed["components"]}
    lines = {f"line:{line}:{stream}:0" for line in "ab" for stream in ("trade", "bookTicker", "aggTrade")}
    assert names >= COMPONENTS | lines
    for part in detailed["components"]:
        assert (part["state"], part["last_error"]) == ("ok", None), part
        assert part["since"] / 1_000 <= time.time()


async def check_metrics(world: World) -> None:
    async with aiohttp.ClientSession(world.engine.url) as http, http.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = await answer.text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    streams = {"trade", "quote", "aggTrade"}
    messages = {
        sample.labels["stream"]: sample.value for sample in families["tradeback_ingest_accepted"].samples
    }
    assert streams <= messages.keys()
    assert all(messages[stream] > 0 for stream in streams)
    # Two lines: everything comes twice, and each of the two brings all of it.
    for name in ("tradeback_ingest_duplicates", "tradeback_line_losses"):
        assert sum(sample.value for sample in families[name].samples) > 100, name
    for name in ("tradeback_line_repeats", "tradeback_line_fallbacks", "tradeback_line_malformed"):
        assert [sample.value for sample in families[name].samples if sample.value] == [], name
    for name in ("tradeback_receive_latency_seconds", "tradeback_publish_latency_seconds"):
        assert families[name].type == "histogram"
        values = {sample.name.removeprefix(name): sample.value for sample in families[name].samples}
        assert values["_count"] > 100, name
        assert 0 < values["_sum"] < values["_count"], f"{name}: less than a second on average"
    values = {name: family.samples[0].value for name, family in families.items() if family.samples}
    assert values["tradeback_feed_clients"] == 1
    assert values["tradeback_feed_sent_bytes"] > 1_000
    assert values["tradeback_feed_trades"] == pytest.approx(messages["trade"], rel=0.5)
    assert values["tradeback_tape_position"] >= sum(messages.values())
    assert values["tradeback_tape_bytes"] > 0
