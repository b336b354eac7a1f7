"""The page in a headless browser, against the real engine on a simulated exchange. Takes some 20 s."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.flow.running import Engine, start_engine
from tests.web.browser import Browser, Tab, browser
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_frames import stream_of
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.faults import RestAnswer, make_fault
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

SYMBOLS = 5
RATE = 150.0
"""Slow enough that the engine and the page can be caught at the same trade."""
PRICE = "document.getElementById('price').textContent"
LINK = "document.getElementById('link').dataset.state"
UP = f"['live', 'degraded'].includes({LINK})"
"""Degraded is any engine that is short of something; on a busy machine it may be at any time."""
CANDLES = "tradeback.market.candles.bars"
CLOCK_WRONG = """
(() => {
  const behind = 3 * 3600e3, now = Date.now.bind(Date), origin = performance.timeOrigin;
  Date.now = () => now() - behind;
  Object.defineProperty(performance, "timeOrigin", { value: origin - behind });
})()
"""
READABLE = (Path(__file__).parent / "readable.js").read_text("utf-8")


class Switched(FaultPlay):
    """Faults that a test switches on and off."""

    def __init__(self) -> None:
        super().__init__([make_fault({"kind": "rest_error", "at": "1000h"})])
        self.loses = ""
        """A stream whose frames never leave."""
        self.denies = ""
        """A path of REST that answers 500."""

    def on_frames(self, number: int, frames: list[bytes]) -> list[bytes]:
        return [data for data in super().on_frames(number, frames) if stream_of(data) != self.loses]

    def on_rest(self, path: str, query: Mapping[str, str], answer: RestAnswer, now_us: int) -> RestAnswer:
        if self.denies and self.denies in path:
            return RestAnswer(500, b'{"code":-1000,"msg":"switched off"}', {})
        return super().on_rest(path, query, answer, now_us)


class World:
    """An exchange in this process, an engine in another, and a page that looks at it."""

    def __init__(self, faults: Switched, sim: SimServer, engine: Engine, tab: Tab) -> None:
        self.faults, self.sim, self.engine, self.tab = faults, sim, engine, tab

    async def get(self, path: str) -> Any:
        """JSON of the engine; None while it cannot answer."""
        async with aiohttp.ClientSession(self.engine.url) as http, http.get(path) as answer:
            return json.loads(await answer.text()) if answer.status == 200 else None

    async def restart(self) -> None:
        """The engine again, on the same port and the same data."""
        old = self.engine
        port = old.url.rpartition(":")[2]
        variables = {"SERVER_PORT": port}
        self.engine = await start_engine(old.data_dir, exchange_of(self.sim), variables)
        await self.engine.announcement()


def exchange_of(sim: SimServer) -> dict[str, str]:
    return {"ws": sim.ws_url, "rest": sim.rest_url}


async def add_user(data_dir: Path, name: str, password: str) -> None:
    """A user of the engine that will be started there."""
    data_dir.mkdir()
    command = (sys.executable, "-m", "tradeback", "user", "add", name, "--password-stdin")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "DATA_DIR": str(data_dir)},
    )  # fmt: skip
    await process.communicate(password.encode())
    assert process.returncode == 0


@asynccontextmanager
async def living(folder: Path, running: Browser, **variables: str) -> AsyncIterator[World]:
    """All of it; the page is not open yet."""
    faults = Switched()
    sim = await SimServer.start(Synthetic(SYMBOLS, RATE, seed=3), SimConfig(), faults=faults)
    engine = await start_engine(folder / "data", exchange_of(sim), variables)
    world = None
    try:
        await engine.announcement()
        await engine.ready()
        if "AUTH_MODE" not in variables:
            await engine.history_complete()
        async with running.tab() as tab:
            world = World(faults, sim, engine, tab)
            yield world
    finally:
        await (world.engine if world is not None else engine).kill()
        await sim.stop()


async def test_live_prices_levels_gaps_keys_and_a_restart(tmp_path: Path) -> None:
    async with browser() as running, living(tmp_path, running) as world:
        await world.tab.open(f"{world.engine.url}/#BTCUSDT/1m")
        await check_live_prices(world)
        await check_levels(world)
        await check_strip(world)
        await check_candles(world)
        await check_keys(world)
        await check_watch(world)
        await check_readable(world)
        await check_names(world)
        await check_skip(world)
        await check_wrong_clock(running, world)
        await check_gap(world)
        assert world.tab.console == [], "nothing to say"
        assert {url for url in world.tab.requests if not url.startswith((world.engine.url, "data:"))} == set()
        await check_old_figures(world)
        await check_restart(world)


async def check_live_prices(world: World) -> None:
    tab = world.tab
    first = await tab.until(f"{PRICE} !== '–' && {PRICE}")
    await tab.until(f"{PRICE} !== {json.dumps(first)}")
    await tab.until(UP)
    rows = await tab.until(
        "(() => { const prices = [...document.querySelectorAll('.row .price')].map((one) => one.textContent);"
        f" return prices.length === {SYMBOLS} && !prices.includes('–') && prices; }})()"
    )
    assert len(rows) == SYMBOLS
    await tab.until("document.querySelectorAll('.row .spark polyline[points]').length > 0")
    await tab.until(
        "[...document.querySelectorAll('.row .change')].every((one) => one.textContent.includes('%'))"
    )
    # What the page shows is what was traded a moment ago.
    shown = await tab.evaluate(PRICE)
    ticks = (await world.get("/api/v1/symbols/BTCUSDT/ticks?limit=5000"))["ticks"]
    assert shown in {f"{tick['price']:,.2f}" for tick in ticks[-500:]}


async def check_levels(world: World) -> None:
    """The lines on the chart are the engine's levels, to the tick, and the gauge says the same."""
    tab = world.tab
    await tab.until("tradeback.enigma && tradeback.chart.levelLines.length === 7")
    async with asyncio.timeout(40):
        while True:
            answer = await world.get("/api/v1/symbols/BTCUSDT/enigma")
            drawn = {line["name"]: line["price"] for line in await tab.evaluate("tradeback.chart.levelLines")}
            if drawn == answer["fib_levels"]:
                break
    assert abs(float(await tab.text("#gauge-text")) - answer["level"]) < 1
    assert await tab.evaluate("document.querySelectorAll('#chart canvas').length") > 2, (
        "lightweight-charts draws"
    )


