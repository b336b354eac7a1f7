"""One line of one shard: keeps a connection up for ever, and replaces it before it has to end.

Losing a connection costs a back-off with jitter; the pool's budget keeps all lines together below the
exchange's limit of connection attempts. A connection that is silent (no byte, not even the exchange's
pings) for `exchange.idle_timeout` is replaced.

Rollover: at an age drawn between `exchange.rollover_min` and `rollover_max`, at `serverShutdown`, and when
the watchdog asks for it, a second connection is brought up beside the first. Both feed the intake, where
ids keep everything single. The first is closed when the second delivers (or nothing comes on either) and
whatever the exchange had queued for the first has come. One line at a time does so.

Symbols come and go by `carry` at any time: every connection that is open, the new one of a rollover too, is
brought in line with it; one that is opened later begins with what is wanted then.
"""

import asyncio
import random
from collections.abc import Iterable
from typing import Any

from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.connection import LOST, Connection, words_of
from tradeback.exchange.intake import Intake
from tradeback.exchange.line_counts import LineCounts, Race
from tradeback.exchange.rest import retry_after_s
from tradeback.exchange.streams import KINDS, LinePlan, endpoint_of
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log, RepeatLimiter

DELIVER_WAIT_S = 10.0
"""A new connection that brings nothing for so long while the old one delivers is given up."""
LOOK_AGAIN_S = 0.02
_OVERLAP_STEPS = 20
_SHUTDOWN = "shutdown"


