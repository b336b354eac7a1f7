"""Make the pictures of the page: dark, light and on a phone, from a real run of simulator and engine.

    make pictures

Needs a Chromium (`make tools`). The numbers in the pictures are those of the machine that made them.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.web.browser import Tab, browser
from tradeback.cli import demo

FOLDER = Path(__file__).parent
CHOICE = demo.Choice(symbols=20, rate=2_000.0, port=0, data_dir=None, duration_s=None)
WARM_UP_S = 45.0
"""Until there are some candles of its own, and latencies to plot."""
DESKTOP, PHONE = (1_440, 900), (390, 844)


async def main() -> None:
    """All three, of one run."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tradeback-picture-"))
        _, _, url = await demo._start(CHOICE, folder, stack)
        http = await stack.enter_async_context(aiohttp.ClientSession(url))
        await demo._until_ready(http)
        running = await stack.enter_async_context(browser())
        tab = await stack.enter_async_context(running.tab())
        await tab.size(*DESKTOP, scale=1.5)
        await shows(tab, f"{url}/#BTCUSDT/1m/levels=on", "dark")
        await asyncio.sleep(WARM_UP_S)
        await tab.picture(FOLDER / "page-dark.png")
        await shows(tab, f"{url}/#ETHUSDT/4h/levels=fit/pane=latency", "light")
        await asyncio.sleep(WARM_UP_S / 3)
        await tab.picture(FOLDER / "page-light.png")
        await tab.size(*PHONE, scale=1.5, phone=True)
        await shows(tab, f"{url}/#SOLUSDT/15m", "dark")
        await asyncio.sleep(WARM_UP_S / 9)
        await tab.picture(FOLDER / "page-phone.png")
        assert tab.console == [], tab.console


async def shows(tab: Tab, url: str, theme: str) -> None:
    """The page at this address in this theme, until it draws."""
    await tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    await tab.open("about:blank#")
    await tab.open(url)
    await tab.until("tradeback.market.candles.bars.length > 100 && tradeback.enigma && tradeback.stats")


if __name__ == "__main__":
    asyncio.run(main())
