"""Make docs/pictures/demo.svg: the live table of `tradeback demo`, from a real run of simulator and engine.

    .venv/bin/python docs/pictures/make_demo.py

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

from tradeback.cli import demo
from tradeback.cli.board import Board, table
from tradeback.client import connect

PICTURE = Path(__file__).with_name("demo.svg")
CHOICE = demo.Choice(symbols=12, rate=2_000.0, port=0, data_dir=None, duration_s=None)
WARM_UP_REFRESHES = 12
"""Half a second each: until levels are known and rates have settled."""
COLUMNS = 84
_FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""Fonts that the picture would fetch from elsewhere; any monospace font does."""


async def watch() -> Board:
    """The board after some seconds of the demo."""
    board = Board()
    async with AsyncExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="tradeback-picture-"))
        _, _, url = await demo._start(CHOICE, folder, running)
        async with aiohttp.ClientSession(url) as http:
            await demo._until_ready(http)
            async with connect(url, channels=("trades", "enigma")) as feed:
                reading = asyncio.create_task(demo._read(feed, board, asyncio.Event()))
                for _ in range(WARM_UP_REFRESHES):
                    await demo._refresh(board, http, demo.REFRESH_TERMINAL_S)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    return board


def draw(board: Board) -> str:
    """The board as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ tradeback demo --symbols {CHOICE.symbols}\n", style="bold"))
    console.print(table(board, CHOICE.symbols))
    code_format = _FONT_FACES.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "monospace")
    return console.export_svg(title="tradeback demo", code_format=code_format, unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(draw(asyncio.run(watch())), "utf-8")
