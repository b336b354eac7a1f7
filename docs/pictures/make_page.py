"""Make the pictures of the page: dark, light and on a phone, from a real run of simulator and engine.

    make pictures

Needs a Chromium (`make browser`). The numbers in the pictures are those of the machine that made them.
"""

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from benchmarks.harness.browser import Tab, browser
from tradeback.cli import demo
from tradeback.cli.children import Child

FOLDER = Path(__file__).parent
MARKET = ("--symbols", "20", "--rate", "2000")
FAULTS = [
    {"kind": "lose", "at": "25s", "for": "400ms", "stream": "btcusdt@trade", "chance": 1},
    {"kind": "lose", "at": "34s", "for": "900ms", "stream": "ethusdt@trade", "chance": 1},
    {"kind": "lose", "at": "80s", "for": "2s", "stream": "ethusdt@trade", "chance": 1},
    {"kind": "rest_error", "at": "78s", "path": "historicalTrades"},
]
"""Trades that no line brings: two gaps are repaired, the last one is open in the second picture."""
DARK_AFTER_S = 60.0
"""Seconds of the market until the first picture: some candles of its own, latencies to plot."""
LIGHT_AFTER_S = 90.0
DESKTOP, PHONE = (1_440, 900), (390, 844)


async def main() -> None:
    """All three, of one run."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tradeback-picture-"))
        url = await start(Path(folder), stack)
        begin = asyncio.get_running_loop().time()

        async def at(seconds: float) -> None:
            await asyncio.sleep(begin + seconds - asyncio.get_running_loop().time())

        running = await stack.enter_async_context(browser())
        tab = await stack.enter_async_context(running.tab())
        await tab.size(*DESKTOP, scale=1.5)
        await shows(tab, f"{url}/#BTCUSDT/1d/pane=enigma", "dark")
        await at(DARK_AFTER_S)
        await tab.picture(FOLDER / "page-dark.png")
        await shows(tab, f"{url}/#ETHUSDT/1s/pane=latency", "light")
        await at(LIGHT_AFTER_S)
        await tab.until("tradeback.chart.gapCount > 0")
        await tab.picture(FOLDER / "page-light.png")
        await tab.size(*PHONE, scale=1.5, phone=True)
        await shows(tab, f"{url}/#SOLUSDT/4h", "dark")
        await at(LIGHT_AFTER_S + 5)
        await tab.picture(FOLDER / "page-phone.png")
        assert tab.console == [], tab.console


async def start(folder: Path, stack: AsyncExitStack) -> str:
    """A simulated exchange with faults and an engine on it, as `tradeback demo` starts them; its address."""
    script = folder / "faults.json"
    script.write_text(json.dumps({"faults": FAULTS}))
    environment = demo._environment()
    command = ["sim", "--port", "0", "--announce", *MARKET, "--faults", str(script)]
    simulator = await Child.start("the simulator", command, environment)
    stack.push_async_callback(simulator.stop)
    exchange = await simulator.announcement(demo.START_TIMEOUT_S)
    environment |= {
        "EXCHANGE_WS_ENDPOINT": exchange["ws"], "EXCHANGE_REST_ENDPOINT": exchange["rest"],
        "EXCHANGE_SYMBOLS": "*", "SERVER_PORT": "0", "DATA_DIR": str(folder / "data"),
    }  # fmt: skip
    engine = await Child.start("the engine", ["run", "--announce"], environment)
    stack.push_async_callback(engine.stop)
    url = (await engine.announcement(demo.START_TIMEOUT_S))["http"]
    async with aiohttp.ClientSession(url) as http:
        await demo._until_ready(http)
    return url


async def shows(tab: Tab, url: str, theme: str) -> None:
    """The page at this address in this theme, until it draws."""
    await tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    await tab.open("about:blank")
    await tab.open(url)
    await tab.until("tradeback.market.candles.bars.length > 100 && tradeback.enigma && tradeback.stats")


if __name__ == "__main__":
    asyncio.run(main())
