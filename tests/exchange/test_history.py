"""exchange.history: levels, open bars and closed bars from the klines of the simulated exchange."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from tests.exchange.harness import CLOCK, Desk, Logbook, desk
from tests.exchange.test_rest import KLINE, answering
from tradeback.derive.layout import RESOLUTION_S, RESOLUTION_US, resolution_index
from tradeback.derive.state import Derived
from tradeback.exchange import history, intake
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.history import History
from tradeback.exchange.rest import Rest
from tradeback.model.config import FeatureConfig
from tradeback.model.errors import TapeError
from tradeback.model.record import ROW_BYTES, SEED_LEVELS
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

INTERVALS = ("1m", "5m", "15m", "1h", "4h", "1d")


class Store:
    """The part of a series store that history fills."""

    def __init__(self) -> None:
        self.bars: list[Any] = []
        self.spans: list[tuple[int, int, int, int]] = []

    def put_history(self, bars: Any) -> int:
        self.bars.append(bars)
        return len(bars)

    def cover(self, *span: int) -> None:
        self.spans.append(span)  # type: ignore[arg-type]


class World:
    """Desk, derived series behind the tape, and a history over them."""

    def __init__(self, made: Desk, rest: Rest, **features: bool) -> None:
        self.desk, self.rest, self.store, self.log = made, rest, Store(), Logbook()
        self.derived = Derived()
        for symbol in made.symbols:
            self.derived.add_symbol(symbol)
        tape = made.tape
        made.intake.readers.append(
            lambda first, count: self.derived.on_rows(
                tape.rows_address + (first & (tape.hot_rows - 1)) * ROW_BYTES, count
            )
        )
        self.history = History(
            list(made.symbols), rest, made.intake, self.derived, self.store,  # type: ignore[arg-type]
            CLOCK, FeatureConfig(**features), self.log,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SETTLE_US", 0)
    monkeypatch.setattr(intake, "RETRY_S", 0.005)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Desk]:
    symbols = [Symbol(1, "BTCUSDT", step_size="0.00001"), Symbol(2, "ETHUSDT", step_size="0.0001")]
    with desk(tmp_path, symbols=symbols) as found:
        yield found


@asynccontextmanager
async def simulated(config: SimConfig | None = None) -> AsyncIterator[tuple[SimServer, Rest]]:
    # The market waits, so that what REST says of its past stands still; its clock runs.
    server = await SimServer.start(Synthetic(2, 500.0), config or SimConfig(start_after_streams=-1))
    rest = Rest(server.rest_url, CLOCK)
    try:
        yield server, rest
    finally:
        await rest.close()
        await server.stop()


async def test_open_bars_and_levels_equal_the_exchanges_klines(made: Desk) -> None:
    async with simulated() as (_, rest):
        world = World(made, rest)
        noted_live: list[tuple[int, int, int, int]] = []
        world.history.on_covered.append(lambda *span: noted_live.append(span))
        assert world.history.health().state == "starting"
        await asyncio.wait_for(world.history.run(), 20)
        assert world.history.health().state == "ok"
        assert (world.history.seeded, world.history.fetched, world.history.given_up) == (2, 2, 0)
        for symbol in made.symbols:
            months = await klines_of(world, symbol, "1M")
            state = world.derived.latest(symbol.id)
            assert state is not None
            assert state["ath"] == max(float(month[2]) for month in months if month[8])
            assert state["atl"] == min(float(month[3]) for month in months if month[8])
            assert any([await check_open(world, symbol, interval) for interval in INTERVALS])
            await check_closed(world, symbol)
        noted = {(symbol_id, index) for symbol_id, index, _, _ in world.store.spans}
        assert len(noted) == 2 * len(history.RESOLUTIONS), "what was asked for is noted for every series"
        for _, index, from_s, to_s in world.store.spans:
            assert 0 <= from_s < to_s
            assert to_s % RESOLUTION_S[index] == 0
        assert noted_live == world.store.spans
    made.check_tape()


async def klines_of(world: World, symbol: Symbol, interval: str, **more: int) -> list[list[Any]]:
    """What the exchange itself says."""
    query: dict[str, str | int] = {"symbol": symbol.symbol, "interval": interval, "limit": 1000, **more}
    url = f"{world.rest.endpoint}/api/v3/klines"
    async with aiohttp.ClientSession() as http, http.get(url, params=query) as answer:
        assert answer.status == 200
        found: list[list[Any]] = await answer.json()
        return found


async def check_open(world: World, symbol: Symbol, interval: str) -> bool:
    """The open bar holds what the exchange's running kline held at the boundary. False if nothing was."""
    index = resolution_index(interval)
    boundary_us = world.derived.boundary_us(symbol.id)
    size = RESOLUTION_US[index]
    start_us = boundary_us - boundary_us % size
    bars = [bar for bar in world.derived.bars_open(symbol.id, index) if bar["slot_us"] == start_us]
    if start_us == boundary_us:
        return False
    # Nothing trades after the boundary, so the running kline says what was before it.
    at_ms = start_us // 1000
    (kline,) = await klines_of(world, symbol, interval, startTime=at_ms, endTime=at_ms)
    if not kline[8]:
        return False
    (bar,) = bars
    assert [bar[name] for name in ("open", "high", "low", "close")] == [float(kline[i]) for i in (1, 2, 3, 4)]
    assert bar["volume"] == round(float(kline[5]) * 10**symbol.lot_digits)
    assert bar["taker_volume"] == round(float(kline[9]) * 10**symbol.lot_digits)
    assert bar["trade_count"] == kline[8]
    return True


