"""Bars on demand: klines that somebody wants and the store lacks are fetched once and kept.

Whoever answers for bars names the spans in which bars are missing or doubtful; what was asked for before
is not asked for again, whatever came. Pages go backwards from the newest span, because charts page so, and
take a share of the exchange's weight that leaves most of it to repair. Live data never waits.

A span that is noted as asked for from 0 on tells that the exchange has nothing older.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tradeback.derive import seeds
from tradeback.derive.completeness_ranges import IdRanges, minus
from tradeback.derive.lacking import JOIN_SLOTS, Span, join
from tradeback.derive.layout import RESOLUTION_S, RESOLUTIONS, Bars
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.rest import Rest
from tradeback.model.clock import Clock
from tradeback.model.errors import ExchangeError, RateLimited, StoreError, TradebackError
from tradeback.model.symbols import Symbol
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family, unlabelled

PAGE_BARS = 1_000
PAGE_WEIGHT = 2
WEIGHT_PER_MINUTE = 1_500
"""Of the 5,000 that all requests share: 750 pages, a year of minutes in 42 s."""
AT_ONCE = 2
JOBS_MAX = 64
"""Beyond so many that wait or run, nothing more is begun: who asks again later gets his turn."""
PAGES_PER_JOB = 40
RECENT_S = 60
"""The exchange's database trails: a slot that closed so recently and is not in an answer may still come."""
SETTLE_S = 2
ATTEMPTS_MAX = 4
RETRY = Backoff(0.25, 5.0)
DEGRADED_S = 300.0
"""How long health remembers a failure that nobody has tried to repeat."""
AFTER_FAILURE_S = 30.0
"""After a job was given up its series is left alone for so long."""
STORE_ROWS = 100
"""Bars given to the store at a time: taking 1,000 apart holds the interpreter's lock for 4 ms."""

Series = tuple[int, int]
"""Symbol id and index of the resolution."""


class KlineStore(Protocol):
    """What is needed of the series store."""

    def put_history(self, bars: Bars) -> int: ...

    def cover(self, symbol_id: int, resolution: int, from_s: int, to_s: int) -> None: ...

    def covered(self, symbol_id: int, resolution: int) -> IdRanges: ...


