"""Wrong credentials, rights, versions, limits: one line with the remedy, and no restart once it is mended.

Each server is started that way for real; only what cannot be had here is played by a double (InfluxDB 2, a
Redis of before 6.2).
"""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers.fixtures import need
from tests.servers.kinds import InfluxServer, NatsServer, RedisServer
from tests.servers.process import Server, ask
from tests.sinks import nats_world, redis_world
from tests.sinks.drain_world import MemoryTape, SystemTime, until
from tests.sinks.drain_wrong_world import (
    WAIT_S,
    ConfiguredNats,
    GuardedInflux,
    mended,
    old_redis,
    start,
    told,
)
from tests.sinks.test_influx import KNOWN, LOG, market, points, wanted
from tests.stores.influx_shim import shim_before
from tradeback.model.config import Config, InfluxConfig
from tradeback.sinks import nats as nats_sink
from tradeback.sinks.drain import Drain
from tradeback.sinks.influx import influx_drains
from tradeback.stores import bus_nats, redis_client
from tradeback.stores.series_sqlite import SeriesSqlite

PASSWORD, WRONG = "correct-horse-1", "hunter2-1"
DATABASE = "archive"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a server asks it more often."""
    monkeypatch.setattr(redis_client, "REST_S", 0.02)
    monkeypatch.setattr(nats_sink, "CONNECT_S", 0.1)
    monkeypatch.setattr(bus_nats, "BACKOFF_MAX_S", 0.1)


# InfluxDB.


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedInflux]:
    need(GuardedInflux)
    with GuardedInflux(tmp_path / "influx") as server:
        server.make_admin()
        yield server


class Influx:
    """A tape, and both drains into one InfluxDB."""

    def __init__(
        self, folder: Path, url: str, token: str = "", api: str = "v1", timeout_s: float = 10.0
    ) -> None:
        influx = InfluxConfig(url=url, token=token, bucket=DATABASE, api=api, timeout_s=timeout_s)  # type: ignore[arg-type]
        self.config = Config(influx=influx, data_dir=str(folder))
        self.tape = MemoryTape()
        self.tape.append(market(700))
        self.store = SeriesSqlite(folder / "series.sqlite")
        found = influx_drains(self.config, self.tape, self.store, lambda: KNOWN, SystemTime(), LOG)
        self.trades, self.bars = found

    @property
    def end(self) -> int:
        return self.tape.next_sequence - 1

    @property
    def refused(self) -> bool:
        return (Path(self.config.data_dir) / "set-aside").exists()

    def close(self) -> None:
        self.store.close()


Act = Callable[[GuardedInflux], None]
WRITER = f"CREATE USER writer WITH PASSWORD '{PASSWORD}'"


def without_database(server: GuardedInflux) -> None:
    server.sql(WRITER)


def with_database(server: GuardedInflux) -> None:
    server.sql(f"CREATE DATABASE {DATABASE}", WRITER, f"GRANT ALL ON {DATABASE} TO writer")


def read_only(server: GuardedInflux) -> None:
    server.sql(f"CREATE DATABASE {DATABASE}", WRITER, f"GRANT READ ON {DATABASE} TO writer")


def grant(server: GuardedInflux) -> None:
    server.sql(f"CREATE DATABASE {DATABASE}", f"GRANT ALL ON {DATABASE} TO writer")


def new_password(server: GuardedInflux) -> None:
    server.sql(f"SET PASSWORD FOR writer = '{WRONG}'")


def nobody(server: GuardedInflux) -> None:
    server.sql(f"CREATE DATABASE {DATABASE}")


def write_user(server: GuardedInflux) -> None:
    server.sql(f"CREATE USER writer WITH PASSWORD '{WRONG}'", f"GRANT ALL ON {DATABASE} TO writer")


@pytest.mark.parametrize(
    ("wrong", "password", "remedy", "mend"),
    [
        (with_database, WRONG, "set INFLUX_TOKEN to USER:PASSWORD", new_password),
        (nobody, WRONG, "set INFLUX_TOKEN to USER:PASSWORD", write_user),
        (read_only, PASSWORD, f'GRANT ALL ON "{DATABASE}"', grant),
        (without_database, PASSWORD, f'CREATE DATABASE "{DATABASE}" if it is missing', grant),
    ],
)
async def test_influx_credentials_and_rights(
    guarded: GuardedInflux, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    wrong: Act, password: str, remedy: str, mend: Act,
) -> None:  # fmt: skip
    wrong(guarded)
    with closing(Influx(tmp_path, guarded.url, f"writer:{password}")) as world:
        start([world.trades])
        await told([world.trades], remedy, caplog)
        world.tape.append(market(300, seed=2))
        mend(guarded)
        await mended([world.trades], world.end, caplog)
        await world.trades.stop()
        assert guarded.count(DATABASE) == len(wanted(world.tape))


async def test_influx_both_drains_tell_it_once(
    guarded: GuardedInflux, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_database(guarded)
    with closing(Influx(tmp_path, guarded.url)) as world:
        drains = [world.trades, world.bars]
        start(drains)
        await told(drains, "set INFLUX_TOKEN to USER:PASSWORD", caplog)
        for drain in drains:
            await drain.stop()


@pytest.mark.parametrize(
    ("path", "status", "message", "remedy"),
    [
        ("/api/v2/buckets", 401, "unauthorized access", "set INFLUX_TOKEN"),
        ("/api/v2/write", 403, "insufficient permissions for write", "give it read and write"),
        ("/api/v2/write", 404, "bucket not found", "make the bucket"),
        ("/api/v2/write", 507, "out of space", "its disk is full: make room"),
        ("/api/v2/write", 500, "write /var/lib: no space left on device", "its disk is full: make room"),
        ("/api/v2/write", 503, "starting", "it cannot take it now"),
        ("/query", 403, "read:bucket is unauthorized", "give it read and write"),
    ],
)
async def test_influx_v2_refuses(
    influx_server: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    path: str, status: int, message: str, remedy: str,
) -> None:  # fmt: skip
    influx_server.query(f'DROP DATABASE "{DATABASE}"')
    async with shim_before(influx_server.url) as shim:
        shim.refuse[path] = status, f"{message} for {WRONG}"
        shim.token = WRONG
        with closing(Influx(tmp_path, shim.url, WRONG, "v2")) as world:
            start([world.trades])
            await told([world.trades], remedy, caplog)
            shim.refuse.clear()
            await mended([world.trades], world.end, caplog)
            await world.trades.stop()
            assert points(influx_server, world.config) == wanted(world.tape)
            assert not world.refused


async def test_influx_of_another_version_and_what_is_none(
    influx_server: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    influx_server.query(f'DROP DATABASE "{DATABASE}"')
    with closing(Influx(tmp_path, influx_server.url, WRONG, "v2")) as world:
        start([world.trades])
        await told([world.trades], "set INFLUX_API (v1 for InfluxDB 1.x)", caplog)
        await world.trades.stop()
    caplog.clear()

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for folder, api in (("old", "v1"), ("new", "v2")):
            (tmp_path / folder).mkdir()
            with closing(Influx(tmp_path / folder, f"http://127.0.0.1:{port}", api=api)) as world:
                start([world.trades])
                await told([world.trades], "is no InfluxDB: correct INFLUX_URL", caplog)
                await world.trades.stop()
            caplog.clear()


async def test_influx_that_takes_no_more_series(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Full by its own limit: nothing is set aside, everything is there once the limit is raised."""
    need(InfluxServer)
    limited = {"INFLUXDB_DATA_MAX_SERIES_PER_DATABASE": "2"}
    server = InfluxServer(tmp_path / "influx", env=limited)
    with server, closing(Influx(tmp_path, server.url)) as world:
        start([world.trades])
        await told([world.trades], "raise max-series-per-database", caplog)
        limited["INFLUXDB_DATA_MAX_SERIES_PER_DATABASE"] = "0"
        await asyncio.to_thread(server.restart)
        await mended([world.trades], world.end, caplog)
        await world.trades.stop()
        assert points(server, world.config) == wanted(world.tape)
        assert not world.refused


