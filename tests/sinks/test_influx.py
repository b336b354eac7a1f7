"""InfluxDB behind drains, on the real server: whatever happens to it, every trade is one point."""

import asyncio
import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.derive.world import symbol
from tests.servers.kinds import InfluxServer
from tests.sinks.drain_world import MemoryTape, SystemTime, quotes, trades, until
from tests.stores.influx_shim import shim_before
from tradeback.derive.layout import RESOLUTIONS
from tradeback.derive.state import Derived
from tradeback.model.config import Config, InfluxConfig
from tradeback.model.record import Rows
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import DrainConfig
from tradeback.sinks.influx import TradesTarget, influx_drains
from tradeback.stores.influx_lines import Names, trade_ns
from tradeback.stores.ports import Position
from tradeback.stores.series_influx import SeriesInflux
from tradeback.stores.series_sqlite import SeriesSqlite

LOG = logging.getLogger("tests.influx")
KNOWN = [(1, "BTCUSDT"), (2, "ETHUSDT"), (3, "SOLUSDT")]
START_US = 1_700_000_000_000_000
QUICK = DrainConfig(
    batch_rows=500,
    batch_age_s=0.005,
    write_timeout_s=0.5,
    backoff_first_s=0.01,
    backoff_max_s=0.05,
    save_interval_s=0.02,
)
_count = itertools.count()


@pytest.fixture
def config(influx_server: InfluxServer, tmp_path: Path) -> Config:
    influx = InfluxConfig(url=influx_server.url, api="v1", bucket=f"sink{next(_count)}")
    return Config(influx=influx, data_dir=str(tmp_path))


def market(count: int, seed: int = 1) -> Rows:
    """Trades and quotes of three symbols; many trades share a microsecond."""
    chance = random.Random(seed)
    made: list[Rows] = []
    next_id, us = dict.fromkeys((1, 2, 3), 1), START_US
    while sum(len(rows) for rows in made) < count:
        symbol_id = chance.randint(1, 3)
        us += chance.choice((0, 1, 1_000, 250_000))
        rows = (quotes if chance.random() < 0.3 else trades)(
            chance.randint(1, 9), next_id[symbol_id], symbol_id
        )
        rows["price"] = [round(chance.uniform(1, 2), 5) for _ in rows]
        rows["ask"] = rows["price"] + 0.5
        rows["exchange_us"] = us
        if rows["kind"][0] == 1:
            next_id[symbol_id] += len(rows)
        made.append(rows)
    return np.concatenate(made)[:count]


def drain_of(config: Config, tape: MemoryTape, how: DrainConfig = QUICK) -> Drain:
    target = TradesTarget(SeriesInflux(config.influx, Names(lambda: KNOWN)), tape)
    aside = Path(config.data_dir) / "aside.jsonl"
    return Drain("influx:trades", tape, target, how, SystemTime(), LOG, aside)


def points(server: InfluxServer, config: Config) -> dict[tuple[str, int], tuple[float, ...]]:
    """(symbol, ns) -> price, volume, sequence, id of everything in `trades`."""
    statement = "SELECT price, volume, sequence, id FROM trades GROUP BY symbol"
    found: dict[tuple[str, int], tuple[float, ...]] = {}
    for series in server.query(statement, config.influx.bucket):
        for ns, *values in series["values"]:
            found[series["tags"]["symbol"], ns] = tuple(values)
    return found


def wanted(tape: MemoryTape) -> dict[tuple[str, int], tuple[float, ...]]:
    """The same, as the tape has it."""
    rows = tape.rows
    names = dict(KNOWN)
    expected: dict[tuple[str, int], tuple[float, ...]] = {}
    for index in np.flatnonzero(rows["kind"] == 1).tolist():
        row = rows[index]
        key = names[int(row["symbol_id"])], trade_ns(int(row["exchange_us"]), int(row["id"]))
        expected[key] = float(row["price"]), float(row["quantity"]), index + 1, int(row["id"])
    assert len(expected) == int((rows["kind"] == 1).sum())
    return expected


