"""A datafeed client as strict as udf.md: it reads bodies, not statuses, and asserts what charts rely on."""

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tests.feed.harness import World

STEPS_S = {"1S": 1, "1": 60, "5": 300, "15": 900, "60": 3600, "240": 14400, "1D": 86400, "D": 86400}
COLUMNS = ("t", "o", "h", "l", "c", "v")


class UdfError(Exception):
    """The answer was s:error; the text is errmsg."""


@dataclass
class Page:
    """What one /history request brought."""

    bars: list[dict[str, float]] = field(default_factory=list)
    no_data: bool = False
    next_time: int | None = None
    incomplete: list[int] = field(default_factory=list)


class UdfClient:
    """`base` + "/" + endpoint + query, as the stock adapter builds it."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self._http, self._base = http, base
        self.requests = 0
        self.status = 0
        self.headers: dict[str, str] = {}

    async def get(self, endpoint: str, **query: Any) -> Any:
        """The JSON of an answer, whatever its status. Text with NaN or Infinity is no JSON."""
        self.requests += 1
        async with self._http.get(f"{self._base}/{endpoint}", params=query) as answer:
            self.status, self.headers = answer.status, dict(answer.headers)
            if endpoint != "time":
                assert answer.content_type == "application/json"
            return orjson.loads(await answer.read())

    async def resolve(self, name: str) -> dict[str, Any]:
        """One symbol; any `s` means that it is unknown."""
        found = await self.get("symbols", symbol=name)
        if "s" in found:
            raise UdfError(found["errmsg"])
        for key in ("name", "ticker", "description", "type", "exchange", "session", "timezone"):
            assert isinstance(found[key], str), key
        scale = found["pricescale"]
        assert isinstance(scale, int)
        assert str(scale).strip("0") == "1"
        assert isinstance(found["minmov"], int)
        assert found["minmov"] > 0
        multipliers = [int(word) for word in found["intraday_multipliers"]]
        assert multipliers == sorted(multipliers)
        return dict(found)

    async def search(self, query: str, kind: str = "", exchange: str = "", limit: int = 30) -> list[Any]:
        """The adapter upper-cases what was typed."""
        found = await self.get("search", query=query.upper(), type=kind, exchange=exchange, limit=limit)
        assert isinstance(found, list)
        assert all(set(one) >= {"symbol", "full_name", "description", "ticker", "type"} for one in found)
        return found

    async def history(
        self, ticker: str, resolution: str, from_s: float, to_s: float, countback: int | None = None
    ) -> Page:
        """One window, with everything checked that a chart takes for granted."""
        query: dict[str, Any] = {"symbol": ticker, "resolution": resolution, "from": from_s, "to": to_s}
        if countback is not None:
            query["countback"] = countback
        answer = await self.get("history", **query)
        if answer["s"] == "error":
            assert answer["errmsg"]
            raise UdfError(answer["errmsg"])
        if answer["s"] == "no_data":
            next_time = answer.get("nextTime")
            assert next_time is None or next_time > 1e11, "milliseconds"
            assert next_time is None or not countback
            return Page(no_data=True, next_time=next_time)
        assert answer["s"] == "ok"
        columns = [answer[name] for name in COLUMNS]
        assert len({len(column) for column in columns}) == 1
        times = answer["t"]
        assert times, "ok with nothing asks again for ever"
        assert all(after > before for before, after in itertools.pairwise(times))
        assert times[-1] < to_s
        step = STEPS_S[resolution]
        assert all(isinstance(time, int) and time % step == 0 for time in times)
        for column in columns[1:]:
            assert all(isinstance(value, int | float) and math.isfinite(value) for value in column)
        bars = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]
        for bar in bars:
            assert bar["l"] <= min(bar["o"], bar["c"])
            assert bar["h"] >= max(bar["o"], bar["c"])
            assert bar["v"] > 0
        assert set(answer["incomplete"]) <= set(times)
        return Page(bars, incomplete=answer["incomplete"])

    async def page_back(
        self, ticker: str, resolution: str, to_s: int, countback: int
    ) -> list[dict[str, float]]:
        """All bars, as a chart scrolls: `to` is the oldest it has, until there is no data."""
        bars: list[dict[str, float]] = []
        step = STEPS_S[resolution]
        while True:
            page = await self.history(ticker, resolution, to_s - countback * step, to_s, countback)
            if page.no_data:
                return bars
            bars[:0] = page.bars
            to_s = int(bars[0]["t"])

    async def walk_back(self, ticker: str, resolution: str, to_s: int, span_s: int) -> list[dict[str, float]]:
        """All bars without countback, jumping holes by nextTime."""
        bars: list[dict[str, float]] = []
        while True:
            page = await self.history(ticker, resolution, to_s - span_s, to_s)
            if page.no_data and page.next_time is None:
                return bars
            if page.no_data:
                assert page.next_time is not None
                to_s = page.next_time // 1_000 + 1
                continue
            bars[:0] = page.bars
            to_s = int(bars[0]["t"])


class Poller:
    """subscribeBars of the stock adapter: a new bar must come with the one before, or the update is lost."""

    def __init__(self, client: UdfClient, ticker: str, resolution: str) -> None:
        self._client, self._ticker, self._resolution = client, ticker, resolution
        self._last: int | None = None
        self.updates: list[dict[str, float]] = []

    async def poll(self, now_s: int) -> None:
        """One tick of its timer."""
        span_s = 10 * STEPS_S[self._resolution]
        page = await self._client.history(self._ticker, self._resolution, now_s - span_s, now_s, 2)
        if not page.bars:
            return
        newest = page.bars[-1]
        if self._last is not None and newest["t"] < self._last:
            return
        if self._last is not None and newest["t"] > self._last:
            assert len(page.bars) >= 2, "not enough bars for the previous one: this update is lost"
            self.updates.append(page.bars[-2])
        self._last = int(newest["t"])
        self.updates.append(newest)


@asynccontextmanager
async def charting(running: World) -> AsyncIterator[UdfClient]:
    """A client of a running world."""
    async with aiohttp.ClientSession() as http:
        yield UdfClient(http, running.http + "/udf")
