"""edge/serve and edge/engine: an edge in this process, behind a hub without an exchange."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets

from tests.edge.hub_world import Answering, Hub, check_same, trim
from tests.servers.kinds import NatsServer
from tests.servers.process import free_port
from tests.sinks.nats_world import SYMBOLS, config_of
from tradeback.api.shapes import bars_json, enigma_json, price_json
from tradeback.edge import engine
from tradeback.edge.engine import check
from tradeback.edge.serve import serve
from tradeback.model.config import Config, FeedConfig, NatsConfig
from tradeback.model.errors import StartupError
from tradeback.stores import bus_nats
from tradeback.tape import follow

WAIT_S = 90.0


class Running:
    """An edge that serves."""

    def __init__(self, config: Config) -> None:
        self.stopping = asyncio.Event()
        self.url = ""
        self._open = asyncio.Event()
        self.task = asyncio.create_task(serve(config, self.stopping, self._opened))

    def _opened(self, url: str) -> None:
        self.url = url
        self._open.set()

    async def open(self) -> None:
        """Until the port is open."""
        await self._open.wait()

    async def ask(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a route."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/api/v1" + path) as answer:
            return answer.status, json.loads(await answer.text())

    async def until(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Look until it is true; whatever ends the edge is raised."""
        async with asyncio.timeout(WAIT_S):
            while True:
                if self.task.done():
                    self.task.result()
                with suppress(aiohttp.ClientError, KeyError):
                    if await done():
                        return
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Until it is ready."""

        async def is_ready() -> bool:
            return (await self.ask("/health/ready"))[0] == 200

        await self.until(is_ready)

    async def part(self, name: str) -> dict[str, Any]:
        """One component of its health."""
        _, detailed = await self.ask("/health/detailed")
        found: dict[str, Any] = {part["name"]: part for part in detailed["components"]}[name]
        return found


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    server = msgspec.structs.replace(config.server, port=0)
    edge = Running(msgspec.structs.replace(config, server=server))
    try:
        await asyncio.wait(
            {asyncio.ensure_future(edge.open()), edge.task}, return_when=asyncio.FIRST_COMPLETED
        )
        yield edge
    finally:
        edge.stopping.set()
        await edge.task


@pytest.fixture
async def hub(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Hub]:
    made = Hub(tmp_path / "hub", nats_server.url)
    yield made
    await made.stop()


@asynccontextmanager
async def answering(hub: Hub) -> AsyncIterator[Answering]:
    made = Answering(hub)
    await made.answers.start()
    try:
        yield made
    finally:
        await made.stop()


def edge_config(hub: Hub, folder: Path) -> Config:
    return config_of(folder, hub.config.nats.url, hub.node)


async def same_as(edge: Running, hub: Hub, series: Answering) -> None:
    """Prices, levels and open bars are the hub's, as soon as the edge has the hub's last record."""

    async def there() -> bool:
        sequence = (await edge.part("line:hub"))["details"]["sequence"]
        return bool(sequence == hub.tape.next_sequence - 1)

    await edge.until(there)
    await edge.ready()
    for symbol in SYMBOLS:
        state, level = series.derived.latest(symbol.id), series.derived.enigma(symbol.id)
        assert state is not None
        assert level is not None
        assert await edge.ask(f"/symbols/{symbol.symbol}/price") == (200, price_json(symbol, state))
        assert await edge.ask(f"/symbols/{symbol.symbol}/enigma") == (200, enigma_json(symbol, level))
        bars = series.derived.bars_open(symbol.id, 1)
        _, shown = await edge.ask(f"/symbols/{symbol.symbol}/bars?resolution=1m")
        keys = ("time", "open", "high", "low", "close", "volume", "trade_count")
        last = bars_json(bars, bars["trade_count"] > 0)[-1]
        assert {key: shown["bars"][-1][key] for key in keys} == {key: last[key] for key in keys}


async def test_the_whole_tape(hub: Hub, tmp_path: Path) -> None:
    hub.append(3_000)
    await hub.publish()
    async with answering(hub) as series, running(edge_config(hub, tmp_path / "edge")) as edge:
        await edge.ready()
        await series.fold()
        await same_as(edge, hub, series)
        for _ in range(10):
            hub.append(70)
            await asyncio.sleep(0.005)
        await hub.publish()
        await series.fold()
        await same_as(edge, hub, series)
        assert (await edge.part("hub"))["state"] == "ok"
        assert (await edge.part("bus"))["state"] == "ok"
    check_same(hub.tape, tmp_path / "edge")


async def test_an_edge_that_begins_in_the_middle_takes_over_the_hubs_state(hub: Hub, tmp_path: Path) -> None:
    for _ in range(6):
        hub.append(800)
        await hub.publish()
    await trim(hub, 3)
    async with answering(hub) as series:
        await series.fold()
        async with running(edge_config(hub, tmp_path / "edge")) as edge:
            await edge.ready()
            await same_as(edge, hub, series)
            hub.append(900)
            await hub.publish()
            await series.fold()
            await same_as(edge, hub, series)
        # Once more: what the store holds now leads there, too.
        hub.append(100)
        await hub.publish()
        await series.fold()
        async with running(edge_config(hub, tmp_path / "edge")) as edge:
            await edge.ready()
            await same_as(edge, hub, series)
    check_same(hub.tape, tmp_path / "edge")


async def test_a_hub_that_begins_an_epoch_and_one_whose_stream_forgets(hub: Hub, tmp_path: Path) -> None:
    hub.append(1_000)
    await hub.publish()
    async with running(edge_config(hub, tmp_path / "edge")) as edge:
        async with answering(hub) as series:
            await edge.ready()
            epoch = hub.tape.epoch
        client = await websockets.connect(edge.url.replace("http", "ws", 1) + "/api/v1/ws", compression=None)
        await hub.stop()
        follow.turn(hub.folder / "tape", follow.Place(epoch ^ 1, 801))
        (hub.folder / "series.sqlite").unlink()
        hub.__init__(hub.folder, hub.config.nats.url, hub.node)  # type: ignore[misc]
        hub.append(500)
        await hub.publish()
        async with answering(hub) as series:
            await series.fold()
            await edge.ready()
            await same_as(edge, hub, series)
        await client.wait_closed()
        assert client.close_code == 1012, "it is back in a moment"
    check_same(hub.tape, tmp_path / "edge")
    for _ in range(6):
        hub.append(500)
        await hub.publish()
    await trim(hub, 2)
    async with answering(hub) as series:
        await series.fold()
        async with running(edge_config(hub, tmp_path / "edge")) as edge:

            async def told() -> bool:
                return "edge:lost" in {
                    part["name"] for part in (await edge.ask("/health/detailed"))[1]["components"]
                }

            await edge.until(told)
            assert "are not in the stream any more" in (await edge.part("edge:lost"))["last_error"]
            await edge.ready()
            await same_as(edge, hub, series)
    check_same(hub.tape, tmp_path / "edge")


async def test_without_the_hub_what_was_copied_is_served(hub: Hub, tmp_path: Path) -> None:
    hub.append(500)
    await hub.publish()
    async with answering(hub), running(edge_config(hub, tmp_path / "edge")) as edge:
        await edge.ready()
    async with running(edge_config(hub, tmp_path / "edge")) as edge:
        await edge.ready()
        part = await edge.part("hub")
        assert (part["state"], part["last_error"].startswith(f"the hub {hub.node} does not answer")) == (
            "degraded",
            True,
        )
        assert (await edge.ask(f"/symbols/{SYMBOLS[0].symbol}/price"))[0] == 200


async def test_without_nats_what_was_copied_is_served(
    hub: Hub, tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_nats, "BACKOFF_MAX_S", 0.2)
    monkeypatch.setattr(engine, "CONNECT_S", 0.2)
    hub.append(500)
    await hub.publish()
    async with answering(hub) as series:
        async with running(edge_config(hub, tmp_path / "edge")) as edge:
            await edge.ready()
        nats_server.kill()
        async with running(edge_config(hub, tmp_path / "edge")) as edge:

            async def served() -> bool:
                return (await edge.ask(f"/symbols/{SYMBOLS[0].symbol}/price"))[0] == 200

            await edge.until(served)
            assert (await edge.part("line:hub"))["state"] == "down"
            nats_server.start()
            await edge.ready()
            hub.append(100)
            await hub.publish()
            await series.fold()
            await same_as(edge, hub, series)


async def test_nobody_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    config = config_of(tmp_path / "edge", f"nats://127.0.0.1:{free_port()}", "hub")
    async with running(config) as edge:

        async def told() -> bool:
            status, answer = await edge.ask("/health/ready")
            return status == 503 and "cannot be reached" in str(answer)

        await edge.until(told)
        assert "correct NATS_URL" in (await edge.part("bus"))["last_error"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(), "set NATS_URL"),
        (Config(nats=NatsConfig(url="nats://x", jetstream=False)), "unset NATS_JETSTREAM"),
        (Config(nats=NatsConfig(url="nats://x"), feed=FeedConfig(workers=2)), "unset FEED_WORKERS"),
    ],
)
def test_what_an_edge_cannot_do_is_refused(config: Config, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        check(config)
