"""Line protocol for InfluxDB: our encoder against the library's `Point`; points a second into influxd.

    pytest benchmarks/bench_influx.py
    TRADEBACK_BENCH=full pytest benchmarks/bench_influx.py

Trades and quotes of ten symbols, half and half, in batches of 5,000 records. `Point` writes the same fields;
both must give the same points. With influxd installed: our drain from a tape in memory, and the library's
batching client fed with finished lines, into the same server in the same run; both must store every trade.
`extra_info["points_per_s"]` is the figure to look at, with `times_point` and `times_batching`.
"""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.servers.kinds import InfluxServer
from tests.servers.process import find_binary
from tests.sinks.drain_world import MemoryTape, SystemTime
from tradeback.model.config import InfluxConfig
from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import DrainConfig
from tradeback.sinks.influx import TradesTarget
from tradeback.stores.influx_lines import Names, TradeLines, body_of, trade_ns
from tradeback.stores.series_influx import SeriesInflux

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
ROUNDS = 15 if FULL else 3
POINTS = 300_000 if FULL else 20_000
BATCH = 5_000
NAMES = Names(lambda: [(symbol_id, f"SYM{symbol_id}USDT") for symbol_id in range(1, 11)])
_point_s: dict[str, float] = {}
_batching: dict[str, float] = {}


def market(count: int, *, quotes: bool) -> Rows:
    """`count` records; every second one a quote where `quotes`."""
    rows = empty_rows(count)
    place = np.arange(count)
    rows["symbol_id"] = place // 2 % 10 + 1
    rows["kind"] = np.where(quotes & (place % 2 == 0), QUOTE, TRADE)
    rows["id"], rows["exchange_us"] = place + 1, 1_700_000_000_000_000 + place * 37
    rows["price"], rows["ask"] = 61_234.56 + place % 997 * 0.01, 61_234.57 + place % 997 * 0.01
    rows["quantity"] = 0.001 + place % 89 * 0.001
    return rows


def by_points(rows: Rows) -> bytes:
    """What `TradeLines` does, by the library's class."""
    from influxdb_client.client.write.point import Point

    made: list[str] = []
    quotes: dict[int, tuple[float, float]] = {}
    columns = ("kind", "symbol_id", "exchange_us", "id", "price", "quantity", "ask")
    values = (rows[name].tolist() for name in columns)
    for place, (kind, symbol_id, us, id_, price, quantity, ask) in enumerate(zip(*values, strict=True)):
        if kind == QUOTE:
            quotes[symbol_id] = price, ask
            continue
        point: Any = Point("trades").tag("exchange", "binance").tag("symbol", NAMES.get(symbol_id))  # type: ignore[no-untyped-call]
        point.field("price", price).field("volume", quantity)
        if symbol_id in quotes:
            point.field("bid", quotes[symbol_id][0]).field("ask", quotes[symbol_id][1])
        point.field("sequence", place + 1).field("id", id_).time(trade_ns(us, id_))
        made.append(point.to_line_protocol())
    return "\n".join(made).encode()


def plain(body: bytes) -> list[tuple[str, frozenset[tuple[str, float]], str]]:
    """Lines as what they mean: the library sorts fields and writes whole numbers without a point."""
    found = []
    for line in body.decode().splitlines():
        head, fields, ns = line.split(" ")
        named = (field.split("=") for field in fields.split(","))
        found.append((head, frozenset((name, float(value.rstrip("i"))) for name, value in named), ns))
    return found


def by_lines(rows: Rows) -> bytes:
    """Our own encoder."""
    return body_of(TradeLines(NAMES).encode(rows, 1))


@pytest.mark.parametrize("way", ["point", "lines"])
def test_encode(benchmark: BenchmarkFixture, way: str) -> None:
    """us per point, records of a batch being half quotes."""
    rows = market(BATCH, quotes=True)
    encode = by_points if way == "point" else by_lines
    body = benchmark.pedantic(encode, (rows,), rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert plain(body) == plain(by_points(rows))
    each_us = benchmark.stats["median"] / (BATCH / 2) * 1e6  # type: ignore[index]
    _point_s[way] = each_us
    benchmark.extra_info["us_per_point"] = each_us
    if way == "lines" and "point" in _point_s:
        benchmark.extra_info["times_point"] = _point_s["point"] / each_us


async def drained(server: InfluxServer, bucket: str, rows: Rows, folder: Path) -> float:
    """Seconds until our drain has put all rows into the server."""
    import influxdb_client.client.influxdb_client_async  # noqa: F401 - its 0.4 s are no part of the figure

    tape = MemoryTape()
    tape.append(rows)
    config = InfluxConfig(url=server.url, api="v1", bucket=bucket)
    target = TradesTarget(SeriesInflux(config, NAMES), tape)
    how = DrainConfig(catch_up_rows_s=1e9)
    log = logging.getLogger("bench")
    drain = Drain("bench", tape, target, how, SystemTime(), log, folder / "aside.jsonl")
    began = time.perf_counter()
    drain.start()
    while drain.position.sequence < len(rows):
        await asyncio.sleep(0.001)
    took = time.perf_counter() - began
    await drain.stop()
    return took


def batched(server: InfluxServer, bucket: str, rows: Rows) -> float:
    """Seconds until the library's batching client has, its lines made before."""
    from influxdb_client import InfluxDBClient, WriteOptions  # type: ignore[attr-defined]

    server.query(f'CREATE DATABASE "{bucket}"')
    lines = TradeLines(NAMES).encode(rows, 1)
    client: Any = InfluxDBClient(url=server.url, token="", org="-")

    def write_v1(*_: Any, **more: Any) -> Any:
        query = [("db", bucket), ("precision", "ns")]
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return client.api_client.call_api(
            "/write", "POST", query_params=query, header_params=headers, body=more["body"], async_req=False
        )

    began = time.perf_counter()
    api: Any = client.write_api(write_options=WriteOptions(batch_size=BATCH, flush_interval=200))
    api._write_service.post_write = write_v1
    for line in lines:
        api.write(bucket, "-", line)
    api.close()
    took = time.perf_counter() - began
    client.close()
    return took


@pytest.mark.skipif(find_binary("influxd") is None, reason="influxd is not installed")
@pytest.mark.parametrize("way", ["batching", "drain"])
def test_throughput(benchmark: BenchmarkFixture, tmp_path: Path, way: str) -> None:
    """Points a second, every one of them counted in the server afterwards."""
    rows = market(POINTS, quotes=False)
    with InfluxServer(tmp_path / "influx") as server:
        seconds: list[float] = []

        def run() -> None:
            bucket = f"b{len(seconds)}"
            if way == "drain":
                seconds.append(asyncio.run(drained(server, bucket, rows, tmp_path)))
            else:
                seconds.append(batched(server, bucket, rows))
            ((_, stored),) = server.values("SELECT COUNT(id) FROM trades", bucket)
            assert stored == POINTS

        benchmark.pedantic(run, rounds=3 if FULL else 1)  # type: ignore[no-untyped-call]
    best = POINTS / min(seconds)
    _batching[way] = best
    benchmark.extra_info["points_per_s"] = best
    if way == "drain" and "batching" in _batching:
        benchmark.extra_info["times_batching"] = best / _batching["batching"]
