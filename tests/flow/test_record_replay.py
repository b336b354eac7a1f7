"""Recorder and engine on one exchange that plays a real recording; the replay makes the same tape."""

import asyncio
from pathlib import Path

import numpy as np

from tests.flow.oracle import read
from tests.flow.replaying import joined, symbols_of
from tests.flow.running import Process, running_engine, until
from tests.recording.tools import frames
from tests.tape.helpers import same
from tradeback.model.record import AGG, QUOTE, SEED_LEVELS, TRADE, Rows
from tradeback.recording.reading import list_sources
from tradeback.recording.survey import survey
from tradeback.sim.config import SimConfig
from tradeback.sim.recording import Recording
from tradeback.sim.server import SimServer
from tradeback.tape.reader import TapeReader

FILES = "*2024*"
STREAMS = 12
"""Two symbols on three stream kinds, on two lines."""
SAID = ["exchange_us", "id", "price", "quantity", "ask", "ask_quantity"]


def told(rows: Rows, names: dict[str, int], symbol: str, kind: int) -> Rows:
    """What the exchange said, in order: no times of receipt, no lines, no order between streams."""
    mine: Rows = rows[(rows["kind"] == kind) & (rows["symbol_id"] == names[symbol])]
    return mine[SAID]


def count_events(folder: Path) -> int:
    """Market-data frames that are on the disk."""
    return sum(1 for line in frames(folder) if line.body.startswith(b'{"stream"'))


def names_of(data_dir: Path) -> dict[str, int]:
    return {name: symbol.id for name, symbol in symbols_of(data_dir).items()}


async def test_a_replayed_recording_is_the_live_tape(shared_folder: Path, tmp_path: Path) -> None:
    folder_of_source = shared_folder / "data/binance/spot_ws"
    source = Recording(folder_of_source, files=FILES)
    exchange = await SimServer.start(source, SimConfig(speed=100.0, start_after_streams=2 * STREAMS))
    where = {"ws": exchange.ws_url, "rest": exchange.rest_url}
    variables = {
        "EXCHANGE_WS_ENDPOINT": exchange.ws_url,
        "EXCHANGE_REST_ENDPOINT": exchange.rest_url,
        "EXCHANGE_LINES": "2",
    }
    folder = tmp_path / "recording"
    try:
        arguments = ("record", "--symbols", "*", "-o", str(folder), "--rotate", "256KiB")
        recorder = await Process.start(*arguments, log=tmp_path / "log", variables=variables)
        async with running_engine(tmp_path / "live", where, EXCHANGE_LINES="2") as engine:
            await asyncio.wait_for(exchange.finished(), 40)
            recorded = read(folder_of_source.glob(FILES)).values()
            sent = sum(len(one.trades) + len(one.quotes) for one in recorded)

            def all_on_tape() -> bool:
                rows = joined(engine.tape())
                return int((rows["kind"] <= QUOTE).sum()) >= sent

            await until(all_on_tape, "everything on the tape")
            rows = joined(engine.tape())
            expected = 2 * int((rows["kind"] <= AGG).sum())
            await until(lambda: count_events(folder) >= expected, "everything in the recording")
            await engine.stop()
        await recorder.stop()
    finally:
        await exchange.stop()

    found = survey(list_sources(folder))
    assert found.missing == {}
    assert all(one.frames and not one.dropped for one in found.connections)
    assert len(found.connections) == 6
    assert sum(one.files for one in found.connections) > 10

    for at in (1, 2):
        again = await Process.start(
            "replay", str(folder), "--data-dir", str(tmp_path / str(at)), log=tmp_path / "log", variables={}
        )
        await asyncio.wait_for(again.child.communicate(), 60)
        assert again.child.returncode == 0, again.log.read_text()
    first, second = (joined(TapeReader(tmp_path / str(at) / "tape")) for at in (1, 2))
    assert same(first, second), "a replay of the same recording makes the same tape"

    live = joined(TapeReader(tmp_path / "live" / "tape"))
    live = live[live["kind"] < SEED_LEVELS]
    ours, theirs = names_of(tmp_path / "1"), names_of(tmp_path / "live")
    assert ours.keys() == theirs.keys() == {"BTCUSDT", "ETHUSDT"}
    for symbol in ours:
        for kind in (TRADE, QUOTE, AGG):
            mine, other = told(first, ours, symbol, kind), told(live, theirs, symbol, kind)
            assert len(mine) > 100
            assert np.array_equal(mine, other), f"{symbol} {kind}: {len(mine)} and {len(other)} records"
