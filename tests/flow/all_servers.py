"""What four servers hold against the tape: each function compares all of it, and fails on the first odds."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import aiohttp
import numpy as np

from tests.cli.running import tradeback
from tests.flow.replaying import joined, symbols_of, trades_of
from tests.flow.running import Engine, until
from tests.flow.test_edge import check_stream
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server, ask
from tests.sinks.nats_world import stretches
from tradeback.model.config import NatsConfig, RedisConfig
from tradeback.model.record import SEED_BAR, SEED_BAR_MORE, TRADE, Rows
from tradeback.ops.clock import SystemClock
from tradeback.stores.latest_redis import LatestRedis
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_batch import unpack

WITHIN_S = 60.0
RESOLUTIONS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}
SINKS = (
    "influx:trades",
    "influx:bars",
    "redis:prices",
    "redis:ticks",
    "nats:ticks",
    "nats:prices",
    "nats:bars",
)
HOLD_ALL = ("influx:trades", "influx:bars", "redis:ticks", "nats:ticks")
"""Those that take every record; the others move with prices only."""
SLOTS = 1_000


class Servers:
    """The four servers, each with a corner of its own for one test."""

    def __init__(
        self,
        name: str,
        redis: RedisServer,
        nats: NatsServer,
        mariadb: MariadbServer,
        influx: InfluxServer,
    ) -> None:
        self.name, self.redis, self.nats, self.mariadb, self.influx = name, redis, nats, mariadb, influx
        self.more: dict[str, str] = {}
        """Further variables of the engine."""

    @property
    def variables(self) -> dict[str, str]:
        """As an engine is told of them."""
        return {
            "REDIS_ADDR": self.redis.address,
            "NATS_URL": self.nats.url, "NATS_NODE": self.name,
            "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(self.mariadb.port), "MYSQL_USER": self.mariadb.user,
            "MYSQL_DATABASE": self.name,
            "INFLUX_URL": self.influx.url, "INFLUX_API": "v1", "INFLUX_BUCKET": self.name,
            **self.more,
        }  # fmt: skip

    def noticing(self, server: Server) -> tuple[str, ...]:
        """Components that must notice when a server is away."""
        return {
            self.redis.port: ("sink:redis:ticks", "sink:redis:prices"),
            self.nats.port: ("sink:nats:ticks",),
            self.mariadb.port: ("store:registry",),
            self.influx.port: ("sink:influx:trades",),
        }[server.port]

    @property
    def bus(self) -> NatsConfig:
        """Where the tape is on NATS."""
        return NatsConfig(url=self.nats.url, node=self.name)

    def prepare(self) -> None:
        """The registry's tables, as somebody makes them before the first start; an empty Redis."""
        done = tradeback("migrate", "up", variables=self.variables)
        assert done.returncode == 0, done.stderr
        assert ask(self.redis.port, b"FLUSHALL\r\n") == b"+OK\r\n"


async def components(engine: Engine) -> dict[str, dict[str, Any]]:
    """Everything that has a health, by name."""
    detailed = await engine.get("/api/v1/health/detailed")
    return {part["name"]: part for part in detailed["components"]}


async def drained(engine: Engine) -> None:
    """Every sink is well, and where the tape ends. The market must stand still."""
    said: dict[str, Any] = {}

    async def done() -> bool:
        found = await components(engine)
        head = engine.tape().next_sequence - 1
        said.update(
            {name: found.get(f"sink:{name}") for name in SINKS}, head=head, store=found["store:registry"]
        )
        parts = [found.get(f"sink:{name}") for name in SINKS]
        if any(part is None or part["state"] != "ok" for part in parts) or said["store"]["state"] != "ok":
            return False
        return all(found[f"sink:{name}"]["details"]["position"] == head for name in HOLD_ALL)

    assert await until(done, "the sinks", WITHIN_S, strict=False), json.dumps(said, indent=1)


async def check_all(engine: Engine, servers: Servers) -> Rows:
    """Every store against the tape of a running engine whose sinks are done; the tape's records."""
    rows = joined(engine.tape())
    names = await check_registry(engine, servers)
    check_trades(servers, rows, names)
    await check_bars(engine, servers, rows, names)
    await check_prices(engine, servers, rows, names)
    await check_redis_stream(servers, rows)
    check_stream(await stretches(servers.bus), engine.data_dir)
    for sink, part in (await components(engine)).items():
        if sink.startswith("sink:"):
            told = part["details"]
            assert (told["refused"], told["dropped"], told["gone"]) == (0, 0, 0), part
    return rows


async def check_registry(engine: Engine, servers: Servers) -> dict[str, int]:
    """MariaDB's ids are those of the wire and of the engine's copy; symbol -> id."""
    wire = {each["symbol"]: each["id"] for each in await engine.get("/api/v1/symbols")}
    held = servers.mariadb.sql("SELECT id, symbol FROM symbolsmap", servers.name)
    assert {name: int(number) for number, name in held} == wire
    assert {name: each.id for name, each in symbols_of(engine.data_dir).items()} == wire
    assert len(wire) == len(set(wire.values())) > 0
    return wire


