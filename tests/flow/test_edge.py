"""A hub and two edges behind one NATS server, as processes: the same tape, and no client loses anything."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from tests.flow.running import Engine, running_engine, running_market, until
from tests.flow.watching import Watcher
from tests.servers.kinds import NatsServer
from tests.sinks.nats_world import stretches
from tradeback.client import Feed, connect
from tradeback.model.config import NatsConfig
from tradeback.model.record import TRADE, Rows
from tradeback.tape.audit import problems
from tradeback.tape.reader import TapeReader
from tradeback.wire.v2_exact import Stretch

SYMBOLS = 3
RATE = 1_500.0
NODE = "flow-edge"
Key = tuple[int, int]
"""Symbol id and trade id."""


@asynccontextmanager
async def running_edge(folder: Path, variables: Mapping[str, str]) -> AsyncIterator[Engine]:
    """An edge that is ready; killed at the end unless it was stopped."""
    folder.mkdir(exist_ok=True)
    given = {"SERVER_PORT": "0", "DATA_DIR": str(folder), **variables}
    edge = await Engine.start("edge", "--announce", log=folder / "log", variables=given)
    edge.data_dir = folder
    try:
        await edge.announcement()
        await edge.ready()
        yield edge
    finally:
        await edge.kill()


class Client:
    """Trades of every symbol over version 2, resumed wherever it goes."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.position: tuple[int, int] | None = None
        self.lost: list[object] = []
        self.feed: Feed

    async def watch(self, engine: Engine) -> None:
        """Until the connection breaks, or this is cancelled."""
        feed = connect(engine.url, resume=self.position, reconnect=False, version=2, on_lost=self.lost.append)
        self.feed = feed
        async with feed:
            async for batch in feed:
                trades: Any = batch.trades
                live = trades[(trades["flags"] & 16) == 0]  # not of a snapshot
                self.seen += zip(live["symbol_id"].tolist(), live["id"].tolist(), strict=True)
                self.position = feed.position

    async def until_seen(self, more: int) -> None:
        """Until so many trades more have come."""
        count = len(self.seen) + more
        await until(lambda: len(self.seen) >= count, f"{more} trades more", 40)


def all_rows(folder: Path) -> tuple[int, int, Rows]:
    """(epoch, first sequence, all records) of a tape with one epoch."""
    reader = TapeReader(folder / "tape")
    first = at = reader.oldest_sequence
    parts, epochs = [], set()
    while True:
        epoch, rows = reader.read_with_epoch(at, 65_536)
        if not len(rows):
            break
        parts.append(rows)
        epochs.add(epoch)
        at += len(rows)
    assert len(epochs) == 1
    return epochs.pop(), first, np.concatenate(parts)


async def answers(engine: Engine) -> dict[str, Any]:
    """What its API says of the market, which stands still."""
    found: dict[str, Any] = {}
    for symbol in await engine.get("/api/v1/symbols"):
        name = symbol["symbol"]
        found[name] = symbol
        for what in ("price", "enigma"):
            found[f"{name} {what}"] = await engine.get(f"/api/v1/symbols/{name}/{what}")
        for resolution in ("1s", "1m", "1h"):
            bars = await engine.get(f"/api/v1/symbols/{name}/bars", resolution=resolution)
            found[f"{name} {resolution}"] = bars["bars"][-20:]
    return found


def differing(hub: dict[str, Any], edge: dict[str, Any]) -> list[Any]:
    """What is not the same, bar by bar."""
    found: list[Any] = [] if hub.keys() == edge.keys() else [hub.keys() ^ edge.keys()]
    for name in hub:
        if hub[name] != edge[name] and isinstance(hub[name], list):
            one: dict[str, Any]
            two: dict[str, Any]
            empty: dict[str, Any] = {}
            for one, two in zip_longest(hub[name], edge[name], fillvalue=empty):
                keys = [key for key in {**one, **two} if one.get(key) != two.get(key)]
                found += [(name, one.get("time"), key, one.get(key), two.get(key)) for key in keys]
        elif hub[name] != edge[name]:
            found.append((name, hub[name], edge[name]))
    return found


async def same_answers(hub: Engine, edge: Engine) -> None:
    """Until the edge says what the hub says: it asks a second time for bars that the hub learns late, too."""
    found: list[Any] = []

    async def same() -> bool:
        found[:] = differing(await answers(hub), await answers(edge))
        return not found

    assert await until(same, "the same answers", 40, strict=False), "\n".join(map(str, found))


async def same_settlements(*engines: Engine) -> None:
    """One price at a time, and one proof, wherever it is asked for."""
    for symbol in await engines[0].get("/api/v1/symbols"):
        name = symbol["symbol"]
        at_ms = (await engines[0].get(f"/api/v1/symbols/{name}/price"))["timestamp"] - 1_500
        found = []
        for engine in engines:
            body = {"symbol": name, "time": at_ms}
            async with (
                aiohttp.ClientSession(engine.url) as http,
                http.post("/api/v1/settlements", json=body) as answer,
            ):
                assert answer.status == 201, await answer.text()
                made = await answer.json()
            found.append([made[key] for key in ("status", "price", "trade_id", "trade_time", "proof")])
        assert found[0][0] == "settled", found
        assert found == found[:1] * len(engines)


