"""The whole recorder against the simulated exchange: every frame that was sent is in the files."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.exchange.harness import CLOCK, QUICK, Logbook, until
from tests.recording.tools import frames, marks
from tradeback.model.errors import StartupError
from tradeback.recording.format import part_name
from tradeback.recording.reading import list_sources, read_lines
from tradeback.recording.recorder import Order, Recorder, read_symbols, write_symbols
from tradeback.recording.survey import survey
from tradeback.recording.symbols import symbols_of
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.recording import Recording
from tradeback.sim.server import SimServer
from tradeback.stores.ports import SymbolRecord


@asynccontextmanager
async def recording(order: Order, exchange: SimServer, **more: Any) -> AsyncIterator[Recorder]:
    config = msgspec.structs.replace(
        QUICK, **{"ws_endpoint": exchange.ws_url, "rest_endpoint": exchange.rest_url, "lines": 1, **more}
    )
    recorder = Recorder(order, config, CLOCK, Logbook())
    try:
        await recorder.start()
        yield recorder
    finally:
        await recorder.stop()


@asynccontextmanager
async def market(**more: Any) -> AsyncIterator[SimServer]:
    server = await SimServer.start(Synthetic(symbols=3, rate=3_000, seed=7), SimConfig(**more))
    try:
        yield server
    finally:
        await server.stop()


async def test_both_lines_of_all_streams_and_no_id_is_missing(tmp_path: Path) -> None:
    async with (
        market(start_after_streams=18) as exchange,
        recording(Order(tmp_path), exchange, symbols=("*",), lines=2) as recorder,
    ):
        await until(lambda: recorder.counts.frames > 3_000)
        await recorder.delivering()
    found = survey(list_sources(tmp_path))
    assert [one.name for one in found.connections] == [
        f"{line}:{stream}:0" for line in "ab" for stream in ("aggTrade", "bookTicker", "trade")
    ]
    assert all(one.frames > 10 and one.connects == 1 and not one.dropped for one in found.connections)
    assert found.missing == {}
    assert sum(one.frames for one in found.connections) == recorder.counts.frames
    assert {record.symbol for record in read_symbols(tmp_path)} == {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
    assert symbols_of(tmp_path, wanted=["ETHUSDT"])[0].tick_size.startswith("0.01")
    with pytest.raises(StartupError, match="does not hold NOPE"):
        symbols_of(tmp_path, wanted=["NOPE"])


async def test_only_what_was_ordered(tmp_path: Path) -> None:
    async with market(start_after_streams=1) as exchange:
        order = Order(tmp_path, streams=("trade",))
        async with recording(order, exchange, symbols=("ETHUSDT",)) as recorder:
            await until(lambda: recorder.counts.frames > 50)
    (one,) = survey(list_sources(tmp_path)).connections
    assert one.name == "a:trade:0"
    assert all(b"ethusdt@trade" in line.body for line in frames(tmp_path)[1:])


async def test_a_recording_is_a_source_of_the_simulator(tmp_path: Path) -> None:
    """What it plays is byte for byte what was recorded; of two lines the first."""
    async with (
        market(start_after_streams=18) as exchange,
        recording(Order(tmp_path / "first"), exchange, symbols=("*",), lines=2) as recorder,
    ):
        await until(lambda: recorder.counts.frames > 4_000)
    first = [
        line.body
        for source in list_sources(tmp_path / "first", "*-a-*")
        for line in read_lines(source)
        if line.body.startswith(b'{"stream"')
    ]
    again = await SimServer.start(Recording(tmp_path / "first"), SimConfig(speed=0.0, start_after_streams=9))
    try:
        async with recording(Order(tmp_path / "second"), again, symbols=("*",)) as recorder:
            await asyncio.wait_for(again.finished(), 20)
            await until(lambda: recorder.counts.frames >= len(first))
    finally:
        await again.stop()
    second = [line.body for line in frames(tmp_path / "second") if line.body.startswith(b'{"stream"')]
    assert sorted(second) == sorted(first)


async def test_the_daily_cut_costs_nothing(tmp_path: Path) -> None:
    """The exchange cuts every connection at an age of 3 s; with one line nobody makes up for a loss."""
    async with (
        market(start_after_streams=9, connection_life_s=3.0) as exchange,
        recording(
            Order(tmp_path), exchange, symbols=("*",),
            rollover_min_s=0.2, rollover_max_s=0.5, rollover_overlap_s=0.02,
        ) as recorder,
    ):  # fmt: skip
        await until(lambda: recorder.lines and all(line.counts.rollovers >= 3 for line in recorder.lines), 30)
        assert sum(line.counts.reconnects for line in recorder.lines) == 0
    found = survey(list_sources(tmp_path))
    assert found.missing == {}
    assert len(found.ids) == 6
    assert all(one.connects >= 4 for one in found.connections)
    bodies = [line.body for line in frames(tmp_path) if b"@trade" in line.body]
    assert len(bodies) > len(set(bodies)), "old and new have overlapped"
    again = await SimServer.start(Recording(tmp_path), SimConfig(speed=0.0, start_after_streams=9))
    try:
        async with recording(Order(tmp_path / "again"), again, symbols=("*",)) as recorder:
            await asyncio.wait_for(again.finished(), 30)
            await until(lambda: recorder.counts.frames >= len(set(bodies)))
    finally:
        await again.stop()
    played = [line.body for line in frames(tmp_path / "again") if b"@trade" in line.body]
    assert len(played) == len(set(played)), "once"
    assert set(played) == set(bodies)


async def test_each_line_may_come_from_elsewhere(tmp_path: Path) -> None:
    async with (
        market(start_after_streams=1) as one,
        market(start_after_streams=1) as other,
        recording(Order(tmp_path, streams=("trade",)), one, lines=2, ws_endpoint_b=other.ws_url) as recorder,
    ):
        await recorder.delivering()
        assert (len(one.connections), len(other.connections)) == (1, 1)
    places = [fields["endpoint"] for fields in marks(tmp_path) if fields["event"] == "begin"]
    assert {f"ws://{place}" for place in places} == {one.ws_url, other.ws_url}


async def test_recording_does_not_wait_for_rest(tmp_path: Path) -> None:
    async with market(start_after_streams=1) as exchange:
        nowhere = "http://127.0.0.1:1"
        async with recording(Order(tmp_path), exchange, rest_endpoint=nowhere) as recorder:
            await until(lambda: recorder.counts.frames > 100)
    assert not (tmp_path / "symbols.json").exists()
    (record,) = symbols_of(tmp_path)
    assert (record.symbol, record.base_currency, record.tick_size) == ("BTCUSDT", "BTC", "0.01000000")


async def test_an_unknown_symbol_ends_it_with_the_remedy(tmp_path: Path) -> None:
    async with (
        market(start_after_streams=1) as exchange,
        recording(Order(tmp_path), exchange, symbols=("NOPEUSDT",)) as recorder,
    ):
        with pytest.raises(StartupError, match="does not have NOPEUSDT"):
            await asyncio.wait_for(recorder.wait_stopped(), 10)


async def test_a_folder_has_one_recorder(tmp_path: Path) -> None:
    async with market(start_after_streams=1) as exchange, recording(Order(tmp_path), exchange):
        with pytest.raises(StartupError, match="another process records into"):
            async with recording(Order(tmp_path), exchange):
                pass


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with market(start_after_streams=1) as exchange:
        with pytest.raises(StartupError, match="cannot be written"):
            async with recording(Order(tmp_path / "file" / "folder"), exchange):
                pass


async def test_what_a_killed_recorder_left_is_completed(tmp_path: Path) -> None:
    (tmp_path / part_name("20260131T120000000000000Z-a-trade-0.gz")).write_bytes(b"")
    async with market(start_after_streams=1) as exchange, recording(Order(tmp_path), exchange) as recorder:
        log = recorder._log
        assert isinstance(log, Logbook)
        assert log.of("was never flushed")


def test_recording_and_checking_load_no_kernels() -> None:
    """A recorder is up at once, and small."""
    script = (
        "import sys, tradeback.recording.recorder, tradeback.recording.survey\n"
        "print('numba' in sys.modules, 'llvmlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_descriptions_add_up_and_strange_files_are_none(tmp_path: Path) -> None:
    def record(name: str, tick: str) -> SymbolRecord:
        return SymbolRecord(name, "", "USDT", True, tick, "0.1", "0", "0", "0")

    write_symbols(tmp_path, [record("A", "0.1"), record("B", "0.1")])
    write_symbols(tmp_path, [record("B", "0.01"), record("币", "0.1")])
    assert read_symbols(tmp_path) == [record("A", "0.1"), record("B", "0.01"), record("币", "0.1")]
    (tmp_path / "symbols.json").write_text('[{"symbol": "X"}]')
    assert read_symbols(tmp_path) == []
    (tmp_path / "symbols.json").write_text("{")
    assert read_symbols(tmp_path) == []


def test_grids_are_learned_from_recordings_of_others(shared_folder: Path) -> None:
    folder = shared_folder / "data/binance/spot_ws"
    found = {record.symbol: record for record in symbols_of(folder, "*2024*")}
    assert set(found) == {"BTCUSDT", "ETHUSDT"}
    assert found["BTCUSDT"].step_size == "0.00001000"
