"""api/bus_answers: requests on either bus are answered as over HTTP."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest

from tests.api.history_world import BEGIN_S, Exchange, flush, trades
from tests.feed.harness import World as Served
from tests.servers.kinds import NatsServer
from tests.sinks.gate import Gate
from tradeback.api.bus_answers import BusAnswers
from tradeback.api.context import ServingContext
from tradeback.api.shapes import price_json, symbol_json
from tradeback.derive.layout import Bars, empty_bars
from tradeback.derive.state import Derived
from tradeback.model.config import Config, FeatureConfig, NatsConfig
from tradeback.model.errors import TradebackError
from tradeback.model.record import TRADE, empty_rows
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.stores.bus import open_bus
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.ports_bus import Bus

LOG = logging.getLogger("tests.answers")
BTC = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01", step_size="0.00001")
ETH = Symbol(2, "ETHUSDT", "ETH", "USDT")
WAIT_S = 30.0


class Series:
    """Bars as they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.broken = False

    async def bars(self, *ask: Any, newest: bool = False) -> tuple[Bars, Any]:
        if self.broken:
            raise TradebackError("the store cannot be read")
        self.asked.append((*ask, newest))
        rows = empty_bars(1)
        rows["slot_us"], rows["trade_count"], rows["open"], rows["close"] = 60_000_000, 3, 1.0, 2.0
        rows["high"], rows["low"], rows["volume"], rows["lot_digits"] = 3.0, 0.5, 150, 2
        return rows, np.array([True])


class World:
    """One engine that answers, one bus that asks."""

    def __init__(self, bus: Bus, asker: Bus) -> None:
        self.derived, self.series = Derived(), Series()
        self.derived.add_symbol(BTC)
        rows = empty_rows(1)
        rows["kind"], rows["symbol_id"], rows["id"], rows["price"], rows["quantity"] = (
            TRADE,
            1,
            7,
            61_000.5,
            0.25,
        )
        rows["exchange_us"] = 1_700_000_000_123_456
        self.derived.on_rows(int(rows.ctypes.data), 1)
        self.context = ServingContext(
            config=Config(), clock=SystemClock(), symbols=SymbolTable.of([BTC, ETH]), tape=None,  # type: ignore[arg-type]
            derived=self.derived, series=self.series,
        )  # fmt: skip
        self.answers, self.asker = BusAnswers(self.context, bus, "here"), asker

    async def ask(self, verb: str, value: object = b"") -> Any:
        payload = value if isinstance(value, bytes) else orjson.dumps(value)
        return orjson.loads(await self.asker.request(f"tradeback.req.{verb}", payload, WAIT_S))