async def check_strip(world: World) -> None:
    """Rate, the three latencies with their clocks' bounds, the lines, the gaps, how far it is complete."""
    tab = world.tab
    for cell in ("rate", "wire", "engine", "page", "complete"):
        await tab.until(f"!document.querySelector('#s-{cell} b').textContent.startsWith('–')")
    for cell in ("wire", "page"):
        await tab.until(f"document.querySelector('#s-{cell} .sub').textContent.includes('±')")
    states = "[...document.querySelectorAll('#s-lines [data-line]')].map((one) => one.dataset.state).join()"
    await tab.until(f"{states} === 'ok,ok'")
    assert await tab.text("#s-gaps b") == "0"


async def check_candles(world: World) -> None:
    """Every closed candle in the page is the engine's bar; the running one is, too, when nothing moves."""
    tab = world.tab
    await tab.until(f"{CANDLES}.length > 100")
    names = ("time", "open", "high", "low", "close", "volume")
    async with asyncio.timeout(40):
        while True:
            drawn = await tab.evaluate(f"{CANDLES}.slice(-50)")
            answer = await world.get(f"/api/v1/symbols/BTCUSDT/bars?resolution=1m&from={drawn[0]['time']}")
            held = {bar["time"]: tuple(bar[name] for name in names) for bar in answer["bars"]}
            closed = [tuple(bar[name] for name in names) for bar in drawn[:-1]]
            running = tuple(drawn[-1][name] for name in names)
            if all(held.get(bar[0]) == bar for bar in closed) and held.get(running[0]) == running:
                return


async def check_keys(world: World) -> None:
    tab = world.tab
    for key, wanted in (("3", "#BTCUSDT/5m"), ("2", "#BTCUSDT/1m"), ("f", "#BTCUSDT/1m/levels=fit")):
        await tab.key(key)
        await tab.until(f"location.hash === {json.dumps(wanted)}")
    for key in ("e", "l"):
        await tab.key(key)
        await tab.until(f"tradeback.state.pane === {json.dumps({'e': 'enigma', 'l': 'latency'}[key])}")
    await tab.key("l")
    theme = await tab.evaluate("document.documentElement.dataset.theme")
    await tab.key("t")
    await tab.until(f"document.documentElement.dataset.theme !== {json.dumps(theme)}")
    names = await tab.evaluate("tradeback.list.names")
    await tab.key("ArrowDown")
    await tab.until(f"tradeback.selected.symbol === {json.dumps(names[1])}")
    await tab.until(f"{CANDLES}.length > 100 && {PRICE} !== '–'")
    await tab.key("/")
    await tab.until("document.activeElement.id === 'find'")
    for letter in "btc":
        await tab.key(letter)
    await tab.until("tradeback.list.names.length === 1")
    await tab.key("Enter")
    await tab.until("tradeback.selected.symbol === 'BTCUSDT'")
    await tab.key("?")
    await tab.until("document.getElementById('about').open")
    await tab.key("Escape")
    await tab.until(f"!document.getElementById('about').open && {CANDLES}.length > 100")


