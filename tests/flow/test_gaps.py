"""Both lines of all streams cut at once, again and again, on the real engine: gaps open, are repaired by REST
and close, on `/gaps`, in the metrics and on the feed, and every trade comes once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from tests.flow.running import Engine, Process, running_engine, running_market, until
from tradeback.client import Feed, Gap, connect
from tradeback.model.record import REPAIRED

STORM = {"faults": [{"kind": "cut", "at": "3s", "every": "2s", "for": "5s", "connections": "all"}]}
"""At 3, 5 and 7 s of the market."""
STORM_US = 10_000_000
"""And time for back-off and `gap_after`, in which a gap is noticed."""
STREAMS = 2 * 3 * 3
"""Of the engine: lines, kinds, symbols."""
REPAIR_MS_MAX = 30_000
"""Seconds, on a busy machine."""


class Subscriber:
    """What a client of version 2 sees: trades by id, gaps by name."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}
        self.repaired = self.first_us = self.newest_us = 0
        self.states: dict[tuple[str, int, int, int], list[str]] = {}

    def on_gap(self, gap: Gap) -> None:
        name = gap.symbol, gap.stream, gap.first_id, gap.last_id
        self.states.setdefault(name, []).append(gap.state)

    async def follow(self, feed: Feed) -> None:
        """For ever."""
        async for batch in feed:
            if batch.snapshot:
                continue
            self.newest_us = max([self.newest_us, *batch.trades["exchange_us"].tolist()])
            self.first_us = self.first_us or self.newest_us
            self.repaired += int((batch.trades["flags"] & REPAIRED != 0).sum())
            for symbol_id, number in zip(batch.trades["symbol_id"], batch.trades["id"], strict=True):
                self.ids.setdefault(int(symbol_id), []).append(int(number))

    @property
    def lasted_us(self) -> int:
        """From the first trade to the newest, by the exchange's clock."""
        return self.newest_us - self.first_us

    @property
    def closed(self) -> bool:
        """Has every gap that opened been repaired?"""
        return bool(self.states) and all(states[-1] == "repaired" for states in self.states.values())


async def reconnects(engine: Engine) -> list[int]:
    """Of every line."""
    detailed = await engine.get("/api/v1/health/detailed")
    lines = [part for part in detailed["components"] if part["name"].startswith("line:")]
    assert len(lines) == 6
    return [part["details"]["reconnects"] for part in lines]


async def metric(engine: Engine, name: str) -> float:
    async with aiohttp.ClientSession(engine.url) as http, http.get("/metrics") as answer:
        text = await answer.text()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def opening(market: Process) -> None:
    """The market waits for one stream more than the engine has: so the storm cannot come before all are
    there, however long the start takes."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{market.announced['ws']}/ws/any@trade"):
        pass


async def test_all_lines_cut_at_once(tmp_path: Path) -> None:
    storm = tmp_path / "storm.json"
    storm.write_text(json.dumps(STORM))
    async with (
        running_market(tmp_path, 3, 3_000, "--faults", str(storm), "--wait", str(STREAMS + 1)) as market,
        running_engine(
            tmp_path / "data", market.announced, EXCHANGE_LINES="2", EXCHANGE_GAP_AFTER="300ms"
        ) as engine,
    ):
        subscriber = Subscriber()
        async with connect(engine.url, channels=("trades", "gaps"), on_gap=subscriber.on_gap) as feed:
            following = asyncio.create_task(subscriber.follow(feed))
            await opening(market)
            await until(
                lambda: following.done() or subscriber.lasted_us > STORM_US, "trades after the storm", 60
            )
            assert min(await reconnects(engine)) >= 1

            async def settled() -> bool:
                return subscriber.closed and not await open_gaps(engine)

            await until(settled, "the repair of all gaps", 60)
            assert not following.done(), following.exception()
            following.cancel()
            assert feed.reconnects == 0, "no client notices"
        found = (await engine.get("/api/v1/gaps", limit=5_000))["gaps"]
        check_gaps(found, subscriber)
        assert await metric(engine, "tradeback_doubled_ids_total") == 0
        assert await metric(engine, "tradeback_gaps_opened_total") == len(found)
        await engine.stop()
    assert subscriber.repaired > 0
    for ids in subscriber.ids.values():
        assert sorted(ids) == list(range(min(ids), max(ids) + 1)), "a trade is missing or doubled"


async def open_gaps(engine: Engine) -> list[Any]:
    found: list[Any] = (await engine.get("/api/v1/gaps", state="open"))["gaps"]
    return found


def check_gaps(found: list[dict[str, Any]], subscriber: Subscriber) -> None:
    """Those of the API are those of the feed, each opened, then repaired, within seconds."""
    kinds = {"trade": 1, "aggTrade": 3}
    named = {(gap["symbol"], kinds[gap["stream"]], gap["from_id"], gap["to_id"]): gap for gap in found}
    assert len(named) == len(found) >= 1
    assert set(subscriber.states) <= set(named)
    for name, states in subscriber.states.items():
        assert states == ["open", "repaired"], name
    for name, gap in named.items():
        assert (gap["state"], gap["missing"]) == ("repaired", 0), name
        assert gap["opened_at"] <= gap["closed_at"] <= gap["opened_at"] + REPAIR_MS_MAX, name
