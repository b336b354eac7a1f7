"""cli.tail against a scripted engine."""

import asyncio
import json
import socket
import sys

from websockets.asyncio.server import ServerConnection

from tests.cli.running import refused, tradeback
from tests.client.engine_double import answer_subscribe, engine_double, frame


async def script(connection: ServerConnection) -> None:
    await answer_subscribe(connection)
    await connection.send(frame((1, 42_000.5, 0.0), (7, 0.1234, 0.0)))
    await connection.send(frame((1, 42_001.25, 0.5)))
    await connection.wait_closed()


async def tail(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradeback", "tail", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def test_lines_have_the_symbols_own_decimals() -> None:
    async with engine_double(script) as url:
        code, out, err = await tail("*", "--url", url, "--count", "3")
    assert (code, err) == (0, "")
    assert [line.split()[1:] for line in out.splitlines()] == [
        ["BTCUSDT", "42000.50", "0.00000"],
        ["币安人生USDT", "0.1234", "0.0"],
        ["BTCUSDT", "42001.25", "0.50000"],
    ]


async def test_json_lines_end_in_the_middle_of_a_batch() -> None:
    async with engine_double(script) as url:
        code, out, err = await tail("BTCUSDT", "--url", url, "--json", "--count", "1")
    assert (code, err) == (0, "")
    (line,) = map(json.loads, out.splitlines())
    assert line.pop("recv_ns") > 1_700_000_000_000_000_000
    assert line == {"symbol": "BTCUSDT", "price": 42_000.5, "volume": 0.0}


async def test_an_unknown_symbol_beside_a_known_one_is_noted() -> None:
    async with engine_double(script) as url:
        code, out, err = await tail("BTCUSDT", "NOPE", "--url", url, "--count", "3")
    assert (code, err) == (0, "tradeback: unknown symbol NOPE\n")
    assert len(out.splitlines()) == 3


async def test_only_unknown_symbols_are_refused() -> None:
    async with engine_double(script) as url:
        code, out, err = await tail("NOPE", "--url", url)
    assert (code, out, err) == (2, "", "tradeback: unknown symbol NOPE\n")


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        line = refused(tradeback("tail", "BTCUSDT", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert "no engine answers" in line
    assert "tradeback demo" in line