async def reached(drain: Drain, tape: MemoryTape) -> None:
    await until(lambda: drain.position.sequence == tape.next_sequence - 1, 30.0)


@pytest.fixture
def tape() -> Iterator[MemoryTape]:
    return MemoryTape()  # type: ignore[return-value]


async def test_every_trade_is_one_point_with_its_quote(
    influx_server: InfluxServer, config: Config, tape: MemoryTape
) -> None:
    tape.append(market(3_000))
    drain = drain_of(config, tape)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert points(influx_server, config) == wanted(tape)
    (last,) = influx_server.values(
        "SELECT epoch, sequence FROM tradeback_position ORDER BY time DESC LIMIT 1", config.influx.bucket
    )
    assert last[1:] == [7, 3_000]
    priced = influx_server.values(
        "SELECT bid, ask, price FROM trades WHERE symbol='BTCUSDT'", config.influx.bucket
    )
    with_quote = [values for values in priced if values[1] is not None]
    assert len(with_quote) > 100
    assert all(ask == pytest.approx(bid + 0.5) for _, bid, ask, _ in with_quote)


@pytest.mark.parametrize("outage", ["kill", "pause", "restart"])
async def test_an_outage_in_full_stream_costs_nothing(
    influx_server: InfluxServer, config: Config, tape: MemoryTape, outage: str
) -> None:
    rows = market(12_000, seed=3)
    tape.append(rows[:4_000])
    drain = drain_of(config, tape, replace(QUICK, catch_up_rows_s=1e6))
    drain.start()
    await until(lambda: drain.position.sequence >= 1_000)
    if outage == "restart":
        await asyncio.to_thread(influx_server.restart)
    else:
        getattr(influx_server, outage)()
    tape.append(rows[4_000:8_000])
    if outage != "restart":
        await until(lambda: drain.health().state == "down")
        assert drain.lag_records > 1_000
        assert drain.lag_s > 0
        assert len(drain._flights) <= 2
        await asyncio.to_thread(influx_server.heal)
    tape.append(rows[8_000:])
    await reached(drain, tape)
    await drain.stop()
    assert drain.health().state == "ok"
    assert points(influx_server, config) == wanted(tape)


async def test_killed_sinks_leave_no_hole_and_no_double(
    influx_server: InfluxServer, config: Config, tape: MemoryTape
) -> None:
    tape.append(market(6_000, seed=5))
    for goal in (700, 2_300, 4_000):
        drain = drain_of(config, tape, replace(QUICK, catch_up_rows_s=20_000.0))
        drain.start()
        await until(lambda drain=drain, goal=goal: drain.position.sequence >= goal)  # type: ignore[misc]
        assert drain._task is not None
        drain._task.cancel()
        await asyncio.wait({drain._task})
    drain = drain_of(config, tape)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert points(influx_server, config) == wanted(tape)


async def test_a_server_that_lost_its_data_is_filled_again(
    influx_server: InfluxServer, config: Config, tape: MemoryTape
) -> None:
    tape.append(market(1_000))
    drain = drain_of(config, tape)
    drain.start()
    await reached(drain, tape)
    influx_server.query(f'DROP DATABASE "{config.influx.bucket}"')
    influx_server.pause()
    tape.append(trades(1, 1_000_000))
    await until(lambda: drain.health().state == "down")
    influx_server.resume()
    await until(lambda: drain.health().state == "ok", 30.0)
    await reached(drain, tape)
    await drain.stop()
    assert len(points(influx_server, config)) == len(wanted(tape))


