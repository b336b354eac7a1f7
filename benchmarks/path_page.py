"""The page in a headless Chromium on the real engine: first paint, frames per second, memory, bytes.

The browser has the first core alone, simulator and engine the last one, as it is where the browser is
another machine, except that a headless browser draws with its processor: there is no graphics card here, and
all of it, raster and composition too, is on that one core. So a page of one word is
measured in the same browser, beside the same load, before and after: where that is slow, nothing is said of
ours.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.harness import machine, page_probe
from benchmarks.harness.browser import Browser, NoBrowser, Tab, browser, chromium
from benchmarks.harness.engine import Engine
from benchmarks.harness.options import Options
from benchmarks.harness.page_probe import Counted
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import median, medians
from benchmarks.soak.market import Market

NAME = "path_page"
TITLE = "The page, 100 symbols, 1,000 trades/s: first paint, frames/s, memory"
SYMBOLS = 100
EVENTS_PER_S = 6_000
"""Of the simulated market, evenly; a fifth of them are trades, all of which the page is sent."""
TRADES_PER_S = 1_000.0
"""What must arrive, for the frames beside it to mean anything."""
VIEW = "/#BTCUSDT/1s"
"""Candles of a second: a new one each second, which is then compared with the engine's."""
CANDLES_MIN = 30
HISTORY_SECONDS_MAX = 120.0
"""Until the history of all symbols is loaded; in small the engine is still at it, on the other core."""
EMPTY, COLD, AGAIN, LIVE = "a page of one word", "first visit, nothing cached", "again, cached", "live"
EMPTY_PER_S_MIN = 50.0
EMPTY_PAINT_MS_MAX = 150.0
"""A page of one word is painted after some 40 ms and draws 60 frames/s; else the machine is not quiet."""
PAINT = "(performance.getEntriesByName('first-contentful-paint')[0] ?? {}).startTime"
DRAWN = f"globalThis.tradeback?.market.candles.bars.length >= {CANDLES_MIN} && performance.now()"
PRICED = (
    "(() => { const prices = [...document.querySelectorAll('.row .price')].map((one) => one.textContent);"
    f" return prices.length === {SYMBOLS} && !prices.includes('–'); }})()"
)


