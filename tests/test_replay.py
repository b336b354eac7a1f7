"""Whole replays: the same tape every time, from a recording and from a tape; and what is refused."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from tests.flow.oracle import read as read_oracle
from tests.flow.replaying import joined
from tests.recording.tools import A_TRADE, B_TRADE, START_NS, agg, trade, writing
from tests.tape.helpers import same
from tradeback.model.config import Config, ServerConfig
from tradeback.model.errors import StartupError, TapeError
from tradeback.model.record import (
    AGG,
    GAP,
    LATE,
    LINE_SHIFT,
    QUOTE,
    REPAIRED,
    STAND_IN,
    TRADE,
    Rows,
    empty_rows,
)
from tradeback.recording.playback import Span
from tradeback.recording.reading import list_sources
from tradeback.recording.symbols import symbols_of
from tradeback.recording.tape_range import TapeSpan
from tradeback.replay import Play, PlayRecording, PlayTape, ReplayEngine
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

FILES = "*2024*"


def recording(folder: Path, files: str = "*", span: Span | None = None, **more: Any) -> PlayRecording:
    wanted = more.get("symbols")
    described = symbols_of(folder, files, wanted)
    return PlayRecording(list_sources(folder, files), described, span or Span(), wanted is not None)


@asynccontextmanager
async def replaying(play: Play, data_dir: Path, **options: Any) -> AsyncIterator[ReplayEngine]:
    """An engine that has replayed everything and still serves."""
    config = Config(data_dir=str(data_dir), server=ServerConfig(port=0))
    engine = ReplayEngine(config, play, **options)
    try:
        await engine.start()
        done = asyncio.ensure_future(engine.finished())
        failed = asyncio.ensure_future(engine.wait_stopped())
        await asyncio.wait({done, failed}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        await asyncio.wait_for(done, 0.05)
        yield engine
    finally:
        await engine.stop()


async def tape_of(play: Play, data_dir: Path, **options: Any) -> Rows:
    async with replaying(play, data_dir, **options):
        pass
    return joined(TapeReader(data_dir / "tape"))


@pytest.fixture
def shared_recording(shared_folder: Path) -> Path:
    return shared_folder / "data/binance/spot_ws"


async def test_a_real_recording_gives_the_same_tape_every_time(
    shared_recording: Path, tmp_path: Path
) -> None:
    """Everything recorded is on it, in order, exact; and the API serves it."""
    async with replaying(recording(shared_recording, FILES), tmp_path / "1") as engine:
        async with aiohttp.ClientSession(engine.url) as http:
            async with http.get("/api/v1/health/ready") as answer:
                assert answer.status == 200, await answer.text()
            async with http.get("/api/v1/symbols/BTCUSDT/price") as answer:
                price = await answer.json()
            async with http.get("/api/v1/symbols/BTCUSDT/bars", params={"resolution": "1m"}) as answer:
                bars = (await answer.json())["bars"]
        frames = engine.played.frames
    first = joined(TapeReader(tmp_path / "1" / "tape"))
    second = await tape_of(recording(shared_recording, FILES), tmp_path / "2")
    assert same(first, second)

    recorded = read_oracle(shared_recording.glob(FILES))
    btc = recorded["BTCUSDT"]
    assert price["price"] == float(btc.trades[-1].price)
    assert sum(bar["trade_count"] for bar in bars) == len(btc.trades)
    assert frames == len(first) == sum(len(one.trades) + len(one.quotes) for one in recorded.values())
    for symbol_id, one in enumerate(recorded.values(), 1):
        mine = first[first["symbol_id"] == symbol_id]
        trades, quotes = mine[mine["kind"] == TRADE], mine[mine["kind"] == QUOTE]
        assert trades["id"].tolist() == [found.id for found in one.trades]
        assert trades["price"].tolist() == [float(found.price) for found in one.trades]
        assert quotes["id"].tolist() == [found.id for found in one.quotes]
    times = first["recv_ns"]
    assert np.all(np.diff(times) >= 0)


async def test_a_tape_range_gives_the_same_records(shared_recording: Path, tmp_path: Path) -> None:
    first = await tape_of(recording(shared_recording, "btcusdt_20240809*"), tmp_path / "1")
    again = await tape_of(PlayTape(tmp_path / "1", TapeSpan(), None), tmp_path / "2")
    assert same(again, first)
    middle = TapeSpan(from_sequence=5_000, to_sequence=9_000)
    assert same(await tape_of(PlayTape(tmp_path / "1", middle, None), tmp_path / "3"), first[4_999:8_999])
    span = TapeSpan(int(first["recv_ns"][2_000]), int(first["recv_ns"][4_000]))
    part = first[(first["recv_ns"] >= span.from_ns) & (first["recv_ns"] < span.to_ns)]
    assert same(await tape_of(PlayTape(tmp_path / "1", span, None), tmp_path / "4"), part)


async def make_lines(folder: Path, a: Sequence[tuple[int, bytes]], b: Sequence[tuple[int, bytes]]) -> None:
    """A recording of two lines: (ms since START_NS, frame)."""
    folder.mkdir()
    async with writing(folder) as writer:
        for channel, found in ((A_TRADE, a), (B_TRADE, b)):
            track = writer.track(channel)
            for at_ms, frame in found:
                track.take(b"%d " % (START_NS + at_ms * 1_000_000), frame)


async def test_lines_are_arbitrated_and_stand_ins_come_at_recorded_times(tmp_path: Path) -> None:
    """Trade 7 is on no line: its aggregate stands in, every time at the same place."""
    a = [(n * 100, trade(n)) for n in range(1, 80) if n not in (7, 30)] + [(800, agg(7))]
    b = [(n * 100 + 3, trade(n)) for n in range(1, 80) if n != 7]
    await make_lines(tmp_path / "recording", sorted(a), b)
    first = await tape_of(recording(tmp_path / "recording"), tmp_path / "1")
    for at in range(2, 4):
        assert same(await tape_of(recording(tmp_path / "recording"), tmp_path / str(at)), first)
    quick = await tape_of(recording(tmp_path / "recording"), tmp_path / "paced", speed=50.0)
    assert same(quick, first), "speed changes nothing"
    trades = first[first["kind"] == TRADE]
    real = trades[trades["flags"] & STAND_IN == 0]
    assert real["id"].tolist() == [n for n in range(1, 80) if n != 7]
    assert [row["id"] for row in real if row["flags"] >> LINE_SHIFT == 1] == [30]
    (stand_in,) = trades[trades["flags"] & STAND_IN != 0]
    assert stand_in["id"] == 7
    place = int(np.flatnonzero(first["flags"] & STAND_IN)[0])
    assert 20 < place < 40, "two seconds after its aggregate, amid the trades of that time"


async def test_new_times_are_those_of_the_replay(tmp_path: Path) -> None:
    await make_lines(tmp_path / "recording", [(n, trade(n)) for n in range(1, 50)], [])
    rows = await tape_of(recording(tmp_path / "recording"), tmp_path / "1", keep_times=False)
    assert rows["id"].tolist() == list(range(1, 50))
    assert np.all(np.abs(rows["recv_ns"] - START_NS) > 10**15)
    again = await tape_of(PlayTape(tmp_path / "1", TapeSpan(), None), tmp_path / "2", keep_times=False)
    assert np.all(again["recv_ns"] > rows["recv_ns"])


async def test_speed_is_recorded_seconds_per_second(tmp_path: Path) -> None:
    """Three seconds at tenfold speed; the silence of an hour behind them is leapt over."""
    found = [(n * 100, trade(n + 1)) for n in range(30)] + [(3_600_000, trade(31))]
    await make_lines(tmp_path / "recording", found, [])
    async with replaying(recording(tmp_path / "recording"), tmp_path / "1", speed=10.0) as engine:
        assert 0.27 < engine.played.wall_s < 3
        assert engine.played.frames == 31


async def test_spans_and_symbols_choose(shared_recording: Path, tmp_path: Path) -> None:
    play = recording(shared_recording, "*20240809*", symbols=["ETHUSDT"])
    rows = await tape_of(play, tmp_path / "1")
    recorded = read_oracle(shared_recording.glob("ethusdt_20240809*"))["ETHUSDT"]
    assert rows[rows["kind"] == TRADE]["id"].tolist() == [found.id for found in recorded.trades]
    half = Span(None, int(rows["recv_ns"][len(rows) // 2]))
    play = recording(shared_recording, "*20240809*", half, symbols=["ETHUSDT"])
    part = await tape_of(play, tmp_path / "2")
    assert same(part, rows[: len(part)])
    assert 0 < len(part) < len(rows)


async def test_every_kind_of_record_comes_through(tmp_path: Path) -> None:
    """Also what the arbitration of a fresh tape would not take: repairs from far back, gaps, late trades."""
    await make_lines(tmp_path / "recording", [(n, trade(n)) for n in range(9_001, 9_050)], [])
    await tape_of(recording(tmp_path / "recording"), tmp_path / "1")
    odd = empty_rows(5)
    odd["symbol_id"], odd["recv_ns"], odd["exchange_us"] = 1, START_NS + 10**9, START_NS // 1_000
    odd["kind"] = TRADE, GAP, TRADE, AGG, TRADE
    odd["id"] = 17, 17, 9_049, 3, 10_000
    odd["flags"] = REPAIRED | LATE | 2 << LINE_SHIFT, 3 << LINE_SHIFT, REPAIRED | LATE, 0, STAND_IN
    odd["ask"], odd["ask_quantity"], odd["price"], odd["quantity"] = 9_900, 1, 64_250.0, 0.5
    with Tape.open(tmp_path / "1" / "tape") as tape:
        tape.append(odd)
    before = joined(TapeReader(tmp_path / "1" / "tape"))
    async with replaying(PlayTape(tmp_path / "1", TapeSpan(), None), tmp_path / "2") as engine:
        assert engine.played.refused == 0
    assert same(joined(TapeReader(tmp_path / "2" / "tape")), before)


async def test_a_folder_with_a_tape_is_refused(tmp_path: Path) -> None:
    """Above all the source's own, which an engine may be writing."""
    await make_lines(tmp_path / "recording", [(1, trade(1))], [])
    await tape_of(recording(tmp_path / "recording"), tmp_path / "1")
    size = sum(path.stat().st_size for path in (tmp_path / "1").rglob("*"))
    for play in (recording(tmp_path / "recording"), PlayTape(tmp_path / "1", TapeSpan(), None)):
        with pytest.raises(StartupError, match="has a tape already"):
            ReplayEngine(Config(data_dir=str(tmp_path / "1")), play)
    assert sum(path.stat().st_size for path in (tmp_path / "1").rglob("*")) == size


