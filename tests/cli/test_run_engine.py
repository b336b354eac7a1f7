"""cli.run with the real engine: what is refused at start, and an exchange that cannot be reached."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.cli.running import refused, tradeback
from tests.nobody import somebody_else
from tradeback.cli.children import Child


@pytest.fixture
async def exchange() -> AsyncIterator[dict[str, str]]:
    """Variables that name a simulated exchange."""
    arguments = ("sim", "--port", "0", "--announce", "--symbols", "3", "--rate", "100")
    simulator = await Child.start("the simulator", arguments, os.environ)
    try:
        addresses = await simulator.announcement(30)
        yield endpoints(addresses["ws"], addresses["rest"])
    finally:
        await simulator.stop()


def endpoints(streams: str, rest: str) -> dict[str, str]:
    return {"EXCHANGE_WS_ENDPOINT": streams, "EXCHANGE_REST_ENDPOINT": rest, "SERVER_PORT": "0"}


async def refusal(data_dir: Path, variables: dict[str, str]) -> str:
    return refused(
        await asyncio.to_thread(tradeback, "run", "--data-dir", str(data_dir), variables=variables)
    )


async def test_a_busy_port(tmp_path: Path, exchange: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        line = await refusal(tmp_path, {**exchange, "SERVER_PORT": port})
    assert port in line
    assert "SERVER_PORT" in line


async def test_an_unwritable_data_folder(tmp_path: Path, exchange: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    line = await refusal(tmp_path / "file" / "data", exchange)
    assert str(tmp_path / "file") in line
    assert "DATA_DIR" in line


async def test_unknown_symbols(tmp_path: Path, exchange: dict[str, str]) -> None:
    line = await refusal(tmp_path, {**exchange, "EXCHANGE_SYMBOLS": "BTCUSDT,NOPEUSDT,NADAUSDT"})
    assert "NOPEUSDT" in line
    assert "NADAUSDT" in line
    assert "EXCHANGE_SYMBOLS" in line


async def test_an_endpoint_that_is_no_exchange(tmp_path: Path) -> None:
    async with somebody_else() as here:
        line = await refusal(tmp_path, endpoints(f"ws://{here}", f"http://{here}"))
    assert here in line
    assert "EXCHANGE_REST_ENDPOINT" in line


async def test_an_exchange_that_cannot_be_reached_is_said_plainly_and_tried_again(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tradeback", "run", "--announce", "--data-dir", str(tmp_path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **endpoints(f"ws://{here}", f"http://{here}")},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        url = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["http"]
        while "tradeback demo" not in (await asyncio.wait_for(process.stderr.readline(), 30)).decode():
            assert process.returncode is None
        async with aiohttp.ClientSession(url) as http:
            async with http.get("/api/v1/health/live") as live:
                assert live.status == 200
            async with http.get("/api/v1/health/ready") as ready:
                assert ready.status == 503
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b"")
