"""Repair: what is missing is fetched by REST, exactly, while live data goes on.

Trades come from historicalTrades (weight 25 a page), aggregates from aggTrades (weight 4), both by id. One
page is one unit of work: it fills every open gap of its symbol that it reaches, then the gap with the
fewest missing ids is next, so small ones do not wait behind the big. Weight, 429 and 418 are shared with
all other requests through `Rest`.

The exchange's database trails its streams: a page that ends below the gap's end proves nothing, and is
asked for again with growing waits. Ids that a page has passed by are missing in the exchange's books only
if a second reading agrees; these are given up, and nothing else but what configuration bounds: trades
older than `repair_max_age`, and all but the newest `repair_max_trades` of a hole.

Repaired records enter the tape in order of id, in slices of SLICE_ROWS, and only what the ledger lacks at
that moment. Ids inside the arbiter's window pass the arbiter, so that the same trade cannot come by a line
as well; older ones cannot come by a line any more and are appended.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.completeness_gap import AGGS, OPEN, STREAM_KINDS, TRADES, Gap
from tradeback.derive.completeness_ranges import IdRanges, Range, minus
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.intake import Intake
from tradeback.exchange.repair_gaps import GapKeeper
from tradeback.exchange.repair_pages import PAGE_MAX, PATHS, read_page
from tradeback.exchange.rest import Rest
from tradeback.ingest.context import AGG_WINDOW_IDS
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError, RateLimited, TapeError
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import LATE, Rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family, unlabelled

AT_ONCE = 3
LAG_MAX_US = 10_000_000
SLICE_ROWS = 128
"""Records that enter the tape before the loop may look at the lines again: well below a millisecond."""
RETRY = Backoff(0.25, 15.0)
ABSENT_AGAIN_S = 1.0
"""How long after a page without some ids it is read again."""
AGGREGATES_PER_TRADE = 6
"""So many aggregates cost the weight of one trade: where trades are beyond the bounds, these still bring
price and volume (see `standin`)."""
REFUSED = (400, 403, 404)
"""Statuses that say that asking again does not help."""
_WINDOWS = (SEEN_WINDOW_IDS, AGG_WINDOW_IDS)


@dataclass(slots=True)
class Job:
    """The repair of one gap."""

    gap: Gap
    floor: int = -1
    """Lowest id that is fetched (0: no bound); -1: the bounds have not been looked at yet."""
    not_before_ns: int = 0
    absent: IdRanges = field(default_factory=IdRanges)
    """Ids that a page has passed by once."""
    given_up: IdRanges = field(default_factory=IdRanges)


class Repair:
    """Owned by the engine: `start` when the lines deliver, then `stop`. Loop thread."""

    def __init__(
        self,
        keeper: GapKeeper,
        intake: Intake,
        rest: Rest,
        symbols: SymbolTable,
        clock: Clock,
        config: ExchangeConfig,
        log: Log,
    ) -> None:
        self._keeper, self._intake, self._rest, self._symbols = keeper, intake, rest, symbols
        self._clock, self._log = clock, log
        self._age_ns = int(config.repair_max_age_s * 1e9)
        self._trades_max = config.repair_max_trades
        self._jobs: dict[tuple[int, int, int, int], Job] = {}
        self._busy: dict[tuple[int, int], asyncio.Task[None]] = {}
        """One page at a time for each stream."""
        self._behind: dict[tuple[int, int], tuple[int, int]] = {}
        """Streams whose last page ended too early: how often in a row, not to be asked before (ns)."""
        self._lag_us = 0
        """How far the exchange's database seems to trail: younger gaps wait, for a page costs weight."""
        self._wake = asyncio.Event()
        self._not_before_ns = 0
        self._failures = 0
        self._since_ns = clock.wall_ns()
        self._main: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None
        self.last_error: str | None = None
        self.pages = self.repaired_trades = self.repaired_aggregates = self.absent_ids = 0
        keeper.on_change.append(self._wake.set)

    def start(self, watch: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin; a task that ends by itself is shown to `watch`."""
        self._main = asyncio.create_task(self.run())
        self._main.add_done_callback(watch)

    async def stop(self) -> None:
        """End at once: what is half done is gone on with after the next start."""
        tasks = [*self._busy.values(), *([self._main] if self._main is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self) -> None:
        """Work on open gaps for ever."""
        while True:
            self._wake.clear()
            if self._broken is not None:
                raise self._broken  # a bug: it must not look like a gap that takes its time
            wait_s = self._begin_due()
            # Not wait_for: in Python 3.11 that swallows a cancellation which comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def _begin_due(self) -> float | None:
        """Begin what is due; seconds until something else will be, None: nothing before it is woken."""
        gaps = {(gap.symbol_id, gap.stream, *gap.name): gap for gap in self._keeper.ledger.gaps(OPEN)}
        self._jobs = {name: self._jobs.get(name) or Job(gap) for name, gap in gaps.items()}
        now_ns, waits = self._clock.steady_ns(), []
        for job in sorted(self._jobs.values(), key=lambda job: (job.gap.missing, job.gap.opened_ns)):
            key = job.gap.symbol_id, job.gap.stream
            behind_ns = self._behind.get(key, (0, 0))[1]
            ripe_ns = now_ns + max(0, 1_000 * (self._lag_us - self._age_us(job.gap)))
            due_ns = max(job.not_before_ns, self._not_before_ns, behind_ns, ripe_ns)
            if due_ns > now_ns:
                waits.append((due_ns - now_ns) / 1e9)
            elif key not in self._busy and len(self._busy) < AT_ONCE:
                task = asyncio.create_task(self._work(job))
                self._busy[key] = task
                task.add_done_callback(partial(self._done, key))
        return min(waits, default=None)

    def _done(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        del self._busy[key]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()

    async def _work(self, job: Job) -> None:
        """One page for one gap, with everything that may come of it."""
        now_ns = self._clock.wall_ns()
        try:
            if job.gap.opened_ns + self._age_ns < now_ns:
                self._give_up(job, "it could not be repaired in time")
            elif job.floor < 0:
                job.floor = await self._floor(job.gap, now_ns)
            else:
                await self._fetch(job)
            self._failures, self.last_error = 0, None
        except RateLimited as error:
            self._pause(error.retry_after_s, error)
        except ExchangeError as error:
            if error.status in REFUSED:
                self._give_up(job, str(error))
            else:
                self._failures += 1
                self._pause(RETRY.delay_s(self._failures, random.random()), error)
        except TapeError as error:
            self._pause(RETRY.first_s, error)

    def _pause(self, seconds: float, error: Exception) -> None:
        """Nothing is asked for that long: what went wrong is not this gap's fault."""
        if self.last_error is None:
            self._since_ns = self._clock.wall_ns()
        self.last_error = str(error)
        self._not_before_ns = max(self._not_before_ns, self._clock.steady_ns() + int(seconds * 1e9))

    def _put_off(self, job: Job, seconds: float) -> None:
        job.not_before_ns = self._clock.steady_ns() + int(seconds * 1e9)

    async def _floor(self, gap: Gap, now_ns: int) -> int:
        """The lowest id that configuration lets us fetch; above the gap when all of it is too old."""
        floor, most = 0, self._trades_max * (AGGREGATES_PER_TRADE if gap.stream == AGGS else 1)
        if gap.last_id - gap.first_id >= most:
            floor = gap.last_id - most + 1
        oldest_us = (now_ns - self._age_ns) // 1_000
        if gap.before_us == 0 or gap.before_us >= oldest_us:
            return floor
        if 0 < gap.after_us < oldest_us:
            return gap.last_id + 1
        symbol = self._symbols.by_id(gap.symbol_id)
        if symbol is None:
            return gap.last_id + 1
        query = {"symbol": symbol.symbol, "startTime": str(oldest_us // 1_000), "limit": "1"}
        body = await self._rest.page("aggTrades", query)
        found = self._parse(body, AGGS, gap.symbol_id)
        if not len(found):
            return gap.last_id + 1
        return max(floor, int(found["id" if gap.stream == AGGS else "ask"][0]))

    def _parse(self, body: bytes, stream: int, symbol_id: int) -> Rows:
        try:
            return read_page(body, stream, symbol_id, self._clock.wall_ns())
        except ValueError as error:
            raise ExchangeError(f"the exchange answers {PATHS[stream]} that are none: {error}") from error

    def _wanted(self, job: Job, first: int, last: int) -> list[Range]:
        gap = job.gap
        ranges = self._keeper.ledger.wanted(gap.symbol_id, gap.stream, max(first, job.floor), last)
        return minus(ranges, job.given_up)

    async def _fetch(self, job: Job) -> None:
        gap = job.gap
        self._keeper.catch_up()
        wanted = self._wanted(job, *gap.name)
        symbol = self._symbols.by_id(gap.symbol_id)
        if not wanted or symbol is None:
            self._give_up(job, "the exchange does not have them, or they are beyond the bounds")
            return
        # The page begins with lower gaps that it can reach as well.
        end = min(gap.last_id, wanted[0][0] + PAGE_MAX - 1)
        first = self._wanted(job, end - PAGE_MAX + 1, end)[0][0]
        last = self._wanted(job, first, first + PAGE_MAX - 1)[-1][1]
        # One more than is lacking: a page that overlaps what is known proves that it passed by the rest.
        limit = min(PAGE_MAX, last - first + 2)
        query = {"symbol": symbol.symbol, "fromId": str(first), "limit": str(limit)}
        body = await self._rest.page(PATHS[gap.stream], query)  # type: ignore[arg-type]
        rows = await asyncio.to_thread(self._parse, body, gap.stream, gap.symbol_id)
        rows = rows[rows["id"] >= first]
        self.pages += 1
        entered = await self._enter(job, rows)
        self._judge(job, first, last, rows, entered)

    def _judge(self, job: Job, first: int, last: int, rows: Rows, entered: int) -> None:
        """What the page proves of ids first..last, and when to ask again."""
        reached = int(rows["id"][-1]) if len(rows) else first - 1
        held = IdRanges((number, number) for number in rows["id"].tolist())
        passed = minus(self._wanted(job, first, min(last, reached)), held)
        refused = IdRanges(self._wanted(job, first, min(last, reached)))
        for low, high in passed:
            refused.take(low, high)
        for low, high in refused.pieces():  # the arbiter says that they were seen; it would say so again
            job.given_up.add(low, high)
        for low, high in passed:
            for again in job.absent.within(low, high):
                job.given_up.add(*again)
                self.absent_ids += again[1] - again[0] + 1
            job.absent.add(low, high)
        if passed and not entered:
            self._put_off(job, ABSENT_AGAIN_S)
        self._note_lag(job.gap, lagging=reached < last and not entered and not passed)

    def _note_lag(self, gap: Gap, *, lagging: bool) -> None:
        """Learn from a page how far the database trails; a stream that is behind is left alone."""
        key, age_us = (gap.symbol_id, gap.stream), self._age_us(gap)
        if not lagging:
            self._behind.pop(key, None)
            self._lag_us = min(self._lag_us, age_us)
            return
        failures = self._behind.get(key, (0, 0))[0] + 1
        delay_ns = int(1e9 * RETRY.delay_s(failures, random.random()))
        self._behind[key] = failures, self._clock.steady_ns() + delay_ns
        self._lag_us = max(self._lag_us, min(age_us + age_us // 2, LAG_MAX_US))

    def _age_us(self, gap: Gap) -> int:
        """How long ago its trades were missed."""
        return (self._clock.wall_ns() - gap.opened_ns) // 1_000

    async def _enter(self, job: Job, rows: Rows) -> int:
        """Put what is lacking on the tape; returns how many records it took."""
        entered = 0
        for start in range(0, len(rows), SLICE_ROWS):
            await self._intake.flowing()
            piece = rows[start : start + SLICE_ROWS]
            # From here to the end of the slice nothing else runs: what is lacking now is lacking then.
            self._keeper.catch_up()
            lacking = piece[
                _inside(piece["id"], self._wanted(job, int(piece["id"][0]), int(piece["id"][-1])))
            ]
            if len(lacking):
                entered += self._put(job.gap, lacking)
                await asyncio.sleep(0)
        await self._intake.flowing()
        self._keeper.catch_up()
        return entered

    def _put(self, gap: Gap, rows: Rows) -> int:
        highest = self._intake.context.last_id(gap.symbol_id, STREAM_KINDS[gap.stream])
        beyond = rows["id"] <= highest - _WINDOWS[gap.stream]
        old, new = rows[beyond], rows[~beyond]
        taken = 0
        if len(old):
            old["flags"] |= LATE
            taken += self._intake.append(old)
        if len(new):
            taken += self._intake.admit(new)
        if gap.stream == TRADES:
            self.repaired_trades += taken
        else:
            self.repaired_aggregates += taken
        return taken

    def _give_up(self, job: Job, reason: str) -> None:
        gap = job.gap
        if gap.state != OPEN:
            return
        self._keeper.catch_up()
        self._keeper.ledger.give_up(gap, self._clock.wall_ns())
        if gap.missing:
            symbol = self._symbols.by_id(gap.symbol_id)
            self._log.warning(
                "gap unrepairable",
                symbol=symbol.symbol if symbol is not None else gap.symbol_id,
                first_id=gap.first_id,
                last_id=gap.last_id,
                missing=gap.missing,
                reason=reason,
            )

    def health(self) -> ComponentHealth:
        """Degraded while REST refuses what is needed."""
        state = "ok" if self.last_error is None else "degraded"
        return ComponentHealth("repair", state, self._since_ns, self.last_error)  # type: ignore[arg-type]

    def collect(self) -> Iterator[Family]:
        """Pages and what came of them."""
        counts = (
            ("pages", self.pages, "Pages fetched by REST to repair gaps."),
            ("trades", self.repaired_trades, "Trades that REST brought."),
            ("aggregates", self.repaired_aggregates, "Aggregates that REST brought."),
            ("absent_ids", self.absent_ids, "Ids that the exchange does not have."),
        )
        yield from unlabelled("tradeback_repair_", "counter", counts)
        yield Family("tradeback_repair_waiting", "gauge", "Gaps that repair works on.").add(len(self._jobs))


def _inside(ids: NDArray[np.int64], ranges: list[Range]) -> NDArray[np.bool_]:
    """Which of rising `ids` lie in rising `ranges`."""
    if not ranges:
        return np.zeros(len(ids), np.bool_)
    firsts, lasts = np.array(ranges, np.int64).T
    at = np.searchsorted(lasts, ids)
    found: NDArray[np.bool_] = (at < len(lasts)) & (firsts[np.minimum(at, len(lasts) - 1)] <= ids)
    return found
