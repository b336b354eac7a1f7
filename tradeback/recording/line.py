"""One line of a recording: a keeper whose connections write into one track.

During a rollover both connections do, so what both have brought stands there twice: whoever reads a recording
goes by the ids, as an engine does. Marks tell when something is connected, and when nothing is.
"""

import asyncio

from tradeback.exchange.budget import Budget
from tradeback.exchange.keeper import Keeper, KeeperCounts
from tradeback.exchange.streams import LinePlan, endpoint_of
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.recording.connection import Connection
from tradeback.recording.format import CONNECTED, LOST
from tradeback.recording.writer import Track

_STOPPED = "the recorder stops"


class Line(Keeper[Connection]):
    """See the module. `run` is the line's life; it ends only by cancellation."""

    def __init__(
        self,
        plan: LinePlan,
        config: ExchangeConfig,
        clock: Clock,
        track: Track,
        attempts: Budget,
        log: Log,
        limiter: RepeatLimiter,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self.counts = KeeperCounts()
        bound = log.bind(line=plan.name)
        super().__init__(f"line:{plan.name}", config, clock, self.counts, attempts, bound, limiter, turn)
        self.plan = plan
        self.endpoint = endpoint_of(plan.line, config.ws_endpoint, config.ws_endpoint_b)
        self._track = track
        self._is_marked = False
        """The last mark says that something is connected."""

    @property
    def streams(self) -> int:
        """One for each symbol."""
        return len(self.plan.symbols)

    def _make(self) -> Connection:
        return Connection(self.plan, self.endpoint, self._config, self._clock, self._track, self)

    def subscribing(self) -> None:
        """A connection is about to bring frames."""
        self._is_marked = True
        self._track.mark(self._clock.wall_ns(), CONNECTED, streams=self.streams)

    def _on_down(self) -> None:
        if self._is_marked and not any(one.has_asked and one.ended is None for one in self.connections):
            self._is_marked = False
            self._track.mark(self._clock.wall_ns(), LOST, reason=self.last_error or _STOPPED)
