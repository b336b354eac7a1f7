"""`tradeback record`: as a process against a simulator, killed, refused, and asked what it has."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.running import refused, tradeback
from tests.flow.running import Process, running_market, until
from tests.recording.tools import A_TRADE, B_TRADE, frames, marks, take, writing
from tradeback.cli.main import main
from tradeback.recording.reading import list_sources
from tradeback.recording.survey import survey


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    async with running_market(tmp_path, 3, 2_000) as market:
        yield {
            "EXCHANGE_WS_ENDPOINT": market.announced["ws"],
            "EXCHANGE_REST_ENDPOINT": market.announced["rest"],
            "EXCHANGE_LINES": "1",
        }


def has_more(folder: Path, count: int) -> bool:
    return written(folder) > count


def written(folder: Path) -> int:
    return len(frames(folder)) if folder.is_dir() and list(folder.glob(".*.part")) else 0


async def test_it_ends_by_itself_and_says_what_it_did(tmp_path: Path, exchange: dict[str, str]) -> None:
    folder = tmp_path / "recording"
    arguments = ("record", "--symbols", "BTCUSDT", "--streams", "trade,bookticker", "-o", str(folder))
    done = await asyncio.to_thread(tradeback, *arguments, "--for", "1s", variables=exchange)
    assert done.returncode == 0, done.stderr
    assert f"tradeback records into {folder}" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("2 files, complete")
    found = survey(list_sources(folder))
    assert [one.name for one in found.connections] == ["a:bookTicker:0", "a:trade:0"]
    assert [one.endings for one in found.connections] == [["stopped"], ["stopped"]]
    assert sum(one.frames for one in found.connections) > 100
    checked = await asyncio.to_thread(tradeback, "record", "--check", str(folder))
    assert checked.returncode == 0
    assert "no id is missing" in checked.stdout


async def test_kill_9_loses_the_last_flush_at_most(tmp_path: Path, exchange: dict[str, str]) -> None:
    """Killed twice in full stream; the next one completes the files; what was on disk stays, in order."""
    folder = tmp_path / "recording"
    arguments = ("record", "--symbols", "*", "-o", str(folder))
    held: list[bytes] = []
    for _ in range(2):
        recorder = await Process.start(*arguments, log=tmp_path / "log", variables=exchange)
        await until(partial(has_more, folder, len(held) + 500), "frames on the disk")
        held = [line.body for line in frames(folder)]
        await recorder.kill()
    recorder = await Process.start(*arguments, log=tmp_path / "log", variables=exchange)
    await until(lambda: not set(_killed_parts(folder)), "completed files")
    await until(lambda: written(folder) > len(held) + 100, "more frames")
    await recorder.stop()
    assert not list(folder.glob(".*.part"))
    kept = [line.body for line in frames(folder)]
    assert set(held) <= set(kept)
    assert [fields["why"] for fields in marks(folder) if fields["event"] == "end"].count("killed") == 6
    (trades,) = [one for one in survey(list_sources(folder)).connections if one.name == "a:trade:0"]
    assert trades.endings == ["killed", "killed", "stopped"]
    assert len([1 for _, to, _ in trades.away if to is not None]) == 2


def _killed_parts(folder: Path) -> list[str]:
    """Files in the making beside those of the one that is running: there are three streams."""
    parts = sorted(path.name for path in folder.glob(".2*.part"))
    return parts if len(parts) > 3 else []


async def test_check_tells_what_is_missing(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        take(writer.track(A_TRADE), [1, 2, 5])
        take(writer.track(B_TRADE), [1, 2, 3])
    found = CliRunner().invoke(main, ["record", "--check", str(tmp_path)])
    assert found.exit_code == 1
    assert "btcusdt@trade: 1 ids are on no line: 4..4" in found.stdout
    told = json.loads(CliRunner().invoke(main, ["record", "--check", str(tmp_path), "--json"]).stdout)
    assert told["streams"]["btcusdt@trade"]["missing"] == 1
    assert [one["frames"] for one in told["connections"]] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--streams", "depth"], "trade,bookTicker,aggTrade"),
        (["--rotate", "soon"], "neither a size like 64MiB nor a duration like 1h"),
        (["--rotate", "0"], "above 0"),
        (["--for", "5"], "a duration is a number and a unit"),
        (["--json"], "goes with --check"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    found = CliRunner().invoke(main, ["record", *arguments])
    assert found.exit_code == 2
    assert says in found.output


def test_refusals_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(tradeback("record", "-o", str(tmp_path / "file" / "x")))
    (tmp_path / "empty").mkdir()
    assert "holds no recording" in refused(tradeback("record", "--check", str(tmp_path / "empty")))