@dataclass(slots=True)
class Job:
    """One backfill, while it waits or runs."""

    symbol: Symbol
    resolution: int
    spans: list[Span]
    """What is still to be asked for, ascending."""
    bars_wanted: int
    began_ns: int
    running: bool = False
    pages: int = 0
    bars: int = 0

    @property
    def pages_left(self) -> int:
        """How many there may still be."""
        slot_s = RESOLUTION_S[self.resolution]
        slots = sum(span.to_s - span.from_s for span in self.spans) // slot_s
        return -(-min(slots, max(0, self.bars_wanted - self.bars)) // PAGE_BARS)

    def describe(self) -> dict[str, object]:
        """For health."""
        return {
            "symbol": self.symbol.symbol,
            "resolution": RESOLUTIONS[self.resolution],
            "running": self.running,
            "pages": self.pages,
            "pages_left": self.pages_left,
            "bars": self.bars,
            "since": self.began_ns // 1_000_000,
        }


class Backfill:
    """Owned by the engine; `close` at the end. Loop thread."""

    def __init__(
        self, rest: Rest, store: KlineStore, clock: Clock, newest_us: Callable[[], int], log: Log
    ) -> None:
        """`newest_us`: the exchange's time as of the newest trade; 0 before the first."""
        self._rest, self._store, self._clock, self._log = rest, store, clock, log
        self._newest_us = newest_us
        self._budget = Budget(WEIGHT_PER_MINUTE, 60.0)
        self._covered: dict[Series, IdRanges] = {}
        self._generations: dict[Series, int] = {}
        self._busy: dict[Series, asyncio.Lock] = {}
        self._not_before_ns: dict[Series, int] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[tuple[Series, tuple[Span, ...], int], asyncio.Task[None]] = {}
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self.on_note: list[Callable[[int, int], None]] = []
        """Called with symbol id and resolution whenever klines of a series were stored."""
        self._since_ns = clock.wall_ns()
        self._failed_ns = 0
        self.last_error: str | None = None
        self.pages = self.bars = self.given_up = self.turned_away = 0

    # Asking.

    def generation(self, symbol_id: int, resolution: int) -> int:
        """Rises whenever klines of this series were stored."""
        return self._generations.get((symbol_id, resolution), 0)

    async def unknown(self, symbol: Symbol, resolution: int, spans: Iterable[Span]) -> list[Span]:
        """The parts of ascending spans that the exchange was never asked for."""
        covered = await self._known((symbol.id, resolution))
        parts = minus(((span.from_s, span.to_s - 1) for span in spans), covered)
        return [Span(first, last + 1) for first, last in parts]

    async def fill(
        self, symbol: Symbol, resolution: int, spans: Sequence[Span], bars_wanted: int, wait_s: float
    ) -> bool:
        """Have what the exchange knows of ascending spans in the store, newest first, until `bars_wanted`
        bars have come. False: not all of it is there, because it takes longer than `wait_s` (then it goes
        on in the background), or the exchange does not answer."""
        series = symbol.id, resolution
        missing = await self.unknown(symbol, resolution, spans)
        if not missing:
            return True
        if self._clock.steady_ns() < self._not_before_ns.get(series, 0):
            return False
        key = series, tuple(missing), bars_wanted
        task = self._tasks.get(key)
        if task is None:
            if len(self._jobs) >= JOBS_MAX:
                self.turned_away += 1
                return False
            job = Job(symbol, resolution, missing, bars_wanted, self._clock.wall_ns())
            task = self._tasks[key] = asyncio.create_task(self._work(series, job))
            self._jobs[task] = job
            task.add_done_callback(lambda done: self._ended(key, done))
        await asyncio.wait({task}, timeout=wait_s)
        return task.done() and not task.cancelled() and task.exception() is None

    def note(self, symbol_id: int, resolution: int, from_s: int, to_s: int) -> None:
        """Somebody else has stored the klines of [from_s, to_s)."""
        series = symbol_id, resolution
        if series in self._covered:
            self._covered[series].add(from_s, to_s - 1)
        self._generations[series] = self._generations.get(series, 0) + 1
        for tell in self.on_note:
            tell(symbol_id, resolution)

    async def close(self) -> None:
        """End what runs. What a page has brought is stored."""
        tasks = list(self._jobs)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Working.

    async def _known(self, series: Series) -> IdRanges:
        covered = self._covered.get(series)
        if covered is None:
            try:
                found = await asyncio.to_thread(self._store.covered, *series)
            except Exception as error:  # the boundary to a store
                raise StoreError(f"the series store cannot be read: {error}") from error
            covered = self._covered.setdefault(series, found)
        return covered

    def _ended(self, key: tuple[Series, tuple[Span, ...], int], task: asyncio.Task[None]) -> None:
        del self._tasks[key], self._jobs[task]
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self.given_up += 1
        self._failed_ns = self._clock.steady_ns()
        self.last_error, self._since_ns = str(error) or type(error).__name__, self._clock.wall_ns()
        self._not_before_ns[key[0]] = self._clock.steady_ns() + int(AFTER_FAILURE_S * 1e9)
        if not isinstance(error, TradebackError):
            self._log.error("a backfill is broken", error=str(error), kind=type(error).__name__)
        else:
            self._log.warning("klines on demand cannot be had", error=str(error))

    async def _work(self, series: Series, job: Job) -> None:
        async with self._busy.setdefault(series, asyncio.Lock()), self._gate:
            # While it waited, the one before may have brought the same.
            slot_s = RESOLUTION_S[job.resolution]
            job.spans = join(await self.unknown(job.symbol, job.resolution, job.spans), JOIN_SLOTS * slot_s)
            job.running = True
            while job.spans and job.bars < job.bars_wanted and job.pages < PAGES_PER_JOB:
                await self._fetch_page(series, job)
        self.last_error = None

    async def _fetch_page(self, series: Series, job: Job) -> None:
        """The newest page of the newest span; what is left of the spans stays in the job."""
        from_s, to_s = job.spans[-1]
        slot_s, name = RESOLUTION_S[job.resolution], RESOLUTIONS[job.resolution]
        limit = min(PAGE_BARS, max(1, (to_s - from_s) // slot_s))
        klines = await self._ask(job.symbol, name, to_s, limit)
        job.pages += 1
        self.pages += 1
        slots_s = klines["slot_us"] // 1_000_000
        if len(klines) and int(slots_s.max()) >= to_s:
            raise ExchangeError(f"{self._rest.endpoint} answers klines behind the end that was asked for")
        oldest_s = int(slots_s.min()) if len(klines) else to_s
        begun_s = oldest_s if len(klines) >= limit else 0
        newest_s = int(slots_s.max()) + slot_s if len(klines) else 0
        closed_s = await self._time_s() - SETTLE_S
        recent_s = closed_s - RECENT_S
        known_s = to_s if to_s <= recent_s else max(newest_s, recent_s - recent_s % slot_s)
        known_s = min(known_s, to_s, closed_s - closed_s % slot_s)
        bars = seeds.history_bars(job.symbol, name, klines, closed_s * 1_000)
        try:
            for first in range(0, len(bars), STORE_ROWS):
                await asyncio.to_thread(self._store.put_history, bars[first : first + STORE_ROWS])
            if begun_s < known_s:
                await asyncio.to_thread(self._store.cover, *series, begun_s, known_s)
        except Exception as error:  # the boundary to a store: whatever it raises, live data goes on
            raise StoreError(f"the series store refuses klines: {error}") from error
        self.bars += len(bars)
        job.bars += len(bars)
        self.note(*series, begun_s, known_s)
        job.spans = [Span(first, min(end, begun_s)) for first, end in job.spans if first < begun_s]

    async def _ask(self, symbol: Symbol, name: str, to_s: int, limit: int) -> Bars:
        """Klines that open before `to_s`; tried again unless the exchange says that it is wrong to ask."""
        failures = 0
        while True:
            wait_s = self._budget.take(self._clock.steady_ns(), PAGE_WEIGHT)
            if wait_s:
                await asyncio.sleep(wait_s)
            try:
                return await self._rest.klines(symbol, name, end_ms=to_s * 1_000 - 1, limit=limit)
            except RateLimited as error:
                self.last_error, self._failed_ns = str(error), self._clock.steady_ns()
                await asyncio.sleep(error.retry_after_s)
            except ExchangeError as error:
                failures += 1
                if failures >= ATTEMPTS_MAX or error.status in (400, 403, 404):
                    raise
                await asyncio.sleep(RETRY.delay_s(failures, 0.5))

    async def _time_s(self) -> int:
        """The exchange's clock, roughly: of its newest trade, or asked."""
        newest_us = self._newest_us() or await self._rest.time_us()
        return newest_us // 1_000_000

    # Telling.

    def health(self) -> ComponentHealth:
        """What is being fetched, and how far it is. Degraded while the exchange refuses what is wanted."""
        jobs = list(self._jobs.values())
        if self._clock.steady_ns() - self._failed_ns > DEGRADED_S * 1e9:
            self.last_error = None
        words = self.last_error
        if jobs:
            left = sum(job.pages_left for job in jobs)
            done = sum(job.pages for job in jobs)
            words = f"{len(jobs)} backfills, {done} pages done, {left} left"
            if self.last_error:
                words = f"{words}; {self.last_error}"
        return ComponentHealth(
            "backfill",
            "degraded" if self.last_error else "ok",
            self._since_ns,
            words,
            details={"jobs": [job.describe() for job in jobs], "pages": self.pages, "bars": self.bars},
        )

    def collect(self) -> Iterator[Family]:
        """Pages, bars and failures."""
        yield Family("tradeback_backfill_jobs", "gauge", "Backfills that wait or run.").add(len(self._jobs))
        counts = (
            ("pages", self.pages, "Pages of klines fetched on demand."),
            ("bars", self.bars, "Bars that these brought."),
            ("given_up", self.given_up, "Backfills that the exchange or the store did not let end."),
            ("turned_away", self.turned_away, "Backfills not begun because too many were waiting."),
        )
        yield from unlabelled("tradeback_backfill_", "counter", counts)