class Line:
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
        self.plan = plan
        self.name = f"line:{plan.name}"
        self.symbols: dict[str, None] = dict.fromkeys(plan.symbols)
        """What it is to carry; the plan says with what it began."""
        self._matching: set[asyncio.Task[None]] = set()
        self.counts = LineCounts()
        self.race = Race(intake.context, plan.line, KINDS[plan.stream])
        self.endpoint = endpoint_of(plan.line, config.ws_endpoint, config.ws_endpoint_b)
        self._config, self._clock, self._intake, self._symbols = config, clock, intake, symbols
        self._attempts = attempts
        self._turn = turn or asyncio.Lock()
        """Held during a rollover; all lines of a pool share it."""
        self._log, self._limiter = log.bind(line=plan.name), limiter
        self._backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self.last_error: str | None = None
        self.current: Connection | None = None
        """The connection that is subscribed, if any; during a rollover the older one."""
        self.connections: list[Connection] = []
        """All that are open or being opened: at most two."""
        self._wake = asyncio.Event()
        self._wanted: str | None = None
        """Why a rollover is wanted, besides age."""
        self._due_ns = 0
        """When the current connection is old enough (steady)."""
        self._not_before_ns = 0
        """A failed rollover is not tried again before (steady)."""
        self._failures = 0
        self._roll: asyncio.Task[None] | None = None
        self._has_turn = False
        self.was_up = asyncio.Event()
        """Set when the line is subscribed for the first time."""
        intake.on_stall.append(self._on_stall)

    async def run(self) -> None:
        """Keep the line up. Ends by cancellation."""
        failures = 0
        while True:
            await self._intake.flowing()
            try:
                self._install(await self._open())
                await self._keep()
            except LOST as error:
                self.last_error = words_of(error)
            finally:
                up_ns = self.current.up_ns if self.current is not None else None
                self.current = None
                for connection in list(self.connections):
                    self._drop(connection)
            # One that is cut again and again right after it came up is no success.
            stable_ns = int(self._config.backoff_max_s * 1e9)
            lasted = up_ns is not None and self._clock.steady_ns() - up_ns >= stable_ns
            failures = 1 if lasted else failures + 1
            self.counts.reconnects += 1
            self._become("down")
            delay_s = self._backoff.delay_s(failures, random.random())
            self.say("line lost", error=self.last_error, again_in_s=round(delay_s, 2), failures=failures)
            await asyncio.sleep(delay_s)

    def replace(self, reason: str) -> bool:
        """Ask for a rollover as soon as it is this line's turn. False while the line is down, and when one is
        wanted already."""
        if self.current is None or self._wanted is not None:
            return False
        self._wanted = reason
        self._wake.set()
        return True

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

    # One connection.

    async def _open(self) -> Connection:
        """A subscribed connection, within the limit of attempts. Raises one of LOST."""
        connection = Connection(
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
        self.connections.append(connection)
        try:
            await self._wait_for_attempt()
            await connection.open()
        except BaseException as error:
            self._obey_limit(error)
            self._drop(connection)
            raise
        return connection

    def _drop(self, connection: Connection, *, politely: bool = False) -> None:
        connection.close(politely=politely)
        self.connections.remove(connection)

    def _install(self, connection: Connection) -> None:
        """From now on this is the line's connection."""
        config = self._config
        self.current = connection
        life_s = random.uniform(config.rollover_min_s, config.rollover_max_s)
        self._due_ns = self._clock.steady_ns() + int(life_s * 1e9)
        self._wanted, self._failures, self._not_before_ns = None, 0, 0
        if connection.is_leaving:
            # Announced while it was the new one. Connections that all leave at once are not chased.
            self._wanted = _SHUTDOWN
            self._not_before_ns = self._clock.steady_ns() + int(config.backoff_max_s * 1e9)
        self._become("ok")

    async def _wait_for_attempt(self) -> None:
        """Until the exchange's limit of connection attempts allows one more."""
        wait_s = self._attempts.take(self._clock.steady_ns())
        while wait_s:
            # Another line's handshake may have been refused while this one waited.
            await asyncio.sleep(wait_s)
            wait_s = self._attempts.blocked_s(self._clock.steady_ns())

    def _obey_limit(self, error: BaseException) -> None:
        """A refused handshake that says Retry-After holds all lines back."""
        response = getattr(error, "response", None)
        if response is not None and int(response.status) in (418, 429):
            seconds = retry_after_s(response.headers.get("Retry-After"), 0.0)
            self._attempts.block(self._clock.steady_ns(), seconds)

    # Keeping it up.

    async def _keep(self) -> None:
        """Until the current connection has ended and none took its place; ExchangeError says why."""
        silence = _Silence(self._config.idle_timeout_s)
        try:
            while True:
                current = self.current
                assert current is not None
                if current.ended is not None:
                    await self._outlive(current)
                    continue
                now_ns = self._clock.steady_ns()
                if self._roll is not None and self._roll.done():
                    self._roll.result()
                    self._roll = None
                reason = self._reason(now_ns)
                if reason is not None and self._roll is None:
                    self._roll = asyncio.create_task(self._roll_over(reason))
                    self._roll.add_done_callback(lambda _: self._wake.set())
                elif silence.is_too_long(now_ns, current, self._intake) and not self._has_turn:
                    raise ExchangeError(f"silent for {self._config.idle_timeout_s:g} s")
                await self._doze(now_ns)
        finally:
            roll, self._roll = self._roll, None
            if roll is not None:
                roll.cancel()
                await asyncio.gather(roll, return_exceptions=True)

    async def _doze(self, now_ns: int) -> None:
        """Until something happens, or it is time to look again."""
        wait_s = self._config.idle_timeout_s / 4
        if self._roll is None:
            due_ns = self._due_ns if self._wanted is None else 0
            # Due already, but the tape refuses: looking again and again would not help.
            wait_s = min(wait_s, max((max(due_ns, self._not_before_ns) - now_ns) / 1e9, LOOK_AGAIN_S))
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _outlive(self, lost: Connection) -> None:
        """The current connection has ended: a rollover under way may bring the next one."""
        if self._roll is None or not self._has_turn:
            raise ExchangeError(lost.ended or "")
        self.last_error = lost.ended
        self._become("down")
        await asyncio.wait([self._roll])
        self._roll.result()
        if self.current is lost:
            raise ExchangeError(lost.ended or "")
        self.counts.reconnects += 1

    # Rollover.

    def _reason(self, now_ns: int) -> str | None:
        """Why a rollover should begin now, if it should."""
        if now_ns < self._not_before_ns or self._intake.stalled is not None:
            return None
        return self._wanted or ("age" if now_ns >= self._due_ns else None)

    async def _roll_over(self, reason: str) -> None:
        """Bring up a second connection, let both run, close the first. Failing leaves the first in place."""
        async with self._turn:
            self._has_turn = True
            try:
                await self._swap(reason)
            except LOST as error:
                self._failures += 1
                self.counts.rollovers_failed += 1
                delay_s = self._backoff.delay_s(self._failures, random.random())
                self._not_before_ns = self._clock.steady_ns() + int(delay_s * 1e9)
                self.say(
                    "rollover failed", error=words_of(error), reason=reason, again_in_s=round(delay_s, 2)
                )
            finally:
                self._has_turn = False

    async def _swap(self, reason: str) -> None:
        old = self.current
        assert old is not None
        fresh = await self._open()
        try:
            await self._overlap(old, fresh, is_urgent=reason == _SHUTDOWN)
        except BaseException:
            self._drop(fresh)
            raise
        age_s = (self._clock.steady_ns() - (old.up_ns or 0)) / 1e9
        self._install(fresh)
        self._drop(old, politely=True)
        self.counts.rollovers += 1
        self._log.info("rolled over", reason=reason, age_s=round(age_s, 1))

    async def _overlap(self, old: Connection, fresh: Connection, *, is_urgent: bool) -> None:
        """Until `fresh` can do without `old`; ExchangeError when it cannot. At an announced shutdown the
        first message is enough: other lines wait for their turn, and nobody knows for how long they may."""
        overlap_s = self._config.rollover_overlap_s
        begin_ns, old_bytes = self._clock.steady_ns(), old.market_bytes
        while old.ended is None:
            if fresh.ended is not None:
                raise ExchangeError(fresh.ended)
            if self._intake.stalled is not None:
                # Nobody listens, so silence says nothing.
                await self._intake.flowing()
                begin_ns = self._clock.steady_ns()
            waited_s = (self._clock.steady_ns() - begin_ns) / 1e9
            delivers, is_quiet = fresh.market_bytes > 0, old.market_bytes == old_bytes
            if (is_urgent and delivers) or (waited_s >= overlap_s and (delivers or is_quiet)):
                await old.passed()
                break
            if waited_s >= overlap_s + DELIVER_WAIT_S:
                raise ExchangeError("the new connection is subscribed, but delivers nothing")
            await asyncio.sleep(overlap_s / _OVERLAP_STEPS)
        if fresh.ended is not None:
            raise ExchangeError(fresh.ended)

    # What connections tell.

    def on_ended(self) -> None:
        """A connection of this line has ended."""
        self._wake.set()

    def on_shutdown(self, connection: Connection) -> None:
        """The exchange announces that it will cut a connection: it is replaced at once."""
        self.say("the exchange announces its shutdown")
        if connection is self.current:
            self.replace(_SHUTDOWN)

    def refused(self, reason: str) -> None:
        """The exchange refused a request."""
        self.last_error = reason
        self.say("request refused", error=reason)

    def say(self, event: str, **fields: Any) -> None:
        """Warn, but not more than the limiter allows for the same line and words."""
        held = self._limiter.allow(f"{self.name} {event}", self._clock.steady_ns())
        if held is not None:
            self._log.warning(event, **fields, **({"suppressed": held} if held else {}))

    def accuse(self, event: str, **fields: Any) -> None:
        """Log an error of our own."""
        self._log.error(event, **fields)

    def _on_stall(self, stalled: bool) -> None:
        for connection in self.connections:
            connection.on_stall(stalled)

    # What operators see.

    def _become(self, state: State) -> None:
        if state == "ok":
            self.was_up.set()
            self.last_error = None
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()
            if state == "ok":
                self._log.info("line up", streams=len(self.symbols))

    @property
    def is_up(self) -> bool:
        """Subscribed, as far as is known."""
        return self._state == "ok"

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
            "streams": len(self.symbols),
            "age_s": round((self._clock.steady_ns() - since_ns) / 1e9, 1) if since_ns else None,
            "connections": len(self.connections),
            "reconnects": counts.reconnects,
            "rollovers": counts.rollovers,
            "rollovers_failed": counts.rollovers_failed,
            "stalls": counts.stalls,
            **self.race.details(),
        }
        return ComponentHealth(self.name, self._state, self._since_ns, self.last_error, details=details)


class _Silence:
    """How long a connection has brought no byte at all, while somebody listened."""

    def __init__(self, most_s: float) -> None:
        self._most_ns = int(most_s * 1e9)
        self._heard: tuple[object, ...] = ()
        self._heard_ns = 0

    def is_too_long(self, now_ns: int, connection: Connection, intake: Intake) -> bool:
        """Whether to give the connection up."""
        heard = (id(connection), connection.bytes_read, intake.stalls)
        # While the tape refuses nobody listens, so silence says nothing.
        if heard != self._heard or intake.stalled is not None:
            self._heard, self._heard_ns = heard, now_ns
            return False
        return now_ns - self._heard_ns >= self._most_ns
