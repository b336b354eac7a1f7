"""cli.tail_live: `tradeback tail` in a terminal, on a real engine that goes away and comes back."""

import re
from pathlib import Path

from tests.cli.terminal import seated
from tests.cli.test_tail import script
from tests.client.engine_double import engine_double
from tests.flow.running import running_engine, running_market
from tests.servers.process import free_port

FACTS = (
    "● live", "engine ok", " msg/s", "Exchange → engine", "Inside the engine", "one clock",
    "Engine → here", "±", "Lines A ok B ok", "Gaps", "repaired", "BTCUSDT", "bid ", "ask ", "trades/s",
    "Complete through", " UTC, ", "Enigma", "low ", "Fibonacci 0 %", "61.8 %", "100 %",
)  # fmt: skip


async def test_the_facts_of_an_engine_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    port = str(free_port())
    variables = {"SERVER_PORT": port, "EXCHANGE_SYMBOLS": "BTCUSDT"}
    async with running_market(tmp_path, 3, 300.0) as market:
        engine_up = running_engine(tmp_path / "data", market.announced, **variables)
        async with engine_up as engine, seated("tail", "BTCUSDT", "--url", engine.url) as seat:
            await seat.shows(*FACTS)
            assert re.search(r"^\d\d:\d\d:\d\d\.\d{6}  BTCUSDT ", seat.screen.rows[0]), seat.screen.rows[0]
            seat.resize(58, 40)
            await seat.until(
                lambda screen: all(len(row) < 58 for row in screen.rows[-12:]) and "Fibonacci" in screen.end,
                "a narrow status",
            )
            await engine.kill()
            await seat.shows("● lost", "connecting again")
            async with running_engine(tmp_path / "data", market.announced, **variables):
                await seat.shows("● live", "engine ok", "Lines A ok B ok")
                seat.type("\x03")
                assert await seat.process.wait() == 0
            await seat.until(lambda screen: screen.rows[-1] == "", "the cursor below the status")
            assert sum(row.startswith("● ") for row in seat.screen.rows) == 1, "nothing of old is left"
            assert "connecting again" in seat.text
            assert "Traceback" not in seat.text


async def test_the_board_shows_no_lines_and_plain_nothing_else() -> None:
    async with engine_double(script) as url:
        async with seated("tail", "*", "--board", "--url", url, "--count", "3") as seat:
            assert await seat.process.wait() == 0
            await seat.shows("● live", "42,001.25", "币安人生USDT", "Lines –")
            assert not re.search(r"\d\d:\d\d:\d\d\.\d{6}", seat.text)
        async with seated("tail", "*", "--plain", "--url", url, "--count", "3") as seat:
            assert await seat.process.wait() == 0
            await seat.until(lambda screen: len(screen.rows) == 4, "three lines")
            assert "●" not in seat.text


async def test_a_dumb_terminal_gets_lines() -> None:
    async with engine_double(script) as url:
        more = {"TERM": "dumb"}
        async with seated("tail", "*", "--url", url, "--count", "3", variables=more) as seat:
            assert await seat.process.wait() == 0
            await seat.until(lambda screen: len(screen.rows) == 4, "three lines")
            assert "●" not in seat.text


async def test_a_refusal_is_one_line_also_on_a_terminal() -> None:
    async with engine_double(script) as url, seated("tail", "NOPE", "--url", url, columns=200) as seat:
        assert await seat.process.wait() == 2
        await seat.shows("tradeback: unknown symbol NOPE")
        assert "Traceback" not in seat.text
