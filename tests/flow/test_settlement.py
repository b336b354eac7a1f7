"""A price whose time passes while the engine is dead: settled after the repair, by the right trade."""

import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import websockets

from tests.flow.running import Engine, Process, running_market, start_engine, until
from tests.flow.test_access import WAIT_S, told

PATH = "/api/v1/settlements"
AHEAD_MS = 1_500


async def ask(engine: Engine, symbol: str) -> tuple[str, dict[str, Any]]:
    """Ask for a price soon: the token of the session that came with the answer, and the settlement."""
    jar = aiohttp.CookieJar(unsafe=True)
    body = {"symbol": symbol, "time": int(time.time() * 1_000) + AHEAD_MS}
    async with (
        aiohttp.ClientSession(engine.url, cookie_jar=jar) as http,
        http.post(PATH, json=body) as answer,
    ):
        assert answer.status == 201, await answer.text()
        (token,) = (cookie.value for cookie in jar if cookie.key == "session_token")
        return token, await answer.json()


async def traded(engine: Engine, symbol: str) -> bool:
    """Whether the tape has some trades to go on from."""
    return len((await engine.get(f"/api/v1/symbols/{symbol}/ticks", limit=20))["ticks"]) == 20


async def of_exchange(market: Process, symbol: str, first_id: int) -> list[dict[str, Any]]:
    """Two trades as the exchange has them."""
    query = {"symbol": symbol, "fromId": str(first_id), "limit": "2"}
    async with (
        aiohttp.ClientSession(market.announced["rest"]) as http,
        http.get("/api/v3/historicalTrades", params=query) as answer,
    ):
        assert answer.status == 200, await answer.text()
        found: list[dict[str, Any]] = json.loads(await answer.text())
        return found


async def test_the_time_passes_while_the_engine_is_dead(tmp_path: Path) -> None:
    async with running_market(tmp_path, 2, 300.0) as market:
        engine = await start_engine(tmp_path / "data", market.announced)
        try:
            await engine.announcement()
            await engine.ready()
            symbol = (await engine.get("/api/v1/symbols"))[0]["symbol"]
            await until(lambda: traded(engine, symbol), "some trades", WAIT_S)
            token, made = await ask(engine, symbol)
            assert made["status"] == "waiting"
        finally:
            await engine.kill()
        await until(lambda: time.time() * 1_000 > made["time"] + 300, "the time to pass", WAIT_S)
        engine = await start_engine(tmp_path / "data", market.announced)
        try:
            await engine.announcement()
            async with websockets.connect(f"{engine.feed_url}?token={token}") as ws:
                data = (await told(ws, "settlement"))["data"]
            await check(engine, market, made, data)
            await engine.stop()
        finally:
            await engine.kill()


async def check(engine: Engine, market: Process, made: dict[str, Any], data: dict[str, Any]) -> None:
    assert (data["id"], data["status"], data["complete"]) == (made["id"], "settled", True), json.dumps(data)
    found, following = await of_exchange(market, data["symbol"], data["trade_id"])
    assert (float(found["price"]), found["time"]) == (data["price"], data["trade_time"])
    assert found["time"] <= made["time"] < following["time"], "the last one at or before that time"
    assert data["proof"]["next_trade_id"] == following["id"] == found["id"] + 1
    assert data["proof"]["next_trade_time"] == following["time"]
    query = {"from": (data["trade_time"] - 1) / 1_000, "to": (data["trade_time"] + 1) / 1_000}
    ticks = (await engine.get(f"/api/v1/symbols/{data['symbol']}/ticks", **query))["ticks"]
    (tick,) = (tick for tick in ticks if tick["id"] == data["trade_id"])
    assert tick["repaired"], "no line has brought it: nobody was there"
    assert await engine.get(f"{PATH}/{data['id']}") == data, "kept, and read by its id"
