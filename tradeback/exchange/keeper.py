"""Keeps one connection up for ever, and replaces it before it has to end.

Losing a connection costs a back-off with jitter; a budget that several keepers share keeps them together
below the exchange's limit of connection attempts. A connection that is silent (no byte, not even the
exchange's pings) for `exchange.idle_timeout` is replaced.

Rollover: at an age drawn between `exchange.rollover_min` and `rollover_max`, at `serverShutdown`, and when
somebody asks for it, a second connection is brought up beside the first. Both deliver; whoever takes what
they bring keeps it single by its ids. The first is closed when the second delivers (or nothing comes on
either) and whatever the exchange had queued for the first has come. One keeper at a time does so.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.held import LOST, Held, Silence, words_of
from tradeback.exchange.rest import retry_after_s
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.ops.health import State
from tradeback.ops.log import Log, RepeatLimiter

DELIVER_WAIT_S = 10.0
"""A new connection that brings nothing for so long while the old one delivers is given up."""
LOOK_AGAIN_S = 0.02
_OVERLAP_STEPS = 20
_SHUTDOWN = "shutdown"
Connection = TypeVar("Connection", bound=Held)


@dataclass(slots=True)
class KeeperCounts:
    """Plain integers."""

    reconnects: int = 0
    """Connections that ended."""
    rollovers: int = 0
    """Connections replaced, the new one before the old."""
    rollovers_failed: int = 0
    """Attempts at that which left the old one in place."""


class Keeper(ABC, Generic[Connection]):
    """See the module. `run` is its life; it ends only by cancellation. Loop thread only."""

    def __init__(
        self,
        name: str,
        config: ExchangeConfig,
        clock: Clock,
        counts: KeeperCounts,
        attempts: Budget,
        log: Log,
        limiter: RepeatLimiter,
        turn: asyncio.Lock | None = None,
    ) -> None:
        """`turn`: held during a rollover; those who may not roll over together share it."""
        self.name = name
        self._config, self._clock, self._attempts = config, clock, attempts
        self._turn = turn or asyncio.Lock()
        self._log, self._limiter = log, limiter
        self._backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._kept = counts
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
        """Set when it is subscribed for the first time."""

    # What a kind of keeper says.

    @abstractmethod
    def _make(self) -> Connection:
        """A connection that has not been opened."""

    def _pauses(self) -> tuple[bool, int]:
        """Whether nobody listens at the moment, and how often that was so: then silence says nothing."""
        return False, 0

    async def _listening(self) -> None:
        """Until somebody listens."""

    def _on_down(self) -> None:
        """Nothing is subscribed any more."""

    # Its life.

    async def run(self) -> None:
        """Keep a connection up. Ends by cancellation."""
        failures = 0
        while True:
            await self._listening()
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
                self._on_down()
            # One that is cut again and again right after it came up is no success.
            stable_ns = int(self._config.backoff_max_s * 1e9)
            lasted = up_ns is not None and self._clock.steady_ns() - up_ns >= stable_ns
            failures = 1 if lasted else failures + 1
            self._kept.reconnects += 1
            self._become("down")
            delay_s = self._backoff.delay_s(failures, random.random())
            self.say("line lost", error=self.last_error, again_in_s=round(delay_s, 2), failures=failures)
            await asyncio.sleep(delay_s)

    def replace(self, reason: str) -> bool:
        """Ask for a rollover as soon as it is its turn. False while nothing is up, and when one is wanted
        already."""
        if self.current is None or self._wanted is not None:
            return False
        self._wanted = reason
        self._wake.set()
        return True

    # One connection.

    async def _open(self) -> Connection:
        """A subscribed connection, within the limit of attempts. Raises one of LOST."""
        connection = self._make()
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
        """From now on this is the connection."""
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
            # Another one's handshake may have been refused while this one waited.
            await asyncio.sleep(wait_s)
            wait_s = self._attempts.blocked_s(self._clock.steady_ns())

    def _obey_limit(self, error: BaseException) -> None:
        """A refused handshake that says Retry-After holds back all who share the budget."""
        response = getattr(error, "response", None)
        if response is not None and int(response.status) in (418, 429):
            seconds = retry_after_s(response.headers.get("Retry-After"), 0.0)
            self._attempts.block(self._clock.steady_ns(), seconds)

    # Keeping it up.

    async def _keep(self) -> None:
        """Until the current connection has ended and none took its place; ExchangeError says why."""
        silence = Silence(self._config.idle_timeout_s)
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
                elif silence.is_too_long(now_ns, current, self._pauses()) and not self._has_turn:
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
            # Due already, but nobody listens: looking again and again would not help.
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
        self._on_down()
        await asyncio.wait([self._roll])
        self._roll.result()
        if self.current is lost:
            raise ExchangeError(lost.ended or "")
        self._kept.reconnects += 1

    # Rollover.

    def _reason(self, now_ns: int) -> str | None:
        """Why a rollover should begin now, if it should."""
        if now_ns < self._not_before_ns or self._pauses()[0]:
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
                self._kept.rollovers_failed += 1
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
        self._kept.rollovers += 1
        self._log.info("rolled over", reason=reason, age_s=round(age_s, 1))

    async def _overlap(self, old: Connection, fresh: Connection, *, is_urgent: bool) -> None:
        """Until `fresh` can do without `old`; ExchangeError when it cannot. At an announced shutdown the
        first message is enough: others wait for their turn, and nobody knows for how long they may."""
        overlap_s = self._config.rollover_overlap_s
        begin_ns, old_bytes = self._clock.steady_ns(), old.market_bytes
        while old.ended is None:
            if fresh.ended is not None:
                raise ExchangeError(fresh.ended)
            if self._pauses()[0]:
                await self._listening()
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
        """One of the connections has ended."""
        self._wake.set()

    def on_shutdown(self, connection: Held) -> None:
        """The exchange announces that it will cut a connection: it is replaced at once."""
        self.say("the exchange announces its shutdown")
        if connection is self.current:
            self.replace(_SHUTDOWN)

    def refused(self, reason: str) -> None:
        """The exchange refused a request."""
        self.last_error = reason
        self.say("request refused", error=reason)

    def say(self, event: str, **fields: Any) -> None:
        """Warn, but not more than the limiter allows for the same name and words."""
        held = self._limiter.allow(f"{self.name} {event}", self._clock.steady_ns())
        if held is not None:
            self._log.warning(event, **fields, **({"suppressed": held} if held else {}))

    # What operators see.

    @property
    @abstractmethod
    def streams(self) -> int:
        """How many streams are to be carried."""

    def _become(self, state: State) -> None:
        if state == "ok":
            self.was_up.set()
            self.last_error = None
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()
            if state == "ok":
                self._log.info("line up", streams=self.streams)

    @property
    def is_up(self) -> bool:
        """Subscribed, as far as is known."""
        return self._state == "ok"
