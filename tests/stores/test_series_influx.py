"""The series role on InfluxDB: one contract with SQLite, both dialects, refusals in words."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.servers.kinds import InfluxServer
from tests.stores.influx_shim import shim_before
from tradeback.derive.layout import EXCHANGE, RESOLUTIONS, Bars, Drained, empty_bars
from tradeback.model.config import InfluxConfig
from tradeback.model.errors import StoreError
from tradeback.stores.influx_client import InfluxClient, WriteRefused
from tradeback.stores.influx_lines import Names
from tradeback.stores.ports import Position
from tradeback.stores.series_influx import SeriesInflux
from tradeback.stores.series_sqlite import SeriesSqlite

NAMES = Names(lambda: [(1, "BTCUSDT"), (2, "it's, =me")])
MINUTE = RESOLUTIONS.index("1m")
_count = itertools.count()


def config_of(url: str, **more: str) -> InfluxConfig:
    return InfluxConfig(url=url, bucket=f"series{next(_count)}", **{"api": "v1", **more})  # type: ignore[arg-type]


def bars(*slots: int, symbol_id: int = 1, close: float = 2.0) -> Bars:
    made = empty_bars(len(slots))
    made["slot_us"] = np.array(slots) * 60_000_000
    made["open"], made["high"], made["low"], made["close"] = 1.25, 3.5, 0.5, close
    made["volume"], made["lot_digits"], made["trade_count"] = 123_456_789, 8, 7
    made["symbol_id"], made["resolution"], made["flags"] = symbol_id, MINUTE, EXCHANGE
    return made


@dataclass
class Store:
    """What both can do."""

    put: Callable[[Bars, Position], Awaitable[None]]
    range: Callable[[int, int, int, int], Awaitable[Bars]]
    position: Callable[[], Awaitable[Position | None]]


def embedded(folder: Path) -> Store:
    store = SeriesSqlite(folder / "series.sqlite")

    async def put(made: Bars, position: Position) -> None:
        store.put_history(made)
        store.write(
            Drained(empty_bars(0), np.zeros(0, store.load().parts.dtype), store.load().states), position
        )

    async def read(symbol_id: int, from_s: int, to_s: int, limit: int) -> Bars:
        return store.range(symbol_id, MINUTE, from_s, to_s, limit)

    async def position() -> Position | None:
        held = store.position()
        return held if held.sequence else None

    return Store(put, read, position)


def served(series: SeriesInflux) -> Store:
    async def put(made: Bars, position: Position) -> None:
        await series.write_bars(made)
        await series.save_position("bars", position)

    async def read(symbol_id: int, from_s: int, to_s: int, limit: int) -> Bars:
        return await series.range(symbol_id, MINUTE, from_s, to_s, limit)

    return Store(put, read, lambda: series.position("bars"))


@pytest.fixture(params=["sqlite", "v1", "v2"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        yield embedded(tmp_path)
        return
    server: InfluxServer = request.getfixturevalue("influx_server")
    async with shim_before(server.url) as shim:
        url = server.url if request.param == "v1" else shim.url
        series = SeriesInflux(config_of(url, api=request.param, token="s3cret"), NAMES)
        await series.open()
        yield served(series)
        await series.close()


def shown(rows: Bars) -> list[tuple[float, ...]]:
    names = ("slot_us", "open", "high", "low", "close", "volume", "trade_count")
    return [tuple(row[name].item() for name in names) for row in rows]


async def test_bars_are_read_back_by_range(store: Store) -> None:
    """The contract of the role: closed bars by range, replaced and not doubled, and a position."""
    assert await store.position() is None
    made = bars(10, 11, 12, 14)
    await store.put(made, Position(7, 100))
    await store.put(bars(12, close=2.75), Position(7, 120))
    await store.put(bars(11, symbol_id=2), Position(7, 130))
    made["close"][2] = 2.75
    assert shown(await store.range(1, 600, 15 * 60, 100)) == shown(made)
    assert shown(await store.range(1, 660, 14 * 60, 100)) == shown(made[1:3])
    assert shown(await store.range(1, 600, 15 * 60, 2)) == shown(made[:2])
    assert shown(await store.range(2, 0, 15 * 60, 100)) == shown(bars(11, symbol_id=2))
    assert len(await store.range(2, 0, 600, 100)) == 0
    assert await store.position() == Position(7, 130)


async def test_the_newest_bars(influx_server: InfluxServer) -> None:
    series = SeriesInflux(config_of(influx_server.url), NAMES)
    await series.open()
    await series.write_bars(bars(1, 2, 3))
    assert shown(await series.range(1, MINUTE, 0, 1_000, 2, newest=True)) == shown(bars(2, 3))
    assert len(await series.range(9, MINUTE, 0, 1_000, 2)) == 0
    await series.close()


async def test_v2_makes_its_bucket_and_names_org_and_precision(influx_server: InfluxServer) -> None:
    async with shim_before(influx_server.url) as shim:
        config = config_of(shim.url, api="v2", token="s3cret")
        for _ in range(2):
            series = SeriesInflux(config, NAMES)
            await series.open()
            await series.write_bars(bars(1))
            await series.close()
        assert shim.made == [{"orgID": "0123", "name": config.bucket, "retentionRules": []}]
        assert shim.writes == [{"org": "tradeback", "bucket": config.bucket, "precision": "ns"}] * 2


async def test_refusals_name_the_remedy_and_never_the_token(influx_server: InfluxServer) -> None:
    async with shim_before(influx_server.url) as shim:
        wrong = InfluxClient(config_of(shim.url, api="v2", token="wr0ng-token"))
        with pytest.raises(StoreError, match="set INFLUX_TOKEN") as raised:
            await wrong.open()
        assert "wr0ng-token" not in repr(raised.value)
        await wrong.close()
    old = InfluxClient(config_of(influx_server.url, api="v2"))
    await old.open()
    with pytest.raises(StoreError, match="INFLUX_API"):
        await old.write(b"m x=1 1")
    await old.close()
    nobody = InfluxClient(config_of("http://127.0.0.1:1"))
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1 does not answer .* INFLUX_URL"):
        await nobody.open()
    await nobody.close()
    with pytest.raises(StoreError, match="closed"):
        await nobody.write(b"m x=1 1")
    assert "wr0ng" not in repr(InfluxConfig(token="wr0ng"))


async def test_a_database_that_was_dropped_is_made_again(influx_server: InfluxServer) -> None:
    config = config_of(influx_server.url)
    client = InfluxClient(config)
    await client.open()
    influx_server.query(f'DROP DATABASE "{config.bucket}"')
    with pytest.raises(StoreError):
        await client.write(b"m x=1 1")
    await client.write(b"m x=1 1")
    assert influx_server.values("SELECT x FROM m", config.bucket) == [[1, 1]]
    await client.close()


async def test_bad_lines_are_a_refusal_and_the_good_ones_are_stored(influx_server: InfluxServer) -> None:
    config = config_of(influx_server.url)
    client = InfluxClient(config)
    await client.open()
    with pytest.raises(WriteRefused, match="unable to parse"):
        await client.write(b"m x=1 1\nm x= 2\nm x=3 3")
    with pytest.raises(WriteRefused, match="field type conflict"):
        await client.write(b'm x="text" 4')
    assert influx_server.values("SELECT x FROM m", config.bucket) == [[1, 1], [3, 3]]
    influx_server.query(
        f'CREATE RETENTION POLICY short ON "{config.bucket}" DURATION 1h REPLICATION 1 DEFAULT'
    )
    assert await client.write(b"m x=1 1\nm x=2 2") == 2
    await client.close()
    with pytest.raises(StoreError, match="refuses a query"):
        await _query(config, "SELECT nonsense FROM FROM")


async def _query(config: InfluxConfig, statement: str) -> None:
    client = InfluxClient(config)
    await client.open()
    try:
        await client.query(statement)
    finally:
        await client.close()
