"""edge/history: the hub in the place of an exchange, and its derived state."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.edge.hub_world import Answering, Hub
from tests.servers.kinds import NatsServer
from tests.sinks.drain_world import SystemTime
from tests.sinks.nats_world import SYMBOLS, connected
from tradeback.derive import seeds
from tradeback.derive.layout import EXCHANGE, RESOLUTIONS, Bars, empty_bars
from tradeback.edge import history as history_module
from tradeback.edge.history import Adoption, EdgeHistory, HubRest
from tradeback.model.errors import ExchangeError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.log import get_log
from tradeback.stores.ports import Position
from tradeback.stores.series_sqlite import SeriesSqlite

MINUTE_US = 60_000_000


@pytest.fixture
async def hub(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Hub]:
    made = Hub(tmp_path / "hub", nats_server.url)
    yield made
    await made.stop()


@pytest.fixture
async def series(hub: Hub) -> AsyncIterator[Answering]:
    made = Answering(hub)
    await made.answers.start()
    await made.answers._bus.ready(30)  # type: ignore[attr-defined]
    yield made
    await made.stop()


async def test_bars_of_the_hub_are_klines(
    hub: Hub, series: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "AGAIN_S", (0.0,))
    symbol = SYMBOLS[0]
    rows = [
        [
            minute * 60_000,
            "1.0",
            "3.0",
            "0.5",
            "2.0",
            "1.5",
            minute * 60_000 + 59_999,
            "0",
            4,
            "0.5",
            "0",
            "0",
        ]
        for minute in range(100, 150)
    ]
    from tradeback.derive.klines import bars_of

    series.store.put_history(seeds.history_bars(symbol, "1m", bars_of(rows, symbol.lot_digits), 1 << 50))
    async with connected(hub.config.nats) as bus:
        rest = HubRest(bus, hub.node, SystemTime())
        found = await rest.klines(symbol, "1m", limit=1_000)
        assert found["slot_us"].tolist() == [minute * MINUTE_US for minute in range(100, 150)]
        assert set(found["flags"]) == {EXCHANGE}
        assert set(found["trade_count"]) == {4}
        some = await rest.klines(symbol, "1m", start_ms=120 * 60_000, end_ms=130 * 60_000 - 1, limit=3)
        assert some["slot_us"].tolist() == [minute * MINUTE_US for minute in range(127, 130)]
        mine = SeriesSqlite(tmp_path / "mine.sqlite")
        told: list[tuple[int, int]] = []
        history = EdgeHistory(rest, mine, SymbolTable.of(SYMBOLS), SystemTime(), get_log("history"))
        history.on_stored.append(lambda *series: told.append(series))
        assert history.health().state == "starting"
        await history.run()
        assert history.health().state == "ok"
        assert told == 2 * [(symbol.id, RESOLUTIONS.index("1m"))]
        held = mine.closed(symbol.id, RESOLUTIONS.index("1m"), 0, 1 << 40, 1_000).rows
        assert held["close"].tolist() == [2.0] * 50
        mine.close()


async def test_a_symbol_that_comes_late_gets_its_bars_as_soon_as_the_hub_has_them(
    hub: Hub, series: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub knows nothing of it at first, for it learns the past of the symbol only now itself."""
    monkeypatch.setattr(history_module, "LATE_S", (0.0, 0.05, 0.1, 0.2))
    symbol, idle = SYMBOLS[0], replace(SYMBOLS[1], is_active=False)
    mine = SeriesSqlite(tmp_path / "mine.sqlite")
    minute = RESOLUTIONS.index("1m")
    async with connected(hub.config.nats) as bus:
        rest, asked = HubRest(bus, hub.node, SystemTime()), []
        klines = rest.klines

        async def noting(which: Symbol, interval: str, **more: Any) -> Bars:
            asked.append(which.id)
            return await klines(which, interval, **more)

        monkeypatch.setattr(rest, "klines", noting)
        table = SymbolTable.of(SYMBOLS)
        history = EdgeHistory(rest, mine, table, SystemTime(), get_log("history"))
        running = asyncio.create_task(history.run_late())
        history.learn([symbol, idle])
        async with asyncio.timeout(30):
            while len(asked) < len(RESOLUTIONS):
                await asyncio.sleep(0.005)
        assert not len(mine.closed(symbol.id, minute, 0, 1 << 40, 10).rows)
        bars = empty_bars(2)
        bars["slot_us"], bars["trade_count"], bars["resolution"] = [60_000_000, 120_000_000], 3, minute
        bars["symbol_id"], bars["flags"], bars["volume"] = symbol.id, EXCHANGE, 100
        series.store.put_history(bars)
        async with asyncio.timeout(30):
            while len(asked) < 4 * len(RESOLUTIONS):
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert set(asked) == {symbol.id}, "nobody follows the other one"
        held = mine.closed(symbol.id, minute, 0, 1 << 40, 10).rows
        assert held["slot_us"].tolist() == [60_000_000, 120_000_000]
    mine.close()


async def test_a_hub_that_is_away_is_an_exchange_that_is(hub: Hub) -> None:
    async with connected(hub.config.nats) as bus:
        rest = HubRest(bus, hub.node, SystemTime())
        with pytest.raises(ExchangeError, match="does not answer"):
            await rest.klines(SYMBOLS[0], "1m", limit=5)
        with pytest.raises(ExchangeError, match="does not answer"):
            await rest.state(0)


async def test_what_the_hub_refuses_is_told(hub: Hub, series: Answering) -> None:
    async with connected(hub.config.nats) as bus:
        with pytest.raises(ExchangeError, match="resolution is '2m'"):
            await HubRest(bus, hub.node, SystemTime()).klines(SYMBOLS[0], "2m", limit=5)


async def test_the_state_is_taken_over(hub: Hub, series: Answering, tmp_path: Path) -> None:
    hub.append(700)
    mine = SeriesSqlite(tmp_path / "mine.sqlite")
    async with connected(hub.config.nats) as bus:
        adoption = Adoption(HubRest(bus, hub.node, SystemTime()), mine, hub.tape, get_log("edge"))
        assert not adoption.is_needed(), "this tape begins where all begins"
        with pytest.raises(ExchangeError, match="no state yet"):
            await adoption._whole()
        await series.fold()
        await adoption.run()
        held, truth = mine.load(), series.store.load()
        assert held.position == truth.position == Position(hub.tape.epoch, 700)
        for name in ("symbol_id", "price", "ath", "atl", "trade_id"):
            assert np.sort(held.states, order="symbol_id")[name].tolist() == (
                np.sort(truth.states, order="symbol_id")[name].tolist()
            )
        assert len(held.parts) == len(truth.parts)
    mine.close()
