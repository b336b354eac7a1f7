"""A run with all four servers on: what each holds equals the tape, over crashes and hangs of everybody."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from tests.flow import oracle
from tests.flow.all_servers import Servers, check_all, components, drained, metrics, resident_bytes
from tests.flow.replaying import trades_of
from tests.flow.running import Engine, running_engine, running_market, until
from tests.flow.test_edge import Client, check_client, check_stream
from tests.servers.fixtures import need
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server, ask
from tradeback.client import scrape
from tradeback.model.record import QUOTE
from tradeback.sim.config import SimConfig
from tradeback.sim.recording import Recording
from tradeback.sim.server import SimServer
from tradeback.wire.v2_exact import ExactCodec

FILES = "*2024*"
SPAN_S = 40
"""Of the recording, before and after midnight."""
SPEED = 10.0
STREAMS = 12
"""Two symbols, three kinds, two lines."""
SYMBOLS, RATE = 3, 1_500.0
STEP_ROWS = 1_500
FULL = os.environ.get("TRADEBACK_FLOW") == "full"
"""As people run it: the time-outs of the default configuration, and hangs of half a minute."""
SOON = {"REDIS_TIMEOUT": "500ms", "NATS_TIMEOUT": "1s", "MYSQL_TIMEOUT": "1s", "INFLUX_TIMEOUT": "1500ms"}
"""So that time-outs fire in seconds."""
HANG_ROWS = int(RATE * (30 if FULL else 4))
"""Records that come while a server hangs, from when the engine has noticed."""
WITHIN_S = 60.0
LOADED, GROWTH_MAX = 170 << 20, 64 << 20
"""Bytes of a process that has loaded everything, and what it may grow while its servers are in trouble."""
LATENCY = "tradeback_publish_latency_seconds"


@pytest.fixture
def servers(
    tmp_path: Path, nats_server: NatsServer, mariadb_server: MariadbServer, influx_server: InfluxServer
) -> Iterator[Servers]:
    """All four; a Redis that remembers, as it must to hold every batch over a crash."""
    need(RedisServer)
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as redis:
        name = f"flow_{secrets.token_hex(4)}"
        made = Servers(name, redis, nats_server, mariadb_server, influx_server)
        made.prepare()
        yield made


async def test_every_store_equals_the_tape_of_a_recording(
    shared_folder: Path, tmp_path: Path, servers: Servers
) -> None:
    files = sorted((shared_folder / "data/binance/spot_ws").glob(FILES))
    folder = around_midnight(files, tmp_path / "recording")
    recorded = oracle.read(folder.glob(FILES))
    exchange = await SimServer.start(
        Recording(folder, files=FILES), SimConfig(speed=SPEED, start_after_streams=-1)
    )
    consumer = await nats.connect(servers.nats.url)
    try:
        where = {"ws": exchange.ws_url, "rest": exchange.rest_url}
        async with running_engine(tmp_path / "data", where, **servers.variables) as engine:
            await until(lambda: exchange.hub.subscriptions == STREAMS, "the engine's subscriptions")
            frames: list[bytes] = []
            subject = f"tradeback.ticks.{servers.name}"

            async def take(message: Msg) -> None:
                frames.append(message.data)

            await until(lambda: has_stream(consumer, subject), "the stream", WITHIN_S)
            await consumer.jetstream().subscribe(subject, cb=take, ordered_consumer=True)
            exchange.play()
            await exchange.finished()
            expected = sum(len(one.trades) + len(one.quotes) for one in recorded.values())
            await until(lambda: ticks_of(engine) >= expected, "the recording on the tape", WITHIN_S)
            await engine.history_complete()
            await drained(engine)
            rows = await check_all(engine, servers)
            for each in await engine.get("/api/v1/symbols"):
                trades = trades_of(rows, each["id"])
                assert trades["id"].tolist() == [trade.id for trade in recorded[each["symbol"]].trades]
            codec = ExactCodec()
            codec.attach()

            def consumed() -> bool:
                return bool(frames) and codec.decode(frames[-1]).end == len(rows) + 1

            await until(consumed, "the consumer at the tape's end", WITHIN_S)
            check_stream([codec.decode(frame) for frame in frames], engine.data_dir)
            await engine.stop()
    finally:
        await consumer.close()
        await exchange.stop()


def around_midnight(files: list[Path], folder: Path) -> Path:
    """The seconds in which bars of every resolution end."""
    midnight_ns = min(next(oracle.lines_of(file))[0] for file in files if "20240809" in file.name)
    return oracle.cut(files, midnight_ns - SPAN_S * 10**9, midnight_ns + SPAN_S * 10**9, folder)


async def has_stream(consumer: Connection, subject: str) -> bool:
    with contextlib.suppress(NotFoundError):
        return bool(await consumer.jetstream().find_stream_name_by_subject(subject))
    return False


def ticks_of(engine: Engine) -> int:
    """Trades and quotes on the tape."""
    rows = engine.tape().read(1, 1 << 22)
    return int((rows["kind"] <= QUOTE).sum())


def head_of(engine: Engine) -> int:
    return engine.tape().next_sequence - 1


async def more(engine: Engine, count: int) -> None:
    """Until the tape has grown: the engine goes on, whatever its servers do."""
    end = head_of(engine) + count
    await until(lambda: head_of(engine) >= end, f"{count} records more", WITHIN_S)


async def sinks_are_well(engine: Engine) -> bool:
    found = await components(engine)
    parts = [part for name, part in found.items() if name.startswith(("sink:", "store:registry"))]
    return bool(parts) and all(part["state"] == "ok" for part in parts)


async def are_well(engine: Engine, names: Sequence[str]) -> bool:
    found = await components(engine)
    return all(found[name]["state"] == "ok" for name in names)


async def kill_process(engine: Engine, name: str) -> None:
    """kill -9 of one process of the engine; back when another one is there."""
    before = (await components(engine))[f"process:{name}"]["details"]
    os.kill(before["pid"], signal.SIGKILL)

    async def back() -> bool:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            part = (await components(engine)).get(f"process:{name}")
            return (
                part is not None
                and part["state"] == "ok"
                and part["details"]["restarts"] > before["restarts"]
            )
        return False

    await until(back, f"{name} again", WITHIN_S)


class Latency:
    """Socket to socket, in the engine's own words, by what happened meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[str, scrape.Buckets] = {}

    @contextlib.asynccontextmanager
    async def during(self, phase: str) -> AsyncIterator[None]:
        """Count what the body lets pass to the phase."""
        before = scrape.histogram(await metrics(self._engine), LATENCY)
        yield
        passed = scrape.since(before, scrape.histogram(await metrics(self._engine), LATENCY))
        held = self._held.setdefault(phase, dict.fromkeys(passed, 0.0))
        for bound, count in passed.items():
            held[bound] += count

    def told(self) -> str:
        """p50 and p99 of every phase."""
        return ", ".join(
            f"{phase}: p50 {(scrape.quantile(held, 0.5) or 0) * 1e3:.3f}, "
            f"p99 {(scrape.quantile(held, 0.99) or 0) * 1e3:.3f} ms"
            for phase, held in self._held.items()
        )


