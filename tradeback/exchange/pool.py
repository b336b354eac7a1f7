"""All lines together: made from the plan, started spread out, counted, stopped.

Symbols may come and go while the lines deliver. `placement` says which shard carries one; lines of a new
shard are started, those of an empty one ended, and no stream of another symbol is touched.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from tradeback.exchange.budget import Budget
from tradeback.exchange.intake import Intake
from tradeback.exchange.line import Line
from tradeback.exchange.line_counts import Race
from tradeback.exchange.placement import Placement
from tradeback.exchange.streams import KINDS, LINE_NAMES, STREAMS, LinePlan
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


CERTIFIER = "aggTrade"
"""Unsubscribed first: what it names while the trades of a symbol come no more would look like a loss."""
MATCH_WAIT_S = 5.0
"""How long `remove` waits for acknowledgements of that before it goes on."""
LOOK_S = 0.05

OnLines = Callable[[Sequence[Line], Sequence[Line]], None]
"""Told of lines that came and lines that went."""


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

        def make(plan: LinePlan) -> Line:
            return Line(plan, config, clock, intake, symbols, attempts, log, limiter, turn)

        self._make = make
        self.lines = [make(plan) for plan in plans]
        self._line_numbers = tuple(range(1 + max((plan.line for plan in plans), default=config.lines - 1)))
        self.placement = Placement.of(plans, len(self._line_numbers), config.max_connections)
        """Which shard carries which symbol."""
        self.on_lines: list[OnLines] = []
        self._races = [
            (LINE_NAMES[line], stream, Race(intake.context, line, KINDS[stream]))
            for line in self._line_numbers
            for stream in STREAMS
        ]
        self._clock = clock
        self._on_done: Callable[[asyncio.Task[None]], None] | None = None
        self._tasks: dict[Line, asyncio.Task[None]] = {}

    def start(self, on_done: Callable[[asyncio.Task[None]], None]) -> None:
        """Bring all lines up; each keeps itself up from then on. `on_done` hears of one that ended."""
        self._on_done = on_done
        for line in self.lines:
            self._run(line)

    def _run(self, line: Line) -> None:
        assert self._on_done is not None, "start comes first"
        task = self._tasks[line] = asyncio.create_task(line.run(), name=line.name)
        task.add_done_callback(self._on_done)

    async def stop(self) -> None:
        """Close every connection."""
        await self._end(list(self._tasks))

    async def _end(self, lines: Sequence[Line]) -> None:
        tasks = [self._tasks.pop(line) for line in lines]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in lines:
            line.close()

    # Symbols come and go; one call at a time.

    def add(self, names: Iterable[str]) -> list[str]:
        """Carry these symbols, too, as many as there is room for (`placement.room`); those that came. What is
        carried already is left alone. When they are carried says `carried`."""
        came = self.placement.add(names)
        held = {line.plan.shard for line in self.lines}
        fresh = [
            self._make(LinePlan(stream, number, shard, tuple(symbols)))
            for shard, symbols in came.items()
            if shard not in held
            for number in self._line_numbers
            for stream in STREAMS
        ]
        for line in self.lines:
            line.carry(came.get(line.plan.shard, ()))
        self.lines += fresh
        for line in fresh:
            self._run(line)
        self._tell(fresh, ())
        return [name for symbols in came.values() for name in symbols]

    async def remove(self, names: Iterable[str]) -> None:
        """Carry these no more. Aggregates end first: so none names a trade that was not asked for."""
        went = self.placement.remove(names)
        if not went:
            return
        touched = [line for line in self.lines if line.plan.shard in went]
        first = [line for line in touched if line.plan.stream == CERTIFIER]
        for line in first:
            line.carry((), went[line.plan.shard])
        waiting = [asyncio.ensure_future(line.matched()) for line in first]
        await asyncio.wait(waiting, timeout=MATCH_WAIT_S)
        for wait in waiting:
            wait.cancel()
        empty = [line for line in touched if line.plan.shard not in self.placement.shards]
        for line in touched:
            if line not in first and line not in empty:
                line.carry((), went[line.plan.shard])
        if empty:
            self.lines = [line for line in self.lines if line not in empty]
            self._tell((), empty)
            await self._end(empty)

    async def carried(self, names: Iterable[str]) -> None:
        """Until all streams of these symbols are acknowledged, on one line or the other. A symbol that has
        been removed is not waited for."""
        left = set(names)
        while left:
            for stream in STREAMS:
                there = self._carried(stream)
                if not all(name in there for name in left if name in self.placement):
                    break
            else:
                return
            await asyncio.sleep(LOOK_S)

    def _carried(self, stream: str) -> set[str]:
        """Symbols of which this stream is acknowledged on some line."""
        lines = (line for line in self.lines if line.plan.stream == stream)
        return set().union(*(connection.carried for line in lines for connection in line.connections))

    def _tell(self, came: Sequence[Line], went: Sequence[Line]) -> None:
        if came or went:
            for tell in self.on_lines:
                tell(came, went)

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
        yield self._collect_carriers()
        yield from self._collect_races()

    def _collect_carriers(self) -> Family:
        """Whether anything of a stream kind can come at all."""
        up = Family("tradeback_stream_lines_up", "gauge", "Lines that deliver these streams; 0: none does.")
        counts: dict[tuple[str, int], int] = {}
        for line in self.lines:
            place = line.plan.stream, line.plan.shard
            counts[place] = counts.get(place, 0) + line.is_up
        for (stream, shard), count in counts.items():
            up.add(count, stream=stream, shard=str(shard))
        return up

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
            "How much later than on the other line the ids came that this line lost.",
        )
        lead = Family(
            "tradeback_line_lead_seconds",
            "histogram",
            "How much earlier than on the other line the ids came that this line won.",
        )
        for line, stream, race in self._races:
            lag.add(race.lag(), line=line, stream=stream)
            lead.add(race.lead(), line=line, stream=stream)
        yield from (lag, lead)


async def _any_up(lines: Sequence[Line]) -> None:
    waiting = [asyncio.ensure_future(line.was_up.wait()) for line in lines]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waiting:
            wait.cancel()