async def check_watch(world: World) -> None:
    """A star puts a symbol onto the market watch of this browser's session."""
    tab = world.tab
    await tab.until("!document.getElementById('star').hidden")
    await tab.key("w")
    await tab.until("document.getElementById('star').getAttribute('aria-pressed') === 'true'")
    await tab.until(
        "fetch('/api/v1/marketwatch').then((r) => r.json()).then((w) => w.symbols.includes('BTCUSDT'))"
    )
    await tab.click("[data-list=watch]")
    await tab.until("tradeback.list.names.join() === 'BTCUSDT'")
    await tab.click("[data-list=all]")
    await tab.until(f"tradeback.list.names.length === {SYMBOLS}")


async def check_gap(world: World) -> None:
    """Trades that no line brings show as a gap; repaired, they are in the candles and the shade is gone."""
    tab, faults = world.tab, world.faults
    faults.denies, faults.loses = "historicalTrades", "btcusdt@trade"
    await tab.until("tradeback.stats.gaps.open > 0", 60)
    faults.loses = ""
    await tab.until("tradeback.chart.gapCount > 0")
    await tab.until("document.querySelector('#s-gaps').dataset.state === 'bad'")
    assert "missing" in await tab.text("#events")
    await tab.until(f"{LINK} === 'degraded'")
    faults.denies = ""
    await tab.until("tradeback.chart.gapCount === 0", 60)
    await tab.until("document.getElementById('events').innerText.includes('repaired')")
    await tab.until("document.querySelector('#s-gaps b').textContent === '0'")
    await check_candles(world)


async def check_restart(world: World) -> None:
    """An engine that is killed and comes again: the page says so, comes back by itself, lacks nothing."""
    tab = world.tab
    await tab.evaluate("window.sameDocument = true")
    await world.engine.kill()
    await tab.until(f"{LINK} === 'down'")
    await tab.until("document.getElementById('chart').classList.contains('grey')")
    await world.restart()
    await tab.until(UP, 60)
    before = await tab.evaluate(PRICE)
    await tab.until(f"{PRICE} !== {json.dumps(before)}")
    await check_candles(world)
    assert await tab.evaluate("window.sameDocument")
    assert "back after" in await tab.text("#events")
    network = ("ERR_CONNECTION", "WebSocket connection", "503", "ERR_INCOMPLETE", "ERR_EMPTY", "ERR_BLOCKED")
    assert [line for line in tab.console if not any(word in line for word in network)] == []


async def test_on_a_phone_and_without_the_library(tmp_path: Path) -> None:
    """Nothing overflows, in the system's theme; where the library does not come there is a line."""
    async with browser() as running, living(tmp_path, running) as world:
        tab = world.tab
        await tab.size(390, 844, scale=2, phone=True)
        for theme in ("dark", "light"):
            media = [{"name": "prefers-color-scheme", "value": theme}]
            await tab.send("Emulation.setEmulatedMedia", features=media)
            await tab.open("about:blank")
            await tab.open(world.engine.url)
            await tab.until(f"{CANDLES}.length > 100 && {PRICE} !== '–'")
            assert await tab.evaluate("document.documentElement.dataset.theme") == theme
            assert await tab.evaluate("document.documentElement.scrollWidth") <= 390
            assert await tab.evaluate("document.querySelector('.rows').scrollWidth > 390"), "a strip"
        assert tab.console == []
        await tab.send("Network.setBlockedURLs", urls=["*lightweight-charts*"])
        await tab.send("Page.reload", ignoreCache=True)
        await tab.until("tradeback.chart.constructor.name === 'LineChart'")
        await tab.until(f"{CANDLES}.length > 100 && tradeback.enigma")
        await tab.until("document.querySelector('canvas.pane').toDataURL().length > 5000")
        assert [line for line in tab.console if "ERR_BLOCKED" not in line] == []