async def check_closed(world: World, symbol: Symbol) -> None:
    """Closed bars of every resolution went to the store."""
    mine = [bars for bars in world.store.bars if bars["symbol_id"][0] == symbol.id]
    assert {int(bars["resolution"][0]) for bars in mine} >= {resolution_index(name) for name in INTERVALS}
    assert max(map(len, mine)) <= history.STORE_ROWS
    hours = np.concatenate([bars for bars in mine if bars["resolution"][0] == resolution_index("1h")])
    assert len(hours) > history.STORE_ROWS
    klines = await klines_of(world, symbol, "1h")
    by_start = {kline[0] * 1000: kline for kline in klines if kline[8]}
    assert len(hours) >= len(by_start) - 2
    for bar in hours:
        kline = by_start.get(int(bar["slot_us"]))
        if kline is not None:
            assert (bar["open"], bar["close"]) == (float(kline[1]), float(kline[4]))


@pytest.mark.parametrize(("enigma", "bars"), [(True, False), (False, True), (False, False)])
async def test_only_what_is_switched_on(made: Desk, enigma: bool, bars: bool) -> None:
    async with simulated() as (_, rest):
        world = World(made, rest, enigma_enabled=enigma, aggregation_enabled=bars)
        await asyncio.wait_for(world.history.run(), 20)
        kinds = set(made.rows["kind"].tolist())
        assert (SEED_LEVELS in kinds) == enigma
        assert (world.history.fetched > 0) == bars
        if not bars:
            assert kinds <= {SEED_LEVELS}
            assert rest.requests == 2 * enigma


async def test_a_symbol_that_the_exchange_refuses_is_given_up(made: Desk) -> None:
    def handler(request: web.Request) -> web.Response:
        if request.path.endswith("time"):
            return web.json_response({"serverTime": CLOCK.wall_ns() // 1_000_000 + 2_000})
        if request.query["symbol"] == "ETHUSDT":
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        return web.json_response([KLINE])

    async with answering(handler) as (rest, _):
        world = World(made, rest)
        await asyncio.wait_for(world.history.run(), 20)
        assert (world.history.seeded, world.history.fetched) == (1, 1)
        assert world.history.given_up == 3
        assert {fields["symbol"] for fields in world.log.of("history given up")} == {"ETHUSDT"}
        assert world.history.health().state == "ok"


async def test_trouble_and_nonsense_are_tried_again(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "RETRY", Backoff(0.002, 0.01))
    bad = [
        web.Response(status=500),
        web.json_response([[1, 2, 3]]),
        web.Response(status=200, text="<html>"),
        web.Response(status=429, headers={"Retry-After": "1"}),
    ]

    def handler(request: web.Request) -> web.Response:
        if bad:
            return bad.pop(0)
        if request.path.endswith("time"):
            return web.json_response({"serverTime": CLOCK.wall_ns() // 1_000_000 + 2_000})
        return web.json_response([KLINE])

    async with answering(handler) as (rest, _):
        world = World(made, rest)
        run = asyncio.create_task(world.history.run())
        while not world.history.last_error:
            await asyncio.sleep(0.002)
        assert "0 of 2 symbols seeded" in str(world.history.health().last_error)
        await asyncio.wait_for(run, 20)
        assert (world.history.seeded, world.history.given_up, len(bad)) == (2, 0, 0)


async def test_a_market_that_stands_still_is_not_waited_for(
    made: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SETTLE_US", 2_000_000)
    monkeypatch.setattr(history, "BOUNDARY_WAIT_S", 0.05)

    def handler(request: web.Request) -> web.Response:
        if request.path.endswith("time"):
            return web.json_response({"serverTime": 1_781_000_000_500})
        return web.json_response([KLINE])

    async with answering(handler) as (rest, _):
        world = World(made, rest)
        await asyncio.wait_for(world.history.run(), 20)
        assert (world.history.seeded, world.history.fetched) == (0, 2)
        assert "stands still" in str(world.history.health().last_error)


async def test_a_tape_that_refuses_makes_it_wait(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = made.tape.commit, []

    def refusing(count: int) -> int:
        calls.append(count)
        if len(calls) % 3:
            raise TapeError("full")
        return commit(count)

    monkeypatch.setattr(made.tape, "commit", refusing)
    async with simulated() as (_, rest):
        world = World(made, rest)
        await asyncio.wait_for(world.history.run(), 20)
        assert (world.history.seeded, world.history.given_up) == (2, 0)
        for symbol in made.symbols:
            assert world.derived.boundary_us(symbol.id) > 0
            await check_open(world, symbol, "1d")
    assert len(calls) > 6
    made.check_tape()
    assert len(np.unique(made.rows["symbol_id"])) == 2


async def test_a_store_that_refuses_closed_bars_is_asked_again(
    made: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "RETRY", Backoff(0.001, 0.002))
    async with simulated() as (_, rest):
        world = World(made, rest)
        take, refusals = (
            world.store.put_history,
            iter([OSError("disk full"), ValueError("database is locked")]),
        )

        def refuse_first(bars: Any) -> int:
            for refusal in refusals:
                raise refusal
            return take(bars)

        world.store.put_history = refuse_first  # type: ignore[method-assign]
        await asyncio.wait_for(world.history.run(), 20)
        assert world.history.health().state == "ok"
        assert world.history.fetched == 2
        assert world.history.last_error is None or "refuses" in world.history.last_error
        assert len(world.store.bars) >= 2
