"""Line protocol for InfluxDB: our encoder against the library's `Point`; points a second into influxd.

    pytest benchmarks/bench_influx.py
    TRADEBACK_BENCH=full pytest benchmarks/bench_influx.py

Trades and quotes of ten symbols, half and half, in batches of 5,000 records. `Point` writes the same fields;
both must give the same points.

Into the same influxd, in turn in every round, the best round of each, and every point counted afterwards:

- `points`: the library's batching client as its documentation shows it, one `Point` per trade;
- `batching`: the same fed with finished lines, made before the clock starts;
- `drain`: our drain, from records of a tape in memory;
- `ceiling`: finished bodies of 5,000 lines, posted over two bare connections: what influxd itself can take.

influxd has a core and the client the other one. `extra_info` has the points a second of each, the processor
time per point of the client's process, and `times_batching`: drain to batching, finished lines and all.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
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
from tradeback.stores.influx_lines import Names, trade_ns
from tradeback.stores.influx_trades import TradeLines
from tradeback.stores.series_influx import SeriesInflux

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
ROUNDS = 15 if FULL else 3
POINTS = 300_000 if FULL else 20_000
BATCH = 5_000
NAMES = Names(lambda: [(symbol_id, f"SYM{symbol_id}USDT") for symbol_id in range(1, 11)])
_point_s: dict[str, float] = {}
ENCODER = TradeLines(NAMES)
CORES = os.sched_getaffinity(0)
WAYS = ("points", "batching", "drain", "ceiling")


def market(count: int, *, quotes: bool) -> Rows:
    """`count` records with the decimals of an exchange; every second one a quote where `quotes`."""
    rows = empty_rows(count)
    place = np.arange(count)
    rows["symbol_id"] = place // 2 % 10 + 1
    rows["kind"] = np.where(quotes & (place % 2 == 0), QUOTE, TRADE)
    rows["id"], rows["exchange_us"] = place + 1, 1_700_000_000_000_000 + place * 37
    rows["price"], rows["ask"] = (6_123_456 + place % 997) / 1e2, (6_123_457 + place % 997) / 1e2
    rows["quantity"] = (123 + place % 8_900) / 1e5
    return rows


def points_of(rows: Rows) -> Iterator[Any]:
    """What `TradeLines` writes, as the library's class has it."""
    from influxdb_client.client.write.point import Point

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
        yield point


def by_points(rows: Rows) -> bytes:
    """The lines of the library's class."""
    return "\n".join(point.to_line_protocol() for point in points_of(rows)).encode()


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
    ENCODER.forget()
    return ENCODER.encode(rows, 1).data


