"""Acts on what the watchdog finds: asks the exchange about suspicious silences, has stalled lines replaced.

The watchdog decides from counts and ids alone; here are the loop, REST and the lines. A stalled stream
costs its connection a rollover, new before old, so that the streams beside it lose nothing; a line that
stalls again and again waits longer each time. Questions are small (`aggTrades` of one record, weight 4, for
trades and aggregates; `ticker/bookTicker`, weight 2, twice for quotes, which carry no id there), one at a
time and at most ASKS_PER_MINUTE.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import orjson

from tradeback.exchange.budget import Budget
from tradeback.exchange.intake import Intake
from tradeback.exchange.line import Line
from tradeback.exchange.rest import Rest
from tradeback.exchange.streams import KINDS, LINE_NAMES, STREAMS, stream_name
from tradeback.exchange.watchdog import Int64s, Rules, Watchdog
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.model.record import AGG, TRADE
from tradeback.model.symbols import SymbolTable
from tradeback.ops.beat import beat
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.ops.metrics import Family

ASKS_PER_MINUTE = 30
COUNT = len(STREAMS)
"""Streams of a symbol."""
STEP_S_MAX = 1.0
LATE_STEPS = 5
"""A step this many times later than planned: the process was stopped, and silence says nothing."""
COOL_DOWN_MOST_S = 600.0
SHOWN_MAX = 10


class StallWatch:
    """One per engine. Loop thread only. `start`, `stop`; a bug in it ends the task."""

    name = "watchdog"

    def __init__(
        self,
        lines: Sequence[Line],
        intake: Intake,
        symbols: SymbolTable,
        rest: Rest,
        clock: Clock,
        config: ExchangeConfig,
        log: Log,
    ) -> None:
        self._intake, self._rest, self._clock, self._log = intake, rest, clock, log
        self._symbols = symbols
        self._floor_s = config.stall_after_s
        self._step_s = min(STEP_S_MAX, self._floor_s / 5)
        self._lines: Sequence[Line] = ()
        self._names: list[str] = []
        """Symbols by place; stream COUNT * place + n is the n-th kind of STREAMS."""
        self._places: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._symbol_ids = np.zeros(0, np.int64)
        self._kinds = np.zeros(0, np.int64)
        self._quotes: dict[tuple[str, str], tuple[bytes, tuple[int, ...]]] = {}
        """What REST said of a quote, and how many messages had come by then, on which connections."""
        count = 1 + max((line.plan.line for line in lines), default=config.lines - 1)
        self._owners = np.full((count, 0), len(lines), np.int64)
        self._begun = np.zeros(0, np.int64)
        """When a stream was taken up, steady ns: it is as old as that, however old its connection is."""
        self.watchdog = Watchdog(count, 0, Rules(floor_s=self._floor_s))
        self.follow(lines, begun_ns=0)
        self._asks = Budget(ASKS_PER_MINUTE, 60.0)
        self._cool: dict[str, tuple[int, float]] = {}
        """By name of the line: not to be replaced before (steady ns), and for how long that was."""
        self._limiter = RepeatLimiter()
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: asyncio.Task[None] | None = None
        self.asked = 0
        self.acquitted = 0
        self.unanswered = 0
        self._suspect = 0
        self._since_ns = clock.wall_ns()
        self._state: State = "ok"

    def follow(
        self, lines: Sequence[Line], but: Collection[str] = (), *, begun_ns: int | None = None
    ) -> None:
        """From now on these lines with what they are to carry, without the symbols in `but`.

        Told when new streams are acknowledged, and before others end: silence on purpose is no stall.
        `begun_ns` (steady): since when streams that are new are up; without it since now.
        """
        shards: dict[int, dict[str, None]] = {}
        for line in lines:
            shards.setdefault(line.plan.shard, {}).update(line.symbols)
        ids = {}
        for names in shards.values():
            for name in names:
                number = self._ids.get(name) or self._id_of(name)
                if number and name not in but:
                    ids[name] = number
        old = np.array([self._places.get(name, -1) for name in ids], np.int64)
        kept = np.where(old >= 0, COUNT * old, -COUNT)[:, None] + np.arange(COUNT)
        kept = np.maximum(kept, -1).reshape(-1)
        begun = np.full(len(kept), self._clock.steady_ns() if begun_ns is None else begun_ns, np.int64)
        begun[kept >= 0] = self._begun[kept[kept >= 0]]
        self._begun, self._ids, self._names = begun, ids, list(ids)
        self._places = {name: place for place, name in enumerate(ids)}
        self._symbol_ids = np.repeat(np.array(list(ids.values()), np.int64), COUNT)
        self._kinds = np.tile(np.arange(COUNT), len(ids))
        self._own(lines, shards)
        self._quotes = {key: said for key, said in self._quotes.items() if key[0] in ids}
        self.watchdog.rearrange(kept, self._seen()[0])

    def _own(self, lines: Sequence[Line], shards: Mapping[int, Iterable[str]]) -> None:
        """Note which line brings which stream."""
        self._lines = list(lines)
        self._owners = np.full((len(self._owners), len(self._kinds)), len(lines), np.int64)
        found = {
            shard: np.array([self._places[name] for name in names if name in self._places], np.int64)
            for shard, names in shards.items()
        }
        for number, line in enumerate(lines):
            places = COUNT * found[line.plan.shard] + KINDS[line.plan.stream] - 1
            self._owners[line.plan.line, places] = number

    def _id_of(self, name: str) -> int:
        """Its wire id; 0 for a symbol that is not known."""
        symbol = self._symbols.find(name)
        return symbol.id if symbol is not None else 0

    def _stream(self, index: int) -> tuple[str, str]:
        """Symbol and kind of a stream."""
        return self._names[index // COUNT], STREAMS[index % COUNT]

    def _index(self, symbol: str, kind: str) -> int | None:
        """The inverse; None when nobody wants it any more."""
        place = self._places.get(symbol)
        return None if place is None else COUNT * place + KINDS[kind] - 1

    def start(self) -> "asyncio.Task[None]":
        """Begin; returns the task, which ends only by `stop` or a bug."""
        task = asyncio.create_task(self.run(), name=self.name)
        self._tasks.append(task)
        return task

    async def stop(self) -> None:
        """End it, and the question under way."""
        tasks, self._tasks = [*self._tasks, *([self._asking] if self._asking else [])], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self) -> None:
        """Look at all streams, for ever."""
        before_ns = self._clock.steady_ns()
        while True:
            await beat(self._step_s)
            now_ns = self._clock.steady_ns()
            is_late = now_ns - before_ns > LATE_STEPS * self._step_s * 1e9
            before_ns = now_ns
            if is_late or self._intake.stalled is not None:
                self.watchdog.forgive(now_ns)
            else:
                self.step(now_ns)

    def step(self, now_ns: int) -> None:
        """One look; replaces what has stalled, and begins at most one question."""
        counts, ids = self._seen()
        up = np.array([*(line.up_since_ns for line in self._lines), 0], np.int64)[self._owners]
        since = np.where(up > 0, np.maximum(up, self._begun), 0)
        findings = self.watchdog.step(now_ns, counts, ids, since)
        for number, stream in findings.stalled:
            self._note(self._lines[self._owners[number, stream]], stream, now_ns)
        is_stalled = bool(self.watchdog.stalled.any())
        for number, stream in np.argwhere(self.watchdog.stalled) if is_stalled else ():
            self._replace(int(self._owners[number, stream]), int(stream), now_ns)
        self._suspect = len(findings.asks)
        if self._asking is not None and self._asking.done():
            self._asking.result()
            self._asking = None
        if findings.asks and self._asking is None:
            self.watchdog.asked(findings.asks[0])
            self._asking = asyncio.create_task(self._ask(*self._stream(findings.asks[0])))
        state: State = "degraded" if is_stalled else "ok"
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()

    def _seen(self) -> tuple[Int64s, Int64s]:
        """Messages and last ids by line and stream, as the kernel has noted them."""
        seen = self._intake.context.streams[self._symbol_ids, self._kinds, :4]
        lines = len(self._owners)
        return seen[:, 1::2].T[:lines], seen[:, ::2].T[:lines]

    # What is done about it.

    def _note(self, line: Line, stream: int, now_ns: int) -> None:
        line.counts.stalls += 1
        name = stream_name(*self._stream(stream))
        held = self._limiter.allow(f"{line.plan.name} {name}", now_ns)
        if held is not None:
            self._log.warning("a stream has stalled", line=line.plan.name, stream=name)

    def _replace(self, number: int, stream: int, now_ns: int) -> None:
        line = self._lines[number]
        until_ns, waited_s = self._cool.get(line.name, (0, 0.0))
        name = stream_name(*self._stream(stream))
        if now_ns < until_ns or not line.replace(f"{name} stalled"):
            return
        # Twice as long each time, unless it was quiet for long.
        is_new = now_ns - until_ns > 10 * waited_s * 1e9
        cool_s = 2 * self._floor_s if is_new else min(COOL_DOWN_MOST_S, 2 * waited_s)
        self._cool[line.name] = (now_ns + int(cool_s * 1e9), cool_s)

    async def _ask(self, symbol: str, kind: str) -> None:
        """One question to REST, when its turn comes, and what follows from the answer."""
        await asyncio.sleep(self._asks.take(self._clock.steady_ns()))
        self.asked += 1
        try:
            if kind == "bookTicker":
                self._on_quote((symbol, kind), await self._rest.best_quote(symbol))
            else:
                query = {"symbol": symbol, "limit": "1"}
                self._on_ids(symbol, parse_newest(await self._rest.page("aggTrades", query)))
        except ExchangeError as error:
            self.unanswered += 1
            held = self._limiter.allow("ask", self._clock.steady_ns())
            if held is not None:
                self._log.warning("the exchange does not say what is new", symbol=symbol, error=str(error))

    def _on_ids(self, symbol: str, newest: tuple[int, int] | None) -> None:
        """Aggregate id and its last trade id, which settle both streams; None: there never was a trade."""
        for kind, stream in (("aggTrade", AGG), ("trade", TRADE)):
            index = self._index(symbol, kind)
            if index is None:
                return
            if newest is None:
                self.watchdog.acquit(index)
                self.acquitted += 1
            elif not self.watchdog.learn(index, newest[0] if stream == AGG else newest[1]):
                self.acquitted += 1

    def _on_quote(self, key: tuple[str, str], quote: bytes) -> None:
        """The best prices say nothing by themselves; that they change while nothing comes does."""
        stream = self._index(*key)
        if stream is None:
            return
        counts, _ = self._seen()
        owners = [self._lines[number] for number in self._owners[:, stream] if number < len(self._lines)]
        mark = (*map(int, counts[:, stream]), *(line.up_since_ns for line in owners))
        before = self._quotes.pop(key, None)
        if before is not None and before[1] == mark and before[0] != quote:
            self.watchdog.accuse(stream)
            return
        self._quotes[key] = (quote, mark)
        if before is not None and before[1] == mark:
            self.acquitted += 1
            self.watchdog.acquit(stream)
        else:
            self.watchdog.ask_again(stream)

    # What operators see.

    def health(self) -> ComponentHealth:
        """degraded while a stream is stalled on a line."""
        shown = [
            f"{LINE_NAMES[line]}:{stream_name(*self._stream(stream))}"
            for line, stream in np.argwhere(self.watchdog.stalled)[:SHOWN_MAX]
        ]
        details = {
            "streams": len(self._kinds),
            "suspect": self._suspect,
            "stalled": shown,
            "stalled_count": int(self.watchdog.stalled.sum()),
            "asked": self.asked,
            "acquitted": self.acquitted,
            "unanswered": self.unanswered,
        }
        error = f"stalled: {', '.join(shown)}" if shown else None
        return ComponentHealth(self.name, self._state, self._since_ns, error, details=details)

    def collect(self) -> Iterator[Family]:
        """Suspicions and what came of them; stalls are counted by line (`tradeback_line_stalls`)."""
        for name, value, text in (
            ("asked", self.asked, "Questions to REST whether a silent stream has anything newer."),
            ("acquitted", self.acquitted, "Answers that it has not."),
            ("unanswered", self.unanswered, "Questions without an answer."),
        ):
            yield Family(f"tradeback_watchdog_{name}", "counter", text).add(value)
        yield Family("tradeback_watchdog_suspect", "gauge", "Streams silent for suspiciously long.").add(
            self._suspect
        )
        stalled = Family("tradeback_watchdog_stalled", "gauge", "Streams stalled now, by line.")
        for line, count in enumerate(self.watchdog.stalled.sum(axis=1)):
            stalled.add(float(count), line=LINE_NAMES[line])
        yield stalled


def parse_newest(body: bytes) -> tuple[int, int] | None:
    """(aggregate id, its last trade id) of an `aggTrades` page of one; None when the page is empty.

    Raises ExchangeError for anything else.
    """
    try:
        page = orjson.loads(body)
        return (int(page[-1]["a"]), int(page[-1]["l"])) if page else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ExchangeError("the exchange answers aggregates that are none") from error
