"""All lines together: made from the plan, started spread out, counted, stopped."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from tradeback.exchange.budget import Budget
from tradeback.exchange.intake import Intake
from tradeback.exchange.line import Line
from tradeback.exchange.line_counts import Race
from tradeback.exchange.streams import KINDS, LINE_NAMES, LinePlan
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.limits import CONNECT_ATTEMPTS_PER_5_MIN
from tradeback.model.symbols import SymbolTable
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.ops.metrics import Family

_COUNTERS = {
    "reconnects": "Connections of this line that ended.",
    "rollovers": "Connections replaced in advance, the new one up before the old was closed.",
    "rollovers_failed": "Attempts at that which left the old connection in place.",
    "stalls": "Streams found stalled on this line while they went on elsewhere.",
    "pings": "Pings taken.",
    "fallbacks": "Events decoded by the slow path.",
    "malformed": "Frames dropped because nothing understands them.",
    "odd_frames": "Frames of a kind that the exchange does not send.",
    "broken": "Connections given up because their bytes were no WebSocket stream.",
    "shutdowns": "Shutdown announcements of the exchange.",
    "shadow_checked": "Live frames decoded both ways and compared.",
    "shadow_differs": "Live frames on which the two ways disagreed.",
}


class Pool:
    """The lines of one engine. Loop thread only."""

    def __init__(
        self,
        plans: Sequence[LinePlan],
        config: ExchangeConfig,
        clock: Clock,
        intake: Intake,
        symbols: SymbolTable,
        log: Log,
    ) -> None:
        attempts = Budget(CONNECT_ATTEMPTS_PER_5_MIN, 300.0)
        limiter = RepeatLimiter()
        turn = asyncio.Lock()
        self.lines = [
            Line(plan, config, clock, intake, symbols, attempts, log, limiter, turn) for plan in plans
        ]
        self._races = [
            (LINE_NAMES[line], stream, Race(intake.context, line, KINDS[stream]))
            for line, stream in dict.fromkeys((plan.line, plan.stream) for plan in plans)
        ]
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, on_done: Callable[[asyncio.Task[None]], None]) -> None:
        """Bring all lines up; each keeps itself up from then on. `on_done` hears of one that ended."""
        self._tasks = [asyncio.create_task(line.run(), name=line.name) for line in self.lines]
        for task in self._tasks:
            task.add_done_callback(on_done)

    async def stop(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def delivering(self) -> None:
        """Until every stream has been up once, on one line or the other."""
        carriers: dict[tuple[str, int], list[Line]] = {}
        for line in self.lines:
            carriers.setdefault((line.plan.stream, line.plan.shard), []).append(line)
        await asyncio.gather(*(_any_up(lines) for lines in carriers.values()))

    def collect(self) -> Iterator[Family]:
        """Every line's counters."""
        for name, text in _COUNTERS.items():
            family = Family(f"tradeback_line_{name}", "counter", text)
            for line in self.lines:
                family.add(getattr(line.counts, name), line=line.plan.name)
            yield family
        up = Family("tradeback_line_up", "gauge", "1 while the line is subscribed.")
        taken = Family("tradeback_line_bytes", "counter", "Bytes read from the exchange.")
        reads = Family("tradeback_line_reads", "counter", "Socket reads.")
        age = Family(
            "tradeback_line_age_seconds", "gauge", "Age of the line's connection; 0 while it is down."
        )
        for line in self.lines:
            up.add(float(line.is_up), line=line.plan.name)
            taken.add(line.bytes_read, line=line.plan.name)
            reads.add(line.reads, line=line.plan.name)
            since_ns = line.up_since_ns
            seconds = (self._clock.steady_ns() - since_ns) / 1e9 if since_ns else 0.0
            age.add(seconds, line=line.plan.name)
        yield from (up, taken, reads, age)
        yield from self._collect_races()

    def _collect_races(self) -> Iterator[Family]:
        """How the lines do against each other, by stream kind."""
        for name, word, text in Race.WORDS:
            family = Family(f"tradeback_line_{name}", "counter", text)
            for line, stream, race in self._races:
                family.add(race.count(word), line=line, stream=stream)
            yield family
        lag = Family(
            "tradeback_line_lag_seconds",
            "histogram",
            "How much later than on the other line the ids came that this line lost; the other one's lead.",
        )
        for line, stream, race in self._races:
            lag.add(race.lag(), line=line, stream=stream)
        yield lag


async def _any_up(lines: Sequence[Line]) -> None:
    waiting = [asyncio.ensure_future(line.was_up.wait()) for line in lines]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waiting:
            wait.cancel()