async def sequence_of(engine: Engine) -> int:
    """Its tape's end."""
    return engine.tape().next_sequence


async def part(engine: Engine, name: str) -> dict[str, Any]:
    """One component of the health."""
    detailed = await engine.get("/api/v1/health/detailed")
    (found,) = (each for each in detailed["components"] if each["name"] == name)
    return dict(found)


async def same_end(*engines: Engine) -> None:
    """Until all tapes end at one record."""

    async def same() -> bool:
        return len({await sequence_of(engine) for engine in engines}) == 1

    await until(same, "tapes of one length", 40)


async def test_two_edges_behind_one_hub(tmp_path: Path, nats_server: NatsServer) -> None:
    bus = {"NATS_URL": nats_server.url, "NATS_NODE": NODE, "NATS_STREAM_BYTES": "64MiB"}
    async with running_market(tmp_path, SYMBOLS, RATE) as market:  # noqa: SIM117
        async with running_engine(tmp_path / "hub", market.announced, **bus) as hub:
            async with running_edge(tmp_path / "a", bus) as one, running_edge(tmp_path / "b", bus) as two:
                client = Client()
                watching = asyncio.create_task(client.watch(one))
                await client.until_seen(500)

                # The server crashes, and hangs, in full stream.
                await asyncio.to_thread(nats_server.kill)
                await asyncio.to_thread(nats_server.start)
                await client.until_seen(500)
                nats_server.pause()
                await until_down(one)
                nats_server.resume()
                await client.until_seen(500)

                # The hub's recorder, which publishes, dies in the middle.
                os.kill((await part(hub, "process:recorder"))["details"]["pid"], signal.SIGKILL)
                await client.until_seen(500)

                # An edge dies; its client goes on at the other one.
                os.kill(one.child.pid, signal.SIGKILL)
                with suppress(Exception):
                    await asyncio.wait_for(watching, 30)
                watching = asyncio.create_task(client.watch(two))
                await client.until_seen(500)

                # It comes again and catches up, behind where it was.
                await one.kill()
                async with running_edge(tmp_path / "a", bus) as again:
                    await hub.history_complete()
                    market.child.send_signal(signal.SIGSTOP)
                    await same_end(hub, again, two)
                    await until(lambda: reached(client, two), "the client at the tape's end", 30)
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                    await same_answers(hub, again)
                    await same_answers(hub, two)
                    await same_settlements(hub, again, two)
                    for edge in (again, two):
                        line = await part(edge, "line:hub")
                        assert (line["state"], line["last_error"]) == ("ok", None)
                        watcher = await Watcher.subscribe(edge.feed_url)
                        await edge.stop()
                        await watcher.end()
                        assert watcher.code == 1001
            await hub.stop()
            market.child.send_signal(signal.SIGCONT)
    check_client(client, tmp_path / "hub")
    check_stream(await stretches(NatsConfig(url=nats_server.url, node=NODE)), tmp_path / "hub")
    for name in ("a", "b"):
        check_same_as_far(tmp_path / "hub", tmp_path / name)


async def until_down(edge: Engine) -> None:
    """Until the edge has noticed that the server hangs."""

    async def down() -> bool:
        return bool((await part(edge, "line:hub"))["state"] != "ok")

    await until(down, "an edge that notices", 40)


def reached(client: Client, engine: Engine) -> bool:
    """Whether the client has everything that the engine has."""
    position = client.feed.position  # heartbeats move it, too
    return position is not None and position.sequence >= engine.tape().next_sequence


def check_client(client: Client, hub: Path) -> None:
    """Every trade of the hub's tape from its first one on, once, in order."""
    assert client.lost == []
    _, _, rows = all_rows(hub)
    trades = rows[rows["kind"] == TRADE]
    truth = list(zip(trades["symbol_id"].tolist(), trades["id"].tolist(), strict=True))
    begin = truth.index(client.seen[0])
    assert client.seen == truth[begin : begin + len(client.seen)]


def check_stream(found: list[Stretch], hub: Path) -> None:
    """The stream holds the hub's tape up to where it ends: every record once, in order, bit by bit."""
    epoch, at, rows = all_rows(hub)
    for stretch in found:
        assert (stretch.epoch, stretch.first) == (epoch, at)
        assert stretch.rows.tobytes() == rows[at - 1 : stretch.end - 1].tobytes()
        at = stretch.end
    assert at - 1 == len(rows)


def check_same_as_far(hub: Path, edge: Path) -> None:
    """The edge's tape is the hub's up to where the edge was stopped, record by record, checksums included."""
    epoch, first, rows = all_rows(edge)
    hub_epoch, hub_first, hub_rows = all_rows(hub)
    assert (epoch, first) == (hub_epoch, hub_first)
    assert rows.tobytes() == hub_rows[: len(rows)].tobytes()
    assert list(problems(TapeReader(edge / "tape"), lambda segment, count: None)) == []
