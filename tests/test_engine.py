"""engine: starts, stops, what is left behind, and how it says what it waits for."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.exchange.harness import until
from tradeback.engine import Engine
from tradeback.model.config import Config, ExchangeConfig, ServerConfig, TapeConfig
from tradeback.model.errors import StartupError, TapeError
from tradeback.model.record import TRADE
from tradeback.ops.clock import SystemClock
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.tape.reader import TapeReader


@pytest.fixture
async def exchange() -> AsyncIterator[SimServer]:
    server = await SimServer.start(Synthetic(2, 400.0), SimConfig(connections_per_window=1_000))
    yield server
    await server.stop()


def engine_for(folder: Path, exchange: SimServer | None, **more: Any) -> Engine:
    nowhere = "127.0.0.1:1"
    rest = exchange.rest_url if exchange else f"http://{nowhere}"
    streams = exchange.ws_url if exchange else f"ws://{nowhere}"
    symbols = more.pop("symbols", ("BTCUSDT", "ETHUSDT"))
    lines = ExchangeConfig(
        ws_endpoint=streams, rest_endpoint=rest, symbols=symbols, backoff_first_s=0.01, backoff_max_s=0.05,
        lines=more.pop("lines", 1),
    )  # fmt: skip
    server = more.pop("server", ServerConfig(port=0))
    config = Config(
        server=server, exchange=lines, tape=TapeConfig(hot_rows=4096), data_dir=str(folder), **more
    )
    return Engine(config, SystemClock())


async def status(engine: Engine, path: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{engine.url}/api/v1{path}") as answer:
        await answer.read()
        return answer.status


async def until_ready(engine: Engine) -> None:
    async with asyncio.timeout(30):
        while await status(engine, "/health/ready") != 200:
            await asyncio.sleep(0.01)


def rows_of(engine: Engine) -> int:
    assert engine.tape is not None
    return engine.tape.next_sequence - 1


async def test_the_port_is_open_before_the_kernels_and_ready_follows(
    tmp_path: Path, exchange: SimServer
) -> None:
    engine = engine_for(tmp_path, exchange)
    await engine.start()
    try:
        assert engine.parts is None
        assert await status(engine, "/health/live") == 200
        await until_ready(engine)
        assert engine.parts is not None
        await until(lambda: rows_of(engine) > 100)
        assert await status(engine, "/symbols/BTCUSDT/price") == 200
        assert await status(engine, "/health") == 200
        assert await status(engine, "/metrics") == 200
    finally:
        await engine.stop()
    # What was shown is on the disk, in order, each trade once.
    rows = TapeReader(tmp_path / "tape").read(1, 1 << 20)
    for symbol_id in (1, 2):
        ids = rows["id"][(rows["kind"] == TRADE) & (rows["symbol_id"] == symbol_id)].tolist()
        assert ids == list(range(ids[0], ids[0] + len(ids)))


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_many_starts_and_stops_leave_nothing_behind(tmp_path: Path, exchange: SimServer) -> None:
    async def once(number: int, wait: Callable[[Engine], Any]) -> None:
        engine = engine_for(tmp_path / "same", exchange, lines=1 + number % 2)
        await engine.start()
        try:
            await wait(engine)
        finally:
            await engine.stop()

    async def nothing(engine: Engine) -> None:
        pass

    async def a_moment(engine: Engine) -> None:
        await until(lambda: engine.parts is not None)

    await once(0, until_ready)
    await until(lambda: not exchange.connections)
    tasks, files, threads = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), _threads()
    for number in range(1, 7):
        await once(number, (until_ready, nothing, a_moment)[number % 3])
        await until(lambda: not exchange.connections)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert _threads() == threads


async def test_a_restart_goes_on_where_the_tape_ends(tmp_path: Path, exchange: SimServer) -> None:
    heads = []
    for _ in range(2):
        engine = engine_for(tmp_path, exchange)
        await engine.start()
        try:
            assert engine.tape is not None
            heads.append(engine.tape.next_sequence)
            await until_ready(engine)
            least = heads[-1] + 200
            await until(lambda engine=engine, least=least: rows_of(engine) > least)  # type: ignore[misc]
        finally:
            await engine.stop()
    assert heads[0] == 1
    assert heads[1] > 200
    rows = TapeReader(tmp_path / "tape").read(1, 1 << 20)
    trades = rows[(rows["kind"] == TRADE) & (rows["symbol_id"] == 1)]["id"].tolist()
    assert len(set(trades)) == len(trades)


async def test_a_busy_port(tmp_path: Path, exchange: SimServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        engine = engine_for(tmp_path, exchange, server=ServerConfig(port=port))
        with pytest.raises(StartupError, match="SERVER_PORT") as refused:
            await engine.start()
        assert str(port) in str(refused.value)
        await engine.stop()
    # The folder is free again.
    again = engine_for(tmp_path, exchange)
    await again.start()
    await again.stop()


async def test_two_engines_on_one_folder(tmp_path: Path, exchange: SimServer) -> None:
    first, second = engine_for(tmp_path, exchange), engine_for(tmp_path, exchange)
    await first.start()
    try:
        with pytest.raises(StartupError):
            await second.start()
        await second.stop()
        assert await status(first, "/health/live") == 200
    finally:
        await first.stop()


async def test_unknown_symbols_end_it(tmp_path: Path, exchange: SimServer) -> None:
    engine = engine_for(tmp_path, exchange, symbols=("NOPEUSDT",))
    await engine.start()
    with pytest.raises(StartupError, match="NOPEUSDT"):
        await asyncio.wait_for(engine.wait_stopped(), 30)
    await engine.stop()


async def test_an_exchange_that_is_away_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    engine = engine_for(tmp_path, None)
    await engine.start()
    assert await status(engine, "/health/live") == 200
    assert await status(engine, "/health/ready") == 503
    await asyncio.wait_for(engine.stop(), 20)
    await engine.stop()  # may be called twice


async def test_ready_and_health_follow_line_and_tape(
    tmp_path: Path, exchange: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(tmp_path, exchange)
    await engine.start()
    try:
        await until_ready(engine)
        tape, parts = engine.tape, engine.parts
        assert tape is not None
        assert parts is not None
        commit = tape.commit

        def refusing(count: int) -> int:
            raise TapeError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(tape, "commit", refusing)
            await until(lambda: parts.intake.stalled is not None)
            head = tape.next_sequence
            assert await status(engine, "/health") == 503
            assert tape.next_sequence == head
        assert tape.commit == commit
        await until(lambda: tape.next_sequence > head + 100)
        assert await status(engine, "/health") == 200
        await exchange.stop()
        async with asyncio.timeout(20):
            while await status(engine, "/health/ready") != 503:
                await asyncio.sleep(0.01)
    finally:
        await engine.stop()


async def test_stopping_while_the_tape_refuses(
    tmp_path: Path, exchange: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(tmp_path, exchange)
    await engine.start()
    await until_ready(engine)
    tape, parts = engine.tape, engine.parts
    assert tape is not None
    assert parts is not None

    def refusing(count: int) -> int:
        raise TapeError("the disk is full")

    monkeypatch.setattr(tape, "commit", refusing)
    await until(lambda: parts.intake.stalled is not None)
    await asyncio.wait_for(engine.stop(), 20)
    assert parts.intake._retrying is None


async def test_a_part_that_does_not_close_does_not_keep_the_others_open(
    tmp_path: Path, exchange: SimServer
) -> None:
    engine = engine_for(tmp_path, exchange)
    await engine.start()

    def broken() -> None:
        raise OSError("cannot close")

    engine._closing.append(broken)
    with pytest.raises(OSError, match="cannot close"):
        await engine.stop()
    again = engine_for(tmp_path, exchange)
    await again.start()
    await again.stop()


async def test_spinning_ends_with_the_engine(tmp_path: Path, exchange: SimServer) -> None:
    engine = engine_for(tmp_path, exchange, spin=True)
    await engine.start()
    loop = asyncio.get_running_loop()
    await until_ready(engine)
    assert len(loop._ready) >= 1  # type: ignore[attr-defined]
    await engine.stop()
    await exchange.stop()
    for _ in range(5):
        await asyncio.sleep(0)
    turns = 0
    began = loop.time()
    while loop.time() - began < 0.05:
        turns += 1
        await asyncio.sleep(0.005)
    assert turns <= 12
    assert not loop._ready  # type: ignore[attr-defined]
