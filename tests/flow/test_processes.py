"""kill -9 of engine, recorder and workers in mid-stream: restarted, seen in health, and nothing is lost."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.flow import oracle
from tests.flow.replaying import (
    all_rows,
    compare_with_replay,
    joined,
    replay,
    replayed_bars,
    symbols_of,
    trades_of,
)
from tests.flow.running import (
    Engine,
    Process,
    children_of,
    running_engine,
    running_market,
    start_engine,
    until,
)
from tests.flow.watching import Watcher, window
from tests.nobody import somebody_else
from tradeback.client import Feed, connect
from tradeback.model.record import Rows
from tradeback.tape.audit import problems
from tradeback.tape.reader import TapeReader

SYMBOLS = 4
RATE = 3_000.0
VICTIMS = ("engine", "worker:0", "recorder", "engine", "recorder")
ENTRIES = 200
QUICKLY_S = 0.4
OWN_BARS = 3


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Process]:
    async with running_market(tmp_path, SYMBOLS, RATE) as found:
        yield found


async def processes(engine: Engine) -> dict[str, dict[str, Any]]:
    """The components `process:*` by the name of the process."""
    detailed = await engine.get("/api/v1/health/detailed")
    return {
        part["name"].partition(":")[2]: part
        for part in detailed["components"]
        if part["name"].startswith("process:")
    }


async def all_well(engine: Engine) -> bool:
    with suppress(aiohttp.ClientConnectionError):
        return all(part["state"] == "ok" for part in (await processes(engine)).values())
    return False


async def kill(engine: Engine, name: str) -> None:
    """kill -9 of one process; back when all are well again, with one restart more."""
    await until(lambda: all_well(engine), "all processes", 40)
    before = (await processes(engine))[name]["details"]
    with suppress(ProcessLookupError):
        os.kill(before["pid"], signal.SIGKILL)

    async def back() -> bool:
        now = (await processes(engine))[name]["details"]
        return bool(now["restarts"] == before["restarts"] + 1 and await all_well(engine))

    await until(back, f"{name} again", 40)
    now = (await processes(engine))[name]["details"]
    assert now["pid"] != before["pid"]
    assert now["last_end"]["how"] == "killed by SIGKILL"


async def nothing_is_open(engine: Engine) -> bool:
    """Has REST brought what was missed?"""
    gaps = (await engine.get("/api/v1/gaps", limit=5_000))["gaps"]
    return bool(gaps) and {gap["state"] for gap in gaps} == {"repaired"}


def check_seen(watcher: Watcher, rows: Rows, ids: dict[str, int]) -> None:
    """What one connection saw stands on the tape without a hole, each trade once."""
    for name, seen in watcher.by_symbol().items():
        trades = trades_of(rows, ids[name])
        truth = list(zip(trades["price"].tolist(), trades["quantity"].tolist(), strict=True))
        assert window(truth, seen) is not None, f"{name}: {len(seen)} trades of one connection have a hole"


def check_tape(data_dir: Path) -> Rows:
    """Every record intact, every trade once."""
    reader = TapeReader(data_dir / "tape")
    assert list(problems(reader, lambda segment, count: None)) == []
    assert len({epoch for epoch, _, _ in all_rows(reader)}) == 1
    rows = joined(reader)
    for symbol in symbols_of(data_dir).values():
        ids = trades_of(rows, symbol.id)["id"]
        assert len(np.unique(ids)) == len(ids) > ENTRIES
    return rows


async def shown_bars(engine: Engine) -> dict[tuple[str, str], dict[int, oracle.BarValues]]:
    """The newest bars as the API shows them; the market stands still."""
    shown: dict[tuple[str, str], dict[int, oracle.BarValues]] = {}
    for name in symbols_of(engine.data_dir):
        for resolution in oracle.SECONDS:
            answer = await engine.get(f"/api/v1/symbols/{name}/bars", resolution=resolution)
            shown[name, resolution] = {
                bar["time"]: oracle.BarValues(*(bar[key] for key in oracle.BarValues._fields))
                for bar in answer["bars"][-2:]
            }
    return shown


async def test_whoever_is_killed_comes_back_and_nothing_is_lost(tmp_path: Path, market: Process) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"the moments are those of seed {seed}")
    rng, watchers = random.Random(seed), list[Watcher]()
    async with running_engine(tmp_path / "data", market.announced, FEED_WORKERS="2") as engine:
        await until(lambda: all_well(engine), "workers", 40)
        for victim in VICTIMS:
            fresh = [await Watcher.subscribe(engine.feed_url) for _ in range(2)]
            watchers += fresh
            await fresh[0].saw(rng.randrange(1, ENTRIES))
            living = [watcher for watcher in watchers if watcher.closed is None]
            await kill(engine, victim)
            gone = [watcher for watcher in living if watcher.closed is not None]
            assert bool(gone) == victim.startswith("worker"), f"{victim} took {len(gone)} connections along"
            for watcher in living:
                if watcher.closed is None:
                    await watcher.saw(watcher.count + ENTRIES)
        await engine.history_complete()
        await until(lambda: nothing_is_open(engine), "the repair of what was missed", 60)
        await market.kill()
        shown = await shown_bars(engine)
        began = time.monotonic()
        await engine.stop()
        assert time.monotonic() - began < 5, "an orderly stop is quick"
        for watcher in watchers:
            await watcher.end()
    rows = check_tape(tmp_path / "data")
    ids = {name: symbol.id for name, symbol in symbols_of(tmp_path / "data").items()}
    for name, number in ids.items():
        trades = trades_of(rows, number)["id"]
        assert trades.max() - trades.min() + 1 == len(trades), f"{name} lacks trades of the time away"
    for watcher in watchers:
        check_seen(watcher, rows, ids)
    assert compare_with_replay(tmp_path / "data") > 0
    derived, drained = replay(tmp_path / "data")
    for name, symbol in symbols_of(tmp_path / "data").items():
        for index, resolution in enumerate(oracle.SECONDS):
            made = replayed_bars(derived, drained, symbol, index)
            assert shown[name, resolution][max(made)] == made[max(made)], f"{name} {resolution}"


async def test_a_client_that_resumes_sees_every_trade_once(tmp_path: Path, market: Process) -> None:
    """Version 2: from one worker to the other, to the engine and back, whoever dies."""
    ids: dict[int, list[int]] = {}

    async def follow(feed: Feed) -> None:
        async for batch in feed:
            if not batch.snapshot:
                for symbol_id, trade_id in zip(batch.trades["symbol_id"], batch.trades["id"], strict=True):
                    ids.setdefault(int(symbol_id), []).append(int(trade_id))

    def seen() -> int:
        return sum(map(len, ids.values()))

    async with running_engine(tmp_path / "data", market.announced, FEED_WORKERS="2") as engine:
        await until(lambda: all_well(engine), "workers", 40)
        async with connect(engine.url) as feed:
            following = asyncio.create_task(follow(feed))
            for victim in ("worker:0", "engine", "worker:1", "worker:0"):
                count = seen()
                await until(lambda count=count: seen() > count + ENTRIES or following.done(), victim)  # type: ignore[misc]
                await kill(engine, victim)
            count = seen()
            await until(lambda: seen() > count + ENTRIES or following.done(), "the end")
            assert not following.done(), following.exception()
            following.cancel()
            assert feed.reconnects >= 1
        await engine.stop()
    rows = check_tape(tmp_path / "data")
    for symbol_id, got in ids.items():
        truth = trades_of(rows, symbol_id)["id"].tolist()
        first = truth.index(got[0])
        assert got == truth[first : first + len(got)], "a trade is missing, doubled or out of order"


async def test_bars_are_right_while_the_recorder_is_killed_again_and_again(
    tmp_path: Path, market: Process
) -> None:
    """Of every second that is over, the API shows the very trades that `/ticks` does."""
    async with running_engine(tmp_path / "data", market.announced) as engine:
        await until(lambda: all_well(engine), "a recorder", 40)
        compared, end = 0, time.monotonic() + 40
        while compared < 10 and time.monotonic() < end:
            pid = (await processes(engine))["recorder"]["details"]["pid"]
            bars = await engine.get("/api/v1/symbols/BTCUSDT/bars", resolution="1s")
            for bar in [bar for bar in bars["bars"] if bar["complete"]][-5:]:
                query = {"from": bar["time"], "to": bar["time"] + 1, "limit": 5_000}
                ticks = (await engine.get("/api/v1/symbols/BTCUSDT/ticks", **query))["ticks"]
                if ticks:
                    assert bar["trade_count"] == len(ticks)
                    assert bar["volume"] == pytest.approx(sum(tick["quantity"] for tick in ticks))
                    compared += 1
            if pid is not None:  # else it has not been started again since the last kill
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert compared >= 10
        await kill(engine, "recorder")

        async def newest() -> int:
            bars = await engine.get("/api/v1/symbols/BTCUSDT/bars", resolution="1s")
            return max(int(bar["time"]) for bar in bars["bars"] if bar["complete"])

        # Bars of its own: all before may be the exchange's klines, when the history took longer.
        later = await newest() + OWN_BARS

        async def closed() -> bool:
            return await newest() >= later

        await until(closed, "bars behind the history", 60)
        await engine.stop()
    assert compare_with_replay(tmp_path / "data") > 0


async def test_the_port_waits_for_the_engine(tmp_path: Path, market: Process) -> None:
    async with running_engine(tmp_path / "data", market.announced) as engine:
        pid = (await processes(engine))["engine"]["details"]["pid"]
        async with aiohttp.ClientSession(engine.url) as http:
            for _ in range(3):
                os.kill(pid, signal.SIGKILL)
                # No connection is refused while there is no engine: each waits for its answer.
                answers = await asyncio.gather(*(http.get("/api/v1/health/live") for _ in range(20)))
                assert [answer.status for answer in answers] == [200] * 20
                pid = (await processes(engine))["engine"]["details"]["pid"]
        await engine.ready()
        await engine.stop()


async def test_a_hung_worker_holds_nobody_up(tmp_path: Path, market: Process) -> None:
    async with running_engine(tmp_path / "data", market.announced, FEED_WORKERS="1") as engine:
        await until(lambda: all_well(engine), "a worker", 40)
        pid = (await processes(engine))["worker:0"]["details"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:

            async def noticed() -> bool:
                began = time.monotonic()
                part = (await processes(engine))["worker:0"]
                assert time.monotonic() - began < QUICKLY_S * 5
                return bool(part["state"] != "ok")

            await until(noticed, "a worker that is seen to hang", 20)
            watcher = await Watcher.subscribe(engine.feed_url)
            await watcher.saw(ENTRIES)  # the engine serves it
            await watcher.close()
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: all_well(engine), "the worker again", 20)
        await engine.stop()


async def test_killed_supervisor_leaves_nobody_and_a_new_run_goes_on(tmp_path: Path, market: Process) -> None:
    async with running_engine(tmp_path / "data", market.announced, FEED_WORKERS="1") as engine:
        await until(lambda: all_well(engine), "a worker", 40)
        children = children_of(engine.child.pid)
        assert len(children) == 3
        port = engine.url.rpartition(":")[2]
        engine.child.kill()
        await engine.child.wait()
        # At once: it waits for the tape and the port of the old one.
        async with running_engine(tmp_path / "data", market.announced, SERVER_PORT=port) as again:
            await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "orphans gone")
            await until(lambda: all_well(again), "a new recorder", 40)
            await again.stop()
    compare_with_replay(tmp_path / "data")  # so short a run may have closed no bar of its own


async def test_an_engine_that_refuses_to_start_ends_the_run(tmp_path: Path) -> None:
    async with somebody_else() as here:
        exchange = {"ws": f"ws://{here}", "rest": f"http://{here}"}
        engine = await start_engine(tmp_path / "data", exchange, {"FEED_WORKERS": "2"})
        code = await asyncio.wait_for(engine.child.wait(), 40)
    assert code == 2
    assert engine.log.read_text().splitlines()[-1].startswith("tradeback: ")
