"""REST over real HTTP: shapes, errors, weights; and that it tells the same story as the streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tradeback.sim import rest as rest_module
from tradeback.sim.chart import INTERVALS
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.faults import make_fault
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

MINUTE_NS = 60_000_000_000


class StillClock:
    """A clock whose wall stands in the middle of a minute, so that weights do not start anew."""

    def __init__(self) -> None:
        self.wall = 29_683_333 * MINUTE_NS + 30 * 10**9

    def wall_ns(self) -> int:
        return self.wall

    def steady_ns(self) -> int:
        return self.wall


class Client:
    """A server and an HTTP session."""

    def __init__(self, server: SimServer, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http
        self.status, self.headers = 0, dict[str, str]()

    async def get(self, path: str, **parameters: Any) -> Any:
        """The body of GET /api/v3/<path>; status and headers stay in the client."""
        headers = parameters.pop("headers", {})
        url = f"{self.server.rest_url}/api/v3/{path}"
        async with self.http.get(url, params=parameters, headers=headers) as response:
            self.status, self.headers = response.status, dict(response.headers)
            return await response.json(content_type=None)


async def make(config: SimConfig, clock: StillClock | None = None) -> AsyncIterator[Client]:
    """A client of a fresh server."""
    server = await SimServer.start(Synthetic(3, 2_500, 1, bursts=0), config, clock=clock)
    async with aiohttp.ClientSession() as http:
        yield Client(server, http)
    await server.stop()


@pytest.fixture
async def still() -> AsyncIterator[Client]:
    """A server whose market has not begun and whose clock stands."""
    async for client in make(SimConfig(start_after_streams=-1, weight_per_minute=3_000), StillClock()):
        yield client


@pytest.fixture
async def live() -> AsyncIterator[Client]:
    """A server on the machine's clock."""
    async for client in make(SimConfig(start_after_streams=3)):
        yield client


@pytest.mark.parametrize(
    ("path", "parameters", "code"),
    [
        ("klines", {"symbol": "NOSUCH", "interval": "1m"}, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "1x"}, -1120),
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "x"}, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, -1130),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "timeZone": "+15:00"}, -1130),
        ("klines", {"symbol": "", "interval": "1m"}, -1105),
        ("ping", {"x": 1}, -1104),
        ("trades", {"symbol": "BTC USDT"}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": 1, "startTime": 1}, -1128),
        ("ticker/price", {"symbols": "[oops"}, -1135),
        ("ticker/price", {"symbols": '["BTCUSDT","BTCUSDT"]'}, -1151),
        ("ticker/24hr", {"symbol": "BTCUSDT", "type": "HUGE"}, -1139),
        ("ticker", {}, -1102),
        ("ticker", {"symbol": "BTCUSDT", "windowSize": "60m"}, -1130),
        ("time", {"headers": {"X-MBX-TIME-UNIT": "HOUR"}}, -1194),
    ],
)
async def test_errors(still: Client, path: str, parameters: dict[str, Any], code: int) -> None:
    body = await still.get(path, **parameters)
    assert (still.status, body["code"]) == (400, code)
    assert body["msg"]


async def test_duplicate_parameters_and_unknown_paths(still: Client) -> None:
    async with still.http.get(f"{still.server.rest_url}/api/v3/trades?symbol=A&symbol=B") as response:
        assert (await response.json())["code"] == -1101
    await still.get("nonsense")
    assert still.status == 404


@pytest.mark.parametrize(
    ("path", "parameters", "weight"),
    [
        ("ping", {}, 1),
        ("exchangeInfo", {}, 20),
        ("depth", {"symbol": "BTCUSDT"}, 5),
        ("depth", {"symbol": "BTCUSDT", "limit": 5_000}, 250),
        ("historicalTrades", {"symbol": "BTCUSDT"}, 25),
        ("aggTrades", {"symbol": "BTCUSDT"}, 4),
        ("klines", {"symbol": "BTCUSDT", "interval": "1h"}, 2),
        ("ticker/24hr", {}, 80),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("ticker/price", {}, 4),
        ("ticker", {"symbols": '["BTCUSDT","ETHUSDT"]'}, 8),
        ("ticker/tradingDay", {"symbol": "BTCUSDT"}, 4),
    ],
)
async def test_weights_are_counted(still: Client, path: str, parameters: dict[str, Any], weight: int) -> None:
    await still.get(path, **parameters)
    assert still.status == 200
    assert still.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


async def test_429_then_418_with_retry_after(still: Client) -> None:
    for _ in range(37):
        await still.get("ticker/24hr")
    assert still.status == 200
    body = await still.get("ticker/24hr")
    assert (still.status, body["code"], still.headers["Retry-After"]) == (429, -1003, "30")
    for _ in range(10):
        body = await still.get("ping")
    assert still.status == 418
    assert still.headers["Retry-After"] == "120"
    assert "IP banned until" in body["msg"]