def room(server: Server, size: int) -> None:
    """No file of the server may be larger than this: for it, the disk is full."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def roomy(server: Server) -> None:
    """Start it anew, with room. Killed: without room it takes its time to end."""
    server.kill()
    server.start()


async def short_of_disk(drain: Drain) -> None:
    """A server may say so, or fall silent: the words lead to the disk in either case."""
    await until(
        lambda: drain.health().state == "down" and "disk" in (drain.health().last_error or ""), WAIT_S
    )


async def test_influx_whose_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need(InfluxServer)
    server = InfluxServer(tmp_path / "influx")
    with server, closing(Influx(tmp_path, server.url, timeout_s=0.4)) as world:
        room(server, 50_000)
        world.tape.append(market(15_000, seed=3)[700:])
        start([world.trades])
        await short_of_disk(world.trades)
        await asyncio.to_thread(roomy, server)
        await mended([world.trades], world.end, caplog)
        await world.trades.stop()
        assert points(server, world.config) == wanted(world.tape)
        assert not world.refused


# Redis.

ACL = f"ACL SETUSER writer on >{PASSWORD} ~* &* "
REDIS = [
    (ACL + "+@all", WRONG, "correct REDIS_USER and REDIS_PASSWORD", f"ACL SETUSER writer >{WRONG}"),
    (ACL + "+@all off", PASSWORD, "correct REDIS_USER and REDIS_PASSWORD", "ACL SETUSER writer on"),
    ("PING", PASSWORD, "correct REDIS_USER and REDIS_PASSWORD", ACL + "+@all"),
    (ACL + "+@read +@connection", PASSWORD, "ACL SETUSER", "ACL SETUSER writer +@all"),
    (ACL + "+@read +@connection +@scripting", PASSWORD, "ACL SETUSER", "ACL SETUSER writer +@all"),
    (ACL + "+@all resetkeys ~other:*", PASSWORD, "ACL SETUSER", "ACL SETUSER writer ~*"),
    ("CONFIG SET maxmemory 1", None, "raise maxmemory", "CONFIG SET maxmemory 0"),
]


@pytest.mark.parametrize(("wrong", "password", "remedy", "mend"), REDIS)
async def test_redis_credentials_and_rights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str, password: str | None, remedy: str, mend: str
) -> None:
    need(RedisServer)
    with RedisServer(tmp_path / "redis") as server:
        ask(server.port, f"{wrong}\r\n".encode())
        who = {"user": "writer", "password": password} if password else {}
        world = redis_world.World(server, tmp_path, **who)
        world.trade(500)
        drains = [world.prices, world.ticks]
        start(drains)
        await told(drains, remedy, caplog)
        world.trade(200)
        assert b"+OK" in ask(server.port, f"{mend}\r\n".encode())
        await mended(drains, world.end, caplog)
        for drain in drains:
            await drain.stop()
        await world.assert_prices()
        await world.assert_stream()


async def test_redis_that_is_too_old(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need(RedisServer)
    new = RedisServer(tmp_path / "redis")
    with old_redis("5.0.14") as port:
        world = redis_world.World(new, tmp_path, addr=f"127.0.0.1:{port}")
        world.trade(500)
        drains: list[Drain] = [world.prices, world.ticks]
        start(drains)
        await told(drains, "is version 5.0.14: 6.2 or newer is needed", caplog)
    new.port = port
    with new:
        await mended(drains, world.end, caplog)
        for drain in drains:
            await drain.stop()
        await world.assert_stream()


# NATS.

ALL = 'jetstream: {}\nauthorization { users = [ { user: engine, password: "%s" } ] }\n'
TOKEN = "jetstream: {}\nauthorization { token: %s }\n"
DENY = 'jetstream: {}\nauthorization { users = [ { user: engine, password: "%s", permissions: { %s } } ] }\n'
ACCOUNT = 'jetstream: {}\naccounts { A { jetstream: { %s }, users: [ { user: engine, password: "%s" } ] } }\n'
NATS = [
    (ALL % PASSWORD, WRONG, "refuses the credentials", ALL % WRONG),
    (TOKEN % PASSWORD, WRONG, "write them into NATS_URL", TOKEN % WRONG),
    (
        DENY % (PASSWORD, 'publish: { deny: ["tradeback.ticks.>", "tradeback.price.>"] }'),
        PASSWORD, "grant it publish on tradeback.>", ALL % PASSWORD,
    ),
    (
        DENY % (PASSWORD, 'subscribe: { deny: ["_INBOX.>"] }'),
        PASSWORD, "subscribe on tradeback.> and _INBOX.>", ALL % PASSWORD,
    ),
    (ACCOUNT % ("max_file: 1MB", PASSWORD), PASSWORD, "max_file of the account", ACCOUNT % ("", PASSWORD)),
    ("max_payload: 300\n" + ALL % PASSWORD, PASSWORD, "raise max_payload", ALL % PASSWORD),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "password", "remedy", "mend"), NATS)
async def test_nats_credentials_rights_and_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str, password: str, remedy: str, mend: str
) -> None:
    need(NatsServer)
    who = password if "token:" in wrong else f"engine:{password}"
    with ConfiguredNats(tmp_path / "nats", wrong) as server, nats_world.open_tape(tmp_path) as tape:
        url = server.url.replace("//", f"//{who}@")
        config = nats_world.config_of(tmp_path, url, nats_world.node_name(), timeout_s=0.3)
        drain = nats_world.drains_of(config)["nats:ticks"]
        tape.append(nats_world.rows_of(700))
        start([drain])
        await told([drain], remedy, caplog)
        tape.append(nats_world.rows_of(300, 1))
        server.reload(mend)
        await mended([drain], tape.next_sequence - 1, caplog)
        await drain.stop()
        nats_world.check_exactly_once(await nats_world.stretches(config.nats), tape)


async def test_nats_without_jetstream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need(NatsServer)
    with ConfiguredNats(tmp_path / "nats", "") as server, nats_world.open_tape(tmp_path) as tape:
        config = nats_world.config_of(tmp_path, server.url, nats_world.node_name(), timeout_s=0.3)
        drain = nats_world.drains_of(config)["nats:ticks"]
        tape.append(nats_world.rows_of(700))
        start([drain])
        await told([drain], "JetStream is not enabled", caplog)
        server.reload("jetstream: {}\n")  # asks for a restart
        await asyncio.to_thread(server.restart)
        await mended([drain], tape.next_sequence - 1, caplog)
        await drain.stop()
        nats_world.check_exactly_once(await nats_world.stretches(config.nats), tape)


async def test_nats_prices_that_may_not_be_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody acknowledges them, and the drain knows it nevertheless."""
    need(NatsServer)
    wrong = DENY % (PASSWORD, 'publish: { deny: ["tradeback.price.>"] }')
    with ConfiguredNats(tmp_path / "nats", wrong) as server, nats_world.open_tape(tmp_path) as tape:
        url = server.url.replace("//", f"//engine:{PASSWORD}@")
        config = nats_world.config_of(tmp_path, url, nats_world.node_name())
        drains = nats_world.drains_of(config)
        tape.append(nats_world.rows_of(700))
        start(list(drains.values()))
        await told([drains["nats:prices"]], "tradeback.price.", caplog)
        await nats_world.drained(drains["nats:ticks"], tape)
        assert drains["nats:ticks"].health().state == "ok", "others are not concerned"
        server.reload(ALL % PASSWORD)
        tape.append(nats_world.rows_of(300, 1))
        await mended(list(drains.values()), tape.next_sequence - 1, caplog)
        for drain in drains.values():
            await drain.stop()