def check_trades(servers: Servers, rows: Rows, names: Mapping[str, int]) -> None:
    """Every trade of the tape is one point, at a time of its own, and there is no other point."""
    fields = "sequence, id, price, volume"
    series = servers.influx.query(f'SELECT {fields} FROM "trades" GROUP BY symbol, exchange', servers.name)
    held = {each["tags"]["symbol"]: each["values"] for each in series}
    assert len(held) == len(series)
    assert set(held) == {name for name, number in names.items() if len(trades_of(rows, number))}
    total = 0
    for name, points in held.items():
        places = np.flatnonzero((rows["kind"] == TRADE) & (rows["symbol_id"] == names[name]))
        trades = rows[places]
        points.sort(key=lambda point: point[1])
        columns = ("id", "price", "quantity", "exchange_us")
        wanted = list(
            zip((places + 1).tolist(), *(trades[column].tolist() for column in columns), strict=True)
        )
        assert [tuple(point[1:]) for point in points] == [trade[:4] for trade in wanted], name
        assert len({point[0] for point in points}) == len(wanted), f"{name}: two trades at one time"
        off = [
            (point[0], trade)
            for point, trade in zip(points, wanted, strict=True)
            if not _in_time(point[0], trade)
        ]
        assert not off, f"{name}: {off[:3]}"
        total += len(points)
    assert total == int((rows["kind"] == TRADE).sum()) > 0


def _in_time(ns: int, trade: tuple[Any, ...]) -> bool:
    """Of trade's microsecond, or, in a run of more than a thousand, of one shortly behind."""
    beyond, place = divmod(ns - trade[4] * SLOTS, SLOTS)
    return bool(place == trade[1] % SLOTS and 0 <= beyond < 10)


async def check_bars(engine: Engine, servers: Servers, rows: Rows, names: Mapping[str, int]) -> None:
    """The bars that the tape's records touch stand there as the API answers them, and no other ones."""
    for resolution, size_s in RESOLUTIONS.items():
        fields = "open, high, low, close, volume, trade_count"
        series = servers.influx.query(
            f'SELECT {fields} FROM "ohlcv_{resolution}" GROUP BY symbol', servers.name
        )
        held = {each["tags"]["symbol"]: each["values"] for each in series}
        for name, number in names.items():
            mine = rows[rows["symbol_id"] == number]
            touching = mine[
                np.isin(mine["kind"], (TRADE, SEED_BAR, SEED_BAR_MORE)) & (mine["exchange_us"] > 0)
            ]
            slots = set((touching["exchange_us"] // 1_000_000 // size_s * size_s).tolist())
            answer = await engine.get(f"/api/v1/symbols/{name}/bars", resolution=resolution, limit=5_000)
            keys = ("open", "high", "low", "close", "volume", "trade_count")
            wanted = {
                bar["time"]: [bar[key] for key in keys] for bar in answer["bars"] if bar["time"] in slots
            }
            shown = {ns // 10**9: list(values) for ns, *values in held.get(name, [])}
            assert shown == wanted, f"{name} {resolution}"
            assert wanted


async def check_prices(engine: Engine, servers: Servers, rows: Rows, names: Mapping[str, int]) -> None:
    """The price in Redis is that of the last trade and the last quote, and what the route answers."""
    store = LatestRedis(RedisConfig(addr=servers.redis.address), SystemClock())
    try:
        for name, number in names.items():
            last = max(trades_of(rows, number), key=lambda row: int(row["id"]))
            route = await engine.get(f"/api/v1/symbols/{name}/price")
            assert (route["price"], route["volume"]) == (float(last["price"]), float(last["quantity"]))

            async def same(name: str = name, route: dict[str, Any] = route, last: Any = last) -> bool:
                held = (await store.prices([name])).get(name)
                if held is None or held.trade_id != int(last["id"]):
                    return False
                return bool({key: held._asdict()[key] for key in route} == route)

            await until(same, f"the last price of {name} in Redis", WITHIN_S)
    finally:
        await store.close()


async def check_redis_stream(servers: Servers, rows: Rows) -> None:
    """The capped stream ends with the tape, without hole or double, and holds its trades."""
    store = LatestRedis(RedisConfig(addr=servers.redis.address), SystemClock())
    try:
        batches, after = [], "0"
        while part := await store.read_stream(after, 1_000):
            batches += [batch for _, batch in part]
            after = part[-1][0]
        assert [batch.first for batch in batches[1:]] == [batch.last + 1 for batch in batches[:-1]]
        assert batches[-1].last == len(rows)
        decoder = Decoder()
        for symbol in await store.stream_symbols():
            decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
        frames = [decoder.decode(frame) for batch in batches for frame in unpack(batch.frames)]
        held = np.concatenate([frame.trades for frame in frames])
        wanted = rows[batches[0].first - 1 :]
        wanted = wanted[wanted["kind"] == TRADE]
        for column in ("symbol_id", "id", "price"):
            assert held[column].tolist() == wanted[column].tolist(), column
    finally:
        await store.close()


async def metrics(engine: Engine) -> str:
    """The text of /metrics."""
    async with aiohttp.ClientSession(engine.url) as http, http.get("/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def resident_bytes(engine: Engine) -> dict[str, int]:
    """Memory of each process now."""
    found: dict[str, int] = defaultdict(int)
    for name, part in (await components(engine)).items():
        if name.startswith("process:"):
            found[name.partition(":")[2]] = part["details"]["resident_bytes"]
    return dict(found)