async def test_exchange_info(still: Client) -> None:
    body = await still.get("exchangeInfo")
    assert [entry["symbol"] for entry in body["symbols"]] == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    entry = body["symbols"][0]
    assert (entry["status"], entry["baseAsset"], entry["quoteAsset"]) == ("TRADING", "BTC", "USDT")
    filters = {item["filterType"]: item for item in entry["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
    assert filters["LOT_SIZE"]["stepSize"] == "0.00001000"
    assert Decimal(filters["NOTIONAL"]["minNotional"]) > 0
    assert body["rateLimits"][0]["limit"] == 3_000
    only = await still.get("exchangeInfo", symbols='["ETHUSDT"]', showPermissionSets="false")
    assert [(one["symbol"], one["permissionSets"]) for one in only["symbols"]] == [("ETHUSDT", [])]


@pytest.mark.parametrize("interval", list(INTERVALS))
async def test_klines_of_every_interval_are_whole_and_ascending(still: Client, interval: str) -> None:
    rows = await still.get("klines", symbol="BTCUSDT", interval=interval, limit=40)
    assert len(rows) == 40
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        assert len(row) == 12
        assert after is None or row[6] + 1 == after[0]
        low, high = Decimal(row[3]), Decimal(row[2])
        assert low <= Decimal(row[1]) <= high
        assert low <= Decimal(row[4]) <= high
    exact = await still.get(
        "klines", symbol="BTCUSDT", interval=interval, startTime=rows[5][0], endTime=rows[9][0]
    )
    assert exact == rows[5:10]
    first = await still.get("klines", symbol="BTCUSDT", interval=interval, startTime=rows[3][0] + 1, limit=2)
    assert first == rows[4:6]
    upto = await still.get("uiKlines", symbol="BTCUSDT", interval=interval, endTime=rows[8][0] - 1, limit=3)
    assert upto == rows[5:8]


async def test_coarse_klines_are_the_aggregation_of_fine_ones(still: Client) -> None:
    for coarse, fine, count in (("1m", "1s", 60), ("1h", "1m", 60), ("1d", "1h", 24), ("1w", "1d", 7)):
        row = (await still.get("klines", symbol="ETHUSDT", interval=coarse, limit=3))[1]
        parts = await still.get(
            "klines", symbol="ETHUSDT", interval=fine, startTime=row[0], endTime=row[6], limit=count
        )
        assert len(parts) == count
        traded = [part for part in parts if part[8]]
        assert (row[1], row[4]) == (traded[0][1], traded[-1][4])
        assert Decimal(row[2]) == max(Decimal(part[2]) for part in traded)
        assert Decimal(row[3]) == min(Decimal(part[3]) for part in traded)
        for column in (5, 7, 8, 9, 10):
            assert Decimal(row[column]) == sum(Decimal(part[column]) for part in parts)


async def test_microseconds_on_request(still: Client) -> None:
    unit = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    assert len(str((await still.get("time", headers=unit))["serverTime"])) == 16
    (row,) = await still.get("klines", symbol="BTCUSDT", interval="1h", limit=1, headers=unit)
    assert row[6] == row[0] + 3_600_000_000 - 1


async def test_rest_tells_the_same_story_as_the_streams(live: Client) -> None:
    names = "/".join(f"btcusdt@{kind}" for kind in ("trade", "aggTrade", "bookTicker"))
    url = f"{live.server.ws_url}/stream?streams={names}&timeUnit=MICROSECOND"
    trades, aggs = list[dict[str, Any]](), list[dict[str, Any]]()
    async with connect(url, compression=None) as socket:
        while len(trades) < 500:
            data = json.loads(await asyncio.wait_for(socket.recv(), 5))["data"]
            {"trade": trades, "aggTrade": aggs}.get(data.get("e"), []).append(data)
    live.server._tasks[0].cancel()  # the market stands still from here on
    unit = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    page = await live.get(
        "historicalTrades", symbol="BTCUSDT", fromId=trades[0]["t"], limit=500, headers=unit
    )
    assert [(one["id"], one["price"], one["qty"], one["time"], one["isBuyerMaker"]) for one in page] == [
        (one["t"], one["p"], one["q"], one["T"], one["m"]) for one in trades[:500]
    ]
    assert all(Decimal(one["quoteQty"]) == Decimal(one["price"]) * Decimal(one["qty"]) for one in page)
    page = await live.get("aggTrades", symbol="BTCUSDT", fromId=aggs[0]["a"], limit=len(aggs), headers=unit)
    assert page == [{key: agg[key] for key in ("a", "p", "q", "f", "l", "T", "m", "M")} for agg in aggs]
    newest = await live.get("trades", symbol="BTCUSDT", limit=7)
    assert [one["id"] for one in newest] == list(range(newest[0]["id"], newest[0]["id"] + 7))
    between = await live.get(
        "aggTrades", symbol="BTCUSDT", startTime=aggs[3]["T"], endTime=aggs[20]["T"], headers=unit
    )
    assert {3, 20} <= {one["a"] - aggs[0]["a"] for one in between}
    assert all(aggs[3]["T"] <= one["T"] <= aggs[20]["T"] + 999 for one in between)
    await _compare_klines(live, trades[0]["t"])


async def _compare_klines(live: Client, first_id: int) -> None:
    """Bars of the live seconds against all trades of the market, by match time."""
    unit = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    sent = await live.get("historicalTrades", symbol="BTCUSDT", fromId=first_id, limit=1_000, headers=unit)
    start = sent[0]["time"] // 1_000_000 * 1_000_000
    rows = await live.get("klines", symbol="BTCUSDT", interval="1s", startTime=start, headers=unit)
    count = 0
    for row in rows:
        inside = [one for one in sent if row[0] <= one["time"] <= row[6]]
        count += row[8]
        if sent[-1]["time"] <= row[6] or not inside:
            continue
        assert row[8] == len(inside)
        assert Decimal(row[5]) == sum(Decimal(one["qty"]) for one in inside)
        assert Decimal(row[7]) == sum(Decimal(one["quoteQty"]) for one in inside)
        taken = [one for one in inside if not one["isBuyerMaker"]]
        assert Decimal(row[9]) == sum(Decimal(one["qty"]) for one in taken)
        assert (row[1], row[4]) == (inside[0]["price"], inside[-1]["price"])
        assert Decimal(row[2]) == max(Decimal(one["price"]) for one in inside)
        assert Decimal(row[3]) == min(Decimal(one["price"]) for one in inside)
    assert count >= len(sent)


async def test_the_market_goes_on_while_klines_are_made(
    live: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "SLICE_NS", 20_000)
    asked = {"symbol": "ETHUSDT", "interval": "5m", "limit": 1_000}
    slow = asyncio.create_task(live.get("klines", **asked))
    served = 0
    while not slow.done():
        await live.get("time")
        served += not slow.done()
    assert served >= 5
    assert await live.get("klines", **asked) == await slow
    assert len(await slow) == 1_000


async def test_the_past_joins_the_live_market(still: Client) -> None:
    (price,) = [row[4] for row in await still.get("klines", symbol="BTCUSDT", interval="1m", limit=1)]
    book = await still.get("ticker/bookTicker", symbol="BTCUSDT")
    assert price == book["bidPrice"] == "64250.00000000"
    day = await still.get("ticker/24hr", symbol="BTCUSDT")
    assert day["lastPrice"] == price
    assert day["count"] == day["lastId"] - day["firstId"] + 1


async def spoilt(*entries: dict[str, Any]) -> AsyncIterator[Client]:
    """A client of a server with a fault script; its market has not begun."""
    play = FaultPlay([make_fault(entry) for entry in entries])
    server = await SimServer.start(Synthetic(1, 0.0, 1), SimConfig(start_after_streams=-1), faults=play)
    async with aiohttp.ClientSession() as http:
        yield Client(server, http)
    await server.stop()


async def test_answers_break_off_or_never_come() -> None:
    for how in ("body", "reset"):
        async for client in spoilt({"kind": "rest_cut", "how": how, "path": "exchangeInfo"}):
            with pytest.raises(aiohttp.ClientError):
                await client.get("exchangeInfo")
            assert "serverTime" in await client.get("time")


async def test_answers_come_late_and_wrong() -> None:
    slow = {"kind": "rest_slow", "ms": 40}
    async for client in spoilt(slow, {"kind": "rest_error", "status": 504, "path": "time"}):
        began = asyncio.get_running_loop().time()
        assert (await client.get("time"))["code"] == -1001
        assert client.status == 504
        assert asyncio.get_running_loop().time() - began >= 0.04
        assert await client.get("ping") == {}


async def test_limits_are_told_in_the_clients_seconds() -> None:
    config = SimConfig(start_after_streams=-1, weight_per_minute=20, ban_after_ignored=1, life_rate=60.0)
    async for client in make(config, StillClock()):
        await client.get("exchangeInfo")
        waits = []
        for _ in range(3):
            await client.get("time")
            waits.append((client.status, client.headers.get("Retry-After")))
        assert waits == [(429, "1"), (418, "2"), (418, "2")]


async def test_pages_pass_by_rows_that_are_missing() -> None:
    play = FaultPlay([make_fault({"kind": "rest_missing", "chance": 0.5})])
    market = Synthetic(1, 20_000.0, 1, bursts=0)
    server = await SimServer.start(market, SimConfig(start_after_streams=0), faults=play)
    store = market.books["BTCUSDT"].trades
    async with aiohttp.ClientSession() as http:
        client = Client(server, http)
        first = store.first_id
        async with asyncio.timeout(5):
            while len(store) < 200:
                await asyncio.sleep(0.005)
        for path, key in (("historicalTrades", "id"), ("aggTrades", "a")):
            start = first if key == "id" else market.books["BTCUSDT"].aggs.first_id
            page = await client.get(path, symbol="BTCUSDT", fromId=start, limit=20)
            ids = [row[key] for row in page]
            assert len(ids) == 20
            assert ids == sorted(ids)
            assert ids[-1] - start > 25
            assert page == await client.get(path, symbol="BTCUSDT", fromId=start, limit=20)
    await server.stop()