async def test_nats_with_too_many_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need(NatsServer)
    few = ConfiguredNats(tmp_path / "nats", "max_connections: 1\njetstream: {}\n")
    with few as server, nats_world.open_tape(tmp_path) as tape:
        config = nats_world.config_of(tmp_path, server.url, nats_world.node_name())
        async with nats_world.connected(config.nats):
            drain = nats_world.drains_of(config)["nats:ticks"]
            tape.append(nats_world.rows_of(700))
            start([drain])
            # Now and then the connection is gone before its reason has been read.
            await told([drain], "raise max_connections", caplog, only=False)
            server.reload("max_connections: 100\njetstream: {}\n")
            await mended([drain], tape.next_sequence - 1, caplog)
            await drain.stop()


async def test_nats_whose_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need(NatsServer)
    small = ConfiguredNats(tmp_path / "nats", "jetstream: {}\n")
    with small as server, nats_world.open_tape(tmp_path) as tape:
        config = nats_world.config_of(tmp_path, server.url, nats_world.node_name(), timeout_s=0.3)
        drain = nats_world.drains_of(config)["nats:ticks"]
        room(server, 50_000)
        for seed in range(20):
            tape.append(nats_world.rows_of(700, seed))
        start([drain])
        await short_of_disk(drain)
        await asyncio.to_thread(roomy, server)
        await mended([drain], tape.next_sequence - 1, caplog)
        await drain.stop()
        nats_world.check_exactly_once(await nats_world.stretches(config.nats), tape)
