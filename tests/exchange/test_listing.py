"""exchange.listing: which symbols, from an exchange that may be away, refuse, or be none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from tests.exchange.harness import CLOCK, QUICK, Logbook
from tests.exchange.test_rest import answering
from tradeback.exchange.listing import Listing
from tradeback.model.errors import StartupError
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.stores.registry_sqlite import RegistrySqlite


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistrySqlite]:
    made = RegistrySqlite(tmp_path / "registry.sqlite")
    yield made
    made.close()


@pytest.fixture
async def exchange() -> AsyncIterator[SimServer]:
    server = await SimServer.start(Synthetic(6, 10.0, unicode_names=True), SimConfig())
    yield server
    await server.stop()


async def ask(
    registry: RegistrySqlite, endpoint: str, *names: str, log: Logbook | None = None, seconds: float = 10
) -> list[str]:
    config = msgspec.structs.replace(QUICK, rest_endpoint=endpoint, symbols=names or ("*",))
    listing = Listing(config, log or Logbook(), CLOCK)
    try:
        async with asyncio.timeout(seconds):
            return [symbol.symbol for symbol in await listing.symbols(registry)]
    finally:
        await listing.close()


async def test_named_symbols_in_their_order_with_stable_ids(
    registry: RegistrySqlite, exchange: SimServer
) -> None:
    assert await ask(registry, exchange.rest_url, "ETHUSDT", "BTCUSDT") == ["ETHUSDT", "BTCUSDT"]
    assert {symbol.symbol: symbol.id for symbol in registry.symbols()} == {"ETHUSDT": 1, "BTCUSDT": 2}
    assert await ask(registry, exchange.rest_url) == list(exchange.source.books)
    assert registry.symbols()[0].symbol == "ETHUSDT"


async def test_all_means_what_trades_and_fits(registry: RegistrySqlite) -> None:
    names = {"BTCUSDT": "TRADING", "OLDUSDT": "BREAK", "币" * 8 + "USDT": "TRADING", "A" * 23: "TRADING"}
    entries = [{"symbol": name, "status": status, "filters": []} for name, status in names.items()]
    async with answering(lambda request: web.json_response({"symbols": entries})) as (rest, _):
        assert await ask(registry, rest.endpoint) == ["BTCUSDT", "A" * 23]
        assert await ask(registry, rest.endpoint, "OLDUSDT") == ["OLDUSDT"], "who names it gets it"


async def test_unknown_symbols(registry: RegistrySqlite, exchange: SimServer) -> None:
    with pytest.raises(StartupError, match="NOPEUSDT, NADAUSDT: correct EXCHANGE_SYMBOLS") as refused:
        await ask(registry, exchange.rest_url, "BTCUSDT", "NOPEUSDT", "NADAUSDT")
    assert "BTCUSDT" not in str(refused.value)
    assert registry.symbols() == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (200, b"<html>It works!"), (200, b"{}"), (401, b""), (405, b"{}"),
     (451, b'{"code":0,"msg":"no"}'),
     (200, b'{"symbols":[{"name":"x"}]}')],
)  # fmt: skip
async def test_an_address_that_is_no_exchange(registry: RegistrySqlite, status: int, body: bytes) -> None:
    async with answering(lambda request: web.Response(status=status, body=body)) as (rest, requests):
        with pytest.raises(StartupError, match="EXCHANGE_REST_ENDPOINT") as refused:
            await ask(registry, rest.endpoint)
        assert rest.endpoint in str(refused.value)
        assert len(requests) == 1


async def test_the_stream_port_is_no_rest(registry: RegistrySqlite, exchange: SimServer) -> None:
    with pytest.raises(StartupError, match="EXCHANGE_REST_ENDPOINT"):
        await ask(registry, exchange.ws_url.replace("ws://", "http://"))


async def test_unreachable_is_said_with_the_way_out_until_it_answers(registry: RegistrySqlite) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = Logbook()
    asking = asyncio.create_task(ask(registry, f"http://127.0.0.1:{port}", "BTCUSDT", log=log))
    while len(log.of("tradeback demo")) < 2:
        await asyncio.sleep(0.002)
    assert not asking.done()
    server = await SimServer.start(Synthetic(1, 10.0), SimConfig(rest_port=port))
    try:
        assert await asking == ["BTCUSDT"]
    finally:
        await server.stop()
    level, event, fields = log.lines[0]
    assert level == "warning"
    assert f"http://127.0.0.1:{port} cannot be reached" in event
    assert "again_in_s" in fields


async def test_trouble_of_the_exchange_is_waited_for(registry: RegistrySqlite) -> None:
    statuses = [503, 500, 408]

    def handler(request: web.Request) -> web.Response:
        if statuses:
            return web.Response(status=statuses.pop())
        return web.json_response({"symbols": [{"symbol": "BTCUSDT", "status": "TRADING"}]})

    async with answering(handler) as (rest, requests):
        assert await ask(registry, rest.endpoint, "BTCUSDT") == ["BTCUSDT"]
        assert len(requests) == 4


async def test_a_limit_is_waited_for(registry: RegistrySqlite) -> None:
    answers = [web.Response(status=429, headers={"Retry-After": "1"})]
    times = []

    def handler(request: web.Request) -> web.Response:
        times.append(asyncio.get_running_loop().time())
        return answers.pop() if answers else web.json_response({"symbols": [{"symbol": "BTCUSDT"}]})

    log = Logbook()
    async with answering(handler) as (rest, _):
        assert await ask(registry, rest.endpoint, "BTCUSDT", log=log) == ["BTCUSDT"]
    assert times[1] - times[0] >= 1.0
    assert log.of("asks to wait 1 s")


async def test_without_the_exchange_the_last_run_s_symbols_serve(
    registry: RegistrySqlite, exchange: SimServer
) -> None:
    await ask(registry, exchange.rest_url, "ETHUSDT", "BTCUSDT")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        log = Logbook()
        assert await ask(registry, nowhere, "BTCUSDT", log=log) == ["BTCUSDT"]
        assert await ask(registry, nowhere) == ["ETHUSDT", "BTCUSDT"]
        assert any("tradeback demo" in str(line) for line in log.lines)
        with pytest.raises(TimeoutError):
            await ask(registry, nowhere, "BTCUSDT", "SOLUSDT", seconds=0.3)