@pytest.mark.parametrize("way", ["point", "lines"])
def test_encode(benchmark: BenchmarkFixture, way: str) -> None:
    """us per point, records of a batch being half quotes."""
    rows = market(BATCH, quotes=True)
    ENCODER.attach()
    encode = by_points if way == "point" else by_lines
    body = benchmark.pedantic(encode, (rows,), rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert plain(body) == plain(by_points(rows))
    each_us = benchmark.stats["median"] / (BATCH / 2) * 1e6  # type: ignore[index]
    _point_s[way] = each_us
    benchmark.extra_info["us_per_point"] = each_us
    if way == "lines" and "point" in _point_s:
        benchmark.extra_info["times_point"] = _point_s["point"] / each_us


def finished_lines(rows: Rows) -> list[bytes]:
    """The line of every trade."""
    encoder = TradeLines(NAMES)
    encoder.attach()
    return encoder.encode(rows, 1).data.splitlines()


async def drained(server: InfluxServer, bucket: str, rows: Rows, folder: Path) -> None:
    """Until our drain has put all rows into the server."""
    tape = MemoryTape()
    tape.rows = rows
    config = InfluxConfig(url=server.url, api="v1", bucket=bucket)
    target = TradesTarget(SeriesInflux(config, NAMES), tape)
    how = DrainConfig(catch_up_rows_s=1e9)
    log = logging.getLogger("bench")
    drain = Drain("bench", tape, target, how, SystemTime(), log, folder / "aside.jsonl")
    drain.start()
    while drain.position.sequence < len(rows):
        await asyncio.sleep(0.001)
    await drain.stop()


def batched(server: InfluxServer, bucket: str, records: Iterable[Any]) -> None:
    """Until the library's batching client has put all records into the server."""
    from influxdb_client import InfluxDBClient, WriteOptions  # type: ignore[attr-defined]

    client: Any = InfluxDBClient(url=server.url, token="", org="-")

    def write_v1(*_: Any, **more: Any) -> Any:
        query = [("db", bucket), ("precision", "ns")]
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return client.api_client.call_api(
            "/write", "POST", query_params=query, header_params=headers, body=more["body"], async_req=False
        )

    api: Any = client.write_api(write_options=WriteOptions(batch_size=BATCH, flush_interval=200))
    api._write_service.post_write = write_v1
    for record in records:
        api.write(bucket, "-", record)
    api.close()
    client.close()


def posted(server: InfluxServer, bucket: str, bodies: list[bytes]) -> None:
    """Until bare connections, two at a time, have posted all bodies."""
    left = iter(bodies)

    def post() -> None:
        connection = HTTPConnection(server.host, server.port)
        for body in left:  # `next` of a list's iterator is safe in threads
            connection.request("POST", f"/write?db={bucket}&precision=ns", body)
            with connection.getresponse() as answer:
                answer.read()
                assert answer.status == 204
        connection.close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(post) for _ in range(2)]:
            done.result()


class Throughput:
    """Puts the same trades into influxd in every way."""

    def __init__(self, server: InfluxServer, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._rows = market(POINTS, quotes=False)
        self._lines = finished_lines(self._rows)
        starts = range(0, POINTS, BATCH)
        self._bodies = [b"\n".join(self._lines[start : start + BATCH]) for start in starts]
        self.seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        self.cpu_s: dict[str, list[float]] = {way: [] for way in WAYS}

    def run(self, way: str) -> None:
        """Once, into a database of its own."""
        bucket = f"{way}{len(self.seconds[way])}"
        self._server.query(f'CREATE DATABASE "{bucket}"')
        began_s, cpu_s = time.perf_counter(), time.process_time()
        if way == "drain":
            asyncio.run(drained(self._server, bucket, self._rows, self._folder))
        elif way == "ceiling":
            posted(self._server, bucket, self._bodies)
        else:
            batched(self._server, bucket, self._lines if way == "batching" else points_of(self._rows))
        self.cpu_s[way].append(time.process_time() - cpu_s)
        self.seconds[way].append(time.perf_counter() - began_s)
        ((_, stored),) = self._server.values("SELECT COUNT(id) FROM trades", bucket)
        assert stored == POINTS
        self._server.query(f'DROP DATABASE "{bucket}"')


@pytest.mark.skipif(find_binary("influxd") is None, reason="influxd is not installed")
def test_throughput(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Points a second, and processor time per point of whoever brings them."""
    import influxdb_client.client.influxdb_client_async  # noqa: F401 - its 0.4 s are no part of the figure

    with InfluxServer(tmp_path / "influx") as server:
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {min(CORES)})
        made = Throughput(server, tmp_path)

        def run() -> None:
            for way in WAYS:
                made.run(way)

        benchmark.pedantic(run, rounds=3 if FULL else 1, warmup_rounds=1)  # type: ignore[no-untyped-call]
    best = {way: POINTS / min(seconds) for way, seconds in made.seconds.items()}
    for way in WAYS:
        benchmark.extra_info[f"points_per_s_{way}"] = round(best[way])
        benchmark.extra_info[f"cpu_us_per_point_{way}"] = round(min(made.cpu_s[way]) / POINTS * 1e6, 2)
    benchmark.extra_info["times_batching"] = round(best["drain"] / best["batching"], 2)
    benchmark.extra_info["share_of_ceiling"] = round(best["drain"] / best["ceiling"], 2)