@dataclass
class _Runs:
    """Everything that was measured: row -> figures of each time; heap in MB by minute."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    heap: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    cores: str = ""

    def add(self, row: str, **figures: float) -> None:
        """One measurement."""
        self.figures.setdefault(row, []).append(figures)

    def all(self, row: str, name: str) -> list[float]:
        """One figure each time it was measured."""
        return [figures[name] for figures in self.figures.get(row, ()) if name in figures]


class _Bench:
    """A browser beside an engine, and what is measured of both."""

    def __init__(self, running: Browser, engine: Engine, market: Market, runs: _Runs) -> None:
        self._running, self._engine, self._runs = running, engine, runs
        self._servers = [*engine.family().values(), market.process.pid]
        self.url = f"http://127.0.0.1:{engine.port}"

    async def visits(self) -> None:
        """A first visit with an empty cache, and the same page once more."""
        async with self._running.tab() as tab:
            await tab.send("Page.navigate", url=self.url + VIEW)
            await self._visited(tab, COLD)
            before = tab.received
            await tab.send("Page.reload")
            await tab.until("performance.getEntriesByType('navigation')[0]?.type === 'reload'")
            await self._visited(tab, AGAIN, before)

    async def _visited(self, tab: Tab, row: str, before: int = 0) -> None:
        drawn = await tab.until(DRAWN)
        paint = await tab.until(PAINT)
        self._runs.add(row, paint=paint, candles=drawn, kb=(tab.received - before) / 1e3)
        self._look(tab)

    async def empty(self, seconds: float) -> None:
        """The baseline: a page of one word, in the same browser, beside the same engine."""
        async with self._running.tab() as tab:
            await tab.send("Page.navigate", url="data:text/html,word")
            self._runs.add(EMPTY, paint=await tab.until(PAINT))
            await self._count(tab, EMPTY, seconds)

    async def live(self, seconds: float, windows: int) -> None:
        """The page while trades come, `windows` times `seconds`; the heap is read between them."""
        async with self._running.tab() as tab:
            await tab.open(self.url + VIEW)
            await tab.until(DRAWN)
            await tab.until(PRICED)
            # The protocol would tell of every frame of the socket, at the cost of the browser.
            await tab.send("Network.disable")
            begin = time.monotonic()
            for _ in range(windows):
                self._runs.heap.append(((time.monotonic() - begin) / 60, await page_probe.heap_mb(tab)))
                await self._count(tab, LIVE, seconds)
            self._runs.heap.append(((time.monotonic() - begin) / 60, await page_probe.heap_mb(tab)))
            self._look(tab)

    async def _count(self, tab: Tab, row: str, seconds: float) -> None:
        if row == EMPTY or not await tab.evaluate("Boolean(globalThis.probe)"):
            await page_probe.put_in(tab)
        cpu, servers, begin = await page_probe.browser_cpu_s(self._running), self._cpu_s(), time.monotonic()
        await page_probe.start(tab)
        await asyncio.sleep(seconds)
        counted = await page_probe.stop(tab)
        took = time.monotonic() - begin
        browser_cpu = 100 * (await page_probe.browser_cpu_s(self._running) - cpu) / took
        servers_cpu = 100 * (self._cpu_s() - servers) / took
        self._runs.add(row, **_figures(counted, browser_cpu, servers_cpu))
        self._runs.wrong += [f"trades not in order: {words}" for words in counted.lost]

    def _cpu_s(self) -> float:
        return sum(machine.cpu_ns(pid) for pid in self._servers) / 1e9

    def _look(self, tab: Tab) -> None:
        self._runs.wrong += [f"the console says: {line}" for line in tab.console]
        foreign = {url for url in tab.requests if not url.startswith((self.url, "data:"))}
        self._runs.wrong += [f"asked for {url}" for url in sorted(foreign)]


def _figures(counted: Counted, browser_cpu: float, servers_cpu: float) -> dict[str, float]:
    found = {
        "fps": counted.per_second,
        "in_time": 100 * counted.in_time / max(1, counted.frames),
        "longest": counted.longest_ms,
        "tasks": counted.tasks / counted.seconds,
        "browser": browser_cpu,
        "servers": servers_cpu,
    }
    if counted.trades:
        found["trades"] = counted.trades / counted.seconds
    return found


async def _measure(options: Options, engine: Engine, market: Market, core: int, runs: _Runs) -> None:
    async with AsyncExitStack() as stack:
        with machine.pinned(core):  # what it starts stays there
            running = await stack.enter_async_context(browser())
        bench = _Bench(running, engine, market, runs)
        for _ in range(options.pick(2, 10)):
            await bench.visits()
        await bench.empty(options.pick(1, 10))
        await bench.live(*((15.0, 12) if options.full else (2.0, 2)))
        await bench.empty(options.pick(1, 10))


def run(options: Options) -> Report:
    """Measure once; the repeats are visits and windows of one run."""
    try:
        chromium()
    except NoBrowser as reason:
        return Report(NAME, TITLE, [], skipped=str(reason))
    browser_core, servers_core = machine.cores()
    runs = _Runs()
    arguments = ["--symbols", str(SYMBOLS), "--rate", str(EVENTS_PER_S), "--bursts", "0"]
    with (
        machine.pinned(servers_core),
        Market(arguments) as market,
        Engine(market, ["*"], servers_core, alone=False, environment={"EXCHANGE_LINES": "2"}) as engine,
    ):
        engine.wait_ready()
        if options.full:
            engine.wait_history(120.0)
        asyncio.run(_measure(options, engine, market, browser_core, runs))
    return _report(runs, browser_core == servers_core)


def _report(runs: _Runs, shared: bool) -> Report:
    report = Report(
        NAME, TITLE,
        [
            Column("paint", "first paint ms"), Column("candles", "candles ms"), Column("kb", "kB"),
            Column("fps", "frames/s", 1), Column("in_time", "within 50 ms %", 1),
            Column("longest", "longest ms"), Column("tasks", "long tasks/s", 2),
            Column("trades", "trades/s"),
            Column("browser", "browser CPU %"), Column("servers", "engine + exchange CPU %"),
        ],
        wrong=list(dict.fromkeys(runs.wrong)),
    )  # fmt: skip
    for row in (COLD, AGAIN, EMPTY, LIVE):
        report.rows.append(Row(row, medians(runs.figures[row])))
    empty, trades = median(runs.all(EMPTY, "fps")), median(runs.all(LIVE, "trades"))
    word, doubt = max(runs.all(EMPTY, "paint")), ""
    if empty < EMPTY_PER_S_MIN or word > EMPTY_PAINT_MS_MAX:
        doubt = f"not quiet: a page of one word took {word:.0f} ms, and drew {empty:.0f} frames/s"
    elif trades < TRADES_PER_S:
        doubt = f"only {trades:.0f} trades/s came"
    paints, frames = runs.all(COLD, "paint"), runs.all(LIVE, "fps")
    report.checks += [
        Check("first paint ms, the slowest", max(paints), "<=", 500.0, doubt),
        Check("frames/s, the worst window", min(frames), ">=", 30.0, doubt),
    ]
    _judge_heap(report, runs.heap)
    where = (
        "all on one core" if shared else "the browser on a core of its own, engine and exchange on another"
    )
    report.notes += [
        f"{where}; headless, drawn without a graphics card: raster and composition are in browser CPU.",
        f"{len(paints)} first visits, {len(frames)} windows of frames; a frame is a requestAnimationFrame.",
        "Heap behind a collection, MB by minute: "
        + ", ".join(f"{minute:.1f}: {size:.2f}" for minute, size in runs.heap),
    ]
    return report


HEAP_MB_MAX = 1.0
"""What the second half may add: candles of a second and the latencies' five minutes are kept."""
HEAP_WINDOWS_MIN = 8


def _judge_heap(report: Report, heap: list[tuple[float, float]]) -> None:
    """Flat: the last third against the middle one. Too few windows say nothing."""
    if len(heap) < HEAP_WINDOWS_MIN:
        return
    third = len(heap) // 3
    sizes = [size for _, size in heap]
    grown = median(sizes[-third:]) - median(sizes[third : 2 * third])
    report.checks.append(Check("heap MB, last third to the middle one", grown, "<=", HEAP_MB_MAX))
