"""Symbols that come and go by market watches, in a whole run: watched in the registry, seen on the feed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flow.replaying import compare_with_replay, joined, symbols_of, trades_of
from tests.flow.running import Engine, running_engine, running_market, until
from tradeback.client import Batch, connect
from tradeback.model.record import UNWATCHED
from tradeback.ops.clock import SystemClock
from tradeback.ops.log import get_log
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.ports import SessionRecord
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.tape.reader import TapeReader

CONFIGURED = ("BTCUSDT", "ETHUSDT")
CLOCK = SystemClock()
WITHIN_S = 40.0
"""Some seconds on an idle machine: a reading every second, and a subscription."""


@asynccontextmanager
async def session_of(data_dir: Path) -> AsyncIterator[tuple[MarketWatch, str]]:
    """Somebody's market watch, through the services and the registry that the run uses, from outside."""
    registry = RegistrySqlite(data_dir / "registry.sqlite")
    now_ns = CLOCK.wall_ns()
    session = SessionRecord(
        "a" * 64, None, None, "127.0.0.1", "a test", now_ns, now_ns, now_ns + 3_600 * 10**9
    )
    try:
        await registry.add_session(session)
        yield MarketWatch(registry, CLOCK, get_log("test")), session.watch_id
    finally:
        registry.close()


class Follower:
    """A client that asked for everything, once, at the start."""

    def __init__(self) -> None:
        self.ids: dict[str, list[int]] = {}
        self.quotes: dict[str, int] = {}

    async def follow(self, url: str, connected: asyncio.Event) -> None:
        async with connect(url, symbols=["*"], channels=["trades", "quotes"]) as feed:
            connected.set()
            async for event in feed:
                assert isinstance(event, Batch)
                if event.snapshot:
                    continue
                for number, trade_id in zip(event.trades["symbol_id"], event.trades["id"], strict=True):
                    self.ids.setdefault(feed.symbols[int(number)].symbol, []).append(int(trade_id))
                for number in event.quotes["symbol_id"]:
                    name = feed.symbols[int(number)].symbol
                    self.quotes[name] = self.quotes.get(name, 0) + 1

    def saw(self, name: str, more: int = 0) -> bool:
        return len(self.ids.get(name, ())) > more and self.quotes.get(name, 0) > 0


async def described(engine: Engine, name: str) -> dict[str, Any] | None:
    found = [symbol for symbol in await engine.get("/api/v1/symbols") if symbol["symbol"] == name]
    return found[0] if found else None


