"""Make docs/pictures/tail.svg: `tradeback tail` in a terminal, from a real run of simulator and engine.

    .venv/bin/python docs/pictures/make_tail.py

The numbers in the picture are those of the machine that made it.
"""

import asyncio
import io
import re
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tradeback.cli import demo, tail
from tradeback.cli.tail_facts import Facts
from tradeback.cli.tail_live import RULE
from tradeback.cli.tail_poll import now_ms, polling
from tradeback.cli.tail_screen import screen
from tradeback.client import connect

PICTURE = Path(__file__).with_name("tail.svg")
MARKET = demo.Choice(symbols=12, rate=2_000.0, port=0, data_dir=None, duration_s=None)
SYMBOL = "BTCUSDT"
COLUMNS, LINES, FACTS_LINES = 118, 12, 12
SECONDS = 12
"""Until levels are known and the clocks are compared well."""
_FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""Fonts that the picture would fetch from elsewhere; any monospace font does."""


async def watch() -> list[Text]:
    """What stands in the terminal after some seconds."""
    choice = tail.Choice((SYMBOL,), "", as_json=False, facts=False, live=True, board=False, count=None)
    lines, said = tail.Lines(choice, lambda text: None), [""]
    async with AsyncExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="tradeback-picture-"))
        _, _, url = await demo._start(MARKET, folder, running)
        async with aiohttp.ClientSession(url) as http:
            await demo._until_ready(http)
        facts = Facts(url)
        feed = await running.enter_async_context(connect(url, [SYMBOL], channels=choice.channels))
        poll = await running.enter_async_context(polling(url, "", facts))

        async def read() -> None:
            async for event in feed.events():
                facts.take(event, feed, now_ms())
                said.extend(lines.of(event, feed))

        working = [asyncio.ensure_future(work) for work in (read(), poll.run())]
        for _ in range(2 * SECONDS):
            await asyncio.sleep(0.5)
            facts.refresh(0.5)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        facts.url = tail.DEFAULT_URL
        shown = screen(facts, COLUMNS, FACTS_LINES, now_ms())
    return [*map(Text, said[-LINES:]), Text(RULE * COLUMNS, style="dim"), *shown]


def draw(lines: list[Text]) -> str:
    """The terminal as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ tradeback tail {SYMBOL}\n", style="bold"))
    for line in lines:
        console.print(line, no_wrap=True)
    code_format = _FONT_FACES.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "monospace")
    return console.export_svg(title=f"tradeback tail {SYMBOL}", code_format=code_format, unique_id="tail")


if __name__ == "__main__":
    PICTURE.write_text(draw(asyncio.run(watch())), "utf-8")