async def noticed(engine: Engine, names: Sequence[str], words: str = "") -> None:
    """Until these components are not well, with `words` in what they say: a time-out has fired."""
    said: dict[str, Any] = {}

    async def all_have() -> bool:
        found = await components(engine)
        said.update({name: found[name] for name in names})
        return all(
            part["state"] not in ("ok", "starting") and words in (part["last_error"] or "")
            for part in said.values()
        )

    assert await until(all_have, "what is wrong to be noticed", WITHIN_S, strict=False), said


async def full(engine: Engine, servers: Servers) -> None:
    """Redis takes nothing for a while, because its memory is full; reads go on."""
    assert ask(servers.redis.port, b"CONFIG SET maxmemory 1\r\n") == b"+OK\r\n"
    await noticed(engine, servers.noticing(servers.redis), "its memory is full: raise maxmemory")
    await more(engine, STEP_ROWS)
    assert ask(servers.redis.port, b"CONFIG SET maxmemory 0\r\n") == b"+OK\r\n"


async def trouble(engine: Engine, servers: Servers, each: Server, latency: Latency) -> None:
    """Crash, hang and restart of one server, with trades during each."""
    async with latency.during("crashed"):
        await asyncio.to_thread(each.kill)
        await more(engine, STEP_ROWS)
    await asyncio.to_thread(each.start)
    await more(engine, STEP_ROWS)
    await until(lambda: are_well(engine, servers.noticing(each)), f"{each.program} again", WITHIN_S)
    async with latency.during("hanging"):
        each.pause()
        await noticed(engine, servers.noticing(each))
        await more(engine, HANG_ROWS)
    each.resume()
    await more(engine, STEP_ROWS)
    await asyncio.to_thread(each.restart)


async def test_every_store_is_complete_whoever_is_killed(tmp_path: Path, servers: Servers) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"the order is that of seed {seed}")
    each: list[Server] = [servers.redis, servers.nats, servers.mariadb, servers.influx]
    random.Random(seed).shuffle(each)
    data_dir, client = tmp_path / "data", Client()
    servers.more = {} if FULL else SOON
    async with running_market(tmp_path, SYMBOLS, RATE) as market:
        async with running_engine(data_dir, market.announced, **servers.variables) as engine:
            watching = asyncio.create_task(client.watch(engine))
            await until(lambda: sinks_are_well(engine), "all servers", WITHIN_S)
            latency = Latency(engine)
            async with latency.during("calm"):
                await more(engine, 2 * STEP_ROWS)
            memory, most = await resident_bytes(engine), await resident_bytes(engine)
            for server in each:
                await trouble(engine, servers, server, latency)
                most = {name: max(most[name], held) for name, held in (await resident_bytes(engine)).items()}
            await full(engine, servers)
            print(latency.told())
            for name, held in most.items():
                print(f"{name}: {memory[name] >> 20} -> {held >> 20} MiB")
                assert held < max(memory[name], LOADED) + GROWTH_MAX, (
                    f"{name}: {memory[name]} -> {held} bytes"
                )
            await kill_process(engine, "recorder")
            await more(engine, STEP_ROWS)
            assert not watching.done(), "the client lost its connection"
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await kill_process(engine, "engine")
            await more(engine, STEP_ROWS)
        # Here all processes were killed at once, in full stream.
        async with running_engine(data_dir, market.announced, **servers.variables) as engine:
            watching = asyncio.create_task(client.watch(engine))
            await more(engine, STEP_ROWS)
            await engine.history_complete()
            market.child.send_signal(signal.SIGSTOP)
            await drained(engine)
            await check_all(engine, servers)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await engine.stop()
            market.child.send_signal(signal.SIGCONT)
    check_client(client, data_dir)