@pytest.fixture(params=["local", "nats"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "local":
        bus = asker = open_bus(Config(), LOG)
        made = World(bus, asker)
        await made.answers.start()
    else:
        server: NatsServer = request.getfixturevalue("nats_server")
        config = NatsConfig(url=server.url)
        mine, other = NatsBus(config, LOG), NatsBus(config, LOG)
        await other.start()
        made = World(mine, other)
        await made.answers.start()
        for each in (mine, other):
            await each.ready(WAIT_S)
        asker = other
    yield made
    await made.answers.stop()
    await asker.close()


async def test_prices_bars_and_symbols(world: World) -> None:
    state = world.derived.latest(1)
    assert state is not None
    assert await world.ask("price", {"symbol": "btcusdt"}) == price_json(BTC, state)
    assert await world.ask("symbols") == [symbol_json(BTC), symbol_json(ETH)]
    bars = await world.ask("bars", {"symbol": "BTCUSDT", "resolution": "5m", "from": 60, "to": 120})
    assert bars == {
        "bars": [
            {"time": 60, "open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": 1.5, "trade_count": 3,
             "complete": True}
        ],
        "loading": False,
    }  # fmt: skip
    assert {ask[:2] for ask in world.series.asked} == {(1, 2)}
    assert await world.ask("price.here", {"symbol": "BTCUSDT"}) == price_json(BTC, state)


@pytest.mark.parametrize(
    ("verb", "ask", "code"),
    [
        ("price", b"{", "bad_request"),
        ("price", [], "bad_request"),
        ("price", {}, "bad_request"),
        ("price", {"symbol": 3}, "bad_request"),
        ("price", {"symbol": "NOPE"}, "unknown_symbol"),
        ("price", {"symbol": "ETHUSDT"}, "not_ready"),
        ("bars", {"symbol": "BTCUSDT", "resolution": "2m"}, "bad_request"),
        ("bars", {"symbol": "BTCUSDT", "resolution": ["1m"]}, "bad_request"),
        ("bars", {"symbol": "BTCUSDT", "from": -1}, "bad_request"),
        ("bars", {"symbol": "BTCUSDT", "to": "now"}, "bad_request"),
        ("bars", {"symbol": "BTCUSDT", "limit": 5_001}, "bad_request"),
    ],
)
async def test_errors_have_the_shape_of_http(world: World, verb: str, ask: Any, code: str) -> None:
    answer = await world.ask(verb, ask)
    assert set(answer) == {"error"}
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]
    assert world.answers.refused == 1


async def test_what_is_not_there_yet_is_told(world: World) -> None:
    world.series.broken = True
    assert (await world.ask("bars", {"symbol": "BTCUSDT"}))["error"]["code"] == "not_ready"
    world.context.series = None
    assert (await world.ask("bars", {"symbol": "BTCUSDT"}))["error"]["code"] == "not_ready"
    world.context.derived = None
    assert (await world.ask("price", {"symbol": "BTCUSDT"}))["error"]["code"] == "not_ready"
    world.context.config = Config(feature=FeatureConfig(aggregation_enabled=False))
    assert (await world.ask("bars", {"symbol": "BTCUSDT"}))["error"]["code"] == "disabled"


async def test_numbers(world: World) -> None:
    await world.ask("symbols")
    families = {family.name: family for family in world.answers.collect()}
    assert ({"verb": "symbols"}, 1) in families["tradeback_bus_requests"].samples
    assert world.answers.health().state == "ok"


ASKS: list[dict[str, Any]] = [
    {},
    {"resolution": "5m"},
    {"resolution": "1s"},
    {"resolution": "1d"},
    {"from": BEGIN_S + 120},
    {"from": BEGIN_S + 120, "to": BEGIN_S + 3_600},
    {"to": BEGIN_S + 3_600},
    {"from": BEGIN_S - 7_200, "to": BEGIN_S + 600},
    {"resolution": "15m", "from": BEGIN_S - 200 * 900},
    {"from": BEGIN_S + 90 * 60},
]


@pytest.mark.parametrize("flushed", [False, True])
async def test_bars_are_those_of_rest_to_the_byte(served: Served, gate: Gate, flushed: bool) -> None:
    """The running bar, late trades that the store lacks, and bars that the exchange has on demand."""
    asker = bus = open_bus(Config(), LOG)
    answers = BusAnswers(served.context, bus, "here")
    await answers.start()
    try:
        ids = [number for number in range(1, 160) if number not in (70, 71)]
        served.publish(trades([BEGIN_S + 40.25 * number for number in ids], ids=ids))
        if flushed:
            await flush(served)
        Exchange(served, gate, BEGIN_S - 150 * 900, BEGIN_S)

        async def compare(http: aiohttp.ClientSession) -> list[int]:
            counts = []
            for ask in ASKS:
                payload = orjson.dumps({"symbol": "BTCUSDT", **ask})
                answer = await asker.request("tradeback.req.bars", payload, WAIT_S)
                async with http.get("/api/v1/symbols/BTCUSDT/bars", params=ask) as response:
                    assert (response.status, await response.read()) == (200, answer), ask
                counts.append(len(orjson.loads(answer)["bars"]))
            return counts

        async with aiohttp.ClientSession(served.http) as http:
            before = await compare(http)
            assert min(before) > 0
            served.publish(trades([BEGIN_S + 40.25 * 70, BEGIN_S + 40.25 * 71], ids=(70, 71)))
            served.publish(trades([BEGIN_S + 40.25 * 160, BEGIN_S + 40.25 * 160 + 61], first_id=160))
            after = await compare(http)
        assert after[0] > before[0], "the running bar has closed"
        limited = await asker.request("tradeback.req.bars", b'{"symbol":"BTCUSDT","limit":3}', WAIT_S)
        everything = await asker.request("tradeback.req.bars", b'{"symbol":"BTCUSDT"}', WAIT_S)
        assert orjson.loads(limited)["bars"] == orjson.loads(everything)["bars"][-3:]
    finally:
        await answers.stop()
        await asker.close()


async def test_what_is_still_fetched_is_said(served: Served, gate: Gate) -> None:
    bus = open_bus(Config(), LOG)
    answers = BusAnswers(served.context, bus, "here")
    await answers.start()
    served.publish(trades([BEGIN_S + 40 * number for number in range(20)]))
    Exchange(served, gate, 0, BEGIN_S).works = False
    ask = orjson.dumps({"symbol": "BTCUSDT", "from": BEGIN_S - 600})
    assert orjson.loads(await bus.request("tradeback.req.bars", ask, WAIT_S))["loading"] is True
    await answers.stop()
    await bus.close()