async def check_wrong_clock(running: Browser, world: World) -> None:
    """A viewer whose clock is three hours behind sees the same."""
    async with running.tab() as tab:
        await tab.send("Page.addScriptToEvaluateOnNewDocument", source=CLOCK_WRONG)
        await tab.open(f"{world.engine.url}/#BTCUSDT/1m")
        assert await tab.evaluate("Date.now()") < (time.time() - 3_000) * 1e3, "it is wrong"
        await tab.until(f"{CANDLES}.length > 100")
        last = await tab.evaluate(f"{CANDLES}.at(-1).time")
        assert abs(last - time.time()) < 150, "up to now, by the engine's clock"
        await tab.until("document.querySelector('#s-page .sub').textContent.includes('±')")
        unit = await tab.until("document.querySelector('#s-page i').textContent.trim()")
        assert unit in ("µs", "ms"), "the offset of the clocks is taken off"
        shown, now = await tab.text("#utc"), datetime.now(UTC)
        assert shown in {(now - timedelta(seconds=back)).strftime("%H:%M:%S") for back in range(-2, 30)}
        assert tab.console == []


async def check_readable(world: World) -> None:
    """Contrast of all texts by WCAG's AA, in both themes, also of the list of keys and the latencies."""
    tab = world.tab
    await tab.key("l")
    for _ in range(2):
        await check_contrast(tab)
        await tab.key("?")
        await check_contrast(tab)
        await tab.key("Escape")
        await tab.key("t")


async def check_contrast(tab: Tab) -> None:
    found = await tab.evaluate(READABLE)
    assert found["seen"] > 10
    assert found["found"] == []


async def check_names(world: World) -> None:
    """Whatever can be reached by keyboard has a role and a name."""
    nodes = (await world.tab.send("Accessibility.getFullAXTree"))["nodes"]
    nameless, named = [], 0
    for node in nodes:
        reached = any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ()))
        role = node.get("role", {}).get("value", "")
        if node.get("ignored") or not (
            reached or role in ("button", "textbox", "option", "img", "table", "group")
        ):
            continue
        if role == "RootWebArea" or node.get("name", {}).get("value", "").strip():
            named += 1
        else:
            nameless.append((role, node.get("backendDOMNodeId")))
    assert nameless == []
    assert named > 20


async def check_skip(world: World) -> None:
    """The way past the list leaves the view as it is."""
    tab = world.tab
    await tab.key("3")
    await tab.until("location.hash.startsWith('#BTCUSDT/5m')")
    await tab.evaluate("document.getElementById('skip').click()")
    await tab.until("document.activeElement.id === 'chart'")
    assert str(await tab.evaluate("location.hash")).startswith("#BTCUSDT/5m")
    await tab.key("2")


async def check_old_figures(world: World) -> None:
    """An engine that does not tell how it is: the figures are old, and the page says of when."""
    tab = world.tab
    await tab.send("Network.setBlockedURLs", urls=["*/api/v1/stats*"])
    await tab.until("document.getElementById('strip').dataset.old === 'true'")
    assert (await tab.text("#s-rate .sub")).startswith("as of ")
    await tab.until(
        f"{LINK} === 'degraded' && document.getElementById('link').innerText.includes('not told')"
    )
    await tab.send("Network.setBlockedURLs", urls=[])
    await tab.until("document.getElementById('strip').dataset.old === 'false'")


async def test_who_must_log_in_is_asked_and_then_sees_everything(tmp_path: Path) -> None:
    await add_user(tmp_path / "data", "ada", "correct horse")
    async with browser() as running, living(tmp_path, running, AUTH_MODE="required") as world:
        tab = world.tab
        await tab.open(f"{world.engine.url}/#ETHUSDT/5m")
        await tab.until("document.getElementById('login').open")
        await check_contrast(tab)
        asked = len(tab.requests)
        for key in ("Escape", "Escape"):
            await tab.key(key)
        await tab.until("document.getElementById('login').open")
        for password in ("wrong horse", "correct horse"):
            await tab.evaluate(
                "(() => { const f = document.getElementById('login-form'); f.username.value = 'ada';"
                f" f.password.value = {json.dumps(password)}; f.requestSubmit(); }})()"
            )
            if password.startswith("wrong"):
                await tab.until("document.getElementById('login-error').textContent.includes('do not fit')")
            else:
                refused = [line for line in tab.console if "401" in line]
                assert len(refused) <= 4, "who must log in first is not asked each second what else there is"
                assert len(tab.requests) - asked < 6
        await tab.until("!document.getElementById('account').hidden")
        assert await tab.text("#account-name") == "ada"
        await tab.until(f"{UP} && {PRICE} !== '–' && {CANDLES}.length > 100")
        assert await tab.evaluate("location.hash") == "#ETHUSDT/5m"
        await tab.click("#log-out")
        await tab.until("document.getElementById('login').open")
        assert await tab.evaluate("document.getElementById('account').hidden")
