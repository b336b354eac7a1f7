"""cli.demo: the show over a scripted engine, the surroundings of its children, and the whole thing."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.client.engine_double import SYMBOLS, frame
from tradeback.cli import demo
from tradeback.cli.board import HOPS
from tradeback.cli.children import ChildFailed
from tradeback.ops.exposition import render
from tradeback.ops.metrics import Family, Histogram


class EngineDouble:
    """Ready from the `ready_after`th question on; sends a trade per ms; counts in /metrics."""

    def __init__(self, ready_after: int) -> None:
        self.asked = 0
        self._ready_after = ready_after
        self._hop = Histogram()

    async def ready(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=200 if self.asked >= self._ready_after else 503, text="kernels")

    async def metrics(self, request: web.Request) -> web.Response:
        self._hop.observe(40)
        family = Family(HOPS["receive to publish"], "histogram", "h").add(self._hop)
        return web.Response(body=render([family]))

    async def feed(self, request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(protocols=["tradeback.v1"])
        await connection.prepare(request)
        asked = await connection.receive_json()
        assert sorted(asked["channels"]) == ["enigma", "trades"]
        await connection.send_json({"type": "subscribed", "symbols": SYMBOLS})
        await connection.send_json({"type": "enigma", "data": {"symbol": "BTCUSDT", "level": 61.8}})
        price = 42_000.0
        with suppress(ConnectionResetError):
            while not connection.closed:
                price += 0.5
                await connection.send_bytes(frame((1, price, 1.0)))
                await asyncio.sleep(0.001)
        return connection


@asynccontextmanager
async def serving(engine: EngineDouble) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(
        [
            web.get("/api/v1/health/ready", engine.ready),
            web.get("/metrics", engine.metrics),
            web.get("/api/v1/ws", engine.feed),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_show_greets_and_prints_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "REFRESH_LINES_S", 0.05)
    engine = EngineDouble(ready_after=3)
    async with serving(engine) as url:
        await demo._show(demo.Choice(2, 10.0, None, None, 0.3), url)
    out = capsys.readouterr().out
    assert engine.asked == 3
    assert f"{url}/api/v1/symbols/BTCUSDT/price" in out
    assert f"tail BTCUSDT --url {url}" in out
    lines = [line for line in out.splitlines() if "trades/s" in line]
    assert len(lines) >= 2
    assert "p50 50 us p99 50 us" in lines[-1]
    assert re.search(r"BTCUSDT 42\d{3}\.\d0 enigma 61\.80", lines[-1])


async def test_an_engine_that_never_gets_ready_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "START_TIMEOUT_S", 0.1)
    async with serving(EngineDouble(ready_after=1_000_000)) as url, aiohttp.ClientSession(url) as http:
        with pytest.raises(Exception, match="not ready after 0 s: kernels"):
            await demo._until_ready(http)


class DyingChild:
    """Ends a moment after its connections have; or never."""

    def __init__(self, words: str | None) -> None:
        self._words = words

    async def failure(self) -> None:
        await asyncio.sleep(0.05 if self._words else 3_600)
        raise ChildFailed(f"the engine ended with exit code 1:\n  {self._words}", 1)


async def run_with(engine: DyingChild, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's run, whose engine does not answer."""

    async def start(*_: object) -> tuple[DyingChild, DyingChild, str]:
        return DyingChild(None), engine, "http://127.0.0.1:9"

    monkeypatch.setattr(demo, "_start", start)
    await demo._run(demo.Choice(2, 10.0, None, None, None))


async def test_an_engine_that_dies_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildFailed, match="tradeback: the disk is full"):
        await run_with(DyingChild("tradeback: the disk is full"), monkeypatch)


async def test_a_show_that_fails_for_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LAST_WORDS_WAIT_S", 0.02)
    with pytest.raises(aiohttp.ClientConnectorError):
        await run_with(DyingChild(None), monkeypatch)


def test_no_setting_of_the_caller_reaches_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("EXCHANGE_SYMBOLS", "EXCHANGE_TYPO", "CONFIG_PATH", "REDIS_ADDR", "SPIN", "LOG_LEVEL"):
        monkeypatch.setenv(variable, "x")
    monkeypatch.setenv("HARMLESS", "x")
    left = demo._environment()
    assert left["LOG_LEVEL"] == "error"
    assert "HARMLESS" in left
    assert not {"EXCHANGE_SYMBOLS", "EXCHANGE_TYPO", "CONFIG_PATH", "REDIS_ADDR", "SPIN"} & set(left)


def test_the_usual_port_if_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(demo, "PREFERRED_PORT", taken.getsockname()[1])
        assert demo._free_port() == 0
    assert demo._free_port() == demo.PREFERRED_PORT


async def start(*arguments: str, temporary: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradeback", "demo", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


async def test_the_whole_demo_for_some_seconds(tmp_path: Path) -> None:
    process = await start("--for", "4s", "--rate", "500", "--symbols", "5", temporary=tmp_path)
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, err.decode()
    lines = [line for line in out.decode().splitlines() if "trades/s" in line]
    assert len(lines) >= 3
    assert re.search(r"^\d symbols   \d+ trades/s", lines[-1])
    for hop in HOPS:
        assert re.search(rf"{hop} p50 \S+ \ws p99", lines[-1]), lines[-1]
    assert re.search(r"enigma \d+\.\d\d", lines[-1])
    assert list(tmp_path.iterdir()) == [], "the temporary tape is removed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_whole_demo_ends_cleanly_when_told(tmp_path: Path, number: signal.Signals) -> None:
    process = await start(temporary=tmp_path)
    assert process.stdout is not None
    while b"trades/s" not in (line := await asyncio.wait_for(process.stdout.readline(), 90)):
        assert line, "it ended by itself"
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, b"Traceback" in err) == (0, False)
    assert list(tmp_path.iterdir()) == []
