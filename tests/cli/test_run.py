"""cli.run: announcement, signals and exit codes over a scripted engine."""

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from tradeback.model.config import Config, ServerConfig

Ended = tuple[int | None, str, str]


async def start(mode: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cli.engine_stub", mode, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process, before: str = "") -> Ended:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, before + out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_cleanly(number: signal.Signals) -> None:
    process = await start("serves", "--announce")
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    process.send_signal(number)
    code, out, err = await ended(process, line)
    assert (code, out) == (0, '{"http":"http://127.0.0.1:5"}\n')
    assert err == "... compiling\nstopped\n"


async def test_without_announce_stdout_is_empty() -> None:
    process = await start("serves")
    assert process.stderr is not None
    for words in ("compiling", "tradeback serves http://127.0.0.1:5"):
        assert words in (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
    process.send_signal(signal.SIGINT)
    assert await ended(process) == (0, "", "stopped\n")


async def test_a_signal_during_the_start_stops_it_too() -> None:
    process = await start("hangs", "--announce")
    assert process.stderr is not None
    while b"starting" not in await asyncio.wait_for(process.stderr.readline(), 30):
        pass
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == (0, "", "stopped\n")


@pytest.mark.parametrize(
    ("mode", "code", "line"),
    [
        ("refuses", 2, "tradeback: port 5 is taken"),
        ("fails", 1, "tradeback: the disk is full"),
        ("ends", 0, "stopped"),
    ],
)
async def test_the_engine_is_stopped_and_its_words_are_passed_on(mode: str, code: int, line: str) -> None:
    got, out, err = await ended(await start(mode, "--announce"))
    assert got == code
    assert err.splitlines()[-1] == line
    assert err.count("stopped") == 1
    assert bool(out) == (mode != "refuses")


async def test_options_are_settings(tmp_path: Path) -> None:
    arguments = ("--host", "0.0.0.0", "--port", "81", "--data-dir", str(tmp_path), "--spin")
    _, _, err = await ended(await start("shows", *arguments))
    given = msgspec.json.decode(err.splitlines()[0], type=Config)
    server = ServerConfig(host="0.0.0.0", port=81)
    assert given == Config(server=server, data_dir=str(tmp_path), spin=True)


async def test_a_bad_option_is_named() -> None:
    code, out, err = await ended(await start("shows", "--host", ""))
    assert (code, out) == (2, "")
    assert "option --host: server.host" in err
