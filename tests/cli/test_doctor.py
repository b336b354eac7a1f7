"""cli.doctor: each check on a sound machine and on a broken one."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.running import tradeback
from tradeback.cli import doctor
from tradeback.cli.children import Child
from tradeback.model.config import Config, ExchangeConfig, FeedConfig, ServerConfig, TapeConfig
from tradeback.ops import limits


@pytest.fixture
def closed_port() -> "AsyncIterator[int]":  # type: ignore[misc]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "open_files", lambda: (64, 600))
    assert doctor.check_files(Config(feed=FeedConfig(clients_max=88))).state == "ok"
    found = doctor.check_files(Config(feed=FeedConfig(clients_max=89)))
    assert found.state == "warn"
    assert "ulimit -Hn 601" in found.remedy
    assert "FEED_CLIENTS_MAX to 88" in found.remedy


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = TapeConfig(segment_bytes=1, retention_bytes=1)
    assert doctor.check_data_dir(Config(data_dir=str(tmp_path / "a" / "b"), tape=small)).state == "ok"
    assert not (tmp_path / "a").exists(), "a check changes nothing"
    huge = TapeConfig(segment_bytes=2**60, retention_bytes=2**60)
    found = doctor.check_data_dir(Config(data_dir=str(tmp_path), tape=huge))
    assert (found.state, "DATA_DIR" in found.remedy) == ("fail", True)
    (tmp_path / "file").write_text("")
    found = doctor.check_data_dir(Config(data_dir=str(tmp_path / "file" / "data"), tape=small))
    assert (found.state, "DATA_DIR" in found.remedy) == ("fail", True)


def test_kernel_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert "compiles" in doctor.check_cache().found
    (tmp_path / "x.nbc").write_text("")
    assert "filled" in doctor.check_cache().found
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "none"))
    assert doctor.check_cache().state == "warn"


def test_port(closed_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = doctor.check_port(Config(server=ServerConfig(port=server.getsockname()[1])))
    assert (busy.state, "SERVER_PORT" in busy.remedy) == ("fail", True)
    assert doctor.check_port(Config(server=ServerConfig(port=0))).state == "ok"
    assert doctor.check_port(Config(server=ServerConfig(host="no.such.host.invalid"))).state == "fail"


async def test_an_exchange_that_cannot_be_reached_names_the_demo(closed_port: int) -> None:
    here = f"127.0.0.1:{closed_port}"
    config = Config(exchange=ExchangeConfig(ws_endpoint=f"ws://{here}", rest_endpoint=f"http://{here}"))
    findings = await doctor.check_exchange(config)
    assert [found.state for found in findings] == ["fail", "fail"]
    assert all("tradeback demo" in found.remedy for found in findings)


@asynccontextmanager
async def clock_double(ahead_ms: int, answer: str = '{{"serverTime":{}}}') -> AsyncIterator[str]:
    """REST whose clock is `ahead_ms` before ours."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                body = answer.format(time.time_ns() // 1_000_000 + ahead_ms).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(body) + body)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("ahead_ms", "state"), [(0, "ok"), (400, "ok"), (-60_000, "warn"), (60_000, "warn")])
async def test_the_clocks_offset_is_within_its_bound(ahead_ms: int, state: str) -> None:
    async with clock_double(ahead_ms) as url:
        import aiohttp

        async with aiohttp.ClientSession(url) as http:
            bound_ms, offset_ms = await doctor._sample_clock(http)
        config = Config(exchange=ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint=url))
        rest, clock, _ = await doctor.check_exchange(config)
    assert abs(offset_ms + ahead_ms) <= bound_ms + 0.1
    assert rest.state == "ok"
    assert clock.state == state


@pytest.mark.parametrize("answer", ['{{"time":1}}', "no json {}", '{{"serverTime":null}}', "[]"])
async def test_rest_that_is_no_exchange_is_a_fault(answer: str) -> None:
    async with clock_double(0, answer) as url:
        config = Config(exchange=ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint=url))
        rest, _ = await doctor.check_exchange(config)
    assert rest.state == "fail"


async def test_through_the_command(tmp_path: Path, closed_port: int) -> None:
    simulator = await Child.start("the simulator", ("sim", "--port", "0", "--announce"), os.environ)
    exchange = await simulator.announcement(30)
    variables = {
        "EXCHANGE_WS_ENDPOINT": exchange["ws"],
        "EXCHANGE_REST_ENDPOINT": exchange["rest"],
        "DATA_DIR": str(tmp_path),
        "TAPE_RETENTION_BYTES": "64MiB",
        "SERVER_PORT": "0",
    }
    sound = await asyncio.to_thread(tradeback, "doctor", variables=variables)
    await simulator.stop()
    assert (sound.returncode, sound.stderr) == (0, ""), sound.stdout
    assert "accepts WebSockets" in sound.stdout
    broken = tradeback("doctor", variables={"FEED_LAG": "1"})
    assert broken.returncode == 1
    assert "FEED_LAG_MAX" in broken.stdout
