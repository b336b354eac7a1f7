"""History answered by the recorder: the same bars on the same connections, whatever else is asked on them."""

import os
import signal
from pathlib import Path
from typing import Any

import aiohttp

from tests.flow.running import Engine, running_engine, running_market, until

FAR_S = 4_000_000_000
STAYS = {"Cookie": "page=1"}
"""A request with a cookie is answered by the engine."""


async def numbers(engine: Engine) -> dict[str, float]:
    """What the engine counts of connections."""
    async with aiohttp.ClientSession(engine.url) as http, http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    found = (line.split() for line in lines if line.startswith("tradeback_history_"))
    return {name.removeprefix("tradeback_history_"): float(value) for name, value in found}


async def recorder_of(engine: Engine) -> dict[str, Any]:
    detailed = await engine.get("/api/v1/health/detailed")
    (found,) = (part for part in detailed["components"] if part["name"] == "process:recorder")
    return dict(found)


async def ask(http: aiohttp.ClientSession, path: str, **options: Any) -> Any:
    async with http.get(path, **options) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_the_recorder_answers_and_gives_back(tmp_path: Path) -> None:
    async with (
        running_market(tmp_path, 3, 1_000.0) as market,
        running_engine(tmp_path / "data", market.announced) as engine,
    ):
        await engine.history_complete()

        async def well() -> bool:
            return bool((await recorder_of(engine))["state"] == "ok")

        await until(well, "a recorder", 40)
        query = {"symbol": "BTCUSDT", "resolution": "1", "from": FAR_S, "to": FAR_S, "countback": 2_500}
        one = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(engine.url, connector=one) as http:
            there = await ask(http, "/udf/history", params=query)
            assert len(there["t"]) == 2_500, "1,000 were loaded at the start, the rest on demand"
            here = await ask(http, "/udf/history", params=query, headers=STAYS)
            quotes = await ask(http, "/udf/quotes", params={"symbols": "BTCUSDT"})
            assert quotes["d"][0]["s"] == "ok"
        counted = await numbers(engine)
        assert (counted["handed_total"], counted["taken_back_total"]) == (1, 1)
        same = min(len(there["t"]), len(here["t"])) - 3
        for column in "tohlcv":
            mine = dict(zip(there["t"], there[column], strict=True))
            other = dict(zip(here["t"], here[column], strict=True))
            closed = [time for time in here["t"] if time in mine][:same]
            assert len(closed) == same
            assert [mine[time] for time in closed] == [other[time] for time in closed]
        await check_fresh(engine)
        await check_restart(engine, query)
        await engine.stop()


async def check_fresh(engine: Engine) -> None:
    """An answer knows every trade that was published before it was asked for."""
    async with aiohttp.ClientSession(engine.url) as http, aiohttp.ClientSession(engine.url) as bars:
        for _ in range(10):
            price = await ask(http, "/api/v1/symbols/BTCUSDT/price")
            answer = await ask(bars, "/api/v1/symbols/BTCUSDT/bars", params={"resolution": "1s"})
            assert answer["bars"][-1]["time"] >= price["timestamp"] // 1_000


async def check_restart(engine: Engine, query: dict[str, Any]) -> None:
    """Without a recorder the engine answers as soon as it can; with a new one, that does."""
    before = await numbers(engine)
    os.kill((await recorder_of(engine))["details"]["pid"], signal.SIGKILL)

    async def answered() -> bool:
        async with aiohttp.ClientSession(engine.url) as http:
            try:
                async with http.get("/udf/history", params=query) as answer:
                    await answer.read()
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

    async def handed() -> bool:
        return await answered() and (await numbers(engine))["handed_total"] > before["handed_total"]

    await until(answered, "an answer", 40)
    await until(handed, "a new recorder", 40)