async def component(engine: Engine, name: str) -> dict[str, Any]:
    detailed = await engine.get("/api/v1/health/detailed")
    (part,) = (part for part in detailed["components"] if part["name"] == name)
    return dict(part)


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_a_watched_symbol_reaches_subscribers_and_goes_again(tmp_path: Path, workers: str) -> None:
    settings = {
        "EXCHANGE_SYMBOLS": ",".join(CONFIGURED), "EXCHANGE_WATCH_REFRESH": "200ms",
        "EXCHANGE_WATCH_GRACE": "500ms", "FEED_WORKERS": workers,
    }  # fmt: skip
    data_dir = tmp_path / "data"
    follower, connected = Follower(), asyncio.Event()
    async with running_market(tmp_path, 8, 2_000) as market:
        async with running_engine(data_dir, market.announced, **settings) as engine:
            if workers != "0":
                await until(lambda: is_ok(engine, "process:worker:0"), "a worker", WITHIN_S)
            following = asyncio.create_task(follower.follow(engine.url, connected))
            await asyncio.wait_for(connected.wait(), WITHIN_S)
            await until(lambda: follower.saw("BTCUSDT"), "trades", WITHIN_S)
            async with session_of(data_dir) as (watch, watch_id):
                assert await described(engine, "SOLUSDT") is None
                began = time.monotonic()
                assert await watch.add(watch_id, "SOLUSDT")
                await until(lambda: follower.saw("SOLUSDT") or following.done(), "the new symbol", WITHIN_S)
                assert not following.done(), following.exception()
                print(f"a trade of the watched symbol {time.monotonic() - began:.2f} s after it was watched")
                new = await described(engine, "SOLUSDT")
                assert new is not None
                assert new["is_active"]
                assert new["id"] == 3
                await until(lambda: has_bars(engine, "SOLUSDT"), "its history", WITHIN_S)
                await until(lambda: has_enigma(engine, "SOLUSDT"), "its levels", WITHIN_S)
                after_s = time.time() + 1
                await until(lambda: has_bars_since(engine, "SOLUSDT", after_s), "bars of ours", WITHIN_S)
                await watch.remove(watch_id, "SOLUSDT")
                await until(lambda: is_inactive(engine, "SOLUSDT"), "its end", WITHIN_S)
                await until(lambda: carries(engine, 2), "the end of its streams", WITHIN_S)
                seen = len(follower.ids["SOLUSDT"])
                btc = len(follower.ids["BTCUSDT"])
                await until(lambda: len(follower.ids["BTCUSDT"]) > btc + 50, "others", WITHIN_S)
                seen = len(follower.ids["SOLUSDT"])
                await watch.add(watch_id, "SOLUSDT")
                await until(lambda: follower.saw("SOLUSDT", seen) or following.done(), "it again", WITHIN_S)
                assert not following.done(), following.exception()
                again = await described(engine, "SOLUSDT")
                assert again is not None
                assert (again["id"], again["is_active"]) == (3, True)
                gaps = await engine.get("/api/v1/gaps", symbol="SOLUSDT")
                assert [gap for gap in gaps["gaps"] if gap["state"] != "repaired"] == []
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await engine.stop()
        check_tape(data_dir, follower)
        assert compare_with_replay(data_dir) > 0
        # The watch is still there: the next run follows it from the start, under the same id.
        async with running_engine(data_dir, market.announced, **settings) as engine:
            await until(lambda: carries(engine, 3), "what is watched", WITHIN_S)
            kept = await described(engine, "SOLUSDT")
            assert kept is not None
            assert (kept["id"], kept["is_active"]) == (3, True)
            await engine.stop()
        kinds = joined(TapeReader(data_dir / "tape"))["kind"]
        assert list(kinds).count(UNWATCHED) == 1, "the time between the runs is missing, and can be repaired"


def check_tape(data_dir: Path, follower: Follower) -> None:
    """The symbols that were followed all the time have lost nothing, on the tape and at the client's."""
    rows = joined(TapeReader(data_dir / "tape"))
    ids = {name: symbol.id for name, symbol in symbols_of(data_dir).items()}
    assert ids["SOLUSDT"] == 3
    assert [int(row["symbol_id"]) for row in rows[rows["kind"] == UNWATCHED]] == [3]
    for name in CONFIGURED:
        trades = trades_of(rows, ids[name])["id"].tolist()
        assert sorted(trades) == list(range(min(trades), max(trades) + 1)), name
        seen = follower.ids[name]
        assert seen == list(range(seen[0], seen[0] + len(seen))), name


async def is_ok(engine: Engine, name: str) -> bool:
    return bool((await component(engine, name))["state"] == "ok")


async def carries(engine: Engine, count: int) -> bool:
    return bool((await component(engine, "symbols"))["details"]["carried"] == count)


async def has_bars(engine: Engine, name: str) -> bool:
    """More than a run of some seconds makes: they come from the exchange."""
    return len((await engine.get(f"/api/v1/symbols/{name}/bars", resolution="1m"))["bars"]) > 100


async def has_bars_since(engine: Engine, name: str, time_s: float) -> bool:
    bars = (await engine.get(f"/api/v1/symbols/{name}/bars", resolution="1s"))["bars"]
    return any(bar["time"] > time_s and bar["complete"] for bar in bars)


async def has_enigma(engine: Engine, name: str) -> bool:
    found = await engine.get(f"/api/v1/symbols/{name}/enigma")
    return bool(found["ath"] > found["atl"])


async def is_inactive(engine: Engine, name: str) -> bool:
    found = await described(engine, name)
    return found is not None and not found["is_active"]
