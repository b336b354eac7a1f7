"""A tape cursor into any store: the one way in which records leave for a server.

A drain reads the tape behind its own cursor, in batches, with a few on their way at a time, and never
holds more than those: whatever the store does, the rest waits on the tape. It speaks to the store through
`Target` (drain_ports) and repeats what fails, oldest first, until the store has it; so with writes that
are idempotent every record is in the store exactly once, after any crash of either side.

Failures in a row: the first is repeated at once (a connection of the pool had died), further ones after
growing waits; after `breaker_failures` the store counts as down, is closed, and one `open` per wait asks
whether it is back. `open` says up to where the store is true, and from there the tape is read again.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tradeback.exchange.backoff import Backoff
from tradeback.model.clock import Clock
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.metrics import Family, Histogram
from tradeback.ops.troubles import Troubles
from tradeback.sinks.drain_aside import SetAside
from tradeback.sinks.drain_calls import BoundedCalls
from tradeback.sinks.drain_ports import Batch, DrainConfig, Source, Target, Written
from tradeback.sinks.drain_reader import BatchReader
from tradeback.sinks.drain_refused import Outcome, write_around_refused
from tradeback.stores.ports import Position

IDLE_S = 0.05
"""Longest sleep of the loop between two looks at the tape."""
CLOSE_TIMEOUT_S = 2.0


_Result = TypeVar("_Result")


class _Down(Exception):
    """The store has failed too often in a row."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One batch from being read until it and all before it are in the store."""

    batch: Batch
    task: "asyncio.Task[Outcome] | None" = None
    outcome: Outcome | None = None
    began_ns: int = 0