async def test_one_bad_row_in_a_full_batch_is_set_aside(
    influx_server: InfluxServer, config: Config, tape: MemoryTape
) -> None:
    """A symbol without a name, a price that is no number; and one that only the server refuses."""
    rows = trades(500)
    rows["exchange_us"] = START_US + rows["id"]
    rows["symbol_id"][77], rows["price"][201] = 9, np.nan
    rows["exchange_us"][340] = 9_223_372_036_854_776
    tape.append(rows)
    drain = drain_of(config, tape)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert drain.health().details["refused"] == 3  # type: ignore[index]
    held = {int(values[3]) for values in points(influx_server, config).values()}
    assert held == set(range(1, 501)) - {78, 202, 341}
    text = (Path(config.data_dir) / "aside.jsonl").read_text()
    assert [f'"id":{id_},' in line for id_, line in zip((78, 202, 341), text.splitlines(), strict=True)] == [
        True
    ] * 3


async def test_v2_writes_the_same(influx_server: InfluxServer, config: Config, tape: MemoryTape) -> None:
    tape.append(market(1_200, seed=8))
    async with shim_before(influx_server.url) as shim:
        influx = InfluxConfig(url=shim.url, token="s3cret", bucket=config.influx.bucket)
        drain = drain_of(Config(influx=influx, data_dir=config.data_dir), tape)
        drain.start()
        await reached(drain, tape)
        await drain.stop()
    assert points(influx_server, config) == wanted(tape)


async def test_bars_and_levels_equal_the_series_store(
    influx_server: InfluxServer, config: Config, tape: MemoryTape, tmp_path: Path
) -> None:
    store = SeriesSqlite(tmp_path / "series.sqlite")
    derived = Derived(3)
    for symbol_id, _ in KNOWN:
        derived.add_symbol(symbol(symbol_id))
    rows = market(4_000, seed=2)
    drains = influx_drains(config, tape, store, lambda: KNOWN, SystemTime(), LOG)
    assert [drain.name for drain in drains] == ["influx:trades", "influx:bars"]
    bars = drains[1]
    bars.start()
    for start in (0, 1_000, 2_500):
        piece = np.ascontiguousarray(rows[start : {0: 1_000, 1_000: 2_500, 2_500: 4_000}[start]])
        tape.append(piece)
        derived.on_rows(int(piece.ctypes.data), len(piece))
        store.write(derived.drain(), Position(7, start + len(piece)))
    await until(lambda: bars.position.sequence == 4_000, 30.0)
    await bars.stop()
    series = SeriesInflux(config.influx, Names(lambda: KNOWN))
    await series.open()
    for symbol_id, resolution in itertools.product((1, 2, 3), range(1, len(RESOLUTIONS))):
        ours = await series.range(symbol_id, resolution, 0, 1 << 33, 10_000)
        theirs = store.range(symbol_id, resolution, 0, 1 << 33, 10_000)
        assert len(theirs)
        for name in ("slot_us", "open", "high", "low", "close", "trade_count"):
            assert ours[name].tolist() == theirs[name].tolist()
        volumes = theirs["volume"] / 10.0 ** theirs["lot_digits"]
        assert (ours["volume"] / 1e8).tolist() == pytest.approx(volumes.tolist())
    await series.close()
    levels = {s["tags"]["symbol"]: s["values"][-1] for s in _enigma(influx_server, config)}
    for symbol_id, name in KNOWN:
        enigma = derived.enigma(symbol_id)
        assert enigma is not None
        ns, level, ath, fib, trade_id = levels[name]
        assert (level, ath, fib, trade_id) == (enigma.level, enigma.ath, enigma.fib[2], enigma.trade_id)
        assert ns == trade_ns(enigma.exchange_us, enigma.trade_id)
    store.close()


def _enigma(server: InfluxServer, config: Config) -> list[dict[str, Any]]:
    statement = "SELECT level, ath, fib_38_2, trade_id FROM enigma GROUP BY symbol"
    return server.query(statement, config.influx.bucket)


def test_without_a_url_there_are_no_drains(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path))
    assert influx_drains(config, MemoryTape(), None, lambda: KNOWN, SystemTime(), LOG) == []
