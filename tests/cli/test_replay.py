"""`tradeback replay`: as a process, to its end, staying, and refused."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from tests.cli.running import refused, tradeback
from tests.flow.replaying import joined
from tests.flow.running import Process, until
from tests.recording.tools import A_TRADE, START_NS, take, writing
from tests.tape.helpers import same
from tradeback.cli.main import main
from tradeback.tape.reader import TapeReader


@pytest.fixture
async def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "recording"
    folder.mkdir()
    async with writing(folder) as writer:
        take(writer.track(A_TRADE), range(1, 2_001))
    return folder


async def test_to_the_end_with_code_0_and_again_from_its_tape(recording: Path, tmp_path: Path) -> None:
    done = await asyncio.to_thread(tradeback, "replay", str(recording), "--data-dir", str(tmp_path / "1"))
    assert done.returncode == 0, done.stderr
    assert "replayed 2,000 frames as 2,000 records" in done.stderr.splitlines()[-1]
    rows = joined(TapeReader(tmp_path / "1" / "tape"))
    assert rows["id"].tolist() == list(range(1, 2_001))
    assert rows["recv_ns"].tolist() == [START_NS + 1_000 * number for number in range(1, 2_001)]
    arguments = ("replay", str(tmp_path / "1"), "--from", "seq:101", "--to", "seq:201", "--speed", "1000")
    done = await asyncio.to_thread(tradeback, *arguments, "--data-dir", str(tmp_path / "2"))
    assert done.returncode == 0, done.stderr
    assert same(joined(TapeReader(tmp_path / "2" / "tape")), rows[100:200])


async def test_it_stays_and_serves_until_ctrl_c(recording: Path, tmp_path: Path) -> None:
    arguments = ("replay", str(recording), "--stay", "--announce", "--new-times")
    replay = await Process.start(*arguments, log=tmp_path / "log", variables={})
    try:
        url = (await replay.announcement())["http"]
        await until(lambda: "replayed 2,000 frames" in replay.log.read_text(), "the end of the replay")
        async with aiohttp.ClientSession(url) as http:
            async with http.get("/api/v1/symbols/BTCUSDT/price") as answer:
                assert (await answer.json())["price"] == 64_250.01
            async with http.get("/api/v1/health/detailed") as answer:
                parts = {part["name"]: part for part in (await answer.json())["components"]}
        assert parts["line:replay"]["last_error"] == "the replay is over"
        await replay.stop()
    finally:
        await replay.kill()


def test_ctrl_c_in_between_is_an_ordinary_end(tmp_path: Path, shared_folder: Path) -> None:
    async def play() -> None:
        source = str(shared_folder / "data/binance/spot_ws")
        arguments = ("replay", source, "--files", "*2024*", "--speed", "1", "--announce")
        replay = await Process.start(*arguments, log=tmp_path / "log", variables={})
        try:
            await replay.announcement()
            await replay.stop()
        finally:
            await replay.kill()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--speed", "fast"], "write max, or a number above 0"),
        (["--speed", "0"], "write max, or a number above 0"),
        (["--from", "seq:x"], "write seq:1234"),
        (["--from", "yesterday"], "ISO 8601"),
        (["--symbols", ","], "at least one symbol"),
    ],
)
def test_wrong_usage(recording: Path, arguments: list[str], says: str) -> None:
    found = CliRunner().invoke(main, ["replay", str(recording), *arguments])
    assert found.exit_code == 2
    assert says in found.output


def test_refusals_are_one_line(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "live" / "tape").mkdir(parents=True)
    again = refused(tradeback("replay", str(recording), "--data-dir", str(tmp_path / "live")))
    assert "has a tape already" in again
    assert "no sequences" in refused(tradeback("replay", str(recording), "--from", "seq:1"))
    assert "does not hold NOPE" in refused(tradeback("replay", str(recording), "--symbols", "NOPE"))
    (tmp_path / "empty").mkdir()
    assert "holds no recording" in refused(tradeback("replay", str(tmp_path / "empty")))


def test_speeds_are_written_in_several_ways(recording: Path, tmp_path: Path) -> None:
    done = tradeback("replay", str(recording), "--speed", "10x", "--data-dir", str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
    assert json.loads(tradeback("tape", "info", "--json", "--data-dir", str(tmp_path / "x")).stdout)[
        "records"
    ] == {"trade": 2_000}