class Drain:
    """One per target. `start` and `stop` on the loop; `health` and `collect` any time.

    `name` as in health and metrics ("influx:trades"). `aside` is the file of rows that the store refused.
    The tape is read from the loop, the target is called on it.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        target: Target,
        config: DrainConfig,
        clock: Clock,
        log: logging.Logger,
        aside: Path,
        chance: Callable[[], float] = random.random,
        troubles: Troubles | None = None,
    ) -> None:
        """`troubles`: of the server, shared by all its drains."""
        self.name = name
        self._source, self._target, self._config = source, target, config
        self._clock, self._log, self._chance = clock, log, chance
        self._troubles = troubles or Troubles(clock)
        self._told = False
        """This drain has said in the log that something is wrong."""
        self._reader = BatchReader(source, config, clock, log, name)
        self._calls = BoundedCalls()
        self._aside = SetAside(aside, log)
        self._backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._flights: deque[_Flight] = deque()
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._opened = False
        self._failures = self._failures_at_open = 0
        self._retry_ns = self._failed_ns = 0
        self._save_ns = 0
        self._saved = Position(0, 0)
        self.position = Position(0, 0)
        """Everything up to here is in the store, or set aside."""
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self._waiting_ns = clock.wall_ns()
        """Wall time of the oldest record that is not in the store, as far as known."""
        self.last_error: str | None = None
        self.batches = self.rows = self.dropped = self.errors = self.opens = 0
        self.write_time = Histogram()

    def start(self) -> None:
        """Begin to drain. Needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"drain {self.name}")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Write and save what has been read, if the store takes it in time, and stop.

        What it does not take is read from the tape at the next start.
        """
        self._stop.set()
        if self._task is None:
            return
        _, running = await asyncio.wait({self._task}, timeout=timeout_s)
        for task in running:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._session()
            except _Down:
                pass
            except Exception as error:  # the boundary to a store: whatever it raises, the drain goes on
                self._failed(error)
            finally:
                await self._end_session()
            await self._wait_for_retry()

    async def _session(self) -> None:
        """From one `open` to the failure that ends it, or to `stop`."""
        self.opens += 1
        held = await self._call(self._target.open(), "open")
        self._opened = True
        self._failures_at_open = self._failures
        self._reader.begin(held)
        self.position = self._saved = self._reader.position
        while self._flights or not self._stop.is_set():
            if not self._stop.is_set():
                self._fill()
            self._launch()
            await self._wait()
            self._settle()
            await self._save_if_due()
        await self._save(last=True)

    async def _end_session(self) -> None:
        """No write is on its way any more and the target is closed; what was read is forgotten."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        try:
            limit_s = min(CLOSE_TIMEOUT_S, self._config.write_timeout_s)
            await self._calls.run(self._target.close(), limit_s, "close")
        except Exception as error:  # the boundary to a store; it is being left anyway
            self._log.debug("%s: close: %r", self.name, error)

    async def _wait_for_retry(self) -> None:
        await self._sleep((self._retry_ns - self._clock.steady_ns()) / 1e9)

    async def _sleep(self, seconds: float) -> None:
        """Until the time is over or `stop` is called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()

    def _fill(self) -> None:
        """Read batches while there is room for them and nothing fails."""
        while len(self._flights) < (1 if self._failures else self._config.in_flight):
            if self._clock.steady_ns() < self._reader.ready_ns:
                return
            batch = self._reader.read()
            if batch is None:
                idle = not self._flights and self._reader.sequence >= self._source.next_sequence
                if idle and self.position == self._saved:
                    self._succeeded()  # open went well, and there is nothing to write or save
                return
            self._flights.append(_Flight(batch))

    def _launch(self) -> None:
        """Begin the writes that may begin: all; after a failure the oldest, when its time has come."""
        now_ns = self._clock.steady_ns()
        if self._failures and now_ns < self._retry_ns:
            return
        for flight in self._flights:
            if flight.task is None and flight.outcome is None:
                flight.began_ns = now_ns
                flight.task = asyncio.ensure_future(self._write(flight.batch))
            if self._failures:
                return

    async def _write(self, batch: Batch) -> Outcome:
        return await write_around_refused(batch, self._attempt, self._config.refused_writes_max)

    async def _attempt(self, batch: Batch) -> Written:
        return await self._call(self._target.write(batch), "write")

    async def _wait(self) -> None:
        """Until a write ends, or something may be read or repeated."""
        now_ns = self._clock.steady_ns()
        tasks = {flight.task for flight in self._flights if flight.task is not None}
        until_ns = now_ns + int(IDLE_S * 1e9)
        if self._failures and self._flights and not tasks:
            until_ns = min(until_ns, self._retry_ns)
        elif len(self._flights) < (1 if self._failures else self._config.in_flight):
            until_ns = min(until_ns, self._reader.ready_ns)
        timeout_s = max(0.0, (until_ns - now_ns) / 1e9)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        elif self._stop.is_set():
            await asyncio.sleep(timeout_s)
        else:
            await self._sleep(timeout_s)

    def _settle(self) -> None:
        """Take the results of writes that ended, and move the position over what is complete."""
        for flight in self._flights:
            if flight.task is None or not flight.task.done():
                continue
            task, flight.task = flight.task, None
            error = task.exception()
            if error is None:
                flight.outcome = task.result()
                self.write_time.observe((self._clock.steady_ns() - flight.began_ns) // 1_000)
                self._succeeded()
            elif not isinstance(error, Exception):
                raise error
            elif flight.began_ns >= self._failed_ns:  # else both on their way failed of one cause
                self._failed(error)
        while self._flights and self._flights[0].outcome is not None:
            self._complete(self._flights.popleft())
        # Failures from before `open` do not count here: a price cache may have to read for a while first.
        if self._failures >= self._config.breaker_failures and self._failures > self._failures_at_open:
            raise _Down

    def _complete(self, flight: _Flight) -> None:
        batch, outcome = flight.batch, flight.outcome
        assert outcome is not None
        if outcome.rejected:
            new = self._aside.put(batch, outcome.rejected, self._clock.wall_ns())
            if new:
                self._log.warning(
                    "%s: refused %d rows of the batch at record %d, set aside in %s; the last: %s",
                    self.name, new, batch.first_sequence, self._aside.path, self._aside.last_reason,
                )  # fmt: skip
        self.batches += 1
        self.dropped += outcome.dropped
        self.rows += len(batch.rows) - len(outcome.rejected) - outcome.dropped
        self.position = batch.position
        self._waiting_ns = int(batch.rows["recv_ns"][-1])

    async def _save_if_due(self) -> None:
        if self.position != self._saved and self._clock.steady_ns() >= self._save_ns:
            await self._save()

    async def _save(self, *, last: bool = False) -> None:
        if self.position == self._saved:
            return
        position = self.position
        self._save_ns = self._clock.steady_ns() + int(self._config.save_interval_s * 1e9)
        try:
            await self._call(self._target.save(position), "save")
        except Exception as error:  # the boundary to a store: the position is saved by the next call
            self._failed(error)
            if not last and self._failures >= self._config.breaker_failures:
                raise _Down from error
        else:
            self._saved = position

    async def _call(self, call: Coroutine[Any, Any, _Result], what: str) -> _Result:
        return await self._calls.run(call, self._config.write_timeout_s, what)

    def _succeeded(self) -> None:
        self._failures = self._failures_at_open = 0
        if self._told:
            self._log.warning("%s: takes records again", self.name)
            self._told = False
        if self._state != "ok":
            self._become("ok")
        self.last_error = None

    def _failed(self, error: Exception) -> None:
        """Count a failure in a row, and say when to try again; logged when it is news of this server."""
        self.errors += 1
        self._failures += 1
        now_ns = self._failed_ns = self._clock.steady_ns()
        delay_s = 0.0 if self._failures == 1 else self._backoff.delay_s(self._failures - 1, self._chance())
        self._retry_ns = now_ns + int(delay_s * 1e9)
        self.last_error = str(error) or type(error).__name__
        state: State = "down" if self._failures >= self._config.breaker_failures else "degraded"
        if not self._opened:
            state = "down"
        if state != self._state and self._state != "down":
            self._become(state)
        if self._troubles.is_news(self.last_error):
            self._log.warning("%s: %s: %s", self.name, self._state, self.last_error)
            self._told = True

    def _become(self, state: State) -> None:
        self._state, self._since_ns = state, self._clock.wall_ns()

    @property
    def lag_records(self) -> int:
        """Records on the tape that are not in the store."""
        return max(0, self._source.next_sequence - 1 - self.position.sequence)

    @property
    def lag_s(self) -> float:
        """Age of the oldest record that is not in the store; 0 when there is none.

        While the store is down: since the newest record that it has, or since the drain was made.
        """
        if self._flights:
            waiting_ns = int(self._flights[0].batch.rows["recv_ns"][0])
        elif self.lag_records == 0:
            return 0.0
        else:
            waiting_ns = self._waiting_ns
        return max(0.0, (self._clock.wall_ns() - waiting_ns) / 1e9)

    def health(self) -> ComponentHealth:
        """ok; degraded while writes fail or the tape cannot be read; down while the store is."""
        error = self.last_error or self._reader.error
        state = "degraded" if self._state == "ok" and self._reader.error else self._state
        return ComponentHealth(
            f"sink:{self.name}",
            state,
            self._since_ns,
            error,
            self.lag_s,
            {
                "lag_records": self.lag_records,
                "position": self.position.sequence,
                "failures": self._failures,
                "refused": self._aside.count,
                "dropped": self.dropped,
                "gone": self._reader.gone,
            },
        )

    def collect(self) -> Iterator[Family]:
        """Lag, rows, errors, and what was refused or came too late, by sink."""
        sink = self.name
        gauges = (
            ("up", float(self._state == "ok"), "1 while the store takes records."),
            ("lag_records", self.lag_records, "Records on the tape that are not in the store."),
            ("lag_seconds", self.lag_s, "Age of the oldest record that is not in the store."),
            ("in_flight", len(self._flights), "Batches on their way."),
        )
        for name, value, text in gauges:
            yield Family(f"tradeback_sink_{name}", "gauge", text).add(value, sink=sink)
        counters = (
            ("rows", self.rows, "Rows that the store has taken."),
            ("batches", self.batches, "Batches that the store has taken."),
            ("errors", self.errors, "Calls of the store that failed."),
            ("opens", self.opens, "Times the store was opened, or tried to be."),
            ("refused_rows", self._aside.count, "Rows that the store refused for good, set aside."),
            ("dropped_rows", self.dropped, "Rows that the store let go by its own rules."),
            ("gone_records", self._reader.gone, "Records removed by retention before the store took them."),
            ("skipped_records", self._reader.skipped, "Records a price cache passed over after an outage."),
            ("abandoned_calls", self._calls.abandoned, "Calls that did not end when cancelled."),
        )
        for name, value, text in counters:
            yield Family(f"tradeback_sink_{name}", "counter", text).add(value, sink=sink)
        yield Family("tradeback_sink_write_seconds", "histogram", "Time of one write.").add(
            self.write_time, sink=sink
        )
