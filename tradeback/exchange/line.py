"""One line of one shard of the engine: a keeper whose connections feed the intake.

Both connections of a rollover do, and ids keep everything single. While the tape refuses nothing is read,
so silence says nothing then.

Symbols come and go by `carry` at any time: every connection that is open, the new one of a rollover too, is
brought in line with it; one that is opened later begins with what is wanted then.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from tradeback.exchange.budget import Budget
from tradeback.exchange.connection import Connection
from tradeback.exchange.intake import Intake
from tradeback.exchange.keeper import Keeper
from tradeback.exchange.line_counts import LineCounts, Race
from tradeback.exchange.streams import KINDS, LinePlan, endpoint_of
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log, RepeatLimiter


class Line(Keeper[Connection]):
    """See the module. `run` is the line's life; it ends only by cancellation."""

    def __init__(
        self,
        plan: LinePlan,
        config: ExchangeConfig,
        clock: Clock,
        intake: Intake,
        symbols: SymbolTable,
        attempts: Budget,
        log: Log,
        limiter: RepeatLimiter,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self.counts = LineCounts()
        bound = log.bind(line=plan.name)
        super().__init__(f"line:{plan.name}", config, clock, self.counts, attempts, bound, limiter, turn)
        self.plan = plan
        self.symbols: dict[str, None] = dict.fromkeys(plan.symbols)
        """What it is to carry; the plan says with what it began."""
        self._matching: set[asyncio.Task[None]] = set()
        self.race = Race(intake.context, plan.line, KINDS[plan.stream])
        self.endpoint = endpoint_of(plan.line, config.ws_endpoint, config.ws_endpoint_b)
        self._intake, self._symbols = intake, symbols
        intake.on_stall.append(self._on_stall)

    def _make(self) -> Connection:
        return Connection(
            self.plan,
            self.endpoint,
            self._config,
            self._clock,
            self._intake,
            self._symbols,
            self.counts,
            self,
            self.symbols,
        )

    def _pauses(self) -> tuple[bool, int]:
        return self._intake.stalled is not None, self._intake.stalls

    async def _listening(self) -> None:
        await self._intake.flowing()

    # What it carries.

    def carry(self, came: Iterable[str], went: Iterable[str] = ()) -> None:
        """Carry these symbols, too, and those no more, as soon as the exchange's limits allow it."""
        for symbol in went:
            self.symbols.pop(symbol, None)
        self.symbols.update(dict.fromkeys(came))
        for connection in self.connections:
            task = asyncio.create_task(self._match(connection))
            self._matching.add(task)
            task.add_done_callback(self._matching.discard)

    async def matched(self) -> None:
        """Until what `carry` asked of open connections is done, or has failed."""
        while self._matching:
            await asyncio.wait(self._matching)

    async def _match(self, connection: Connection) -> None:
        try:
            await connection.match()
        except ExchangeError as error:
            if connection.ended is not None:
                return
            self.say("subscriptions cannot be changed", error=str(error))
            if connection is self.current:
                self.replace("its subscriptions cannot be changed")
            else:
                connection.give_up(str(error))

    def close(self) -> None:
        """No more of this line: it is forgotten by those who would call it. Its `run` has ended."""
        for task in self._matching:
            task.cancel()
        self._intake.on_stall.remove(self._on_stall)

    # What connections tell.

    def accuse(self, event: str, **fields: Any) -> None:
        """Log an error of our own."""
        self._log.error(event, **fields)

    def _on_stall(self, stalled: bool) -> None:
        for connection in self.connections:
            connection.on_stall(stalled)

    # What operators see.

    @property
    def streams(self) -> int:
        """One for each symbol."""
        return len(self.symbols)

    @property
    def reads(self) -> int:
        """Socket reads, over all connections."""
        return self.counts.reads + sum(connection.reads for connection in self.connections)

    @property
    def bytes_read(self) -> int:
        """Bytes read, over all connections."""
        return self.counts.bytes_read + sum(connection.bytes_read for connection in self.connections)

    @property
    def up_since_ns(self) -> int:
        """Steady time since which the current connection is subscribed; 0 while the line is down."""
        current = self.current
        return current.up_ns or 0 if current is not None and current.ended is None else 0

    def health(self) -> ComponentHealth:
        """ok while subscribed; how old the connection is, and how it does against the other line."""
        since_ns = self.up_since_ns
        counts = self.counts
        details = {
            "endpoint": self.endpoint,
            "streams": self.streams,
            "age_s": round((self._clock.steady_ns() - since_ns) / 1e9, 1) if since_ns else None,
            "connections": len(self.connections),
            "reconnects": counts.reconnects,
            "rollovers": counts.rollovers,
            "rollovers_failed": counts.rollovers_failed,
            "stalls": counts.stalls,
            **self.race.details(),
        }
        return ComponentHealth(self.name, self._state, self._since_ns, self.last_error, details=details)