async def test_a_tape_without_names_and_unknown_symbols_are_refused(tmp_path: Path) -> None:
    await make_lines(tmp_path / "recording", [(1, trade(1))], [])
    await tape_of(recording(tmp_path / "recording"), tmp_path / "1")
    config = Config(data_dir=str(tmp_path / "2"), server=ServerConfig(port=0))
    engine = ReplayEngine(config, PlayTape(tmp_path / "1", TapeSpan(), ["NOPE"]))
    await engine.start()
    with pytest.raises(StartupError, match="does not hold NOPE"):
        await asyncio.wait_for(engine.wait_stopped(), 30)
    await engine.stop()
    (tmp_path / "1" / "registry.sqlite").unlink()
    with pytest.raises(StartupError, match=r"no registry\.sqlite"):
        PlayTape(tmp_path / "1", TapeSpan(), None)


async def test_a_disk_that_refuses_for_a_while_loses_nothing(
    shared_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay waits, then goes on where it was."""
    monkeypatch.setattr("tradeback.exchange.intake.RETRY_S", 0.01)
    play = recording(shared_recording, "btcusdt_20240809*")
    wanted = await tape_of(play, tmp_path / "1")
    config = msgspec.structs.replace(Config(data_dir=str(tmp_path / "2")), server=ServerConfig(port=0))
    engine = ReplayEngine(config, recording(shared_recording, "btcusdt_20240809*"))
    commits = 0

    def moody(count: int) -> int:
        nonlocal commits
        assert engine.tape is not None
        commits += 1
        if commits % 3:
            raise TapeError("no space left")
        first = commit(count)
        if commits < 60:
            engine.tape.limit = 0  # no fast path for the next one either
        return first

    try:
        await engine.start()
        assert engine.tape is not None
        commit = engine.tape.commit_slowly
        engine.tape.limit = 0
        monkeypatch.setattr(engine.tape, "commit_slowly", moody)
        await asyncio.wait_for(engine.finished(), 30)
    finally:
        await engine.stop()
    assert commits >= 60
    assert same(joined(TapeReader(tmp_path / "2" / "tape")), wanted)
