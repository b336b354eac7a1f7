"""sinks/nats_values: newest prices with their levels, and bars when they close, on a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.servers.kinds import NatsServer
from tests.sinks.drain_world import SystemTime
from tests.sinks.nats_world import LOG, SYMBOLS, WAIT_S, config_of, connected, drained, node_name, open_tape
from tests.stores.test_bus import Box
from tradeback.api.shapes import bars_json, enigma_json, price_json
from tradeback.derive.state import Derived
from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.sinks.nats import nats_drains
from tradeback.sinks.nats_values import bar_values, empty_price, enigma_value, note_price
from tradeback.sinks.series import SeriesSink
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

SYMBOL = SYMBOLS[0]
T0_S = 1_699_999_200
"""A full hour."""


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with open_tape(tmp_path) as made:
        yield made


def trades(first_id: int, seconds: list[float], price: float = 100.0) -> Rows:
    rows = empty_rows(len(seconds))
    rows["kind"], rows["symbol_id"] = TRADE, SYMBOL.id
    rows["id"] = np.arange(first_id, first_id + len(seconds))
    rows["price"], rows["quantity"] = price + np.arange(len(seconds)), 0.5
    rows["exchange_us"] = [int((T0_S + second) * 1e6) for second in seconds]
    rows["recv_ns"] = rows["exchange_us"] * 1_000 + 5_000_000
    return rows


def quote(bid: float, ask: float) -> Rows:
    rows = empty_rows(1)
    rows["kind"], rows["symbol_id"], rows["id"] = QUOTE, SYMBOL.id, 1
    rows["price"], rows["ask"], rows["recv_ns"] = bid, ask, (T0_S + 9) * 10**9
    return rows


class World:
    """A tape with its derived state and series store, as a recorder has them."""

    def __init__(self, tape: Tape, folder: Path) -> None:
        self.tape = tape
        self.derived = Derived()
        self.derived.add_symbol(SYMBOL)
        self.store = SeriesSqlite(folder / "series.sqlite")
        self.sink = SeriesSink(self.derived, self.store, tape)

    async def append(self, rows: Rows) -> None:
        held = np.ascontiguousarray(rows)
        self.tape.append(held)
        self.derived.on_rows(int(held.ctypes.data), len(held))
        flush = self.sink.flush()
        if flush is not None:
            await flush


async def test_prices_levels_and_bars(tape: Tape, tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    world = World(tape, tmp_path)
    reader = TapeReader(tmp_path / "tape")
    known = [SYMBOL]
    drains = {
        drain.name: drain
        for drain in nats_drains(
            config, reader, reader, world.store, lambda: known, world.derived.enigma, SystemTime(), LOG
        )
    }
    prices, levels, bars = Box(), Box(), Box()
    async with connected(config.nats) as bus:
        await bus.subscribe(f"tradeback.price.{SYMBOL.symbol}", prices.put)
        await bus.subscribe(f"tradeback.enigma.{SYMBOL.symbol}", levels.put)
        await bus.subscribe(f"tradeback.bars.*.{SYMBOL.symbol}", bars.put)
        await world.append(trades(1, [0.1]))
        for name in ("nats:prices", "nats:bars"):
            drains[name].start()
        async with asyncio.timeout(WAIT_S):
            while drains["nats:bars"].health().state != "ok":
                await asyncio.sleep(0.01)
        await world.append(np.concatenate((trades(2, [0.2, 0.9, 1.5, 61.0], 101.0), quote(99.0, 106.0))))
        await drained(drains["nats:bars"], tape)
        state = world.derived.latest(SYMBOL.id)
        assert state is not None
        async with asyncio.timeout(WAIT_S):
            while not prices.held or orjson.loads(prices.held[-1].payload) != price_json(SYMBOL, state):
                await asyncio.sleep(0.01)
        level = world.derived.enigma(SYMBOL.id)
        assert level is not None
        assert orjson.loads((await levels.wait(1))[-1].payload) == enigma_json(SYMBOL, level)
        closed = {
            (value["resolution"], value["time"]): value
            for value in (orjson.loads(message.payload) for message in await bars.wait(3))
        }
        assert set(closed) == {("1s", T0_S), ("1s", T0_S + 1), ("1m", T0_S)}
        assert closed["1s", T0_S] == {
            "symbol": SYMBOL.symbol, "resolution": "1s", "time": T0_S, "open": 100.0, "high": 102.0,
            "low": 100.0, "close": 102.0, "volume": 1.5, "trade_count": 3,
        }  # fmt: skip
        assert closed["1m", T0_S]["trade_count"] == 4
        # A late trade changes a closed bar: told again.
        late = trades(0, [0.5], 90.0)
        await world.append(late)
        await drained(drains["nats:bars"], tape)
        again = [orjson.loads(message.payload) for message in (await bars.wait(5))[3:5]]
        assert {(value["resolution"], value["low"]) for value in again} == {("1s", 90.0), ("1m", 90.0)}
        for drain in drains.values():
            await drain.stop()
    await world.sink.close()
    world.store.close()


async def test_a_bar_that_closes_while_nobody_publishes_is_told_later(
    tape: Tape, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    world, reader, box = World(tape, tmp_path), TapeReader(tmp_path / "tape"), Box()
    async with connected(config.nats) as bus:
        await bus.subscribe(f"tradeback.bars.1m.{SYMBOL.symbol}", box.put)
        await world.append(trades(1, [0.1]))
        for rows in (trades(2, [1.0]), trades(3, [130.0])):
            made = nats_drains(config, reader, reader, world.store, lambda: [SYMBOL], None, SystemTime(), LOG)
            (drain,) = (each for each in made if each.name == "nats:bars")
            drain.start()
            async with asyncio.timeout(WAIT_S):
                while drain.health().state != "ok":
                    await asyncio.sleep(0.01)
            await world.append(rows)
            await drained(drain, tape)
            await drain.stop()
        value = orjson.loads((await box.wait(1))[0].payload)
        assert (value["time"], value["trade_count"]) == (T0_S, 2)
    await world.sink.close()
    world.store.close()


def test_shapes_are_those_of_rest() -> None:
    derived = Derived()
    derived.add_symbol(SYMBOL)
    price = empty_price(SYMBOL.symbol)
    for rows in (quote(1.0, 2.0), trades(5, [0.0, 1.0]), quote(3.0, 4.0)):
        derived.on_rows(int(rows.ctypes.data), len(rows))
        for row in rows.tolist():
            note_price(price, row)
        state = derived.latest(SYMBOL.id)
        assert state is not None
        assert price == price_json(SYMBOL, state)
    level = derived.enigma(SYMBOL.id)
    assert level is not None
    assert enigma_value(SYMBOL.symbol, level) == enigma_json(SYMBOL, level)
    bars = derived.bars_open(SYMBOL.id, 0)
    shown = [
        {key: value for key, value in bar.items() if key != "complete"}
        for bar in bars_json(bars, bars["trade_count"] > 0)
    ]
    assert bar_values(bars) == shown
